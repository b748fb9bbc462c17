"""Numeric suite of graphs: weights, results and shadows of a prepared and a converted graph.

First model: from `prepare_fx` (or `prepare_pt2e`), calibrated; second: `convert_fx` (or `lower` of
`convert_pt2e`) of it.
"""

from collections.abc import Callable
from typing import Any

from torch import fx, nn

from torch_ao_ext.ns.fx._loggers import add_logger, add_shadows
from torch_ao_ext.ns.fx._match import (
    check_graph,
    float_inputs,
    integer_inputs,
    matches,
    target_name,
    weight_of,
)
from torch_ao_ext.ns.fx._n_shadows import (
    convert_n_shadows_model,
    extract_results_n_shadows_model,
    prepare_n_shadows_model,
    print_comparisons_n_shadows_model,
)
from torch_ao_ext.ns.fx.loggers import OutputComparisonLogger, OutputLogger
from torch_ao_ext.ns.fx.ns_types import NSResultsType, NSSingleResultValuesType
from torch_ao_ext.quantization.fx.tracer import NSTracer
from torch_ao_ext.quantization.pt2e._graph import copy_graph_module
from torch_ao_ext.quantization.quantizer.utils import innermost_module

__all__ = [
    "NSTracer",
    "OutputComparisonLogger",
    "OutputLogger",
    "add_loggers",
    "add_shadow_loggers",
    "convert_n_shadows_model",
    "extend_logger_results_with_comparison",
    "extract_logger_info",
    "extract_results_n_shadows_model",
    "extract_shadow_logger_info",
    "extract_weights",
    "loggers_set_enabled",
    "loggers_set_save_activations",
    "prepare_n_shadows_model",
    "print_comparisons_n_shadows_model",
]

_OUTPUT = NSSingleResultValuesType.NODE_OUTPUT.value
_INPUT = NSSingleResultValuesType.NODE_INPUT.value
_WEIGHT = NSSingleResultValuesType.WEIGHT.value


