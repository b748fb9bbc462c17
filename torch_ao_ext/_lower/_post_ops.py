"""What stands behind a product and runs inside it: activations, one add, one batch norm, the quantize."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from torch_ao_ext._graph_ops import FUSED, Fused
from torch_ao_ext._lower._qdq import QParams, dequantized, quantize_qparams
from torch_ao_ext.ops._post_ops import MAX_POST_OPS
from torch_ao_ext.quantization.pt2e._graph import inherit_meta
from torch_ao_ext.quantization.quantizer._targets import (
    BATCH_NORM,
    LINEAR,
    argument,
    aten,
    is_call,
    only_user,
    plain_add,
)

Numbers = list[float] | None
# Constant factor and offset of a batch norm, None when it has none.
Affine = Callable[[fx.Node], tuple[fx.Node, fx.Node] | None]


def _bounds(node: fx.Node) -> Numbers:
    low, high = argument(node, 1), argument(node, 2)
    low, high = node.kwargs.get("min", low), node.kwargs.get("max", high)
    if isinstance(low, fx.Node) or isinstance(high, fx.Node):
        return None
    return [-math.inf if low is None else float(low), math.inf if high is None else float(high)]


def _hardtanh(node: fx.Node) -> Numbers:
    return [float(argument(node, 1, -1.0)), float(argument(node, 2, 1.0))]


def _slope(node: fx.Node) -> Numbers:
    return [float(argument(node, 1, 0.01))]


def _none(node: fx.Node) -> Numbers:
    return []


# ATen operator -> (post-op, its numbers).
_UNARY: dict[Any, tuple[str, Callable[[fx.Node], Numbers]]] = {
    aten.relu.default: ("relu", _none),
    aten.relu6.default: ("clamp", lambda node: [0.0, 6.0]),
    aten.hardtanh.default: ("clamp", _hardtanh),
    aten.clamp.default: ("clamp", _bounds),
    aten.clamp_min.default: ("clamp", lambda node: [float(node.args[1]), math.inf]),
    aten.clamp_max.default: ("clamp", lambda node: [-math.inf, float(node.args[1])]),
    aten.leaky_relu.default: ("leaky_relu", _slope),
    aten.silu.default: ("silu", _none),
    aten.hardswish.default: ("hardswish", _none),
    aten.hardsigmoid.default: ("hardsigmoid", _none),
    aten.sigmoid.default: ("sigmoid", _none),
    aten.tanh.default: ("tanh", _none),
}
_UNARY |= {
    aten.relu_.default: _UNARY[aten.relu.default],
    aten.hardtanh_.default: _UNARY[aten.hardtanh.default],
    aten.leaky_relu_.default: _UNARY[aten.leaky_relu.default],
    aten.silu_.default: _UNARY[aten.silu.default],
    aten.hardswish_.default: _UNARY[aten.hardswish.default],
    aten.hardsigmoid_.default: _UNARY[aten.hardsigmoid.default],
}


def unary(node: Any) -> tuple[str, list[float]] | None:
    """(post-op, numbers) of an activation, None for anything else."""
    if not isinstance(node, fx.Node) or node.op != "call_function":
        return None
    if any(isinstance(a, fx.Node) for a in (*node.args[1:], *node.kwargs.values())):
        return None  # a bound or slope that is computed
    if node.target is aten.gelu.default:
        tanh = node.kwargs.get("approximate", argument(node, 1, "none")) == "tanh"
        return ("gelu_tanh" if tanh else "gelu"), []
    if node.target not in _UNARY:
        return None
    name, numbers = _UNARY[node.target]
    values = numbers(node)
    return None if values is None else (name, values)


@dataclass
class Tail:
    """The nodes behind a product that become part of it.

    Attributes:
        nodes: the product and what it absorbs, in order.
        names: post-ops.
        numbers: their arguments.
        other: operand of add: a float node, or an 8-bit node with other_qparams.
        other_float: the same operand as float node.
        other_qparams: qparams of other, None for a float.
        slope: slopes of prelu, a constant.
        affine: factor and offset of a batch norm, constants.
        output: qparams of the result, None for a float result.
    """

    nodes: list[fx.Node]
    names: list[str] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)
    other: fx.Node | None = None
    other_float: fx.Node | None = None
    other_qparams: QParams | None = None
    slope: fx.Node | None = None
    affine: tuple[fx.Node, fx.Node] | None = None
    output: QParams | None = None

    @property
    def last(self) -> fx.Node:
        """The node that the lowered operator replaces."""
        return self.nodes[-1]


def _absorb_add(tail: Tail, add: fx.Node) -> bool:
    node = tail.last
    if tail.other is not None or not plain_add(add) or add.args[0] is add.args[1]:
        return False
    other = add.args[1] if add.args[0] is node else add.args[0]
    if add.meta["val"].shape != other.meta["val"].shape or other.meta["val"].dtype != torch.float32:
        return False
    found = dequantized(other)
    tail.other, tail.other_qparams = (other, None) if found is None else found
    tail.other_float = other
    tail.names.append("add")
    tail.nodes.append(add)
    return True


def _columns_are_channels(tail: Tail) -> bool:
    """Whether dimension 1 is that of the product's columns."""
    return not is_call(tail.nodes[0], LINEAR) or tail.nodes[0].meta["val"].dim() == 2


