"""Weights of modules and of nodes: tensors, and QuantizedTensors where they are int8."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn import intrinsic, qat, quantized
from torch_ao_ext.nn.intrinsic import qat as intrinsic_qat
from torch_ao_ext.nn.intrinsic import quantized as intrinsic_quantized
from torch_ao_ext.nn.quantized import dynamic
from torch_ao_ext.ns.fx._match import seen_through, weight_of
from torch_ao_ext.ns.fx._nodes import get_target_type_str
from torch_ao_ext.ns.fx.mappings import _float_operators, _int8_operators
from torch_ao_ext.ns.fx.ns_types import NSSingleResultType, NSSingleResultValuesType
from torch_ao_ext.quantization.pt2e._graph import tensor_of
from torch_ao_ext.quantization.quantizer.utils import innermost_module
from torch_ao_ext.quantization.utils import getattr_from_fqn

__all__ = [
    "extract_weight_from_node",
    "get_conv_fun_weight",
    "get_conv_mod_weight",
    "get_linear_fun_weight",
    "get_linear_mod_weight",
    "get_lstm_mod_weights",
    "get_lstm_weight",
    "get_op_to_type_to_weight_extraction_fn",
    "get_qconv_fun_weight",
    "get_qlinear_fun_weight",
    "get_qlstm_weight",
    "mod_0_weight_detach",
    "mod_weight_bias_0",
    "mod_weight_detach",
]

_CONVS = ("Conv1d", "Conv2d", "Conv3d")


def mod_weight_detach(mod: nn.Module) -> torch.Tensor:
    """Weight of a float or trained layer."""
    return mod.weight.detach()


def mod_0_weight_detach(mod: nn.Module) -> torch.Tensor:
    """Weight of the first layer in a fused float container."""
    return mod[0].weight.detach()


def mod_weight_bias_0(mod: nn.Module) -> Any:
    """Weight of an int8 layer, as a QuantizedTensor."""
    return mod.weight()


def get_lstm_weight(mod: nn.Module) -> list[torch.Tensor]:
    """weight_ih and weight_hh of each layer and direction of a float LSTM."""
    named = zip(mod._flat_weights_names, mod._flat_weights, strict=True)
    return [value.detach() for name, value in named if name.startswith(("weight_ih_l", "weight_hh_l"))]


def get_qlstm_weight(mod: nn.Module) -> list[Any]:
    """weight_ih and weight_hh of each layer and direction of a dynamic LSTM: one scale for each row.

    QuantizedTensors, tensors where the weights are bfloat16.
    """
    found: list[Any] = []
    for name, value in mod.named_buffers():
        if name.startswith(("weight_ih_l", "weight_hh_l")) and not name.endswith("_scale"):
            scale = mod.get_buffer(f"{name}_scale")
            found.append(value if value.is_floating_point() else QuantizedTensor(value, scale, None))
    return found


def _layer_weight(mod: nn.Module, kinds: tuple[type, ...], containers: tuple[type, ...]) -> Any:
    if isinstance(mod, containers):
        return mod_0_weight_detach(mod)
    return mod_weight_detach(mod) if isinstance(mod, kinds) else mod_weight_bias_0(mod)


def get_conv_mod_weight(mod: nn.Module) -> Any:
    """Weight of a float, fused, trained or int8 convolution."""
    kinds = tuple(getattr(nn, name) for name in _CONVS)
    fused = tuple(getattr(intrinsic, f"ConvReLU{rank}d") for rank in (1, 2, 3))
    return _layer_weight(mod, kinds, tuple(kind for kind in fused if not isinstance(mod, kinds)))


def get_linear_mod_weight(mod: nn.Module) -> Any:
    """Weight of a float, fused, trained or int8 linear layer."""
    return _layer_weight(mod, (nn.Linear,), (intrinsic.LinearReLU,) if not isinstance(mod, nn.Linear) else ())


def get_lstm_mod_weights(mod: nn.Module) -> list[Any]:
    """Weights of a float or dynamic LSTM; `get_lstm_weight`, `get_qlstm_weight`.

    Raises:
        TypeError: another class.
    """
    if not isinstance(mod, (nn.LSTM, dynamic.LSTM)):
        raise TypeError(
            "get_lstm_mod_weights: argument 'mod' must be torch.nn.LSTM or nn.quantized.dynamic.LSTM, got "
            f"{type(mod).__name__}"
        )
    return get_lstm_weight(mod) if isinstance(mod, nn.LSTM) else get_qlstm_weight(mod)


def _constant(op: str, node: fx.Node, gm: fx.GraphModule, value: Any) -> Any:
    if value is None:
        raise ValueError(f"{op}: argument 'node' must have a constant weight, got {node.format_node()}")
    return value


def _float_weight(op: str, node: fx.Node, gm: fx.GraphModule) -> torch.Tensor:
    given = node.kwargs.get("weight", node.args[1] if len(node.args) > 1 else None)
    weight = tensor_of(gm, seen_through(gm, given))
    return _constant(op, node, gm, weight).detach()


def get_conv_fun_weight(node: fx.Node, gm: fx.GraphModule) -> torch.Tensor:
    """Weight that a float convolution reads, behind its observer.

    Raises:
        ValueError: it is no constant.
    """
    return _float_weight("get_conv_fun_weight", node, gm)


def get_linear_fun_weight(node: fx.Node, gm: fx.GraphModule) -> torch.Tensor:
    """Weight that a float linear function reads, behind its observer.

    Raises:
        ValueError: it is no constant.
    """
    return _float_weight("get_linear_fun_weight", node, gm)


def get_qconv_fun_weight(node: fx.Node, gm: fx.GraphModule) -> QuantizedTensor:
    """Weight of an int8 convolution operator of this library.

    Raises:
        ValueError: it is no constant.
    """
    return _constant("get_qconv_fun_weight", node, gm, weight_of(gm, node))


def get_qlinear_fun_weight(node: fx.Node, gm: fx.GraphModule) -> QuantizedTensor:
    """Weight of an int8 linear operator of this library.

    Raises:
        ValueError: it is no constant.
    """
    return _constant("get_qlinear_fun_weight", node, gm, weight_of(gm, node))


def get_op_to_type_to_weight_extraction_fn() -> dict[str, dict[Any, Callable[..., Any]]]:
    """Two tables, "call_module" by class, "call_function" by function or operator: what takes the weight."""
    modules: dict[Any, Callable[..., Any]] = {nn.LSTM: get_lstm_weight, dynamic.LSTM: get_qlstm_weight}
    for name in (*_CONVS, "Linear"):
        start, rank = name.rstrip("123d"), name[len(name.rstrip("123d")) :]
        modules[getattr(nn, name)] = modules[getattr(qat, name)] = mod_weight_detach
        modules[getattr(quantized, name)] = modules[getattr(dynamic, name)] = mod_weight_bias_0
        modules[getattr(intrinsic, f"{start}ReLU{rank}")] = mod_0_weight_detach
        modules[getattr(intrinsic_quantized, f"{start}ReLU{rank}")] = mod_weight_bias_0
        for end in ("Bn", "BnReLU", "ReLU") if rank else ("Bn1d", "ReLU"):
            modules[getattr(intrinsic_qat, f"{start}{end}{rank}")] = mod_weight_detach
    modules[nn.modules.linear.NonDynamicallyQuantizableLinear] = mod_weight_detach
    modules[intrinsic_quantized.dynamic.LinearReLU] = mod_weight_bias_0
    functions: dict[Any, Callable[..., Any]] = {}
    for name in ("conv1d", "conv2d", "conv3d", "linear"):
        linear = name == "linear"
        functions[getattr(F, name)] = get_linear_fun_weight if linear else get_conv_fun_weight
        for target in _float_operators(name):
            functions[target] = functions[getattr(F, name)]
        for target in _int8_operators(name):
            functions[target] = get_qlinear_fun_weight if linear else get_qconv_fun_weight
    return {"call_module": modules, "call_function": functions}


def extract_weight_from_node(
    node: fx.Node, gm: fx.GraphModule,
    op_to_type_to_weight_extraction_fn: dict[str, dict[Any, Callable[..., Any]]] | None = None,
) -> NSSingleResultType | None:  # fmt: skip
    """The weight of a layer as a result of the numeric suite; None for what has none in the table.

    Args:
        node: calls a module, function or operator.
        gm: of the node.
        op_to_type_to_weight_extraction_fn: default: `get_op_to_type_to_weight_extraction_fn`.

    Raises:
        ValueError: a weight that is no constant.
    """
    table = op_to_type_to_weight_extraction_fn
    table = get_op_to_type_to_weight_extraction_fn() if table is None else table
    if node.op == "call_module":
        module = getattr_from_fqn(gm, str(node.target))
        extract = table["call_module"].get(type(module))
        value = None if extract is None else extract(module)
    else:
        extract = table["call_function"].get(node.target) if node.op == "call_function" else None
        value = None if extract is None else extract(node, gm)
    if extract is None:
        return None
    kind = get_target_type_str(node, gm)
    return {
        "type": NSSingleResultValuesType.WEIGHT.value,
        "values": [value],
        "prev_node_name": node.name,
        "prev_node_target_type": kind,
        "ref_node_name": node.name,
        "ref_node_target_type": kind,
        "index_within_arg": 0,
        "index_of_arg": 0,
        "fqn": innermost_module(node),
    }
