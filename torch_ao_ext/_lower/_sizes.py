"""Sizes that a graph reads from its tensors, in a form that torch.jit.trace records."""

import operator
from typing import Any

import torch
from torch import fx

from torch_ao_ext.quantization.quantizer._targets import aten, is_call

# ATen operators that take a list of sizes, and the methods that a trace records with them.
_METHODS = {aten.reshape.default: "reshape", aten.view.default: "reshape", aten.expand.default: "expand"}
# Those that take a size as a number, which an operator does not get from a trace; torch's function does.
_FUNCTIONS = {
    aten.arange.default: torch.arange, aten.arange.start: torch.arange, aten.arange.start_step: torch.arange,
    aten.full.default: torch.full, aten.zeros.default: torch.zeros, aten.ones.default: torch.ones,
    aten.eq.Scalar: torch.eq, aten.ne.Scalar: torch.ne, aten.lt.Scalar: torch.lt, aten.le.Scalar: torch.le,
    aten.gt.Scalar: torch.gt, aten.ge.Scalar: torch.ge,
}  # fmt: skip
_ARITHMETIC = {operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.neg}


def _is_size(node: Any) -> bool:
    if not isinstance(node, fx.Node):
        return False
    if node.op == "call_method":
        return node.target == "size"
    return node.op == "call_function" and node.target in _ARITHMETIC and any(map(_is_size, node.args))


def _replace(node: fx.Node, call: fx.Node) -> None:
    call.meta = dict(node.meta)
    node.replace_all_uses_with(call)
    node.graph.erase_node(node)


def sizes_by_method(model: fx.GraphModule) -> list[str]:
    """Sizes are read by x.size(dim) and go into methods and functions: a trace keeps them free; in place.

    Returns:
        Names of the nodes that take a size where a trace makes a constant of it.
    """
    graph = model.graph
    for node in list(graph.nodes):
        if not is_call(node, {aten.sym_size.int}):
            continue
        with graph.inserting_before(node):
            size = graph.call_method("size", node.args)
        _replace(node, size)
    constant = []
    for node in list(graph.nodes):
        sizes = [n for n in node.all_input_nodes if _is_size(n)]
        if not sizes or _is_size(node) or node.op == "output":
            continue
        if node.op == "call_function" and node.target in _METHODS and not node.kwargs:
            with graph.inserting_before(node):
                call = graph.call_method(_METHODS[node.target], node.args)
            _replace(node, call)
        elif node.op == "call_function" and node.target in _FUNCTIONS:
            with graph.inserting_before(node):
                call = graph.call_function(_FUNCTIONS[node.target], node.args, node.kwargs)
            _replace(node, call)
        else:
            constant.append(node.name)
    return constant


def trace_warning(nodes: list[str]) -> str:
    """What torch.jit.trace is told of a graph with such nodes."""
    return (
        "lowered model: a trace holds the sizes of its example inputs as constants, wrong for other sizes "
        f"(at {', '.join(nodes[:3])}); torch.jit.script keeps them free"
    )


TracerWarning = torch.jit.TracerWarning