def _absorb_norm(tail: Tail, norm: fx.Node, affine: Affine) -> bool:
    """A batch norm in evaluation mode, behind an activation or an add."""
    if tail.affine is not None or not is_call(norm, BATCH_NORM) or not _columns_are_channels(tail):
        return False
    tail.affine = affine(norm)
    if tail.affine is None:
        return False
    tail.names.append("affine")
    tail.nodes.append(norm)
    return True


def _absorb_prelu(tail: Tail, prelu: fx.Node) -> bool:
    """Slopes are of dimension 1, as the channels of a batch norm."""
    if tail.slope is not None or prelu.target is not aten.prelu.default or prelu.args[0] is not tail.last:
        return False
    slope = prelu.args[1]
    if slope.op != "get_attr" or not (_columns_are_channels(tail) or slope.meta["val"].numel() == 1):
        return False
    tail.slope = slope
    tail.names.append("prelu")
    tail.nodes.append(prelu)
    return True


def read_tail(node: fx.Node, adds: bool = True, affine: Affine | None = None) -> Tail:
    """Follows the only readers of a node as far as they can be absorbed.

    Args:
        node: a product or an elementwise operator.
        adds: the operator takes a tensor that is added, and slopes of prelu.
        affine: the operator takes the constants that this makes of a batch norm, too.
    """
    tail = Tail([node])
    while len(tail.names) < MAX_POST_OPS - 1:  # leaves room for the clamp of a narrow output range
        after = only_user(tail.last)
        if after is None:
            return tail
        found = unary(after)
        if found is not None:
            tail.names.append(found[0])
            tail.numbers += found[1]
            tail.nodes.append(after)
        elif not adds or not (
            _absorb_add(tail, after)
            or _absorb_prelu(tail, after)
            or (affine is not None and _absorb_norm(tail, after, affine))
        ):
            break
    after = only_user(tail.last)
    output = quantize_qparams(after)
    if output is not None:
        if not output.full_range:  # integers saturate at the dtype's range, so cut before
            tail.names.append("clamp")
            tail.numbers += [
                (bound - output.zero_point) * output.scale for bound in (output.low, output.high)
            ]
        tail.output = output
        tail.nodes.append(after)
    return tail


def plain_tail(node: fx.Node) -> Tail:
    """A node of an operator without post-ops; with the quantize behind it, if to the dtype's whole range."""
    tail = Tail([node])
    after = only_user(node)
    output = quantize_qparams(after)
    if after is not None and output is not None and output.full_range:
        tail.nodes.append(after)
        tail.output = output
    return tail


def replace_tail(model: fx.GraphModule, tail: Tail, target: Any, arguments: tuple[Any, ...]) -> bool:
    """Puts one call in the place of the tail's nodes; True."""
    last = tail.last
    with model.graph.inserting_before(last):
        call = model.graph.call_function(target, arguments)
    inherit_meta(call, tail.nodes[0])
    for key in ("val", "tensor_meta"):
        call.meta.pop(key, None)
        if key in last.meta:
            call.meta[key] = last.meta[key]
    output = None if tail.output is None else (tail.output.scale, tail.output.zero_point)
    names = [n.name for n in tail.nodes if quantize_qparams(n) is None]
    call.meta[FUSED] = Fused(tuple(names), output)
    last.replace_all_uses_with(call)
    for node in reversed(tail.nodes):
        model.graph.erase_node(node)
    return True
