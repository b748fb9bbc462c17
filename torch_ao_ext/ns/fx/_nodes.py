"""What nodes read, give and call."""

import enum
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from torch_ao_ext._graph_ops import FUSED
from torch_ao_ext.ns.fx._match import seen_through
from torch_ao_ext.ns.fx.ns_types import NSNodeTargetType
from torch_ao_ext.quantization.pt2e.prepare import is_observer
from torch_ao_ext.quantization.utils import getattr_from_fqn

_PAIRS = {
    operator.add, operator.mul, torch.add, torch.mul, torch.ops.aten.add.Tensor, torch.ops.aten.mul.Tensor,
    torch.ops.torch_ao.add.default, torch.ops.torch_ao.mul.default,
}  # fmt: skip
_LISTS = {torch.cat, torch.stack, torch.ops.aten.cat.default, torch.ops.torch_ao.cat.default}
_DEQUANTIZE = {
    torch.ops.torch_ao.dequantize_per_tensor.default, torch.ops.torch_ao.dequantize_per_channel.default
}  # fmt: skip
_QUANTIZE = {
    torch.ops.torch_ao.quantize_per_tensor.default, torch.ops.torch_ao.quantize_per_channel.default
}  # fmt: skip


class NodeInputOrOutputType(enum.Enum):
    """Dtype of what goes into or comes out of a node."""

    FP32 = enum.auto()
    INT8 = enum.auto()  # bytes, in a QuantizedTensor or with qparams beside them
    FP16 = enum.auto()
    UNKNOWN = enum.auto()
    FP32_OR_INT8 = enum.auto()


def get_normalized_nth_input(node: fx.Node, gm: fx.GraphModule, idx: int) -> Any:
    """An argument by its place in the signature, however it was passed.

    Args:
        node: a call, or the output.
        gm: of the node.
        idx: from 0.

    Raises:
        IndexError: fewer arguments.
    """
    try:
        known = node.normalized_arguments(gm, normalize_to_only_use_kwargs=True)
    except RuntimeError:  # overloads that types alone tell apart
        known = None
    args, kwargs = (node.args, node.kwargs) if known is None else known
    values = [*args, *kwargs.values()]
    if idx >= len(values):
        raise IndexError(
            f"get_normalized_nth_input: argument 'idx' must be below {len(values)} for {node}, got {idx}"
        )
    return values[idx]


def get_node_first_input_and_output_type(
    node: fx.Node, gm: fx.GraphModule, logger_cls: Callable[..., Any],
    node_type_to_io_type_map: dict[str, set[NSNodeTargetType]],
) -> tuple[NodeInputOrOutputType, NodeInputOrOutputType]:  # fmt: skip
    """Dtypes of the first input and of the result, as the tables say.

    Args:
        node: any.
        gm: of the node.
        logger_cls: modules of it pass their input on, as observers do.
        node_type_to_io_type_map: as from `mappings.get_node_type_to_io_type_map`.
    """
    known = NodeInputOrOutputType
    tables = node_type_to_io_type_map

    def before() -> NodeInputOrOutputType:
        source = get_normalized_nth_input(node, gm, 0)
        if not isinstance(source, fx.Node):
            return known.UNKNOWN
        return get_node_first_input_and_output_type(source, gm, logger_cls, tables)[1]

    if node.op == "call_function":
        if node.target in _QUANTIZE:
            return known.FP32, known.INT8
        if node.target in _DEQUANTIZE:
            return known.INT8, known.FP32
        for name, kind in (("fp32", known.FP32), ("fp16", known.FP16), ("int8", known.INT8)):
            if node.target in tables[f"funs_io_type_{name}"]:
                noted = node.meta.get(FUSED)
                gives_floats = kind is known.INT8 and noted is not None and noted.output is None
                return kind, known.FP32 if gives_floats else kind
        if node.target in tables["funs_io_type_fp32_or_int8"]:
            return (before(),) * 2
    elif node.op == "call_module":
        module = getattr_from_fqn(gm, str(node.target))

        def listed(name: str) -> bool:
            return isinstance(module, tuple(tables[f"mods_io_type_{name}"]))  # type: ignore[arg-type]

        passes = is_observer(module) or isinstance(logger_cls, type) and isinstance(module, logger_cls)
        # Int8 classes first: some are subclasses of the float ones, dynamic ones of neither.
        if listed("int8"):
            return known.INT8, known.INT8
        if passes or listed("fp32_or_int8"):
            return (before(),) * 2
        if listed("fp32"):
            return known.FP32, known.FP32
    elif node.op == "call_method":
        if node.target == "dequantize":
            return before(), known.FP32
        if node.target == "to" and get_normalized_nth_input(node, gm, 1) is torch.float16:
            return before(), known.FP16
        if node.target in tables["meths_io_type_fp32_or_int8"]:
            return (before(),) * 2
    return known.UNKNOWN, known.UNKNOWN


