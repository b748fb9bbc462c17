"""A float model with several int8 forms of each layer beside it: which QConfig suits which layer."""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from torch_ao_ext._lower import lower
from torch_ao_ext.ns.fx._shadows import create_n_transformed_and_logged_copies_of_subgraph
from torch_ao_ext.ns.fx.loggers import OutputComparisonLogger, OutputLogger
from torch_ao_ext.ns.fx.n_shadows_utils import (
    create_results_comparison,
    group_results_by_subgraph,
    print_n_shadows_summary,
)
from torch_ao_ext.ns.fx.ns_types import NSResultsType, NSSingleResultValuesType
from torch_ao_ext.ns.fx.qconfig_multi_mapping import QConfigMultiMapping
from torch_ao_ext.quantization.fx._capture import export_whole
from torch_ao_ext.quantization.fx._qconfig_quantizer import QConfigMappingQuantizer
from torch_ao_ext.quantization.fx._qconfig_specs import config_of
from torch_ao_ext.quantization.pt2e._batch_norm import fold_batch_norms
from torch_ao_ext.quantization.pt2e._graph import check_graph_module, copy_graph_module, remove_unused
from torch_ao_ext.quantization.pt2e._in_place import drop_in_place
from torch_ao_ext.quantization.pt2e._simplify import drop_dropouts
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e
from torch_ao_ext.quantization.quantizer._targets import (
    CONV,
    CONV_TRANSPOSE,
    LINEAR,
    aten,
    is_call,
    only_user,
)

__all__ = [
    "convert_n_shadows_model",
    "extract_results_n_shadows_model",
    "prepare_n_shadows_model",
    "print_comparisons_n_shadows_model",
]

_PRODUCTS = CONV | CONV_TRANSPOSE | LINEAR
_RELU = {aten.relu.default}
_OUTPUT = NSSingleResultValuesType.NODE_OUTPUT.value


def _layers(model: fx.GraphModule) -> list[tuple[fx.Node, ...]]:
    """Each product with the relu behind it."""
    found = []
    for node in model.graph.nodes:
        if is_call(node, _PRODUCTS):
            after = only_user(node)
            found.append((node, after) if is_call(after, _RELU) else (node,))
    return found


def _int8_qconfig(quantizer: QConfigMappingQuantizer, node: fx.Node) -> Any:
    qconfig = quantizer.qconfig_of(node)
    return None if qconfig is None or config_of(qconfig) is None else qconfig


def prepare_n_shadows_model(
    model: nn.Module,
    example_inputs: tuple[Any, ...],
    qconfig_multi_mapping: QConfigMultiMapping,
    backend_config: Any = None,
    custom_prepare_fn: Callable[..., Any] | None = None,
    custom_prepare_kwargs: dict[str, Any] | None = None,
    custom_tracer: Any = None,
) -> fx.GraphModule:
    """The float model; beside each convolution and linear layer one prepared copy for each QConfig.

    Run it on example data, `convert_n_shadows_model`, run it again, then
    `extract_results_n_shadows_model`.

    Args:
        model: float model in evaluation mode; left as it is.
        example_inputs: positional inputs.
        qconfig_multi_mapping: candidates.
        backend_config: must be None, as what follows.
        custom_prepare_fn: must be None.
        custom_prepare_kwargs: must be None.
        custom_tracer: must be None.

    Returns:
        A graph module whose results are the float model's.

    Raises:
        ValueError: training mode, an argument that must be None, no layer with a candidate.
    """
    op = "prepare_n_shadows_model"
    if not isinstance(model, nn.Module) or model.training:
        got = "training mode" if isinstance(model, nn.Module) else type(model).__name__
        raise ValueError(f"{op}: argument 'model' must be an nn.Module in evaluation mode, got {got}")
    if not isinstance(qconfig_multi_mapping, QConfigMultiMapping):
        raise ValueError(
            f"{op}: argument 'qconfig_multi_mapping' must be a QConfigMultiMapping, got "
            f"{type(qconfig_multi_mapping).__name__}"
        )
    for name, value in (
        ("backend_config", backend_config), ("custom_prepare_fn", custom_prepare_fn),
        ("custom_prepare_kwargs", custom_prepare_kwargs), ("custom_tracer", custom_tracer),
    ):  # fmt: skip
        if value is not None:
            raise ValueError(f"{op}: argument '{name}' must be None, got {value!r}")
    with torch.no_grad():
        graph = copy_graph_module(export_whole("prepare_n_shadows_model", model, tuple(example_inputs), []))
    drop_dropouts(graph)
    drop_in_place(graph)
    fold_batch_norms(graph)
    mappings = qconfig_multi_mapping.qconfig_mappings_list
    quantizers = [QConfigMappingQuantizer(m) for m in mappings]
    layers = _layers(graph)
    tables = [{first.name: _int8_qconfig(q, first) for first, *_ in layers} for q in quantizers]
    for index, nodes in enumerate(layers):
        create_n_transformed_and_logged_copies_of_subgraph(
            graph, index, f"subgraph_{index}", list(nodes), mappings, tables
        )
    if not _shadow_names(graph):
        raise ValueError(
            f"{op}: argument 'qconfig_multi_mapping' must have int8 QConfigs for convolutions or linear "
            "layers of the model, got none"
        )
    remove_unused(graph)
    graph.recompile()
    return graph


