"""Operators of a lowered graph and what they were in the float graph."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from torch_ao_ext._graph_ops import FUSED, arguments_of
from torch_ao_ext._lower._merge import unmerged
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.quantization.pt2e._graph import tensor_of
from torch_ao_ext.quantization.pt2e.prepare import is_observer

__all__ = ["GraphMatchingException", "Match", "check_graph", "matches", "target_name"]


class GraphMatchingException(Exception):
    """Two graphs have no operator in common."""


@dataclass(frozen=True)
class Match:
    """One operator in both graphs.

    Args:
        nodes: float operators, first to last.
        node: the int8 operator.
        output: (scale, zero_point) of its integers, None when it gives floats.
    """

    nodes: tuple[fx.Node, ...]
    node: fx.Node
    output: tuple[float, int] | None


def check_graph(op: str, name: str, model: Any) -> fx.GraphModule:
    """The model with a node for each operator; raises unless it is a graph module."""
    if not isinstance(model, fx.GraphModule):
        raise ValueError(
            f"{op}: argument '{name}' must be a graph of prepare_fx, convert_fx, prepare_pt2e or lower, got "
            f"{type(model).__name__}"
        )
    return unmerged(model)


def matches(op: str, first: fx.GraphModule, second: fx.GraphModule) -> list[Match]:
    """Operators of the second graph, in order, that come from nodes of the first.

    Args:
        op: for messages.
        first: prepared, or exported.
        second: `convert_fx` or `lower` of it.

    Raises:
        GraphMatchingException: none.
    """
    by_name = {node.name: node for node in first.graph.nodes}
    found = []
    for node in second.graph.nodes:
        fused = node.meta.get(FUSED)
        if fused is not None and all(name in by_name for name in fused.nodes):
            found.append(Match(tuple(by_name[name] for name in fused.nodes), node, fused.output))
    if not found:
        raise GraphMatchingException(
            f"{op}: the second model must be convert_fx or lower of the first, whose operators have the same "
            "names, got no operator in common"
        )
    return found


def target_name(node: fx.Node) -> str:
    """Operator of a node, as aten.conv2d.default."""
    return str(node.target)


def seen_through(model: fx.GraphModule, node: Any) -> Any:
    """The node, or what an observer observes."""
    while isinstance(node, fx.Node) and node.op == "call_module":
        if not is_observer(model.get_submodule(node.target)):
            break
        node = node.args[0]
    return node


def weight_of(model: fx.GraphModule, node: fx.Node) -> Any:
    """The constant weight of a product: tensor or QuantizedTensor; None without one."""
    known = arguments_of(node)
    weight = tensor_of(model, seen_through(model, known.get("weight")))
    if weight is None or "weight_scale" not in known:
        return weight
    scale = tensor_of(model, known["weight_scale"])
    return QuantizedTensor(weight, scale, tensor_of(model, known.get("weight_zero_point")))


def float_inputs(model: fx.GraphModule, match: Match) -> list[fx.Node]:
    """What the float operators read from outside, without weights and other constants."""
    inside = set(match.nodes)
    found: list[fx.Node] = []
    for node in match.nodes:
        for source in node.all_input_nodes:
            value = seen_through(model, source)
            if value in inside or value.op == "get_attr" or value in found:
                continue
            if isinstance(value.meta.get("val"), torch.Tensor):
                found.append(value)
    return found


def integer_inputs(match: Match) -> list[tuple[fx.Node, tuple[float, int] | None]]:
    """What the int8 operator reads: (node, its scale and zero point or None for floats)."""
    node = match.node
    known = arguments_of(node)
    if node.target is torch.ops.torch_ao.cat.default:
        qparams = zip(known["scales"], known["zero_points"], strict=True)
        return list(zip(known["tensors"], qparams, strict=True))
    found: list[tuple[fx.Node, tuple[float, int] | None]] = []
    for name in ("input", "other"):
        source = known.get(name)
        if isinstance(source, fx.Node) and source.op != "get_attr":
            scale = known.get(f"{name}_scale")
            if scale is None and match.output is not None:  # pooling keeps the qparams, a table has others
                made = source.meta.get(FUSED)
                found.append((source, match.output if made is None else made.output))
            else:
                integers = scale is not None and _is_integer(source, name, known)
                found.append((source, (scale, known[f"{name}_zero_point"]) if integers else None))
    return found


def _is_integer(source: fx.Node, name: str, known: dict[str, Any]) -> bool:
    value = source.meta.get("val")
    if isinstance(value, torch.Tensor):
        return not value.is_floating_point()
    return name == "input" or (known[f"{name}_scale"], known[f"{name}_zero_point"]) != (1.0, 0)