def get_node_input_qparams(
    node: fx.Node, gm: fx.GraphModule, node_type_to_io_type_map: dict[str, set[NSNodeTargetType]]
) -> tuple[Any, Any] | None:
    """Scale and zero point of the first input, None for floats and where the graph does not say.

    Args:
        node: any call.
        gm: of the node.
        node_type_to_io_type_map: as from `mappings.get_node_type_to_io_type_map`.
    """
    source = get_normalized_nth_input(node, gm, 0)
    if not isinstance(source, fx.Node):
        return None
    noted = source.meta.get(FUSED)
    if noted is not None:
        return noted.output
    if source.op == "call_function" and source.target in _QUANTIZE:
        return source.args[1], source.args[2]
    if source.op != "call_module":
        return None
    module = getattr_from_fqn(gm, str(source.target))
    if all(hasattr(module, name) for name in ("output_scale", "output_zero_point")):
        return module.output_scale, module.output_zero_point
    if all(hasattr(module, name) for name in ("scale", "zero_point")):
        return module.scale, module.zero_point
    keeps = isinstance(module, tuple(node_type_to_io_type_map["mods_io_type_fp32_or_int8"]))  # type: ignore[arg-type]
    return get_node_input_qparams(source, gm, node_type_to_io_type_map) if keeps else None


def return_first_non_observer_node(node: fx.Node, gm: fx.GraphModule) -> fx.Node:
    """The node, or what the observers up to it observe.

    Args:
        node: any.
        gm: of the node.
    """
    return seen_through(gm, node)


def get_number_of_non_param_args(node: fx.Node, gm: fx.GraphModule) -> int:
    """Inputs of a node that are no parameters: 2 for an LSTM module (x, states), else 1.

    Args:
        node: any call.
        gm: of the node.
    """
    module = getattr_from_fqn(gm, str(node.target)) if node.op == "call_module" else None
    return 2 if isinstance(module, nn.LSTM) else 1


def get_arg_indices_of_inputs_to_log(node: fx.Node) -> list[int]:
    """Which arguments are inputs: those of an add or mul that are nodes, else the first.

    Args:
        node: any; without arguments the list is empty.
    """
    if node.op == "call_function" and node.target in _PAIRS:
        places = (0, 3) if "torch_ao" in str(node.target) else (0, 1)
        return [i for i in places if i < len(node.args) and isinstance(node.args[i], fx.Node)]
    return [0] if node.args else []


def get_target_type_str(node: fx.Node, gm: fx.GraphModule) -> str:
    """Qualified name of the function or class that a node calls, a method's name; "" for others.

    Args:
        node: any.
        gm: of the node.
    """
    if node.op == "call_module":
        return torch.typename(getattr_from_fqn(gm, str(node.target)))
    return torch.typename(node.target) if node.op in ("call_function", "call_method") else ""


def op_type_supports_shadowing(node: fx.Node) -> bool:
    """Whether one input decides: False for functions of several tensors (add, mul, cat, stack).

    Args:
        node: any.
    """
    return not (node.op == "call_function" and node.target in _PAIRS | _LISTS)