def _shadow_names(model: fx.GraphModule) -> list[str]:
    loggers = [n for n, m in model.named_children() if isinstance(m, OutputComparisonLogger)]
    names = [name.removesuffix("_logger") for name in loggers]
    return [name for name in names if hasattr(model, name)]  # others compare float operators


def convert_n_shadows_model(
    model: fx.GraphModule,
    custom_convert_fn: Callable[..., Any] | None = None,
    custom_convert_kwargs: dict[str, Any] | None = None,
) -> fx.GraphModule:
    """Makes int8 operators of the prepared copies; loggers start anew.

    Args:
        model: from `prepare_n_shadows_model`, run on example data; left as it is.
        custom_convert_fn: makes the converted layer of a prepared one; default `lower` of
            `convert_pt2e`.
        custom_convert_kwargs: its keyword arguments.

    Raises:
        ValueError: no layer beside others, or an observer without data.
    """
    check_graph_module("convert_n_shadows_model", model)
    names = _shadow_names(model)
    if not names:
        raise ValueError(
            "convert_n_shadows_model: argument 'model' must come from prepare_n_shadows_model, got no shadows"
        )
    convert = custom_convert_fn or (lambda prepared: lower(convert_pt2e(prepared)))
    result = copy_graph_module(model)
    for name in names:
        result.add_module(name, convert(getattr(model, name), **(custom_convert_kwargs or {})))
    for name, module in list(result.named_children()):
        if isinstance(module, OutputLogger):
            fresh = type(module)(
                module.ref_node_name, module.prev_node_name, module.model_name, module.ref_name,
                module.prev_node_target_type, module.ref_node_target_type, module.results_type,
                module.index_within_arg, module.index_of_arg, module.fqn, module.qconfig_str,
            )  # fmt: skip
            fresh.save_activations = module.save_activations
            result.add_module(name, fresh)
    return result


def extract_results_n_shadows_model(model: nn.Module) -> NSResultsType:
    """What the loggers have recorded.

    Returns:
        {"model": {"node_output": {"subgraph_I_0": float layer I, "subgraph_I_J": its candidate J}}};
        a candidate's result has "comparisons", one SQNR for each run.
    """
    results: NSResultsType = {}
    for module in model.modules():
        if isinstance(module, OutputLogger):
            layer = results.setdefault(module.ref_name, {}).setdefault(module.results_type, {})
            layer.setdefault(module.model_name, []).append(module.result())
    return results


def print_comparisons_n_shadows_model(results: NSResultsType) -> None:
    """Prints a table: layers, and the mean SQNR in dB of each candidate.

    Args:
        results: of `extract_results_n_shadows_model`.
    """
    outputs = results.get("model", {}).get(_OUTPUT, {})
    grouped = group_results_by_subgraph({"model": {_OUTPUT: outputs}})
    print_n_shadows_summary(create_results_comparison(grouped))
