"""A float model with several int8 forms of each layer beside it: which QConfig suits which layer."""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from torch_ao_ext._lower import lower
from torch_ao_ext.ns.fx._loggers import copy_float_nodes
from torch_ao_ext.ns.fx._match import target_name
from torch_ao_ext.ns.fx.loggers import OutputComparisonLogger, OutputLogger
from torch_ao_ext.ns.fx.n_shadows_utils import (
    create_results_comparison,
    group_results_by_subgraph,
    print_n_shadows_summary,
)
from torch_ao_ext.ns.fx.ns_types import NSResultsType, NSSingleResultValuesType
from torch_ao_ext.ns.fx.qconfig_multi_mapping import QConfigMultiMapping
from torch_ao_ext.quantization.fx._capture import export_whole
from torch_ao_ext.quantization.fx._qconfig_quantizer import QConfigMappingQuantizer, config_of
from torch_ao_ext.quantization.pt2e._batch_norm import fold_batch_norms
from torch_ao_ext.quantization.pt2e._graph import check_graph_module, copy_graph_module, remove_unused
from torch_ao_ext.quantization.pt2e._in_place import drop_in_place
from torch_ao_ext.quantization.pt2e._simplify import drop_dropouts
from torch_ao_ext.quantization.qconfig_mapping import QConfigMapping
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_graph
from torch_ao_ext.quantization.quantizer._targets import (
    CONV,
    CONV_TRANSPOSE,
    LINEAR,
    aten,
    is_call,
    only_user,
)
from torch_ao_ext.quantization.quantizer.utils import innermost_module

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


def _alone(model: fx.GraphModule, nodes: tuple[fx.Node, ...]) -> fx.GraphModule:
    """A graph of the nodes only; its input is that of the first."""
    result = fx.GraphModule(nn.Module(), fx.Graph())
    source = nodes[0].args[0]
    x = result.graph.placeholder("x")
    x.meta = dict(source.meta)
    output = result.graph.output(x)
    output.args = (copy_float_nodes(model, nodes, {source: x}, result, output),)
    result.recompile()
    return result


def _logger(cls: Any, nodes: tuple[fx.Node, ...], index: int, candidate: int, qconfig: Any) -> OutputLogger:
    first, last = nodes[0], nodes[-1]
    return cls(
        first.name, last.name, f"subgraph_{index}_{candidate}", "model", target_name(last),
        target_name(first), _OUTPUT, 0, 0, innermost_module(first), "" if qconfig is None else str(qconfig),
    )  # fmt: skip


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
    quantizers = [QConfigMappingQuantizer(m) for m in qconfig_multi_mapping.qconfig_mappings_list]
    count = 0
    for index, nodes in enumerate(_layers(graph)):
        qconfigs = [quantizer.qconfig_of(nodes[0]) for quantizer in quantizers]
        wanted = [(j, q) for j, q in enumerate(qconfigs) if q is not None and config_of(q) is not None]
        if wanted:
            _add_shadows(graph, index, nodes, wanted)
            count += len(wanted)
    if not count:
        raise ValueError(
            f"{op}: argument 'qconfig_multi_mapping' must have int8 QConfigs for convolutions or linear "
            "layers of the model, got none"
        )
    remove_unused(graph)
    graph.recompile()
    return graph


def _add_shadows(
    graph: fx.GraphModule, index: int, nodes: tuple[fx.Node, ...], wanted: list[tuple[int, Any]]
) -> None:
    last, before = nodes[-1], nodes[-1].next
    names = [f"subgraph_{index}_0_logger"]
    graph.add_module(names[0], _logger(OutputLogger, nodes, index, 0, None))
    with graph.graph.inserting_before(before):
        graph.graph.call_module(names[0], (last,))
        for j, qconfig in wanted:
            quantizer = QConfigMappingQuantizer(QConfigMapping().set_global(qconfig))
            shadow = prepare_graph("prepare_n_shadows_model", _alone(graph, nodes), quantizer)
            name = f"subgraph_{index}_{j + 1}"
            graph.add_module(name, shadow)
            graph.add_module(f"{name}_logger", _logger(OutputComparisonLogger, nodes, index, j + 1, qconfig))
            result = graph.graph.call_module(name, (nodes[0].args[0],))
            graph.graph.call_module(f"{name}_logger", (result, last))


def _shadow_names(model: fx.GraphModule) -> list[str]:
    loggers = [n for n, m in model.named_children() if isinstance(m, OutputComparisonLogger)]
    return [name.removesuffix("_logger") for name in loggers]


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
