"""prepare: `prepare_fx` of a graph of torch.fx."""

from typing import Any

from torch import fx, nn

from torch_ao_ext.quantization.fx._by_node import (
    insert_observers_for_model,
    propagate_dtypes_for_known_nodes,
)
from torch_ao_ext.quantization.fx._equalized import observe_channels
from torch_ao_ext.quantization.fx._flow import prepare_captured
from torch_ao_ext.quantization.fx._given import config_of
from torch_ao_ext.quantization.fx._insert import _insert_obs_or_fq  # noqa: F401  (programs call it)
from torch_ao_ext.quantization.fx._notes import _save_state, note_standalone  # noqa: F401
from torch_ao_ext.quantization.fx._qconfig_quantizer import QConfigMappingQuantizer
from torch_ao_ext.quantization.fx.graph_module import ObservedStandaloneGraphModule, as_kind
from torch_ao_ext.quantization.pt2e._graph import copy_graph_module
from torch_ao_ext.quantization.qconfig_mapping import QConfigMapping

__all__ = ["insert_observers_for_model", "prepare", "propagate_dtypes_for_known_nodes"]

_STACK = "nn_module_stack"


def prepare(
    model: fx.GraphModule, qconfig_mapping: Any, is_qat: bool, node_name_to_scope: dict[str, Any],
    example_inputs: tuple[Any, ...], prepare_custom_config: Any = None, _equalization_config: Any = None,
    backend_config: Any = None, is_standalone_module: bool = False,
) -> fx.GraphModule:  # fmt: skip
    """Puts observers into a graph of torch.fx; torch.export captures it once more.

    Args:
        model: of torch.fx, in training mode with is_qat, else in evaluation mode; left as it is.
        qconfig_mapping: QConfigMapping or a dict.
        is_qat: fake quantization instead of observers.
        node_name_to_scope: name of a node -> (name, class) of the module that it lies in, for names and
            classes in qconfig_mapping: what a tracer has in the attribute of this name. Nodes without an
            entry lie where the tracer has noted.
        example_inputs: see `quantize_fx.prepare_fx`, as the arguments that follow.
        prepare_custom_config: PrepareCustomConfig or a dict.
        _equalization_config: QConfigMapping of EqualizationQConfigs; not with is_qat.
        backend_config: BackendConfig or a dict.
        is_standalone_module: the result is an ObservedStandaloneGraphModule.

    Raises:
        TypeError: not a graph module.
        ValueError: as `quantize_fx.prepare_fx`.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization import get_default_qconfig_mapping
        >>> from torch_ao_ext.quantization.fx.convert import convert
        >>> from torch_ao_ext.quantization.fx.prepare import prepare
        >>> from torch_ao_ext.quantization.fx.tracer import QuantizationTracer
        >>> x, tracer = torch.randn(3, 8), QuantizationTracer([], [])
        >>> graph = tracer.trace(torch.nn.Sequential(torch.nn.Linear(8, 4)).eval())
        >>> model = torch.fx.GraphModule(tracer.root, graph)
        >>> mapping = get_default_qconfig_mapping("onednn")
        >>> observed = prepare(model, mapping, False, tracer.node_name_to_scope, (x,))
        >>> _ = observed(x)
        >>> convert(observed)(torch.randn(5, 8)).shape
        torch.Size([5, 4])
    """
    if not isinstance(model, fx.GraphModule):
        raise TypeError(f"prepare: argument 'model' must be a GraphModule, got {type(model).__name__}")
    if is_qat and _equalization_config is not None:
        raise ValueError("prepare: argument '_equalization_config' must be None with is_qat, got one")
    model = _scoped(model, node_name_to_scope or {})
    arguments = (model, qconfig_mapping, example_inputs, prepare_custom_config, backend_config)
    prepared = prepare_captured("prepare", *arguments, training=is_qat)
    if _equalization_config is not None:
        mapping = config_of("prepare", "_equalization_config", _equalization_config, QConfigMapping)
        observe_channels("prepare", prepared, QConfigMappingQuantizer(mapping).qconfig_of)
    if not is_standalone_module:
        return prepared
    return note_standalone(as_kind(prepared, ObservedStandaloneGraphModule))


def _scoped(model: fx.GraphModule, scopes: dict[str, Any]) -> fx.GraphModule:
    """The same modules in a graph that says in which of them its nodes lie, as a tracer notes it."""
    kinds = {path: kind for path, kind in scopes.values() if kind is not None}
    result = copy_graph_module(model)
    for node in result.graph.nodes:
        path = scopes.get(node.name, ("", None))[0]
        if path:
            parts = path.split(".")
            paths = [".".join(parts[: i + 1]) for i in range(len(parts))]
            noted = dict(node.meta.get(_STACK, {}).values())
            node.meta[_STACK] = {p: (p, kinds.get(p, noted.get(p, nn.Module))) for p in paths}
    return result
