"""Normalizations with integers on one side or both become one operator each.

layer_norm, rms_norm and batch_norm take floats too, so that `norm -> quantize` between a float
operator and an int8 one is no float island; a residual add in front of layer_norm joins it.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from torch_ao_ext._graph_ops import FUSED, Fused
from torch_ao_ext._lower._post_ops import Tail, read_tail, replace_tail
from torch_ao_ext._lower._qdq import QParams, dequantized, quantize_qparams
from torch_ao_ext.quantization.pt2e._graph import add_constant, inherit_meta, set_value, tensor_of
from torch_ao_ext.quantization.quantizer._targets import argument, aten, only_user, plain_add

__all__ = ["lower_norm"]

ao = torch.ops.torch_ao

_REAL = (torch.float32, torch.bfloat16)


def _input(node: Any) -> tuple[Any, ...]:
    """(node, scale, zero point) of an operand: 8-bit integers, or the floats themselves."""
    found = dequantized(node)
    if found is None:
        return node, 1.0, 0
    source, qparams = found
    return source, qparams.scale, qparams.zero_point


def _output(output: QParams | None) -> tuple[Any, ...]:
    return (1.0, 0, torch.float32) if output is None else (output.scale, output.zero_point, output.dtype)


def _float32(node: Any) -> bool:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32


def _parameters(*nodes: Any) -> bool:
    """Whether the operators read these weights."""
    values = [node.meta.get("val") for node in nodes if isinstance(node, fx.Node)]
    return all(isinstance(v, torch.Tensor) and v.dtype in _REAL for v in values)


def _constants(model: fx.GraphModule, *nodes: Any) -> tuple[Any, ...]:
    """Weights as buffers: a parameter would take every call through autograd."""
    made = []
    for node in nodes:
        value = tensor_of(model, node)
        if isinstance(value, torch.nn.Parameter):
            with model.graph.inserting_before(next(iter(model.graph.nodes))):
                new = add_constant(model, node.target.replace(".", "_"), value.detach().clone())
            set_value(new, value.detach())
            node = new
        made.append(node)
    return tuple(made)


def _finish(
    model: fx.GraphModule, tail: Tail, target: Any, head: tuple[Any, ...], rest: tuple[Any, ...]
) -> bool:
    """One call in the place of the tail, with its qparams and post-ops."""
    arguments = (*head, *_output(tail.output), *rest, ",".join(tail.names), tail.numbers)
    return replace_tail(model, tail, target, arguments)


def _worth_it(tail: Tail, *operands: Any) -> bool:
    """Floats on both sides stay with torch."""
    return tail.output is not None or any(dequantized(node) is not None for node in operands)


def _same(a: Any, b: Any) -> bool:
    return a.meta["val"].shape == b.meta["val"].shape and _float32(a) and _float32(b)


def _layer_norm(model: fx.GraphModule, node: fx.Node) -> bool:
    source, shape = node.args[0], node.args[1]
    weight, bias, eps = argument(node, 2), argument(node, 3), argument(node, 4, 1e-5)
    if not _float32(source) or not _parameters(weight, bias):
        return False
    tail = read_tail(node, adds=False)
    if plain_add(source) and _same(*source.args) and _worth_it(tail, *source.args):
        a, b = source.args
        head = (*_input(a), *_input(b), *_constants(model, weight, bias))
        if only_user(source) is node:
            tail.nodes.insert(0, source)
            return _finish(model, tail, ao.add_layer_norm.default, head, (shape, eps))
        if _before(model, head, source):
            return _with_sum(model, source, tail, head, (shape, eps))
    if not _worth_it(tail, source):
        return False
    return _finish(
        model, tail, ao.layer_norm.default, (*_input(source), *_constants(model, weight, bias)), (shape, eps)
    )


def _before(model: fx.GraphModule, arguments: tuple[Any, ...], node: fx.Node) -> bool:
    """Whether a call at node's place can read them."""
    order = {n: i for i, n in enumerate(model.graph.nodes)}
    return all(order[a] < order[node] for a in arguments if isinstance(a, fx.Node))


