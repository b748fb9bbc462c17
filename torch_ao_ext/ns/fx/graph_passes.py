"""Graphs with loggers, and with the operators of another graph beside their own."""

from collections.abc import Callable
from typing import Any

from torch import fx, nn

from torch_ao_ext._graph_ops import FUSED
from torch_ao_ext.ns.fx._loggers import add_logger, add_shadows
from torch_ao_ext.ns.fx._match import GraphMatchingException, Match, check_graph, integer_inputs
from torch_ao_ext.ns.fx._nodes import get_arg_indices_of_inputs_to_log
from torch_ao_ext.ns.fx.ns_types import (
    NSNodeTargetType,
    NSSingleResultValuesType,
    NSSubgraph,
)
from torch_ao_ext.quantization.pt2e._graph import copy_graph_module

__all__ = ["add_loggers_to_model", "create_a_shadows_b"]

_OUTPUT = NSSingleResultValuesType.NODE_OUTPUT.value
_INPUT = NSSingleResultValuesType.NODE_INPUT.value


def _in(op: str, graph: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The node of this name in a copy."""
    found = next((n for n in graph.graph.nodes if n.name == node.name), None)
    if found is None:
        raise ValueError(f"{op}: nodes must be of the graph that is given, got {node.name!r}")
    return found


def _inputs(node: fx.Node) -> list[tuple[int, int, fx.Node, Any]]:
    """What a node reads, without weights: (argument, place in a list, node, its qparams)."""
    noted = node.meta.get(FUSED)
    if noted is not None:
        given = integer_inputs(Match((), node, noted.output))
        return [(i, 0, source, qparams) for i, (source, qparams) in enumerate(given)]
    found = []
    for index in get_arg_indices_of_inputs_to_log(node):
        value = node.args[index]
        several = value if isinstance(value, (list, tuple)) else [value]
        found += [(index, i, n, None) for i, n in enumerate(several) if isinstance(n, fx.Node)]
    return found


def add_loggers_to_model(
    gm: fx.GraphModule,
    node_to_instrument_inputs_to_ref_node_name: dict[fx.Node, tuple[str, str]],
    node_to_instrument_outputs_to_ref_node_name: dict[fx.Node, tuple[str, str]],
    logger_cls: Callable[..., nn.Module],
    model_name: str,
) -> fx.GraphModule:
    """A copy of a graph with loggers before and behind some of its nodes; integers are logged as floats.

    Args:
        gm: of torch.fx, exported, prepared or lowered; a lowered one is seen with a node for each operator.
        node_to_instrument_inputs_to_ref_node_name: node -> (name of the pair in the results, type of the
            operator that the results say); its inputs are logged.
        node_to_instrument_outputs_to_ref_node_name: the same; its result is logged.
        logger_cls: OutputLogger, or a class of its arguments.
        model_name: name in the results.

    Raises:
        ValueError: not a graph, or nodes of another.
    """
    op = "add_loggers_to_model"
    result = copy_graph_module(check_graph(op, "gm", gm))

    def log(
        value: fx.Node, qparams: Any, ref: fx.Node, named: tuple[str, str], kind: str, place: tuple[int, int]
    ) -> None:  # fmt: skip
        index, within = place

        def make(*args: Any) -> nn.Module:
            return logger_cls(*args[:5], named[1], args[6], within, *args[8:])

        behind = value if kind == _OUTPUT else None
        add_logger(result, value, qparams, ref, model_name, named[0], kind, index, make, after=behind)

    for given, named in node_to_instrument_inputs_to_ref_node_name.items():
        node = _in(op, result, given)
        for index, within, source, qparams in _inputs(node):
            log(source, qparams, node, named, _INPUT, (index, within))
    for given, named in node_to_instrument_outputs_to_ref_node_name.items():
        node = _in(op, result, given)
        noted = node.meta.get(FUSED)
        log(node, None if noted is None else noted.output, node, named, _OUTPUT, (0, 0))
    result.graph.lint()
    result.recompile()
    return result


def create_a_shadows_b(
    name_a: str, gm_a: fx.GraphModule, name_b: str, gm_b: fx.GraphModule,
    matched_subgraph_pairs: dict[str, tuple[NSSubgraph, NSSubgraph]], logger_cls: Callable[..., nn.Module],
    should_log_inputs: bool, node_type_to_io_type_map: dict[str, set[NSNodeTargetType]] | None = None,
) -> fx.GraphModule:  # fmt: skip
    """gm_b with float operators of gm_a beside its int8 ones, on the same (dequantized) input.

    Args:
        name_a: name in the results.
        gm_a: the prepared or exported graph.
        name_b: name in the results.
        gm_b: `convert_fx` or `lower` of it; left as it is.
        matched_subgraph_pairs: from `graph_matcher.get_matching_subgraph_pairs`, or some of them.
        logger_cls: OutputLogger, or a class of its arguments.
        should_log_inputs: loggers before the operators, too.
        node_type_to_io_type_map: torch.ao's table; the graph says what is an integer.

    Returns:
        A graph that computes what gm_b computes.

    Raises:
        ValueError: not two graphs, or nodes of others.
        GraphMatchingException: operators that `lower` has not made.
    """
    op = "create_a_shadows_b"
    first, result = check_graph(op, "gm_a", gm_a), copy_graph_module(check_graph(op, "gm_b", gm_b))
    named = {}
    for name, (_, part) in matched_subgraph_pairs.items():
        node = _in(op, result, part.base_op_node)
        noted = node.meta.get(FUSED)
        if noted is None:
            raise GraphMatchingException(
                f"{op}: argument 'matched_subgraph_pairs' must hold operators that lower or convert_fx made, "
                f"got {node.name!r} in {name!r}"
            )
        by_name = {n.name: n for n in first.graph.nodes}
        if any(each not in by_name for each in noted.nodes):
            raise ValueError(f"{op}: nodes must be of the graph that is given, got {noted.nodes!r}")
        named[name] = Match(tuple(by_name[each] for each in noted.nodes), node, noted.output)
    return add_shadows(first, result, named, (name_a, name_b), logger_cls, should_log_inputs)
