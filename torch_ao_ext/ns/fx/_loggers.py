"""Puts loggers and float operators into graphs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from torch_ao_ext.ns.fx._match import Match, float_inputs, integer_inputs, seen_through, target_name
from torch_ao_ext.ns.fx.ns_types import NSSingleResultValuesType
from torch_ao_ext.quantization.pt2e._graph import add_constant, free_name, tensor_of
from torch_ao_ext.quantization.quantizer.utils import innermost_module

__all__ = ["add_logger", "add_shadows", "as_float", "copy_float_nodes"]

_OUTPUT = NSSingleResultValuesType.NODE_OUTPUT.value
_INPUT = NSSingleResultValuesType.NODE_INPUT.value


def as_float(model: fx.GraphModule, node: fx.Node, qparams: tuple[float, int] | None) -> fx.Node:
    """The node, or a dequantize of it; the caller sets the insertion point."""
    if qparams is None:
        return node
    return model.graph.call_function(torch.ops.torch_ao.dequantize_per_tensor.default, (node, *qparams))


def add_logger(
    model: fx.GraphModule, value: fx.Node, qparams: tuple[float, int] | None, ref: fx.Node, model_name: str,
    ref_name: str, kind: str, index: int, logger_cls: Callable[..., nn.Module],
    after: fx.Node | None = None, before: fx.Node | None = None,
) -> None:  # fmt: skip
    """Logs a value of a graph, in place.

    Args:
        model: gets the logger.
        value: is logged; where there is neither after nor before, right behind it.
        qparams: of an integer value.
        ref: operator that the value belongs to.
        model_name: its model.
        ref_name: the same for the operators of both models.
        kind: "node_output" or "node_input".
        index: which input.
        logger_cls: makes the logger.
        after: insert behind this node.
        before: insert before this node.
    """
    logger = logger_cls(
        ref.name, value.name, model_name, ref_name, target_name(value), target_name(ref), kind, 0, index,
        innermost_module(ref),
    )  # fmt: skip
    name = free_name(model, f"{ref.name}_logger_0")
    model.add_module(name, logger)
    place = model.graph.inserting_before(before) if before is not None else None
    if place is None:
        first = after if after is not None else value
        while first.next.op == "placeholder":
            first = first.next
        place = model.graph.inserting_before(first.next)
    with place:
        model.graph.call_module(name, (as_float(model, value, qparams),))


def copy_float_nodes(
    source: fx.GraphModule, nodes: tuple[fx.Node, ...], inputs: dict[fx.Node, fx.Node],
    target: fx.GraphModule, before: fx.Node,
) -> fx.Node:  # fmt: skip
    """Copies float operators into another graph, their weights with them.

    Args:
        source: graph of the operators.
        nodes: first to last.
        inputs: what they read outside -> what they read in the target.
        target: changed.
        before: where they go.

    Returns:
        The copy of the last.
    """
    known: dict[fx.Node, Any] = dict(inputs)

    def moved(node: fx.Node) -> Any:
        value = seen_through(source, node)
        if value not in known:
            constant = tensor_of(source, value)
            if constant is not None:
                known[value] = add_constant(target, f"_shadow_{value.name}", constant)
            else:  # a size: read it from what the target has in its place
                known[value] = target.graph.node_copy(value, moved)
        return known[value]

    last = nodes[0]
    with target.graph.inserting_before(before):
        for node in nodes:
            last = known[node] = target.graph.node_copy(node, moved)
    return last


def add_shadows(
    model_a: fx.GraphModule, result: fx.GraphModule, named: dict[str, Match], names: tuple[str, str],
    logger_cls: Callable[..., nn.Module], should_log_inputs: bool,
) -> fx.GraphModule:  # fmt: skip
    """Puts the float form of operators beside them, with loggers, in place.

    Args:
        model_a: has the float operators.
        result: has the int8 operators; changed.
        named: name of a pair in the results -> the pair.
        names: of both models in the results.
        logger_cls: makes the loggers.
        should_log_inputs: loggers before the operators, too.

    Returns:
        result.
    """
    name_a, name_b = names
    for ref, match in named.items():
        sources, given = float_inputs(model_a, match), integer_inputs(match)
        if len(sources) != len(given):
            continue  # an operand was folded into a constant
        node = match.node
        with result.graph.inserting_before(node):
            inputs = [as_float(result, source, qparams) for source, qparams in given]
        if should_log_inputs:
            for i, value in enumerate(inputs):
                for name, owner in ((name_a, match.nodes[0]), (name_b, node)):
                    add_logger(result, value, None, owner, name, ref, _INPUT, i, logger_cls, before=node)
        last = copy_float_nodes(model_a, match.nodes, dict(zip(sources, inputs, strict=True)), result, node)
        add_logger(result, last, None, match.nodes[0], name_a, ref, _OUTPUT, 0, logger_cls, before=node)
        add_logger(result, node, match.output, node, name_b, ref, _OUTPUT, 0, logger_cls, after=node)
    result.graph.lint()
    result.recompile()
    return result