def _check(
    op: str, name_a: Any, model_a: Any, name_b: Any, model_b: Any
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """The graphs with a node for each operator."""
    graphs = check_graph(op, "model_a", model_a), check_graph(op, "model_b", model_b)
    for name, value in (("name_a", name_a), ("name_b", name_b)):
        if not isinstance(value, str):
            raise ValueError(f"{op}: argument '{name}' must be a string, got {value!r}")
    if name_a == name_b:
        raise ValueError(f"{op}: argument 'name_b' must differ from name_a, got {name_b!r} for both")
    return graphs


def _result(kind: str, node: fx.Node, values: list[Any], index: int = 0) -> dict[str, Any]:
    return {
        "values": values,
        "type": kind,
        "prev_node_name": node.name,
        "prev_node_target_type": target_name(node),
        "ref_node_name": node.name,
        "ref_node_target_type": target_name(node),
        "index_within_arg": 0,
        "index_of_arg": index,
        "fqn": innermost_module(node),
        "qconfig_str": "",
    }


def extract_weights(
    model_name_a: str, model_a: fx.GraphModule, model_name_b: str, model_b: fx.GraphModule
) -> NSResultsType:
    """Weights of the layers that both graphs have.

    Args:
        model_name_a: name in the result.
        model_a: prepared graph.
        model_name_b: name in the result.
        model_b: converted graph.

    Returns:
        Name of model_b's node -> "weight" -> model name -> one result; values are a tensor and a
        QuantizedTensor.

    Raises:
        ValueError: not two graphs, equal names.
        GraphMatchingException: graphs of different models.
    """
    model_a, model_b = _check("extract_weights", model_name_a, model_a, model_name_b, model_b)
    results: NSResultsType = {}
    for match in matches("extract_weights", model_a, model_b):
        first = weight_of(model_a, match.nodes[0])
        second = weight_of(model_b, match.node) if hasattr(match.node.target, "_schema") else None
        if first is None or second is None:
            continue
        results[match.node.name] = {
            _WEIGHT: {
                model_name_a: [_result(_WEIGHT, match.nodes[0], [first.detach()])],
                model_name_b: [_result(_WEIGHT, match.node, [second])],
            }
        }
    return results


def add_loggers(
    name_a: str, model_a: fx.GraphModule, name_b: str, model_b: fx.GraphModule,
    logger_cls: Callable[..., nn.Module], should_log_inputs: bool = False,
) -> tuple[fx.GraphModule, fx.GraphModule]:  # fmt: skip
    """Copies of both graphs with a logger behind each operator that both have.

    Args:
        name_a: name in the results.
        model_a: prepared graph; left as it is.
        name_b: name in the results.
        model_b: converted graph; left as it is.
        logger_cls: OutputLogger, or a class of its arguments.
        should_log_inputs: loggers before the operators, too.

    Raises:
        ValueError: not two graphs, equal names.
        GraphMatchingException: graphs of different models.
    """
    model_a, model_b = _check("add_loggers", name_a, model_a, name_b, model_b)
    first, second = copy_graph_module(model_a), copy_graph_module(model_b)
    for index, match in enumerate(matches("add_loggers", first, second)):
        ref = f"op_{index}"
        if should_log_inputs:
            for i, source in enumerate(float_inputs(first, match)):
                add_logger(first, source, None, match.nodes[0], name_a, ref, _INPUT, i, logger_cls)
            for i, given in enumerate(integer_inputs(match)):
                add_logger(second, *given, match.node, name_b, ref, _INPUT, i, logger_cls)
        last = match.nodes[-1]
        add_logger(first, last, None, match.nodes[0], name_a, ref, _OUTPUT, 0, logger_cls, after=last)
        node = match.node
        add_logger(second, node, match.output, node, name_b, ref, _OUTPUT, 0, logger_cls, after=node)
    for model in (first, second):
        model.graph.lint()
        model.recompile()
    return first, second


def _loggers(model: nn.Module, logger_cls: Any) -> list[Any]:
    """Loggers in the order in which the graph calls them."""
    if not isinstance(model, fx.GraphModule):
        return [m for m in model.modules() if isinstance(m, logger_cls)]
    modules = dict(model.named_modules())
    called = [modules.get(n.target) for n in model.graph.nodes if n.op == "call_module"]
    return [m for m in called if isinstance(m, logger_cls)]


def _collect(models: list[nn.Module], logger_cls: Any, model_name: str, op: str) -> NSResultsType:
    results: NSResultsType = {}
    names: dict[str, str] = {}
    for model in models:
        for logger in _loggers(model, logger_cls):
            layer = results.setdefault(logger.ref_name, {})
            by_model = layer.setdefault(logger.results_type, {})
            by_model.setdefault(logger.model_name, []).append(logger.result())
            if logger.model_name == model_name:
                names.setdefault(logger.ref_name, logger.ref_node_name)
    if results and not names:
        raise ValueError(
            f"{op}: argument 'model_name_to_use_for_layer_names' must be the name of a model, got "
            f"{model_name!r}"
        )
    return {names[ref]: layer for ref, layer in results.items()}


def extract_logger_info(
    model_a: nn.Module, model_b: nn.Module, logger_cls: Any, model_name_to_use_for_layer_names: str
) -> NSResultsType:
    """What the loggers of `add_loggers` have recorded.

    Args:
        model_a: first result of add_loggers, run on some data.
        model_b: second result of add_loggers, run on the same data.
        logger_cls: as given to add_loggers.
        model_name_to_use_for_layer_names: the model whose node names are the keys.

    Raises:
        ValueError: no model of this name.
    """
    name = model_name_to_use_for_layer_names
    return _collect([model_a, model_b], logger_cls, name, "extract_logger_info")


def add_shadow_loggers(
    name_a: str, model_a: fx.GraphModule, name_b: str, model_b: fx.GraphModule,
    logger_cls: Callable[..., nn.Module], should_log_inputs: bool = False,
) -> fx.GraphModule:  # fmt: skip
    """The second graph with each operator's float form beside it, on the same (dequantized) input.

    Arguments as `add_loggers`. The result computes what model_b computes.
    """
    model_a, model_b = _check("add_shadow_loggers", name_a, model_a, name_b, model_b)
    result = copy_graph_module(model_b)
    found = enumerate(matches("add_shadow_loggers", model_a, result))
    named = {f"op_{index}": match for index, match in found}
    return add_shadows(model_a, result, named, (name_a, name_b), logger_cls, should_log_inputs)


def extract_shadow_logger_info(
    model_a_shadows_b: nn.Module, logger_cls: Any, model_name_to_use_for_layer_names: str
) -> NSResultsType:
    """What the loggers of `add_shadow_loggers` have recorded; arguments as `extract_logger_info`."""
    name = model_name_to_use_for_layer_names
    return _collect([model_a_shadows_b], logger_cls, name, "extract_shadow_logger_info")


def extend_logger_results_with_comparison(
    results: NSResultsType,
    model_name_1: str,
    model_name_2: str,
    comparison_fn: Callable[[Any, Any], Any],
    comparison_name: str,
) -> None:
    """Adds a measure to each result of the second model, in place.

    Args:
        results: of an `extract_` function.
        model_name_1: reference.
        model_name_2: gets the measure.
        comparison_fn: of two values, e.g. `ns.fx.utils.compute_sqnr`.
        comparison_name: its key in the result.

    Raises:
        ValueError: a model name that the results do not have.
    """
    op = "extend_logger_results_with_comparison"
    for layer in results.values():
        for by_model in layer.values():
            for argument, name in (("model_name_1", model_name_1), ("model_name_2", model_name_2)):
                if name not in by_model:
                    raise ValueError(
                        f"{op}: argument '{argument}' must be one of {sorted(by_model)}, got {name!r}"
                    )
            known = {(r["index_of_arg"], r["index_within_arg"]): r for r in by_model[model_name_1]}
            for result in by_model[model_name_2]:
                other = known[(result["index_of_arg"], result["index_within_arg"])]
                pairs = zip(other["values"], result["values"], strict=True)
                result[comparison_name] = [comparison_fn(a, b) for a, b in pairs]


def loggers_set_enabled(model: nn.Module, enabled: bool) -> None:
    """Switches all loggers of a model on or off."""
    for module in model.modules():
        if isinstance(module, OutputLogger):
            module.enabled = enabled


def loggers_set_save_activations(model: nn.Module, save_activations: bool) -> None:
    """Whether the loggers of a model keep the values; comparisons are kept always."""
    for module in model.modules():
        if isinstance(module, OutputLogger):
            module.save_activations = save_activations
