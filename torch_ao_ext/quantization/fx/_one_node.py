"""Steps of convert on one node of a graph of torch.fx: what its module becomes."""

from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from torch_ao_ext.nn.intrinsic.modules.fused import _FusedModule
from torch_ao_ext.quantization.backend_config.backend_config import BackendConfig
from torch_ao_ext.quantization.backend_config.utils import (
    get_qat_module_classes,
    get_root_module_to_quantized_reference_module,
)
from torch_ao_ext.quantization.fx._backend import Backend
from torch_ao_ext.quantization.pt2e.prepare import is_observer
from torch_ao_ext.quantization.quant_type import QuantType
from torch_ao_ext.quantization.utils import (
    activation_is_statically_quantized,
    get_qparam_dict,
    get_swapped_custom_module_class,
    weight_is_quantized,
)

__all__ = ["convert_custom_module", "convert_weighted_module", "replace_module"]

_Modules = dict[str, nn.Module]


def replace_module(modules: _Modules, name: str, module: nn.Module) -> None:
    """Puts a module in the place of another, in its parent and in the table.

    Args:
        modules: `dict(model.named_modules())`; "" is the root.
        name: where.
        module: the new one.
    """
    parent, _, leaf = name.rpartition(".")
    setattr(modules[parent], leaf, module)
    modules[name] = module


def _rounded(observer: Any, weight: torch.Tensor) -> dict[str, Any]:
    observer.to(weight.device)(weight)
    return get_qparam_dict(observer)


def convert_weighted_module(
    node: fx.Node, modules: _Modules, observed_node_names: set[str], node_name_to_qconfig: dict[str, Any],
    backend_config: BackendConfig, is_decomposed: bool = False, is_reference: bool = False,
    model_device: torch.device | None = None,
) -> None:  # fmt: skip
    """Puts the module of nn.quantized.reference in the place of a layer with a QConfig.

    A trained layer becomes a float one first, and its fake-quant gives the qparams. In a fused container
    the layer is replaced. Layers without a QConfig, not observed, or with dtypes that the backend does not
    have stay as they are.

    Args:
        node: calls the layer.
        modules: `dict(model.named_modules())`; changed, as the model.
        observed_node_names: names of observed nodes.
        node_name_to_qconfig: name of a node -> QConfig; None leaves it float.
        backend_config: says which dtypes and classes there are.
        is_decomposed: quant_min and quant_max of the observer count.
        is_reference: with is_decomposed, a trained layer's fake-quant is not run once more.
        model_device: of a new observer; default the weight's.

    Raises:
        ValueError: a class that the backend has no reference class for.
    """
    name = str(node.target)
    module = modules[name]
    qconfig = getattr(module, "qconfig", None)
    observer = None
    if isinstance(module, get_qat_module_classes(backend_config)):
        observer = module.weight_fake_quant
        module = module.to_float()
        replace_module(modules, name, module)
    unset = node_name_to_qconfig.get(node.name, qconfig) is None
    if qconfig is None or unset or node.name not in observed_node_names or not weight_is_quantized(qconfig):
        return
    if not Backend(backend_config).takes([type_before_parametrizations(module)], qconfig, True):
        return
    layer = module[0] if isinstance(module, _FusedModule) else module
    kind = type_before_parametrizations(layer)
    reference = get_root_module_to_quantized_reference_module(backend_config).get(kind)
    if reference is None:
        raise ValueError(
            "convert_weighted_module: argument 'backend_config' must have a reference class of the layer, "
            f"got none for {kind.__name__}"
        )
    qparams: dict[str, Any] = {"is_decomposed": is_decomposed}
    if isinstance(layer, (nn.RNNBase, nn.RNNCellBase)):
        names = [n for n, _ in layer.named_parameters() if n.startswith("weight")]
        qparams |= {n: _rounded(qconfig.weight(), getattr(layer, n)) for n in names}
    elif observer is not None and is_decomposed and is_reference:
        qparams |= get_qparam_dict(observer)
    else:
        observer = qconfig.weight() if observer is None else observer
        weight = layer.weight if model_device is None else layer.weight.to(model_device)
        qparams |= _rounded(observer, weight)
    made = reference.from_float(layer, qparams)
    if layer is module:
        replace_module(modules, name, made)
    else:
        module[0] = made


def convert_custom_module(
    node: fx.Node, graph: fx.Graph, modules: _Modules,
    custom_module_class_mapping: dict[QuantType, dict[type, type]],
    statically_quantized_custom_module_nodes: set[fx.Node],
) -> None:  # fmt: skip
    """Puts the quantized class of the user in the place of the observed one (`from_observed`).

    With activations that are quantized statically it takes and gives QuantizedTensors: a `dequantize` in
    front of it goes, the observer behind it becomes its `activation_post_process`.

    Args:
        node: calls the module.
        graph: of the node; changed.
        modules: `dict(model.named_modules())`; changed, as the model.
        custom_module_class_mapping: such as `ConvertCustomConfig.observed_to_quantized_mapping`.
        statically_quantized_custom_module_nodes: gets the node, with static activations.

    Raises:
        ValueError: no observer behind it, with static activations.
    """
    name = str(node.target)
    observed = modules[name]
    qconfig = observed.qconfig
    if activation_is_statically_quantized(qconfig):
        statically_quantized_custom_module_nodes.add(node)
        for source in list(node.all_input_nodes):
            if source.op == "call_method" and source.target == "dequantize":
                node.replace_input_with(source, source.args[0])  # type: ignore[arg-type]
                if not source.users:
                    graph.erase_node(source)
        called = [modules.get(str(user.target)) for user in node.users if user.op == "call_module"]
        behind = next((module for module in called if is_observer(module)), None)
        if behind is not None:
            observed.activation_post_process = behind
        elif not hasattr(observed, "activation_post_process"):
            raise ValueError(
                f"convert_custom_module: argument 'node' must have an observer behind it, got none at {node}"
            )
    kind: Any = get_swapped_custom_module_class(observed, custom_module_class_mapping, qconfig)
    replace_module(modules, name, kind.from_observed(observed))