def _with_sum(
    model: fx.GraphModule, add: fx.Node, tail: Tail, head: tuple[Any, ...], rest: tuple[Any, ...]
) -> bool:
    """The sum has other readers: one operator in the place of the add gives both."""
    arguments = (*head, *_output(tail.output), *rest, ",".join(tail.names), tail.numbers)
    with model.graph.inserting_before(add):
        both = model.graph.call_function(ao.add_layer_norm_sum.default, arguments)
        results = [model.graph.call_function(operator.getitem, (both, i)) for i in (0, 1)]
    inherit_meta(both, tail.nodes[0])
    for key in ("val", "tensor_meta"):
        both.meta.pop(key, None)
    output = None if tail.output is None else (tail.output.scale, tail.output.zero_point)
    names = [n.name for n in tail.nodes if quantize_qparams(n) is None]
    both.meta[FUSED] = Fused((add.name, *names), output)
    for result, old in zip(results, (tail.last, add), strict=True):
        inherit_meta(result, old)
        old.replace_all_uses_with(result)
    for old in (*reversed(tail.nodes), add):
        model.graph.erase_node(old)
    return True


def _rms_norm(model: fx.GraphModule, node: fx.Node) -> bool:
    source, weight = node.args[0], argument(node, 2)
    tail = read_tail(node, adds=False)
    if not _float32(source) or not _parameters(weight) or not _worth_it(tail, source):
        return False
    rest = (node.args[1], argument(node, 3))
    return _finish(model, tail, ao.rms_norm.default, (*_input(source), *_constants(model, weight)), rest)


def _batch_norm(model: fx.GraphModule, node: fx.Node) -> bool:
    source, weight, bias, mean, var, training, _, eps = node.args[:8]
    if training or mean is None or var is None or not _parameters(weight, bias, mean, var):
        return False
    tail = read_tail(node, adds=False)
    if not _float32(source) or not _worth_it(tail, source):
        return False
    constants = _constants(model, mean, var, weight, bias)
    return _finish(model, tail, ao.batch_norm.default, (*_input(source), *constants), (eps,))


def _of_integers(
    model: fx.GraphModule, node: fx.Node, target: Any, parameters: tuple[Any, ...], rest: tuple[Any, ...]
) -> bool:
    """Norms over channels, whose operators take integers only."""
    if dequantized(node.args[0]) is None or not _parameters(*parameters):
        return False
    tail = read_tail(node, adds=False)
    return _finish(model, tail, target, (*_input(node.args[0]), *_constants(model, *parameters)), rest)


def _group_norm(model: fx.GraphModule, node: fx.Node) -> bool:
    parameters = (argument(node, 2), argument(node, 3))
    rest = (node.args[1], argument(node, 4, 1e-5))
    return _of_integers(model, node, ao.group_norm.default, parameters, rest)


def _instance_norm(model: fx.GraphModule, node: fx.Node) -> bool:
    _, weight, bias, mean, var, use_input, _, eps = node.args[:8]
    if use_input:
        return _of_integers(model, node, ao.instance_norm.default, (weight, bias), (eps,))
    return _of_integers(model, node, ao.batch_norm.default, (mean, var, weight, bias), (eps,))


_RULES: dict[Any, Callable[[fx.GraphModule, fx.Node], bool]] = {
    aten.layer_norm.default: _layer_norm,
    aten.rms_norm.default: _rms_norm,
    aten.batch_norm.default: _batch_norm,
    aten.group_norm.default: _group_norm,
    aten.instance_norm.default: _instance_norm,
}


def lower_norm(model: fx.GraphModule, node: fx.Node) -> bool:
    """Replaces a normalization with all that it absorbs.

    Returns:
        Whether it did.
    """
    rule = _RULES.get(node.target) if node.op == "call_function" else None
    return rule is not None and rule(model, node)
