"""What stands between quantized tensors and has no weight becomes one operator each."""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from torch_ao_ext._dimensions import each_dimension
from torch_ao_ext._graph_ops import FUSED, Fused
from torch_ao_ext._lower._attention import (
    SOFTMAX,
    lower_matmul,
    lower_softmax,
    output_arguments,
)
from torch_ao_ext._lower._post_ops import plain_tail, read_tail, replace_tail, unary
from torch_ao_ext._lower._qdq import QParams, dequantized, quantize_qparams
from torch_ao_ext.quantization.pt2e._graph import inherit_meta, replace_node, retype
from torch_ao_ext.quantization.quantizer._targets import (
    ADD,
    MATMUL,
    MUL,
    argument,
    aten,
    is_call,
    only_user,
)

ao = torch.ops.torch_ao

_MAX_POOL = {
    aten.max_pool1d.default: (1, ao.max_pool1d.default),
    aten.max_pool2d.default: (2, ao.max_pool2d.default),
    aten.max_pool3d.default: (3, ao.max_pool3d.default),
}
_AVG_POOL = {
    aten.avg_pool1d.default: (1, ao.avg_pool1d.default),
    aten.avg_pool2d.default: (2, ao.avg_pool2d.default),
    aten.avg_pool3d.default: (3, ao.avg_pool3d.default),
}
_ADAPTIVE = {
    aten.adaptive_avg_pool1d.default: (1, ao.adaptive_avg_pool1d.default),
    aten.adaptive_avg_pool2d.default: (2, ao.adaptive_avg_pool2d.default),
    aten.adaptive_avg_pool3d.default: (3, ao.adaptive_avg_pool3d.default),
}


def _binary(model: fx.GraphModule, node: fx.Node, target: Any) -> bool:
    if len(node.args) != 2 or node.kwargs.get("alpha", 1) != 1:
        return False
    first, second = dequantized(node.args[0]), dequantized(node.args[1])
    if first is None or second is None:
        return False
    tail = read_tail(node, adds=False)
    operands = [part for q, p in (first, second) for part in (q, p.scale, p.zero_point)]
    arguments = (*operands, *output_arguments(tail.output), ",".join(tail.names), tail.numbers)
    return replace_tail(model, tail, target, arguments)


def _activation(model: fx.GraphModule, node: fx.Node) -> bool:
    """An activation between quantized tensors; one that gives floats stays as it is."""
    found = dequantized(node.args[0])
    if found is None or unary(node) is None:
        return False
    tail = read_tail(node, adds=False)
    if tail.output is None:
        return False
    name, numbers = unary(node) or ("", [])
    source, qparams = found
    names, values = [name, *tail.names], [*numbers, *tail.numbers]
    arguments = (
        source, qparams.scale, qparams.zero_point, *output_arguments(tail.output), ",".join(names), values
    )  # fmt: skip
    return replace_tail(model, tail, ao.requantize.default, arguments)


def _batched(node: fx.Node, rank: int) -> bool:
    value = node.args[0].meta.get("val")
    return value is None or value.dim() == rank + 2


def _stride(node: fx.Node, rank: int) -> list[Any]:
    """Stride as numbers: torch's default is the size of the window."""
    return each_dimension(argument(node, 2) or node.args[1], rank)


def _pool_integers(model: fx.GraphModule, node: fx.Node, source: fx.Node, qparams: QParams) -> fx.Node:
    """The pooling of 8-bit values that node does on their real values."""
    rank, target = _MAX_POOL[node.target]
    arguments = (
        source, each_dimension(node.args[1], rank), _stride(node, rank),
        each_dimension(argument(node, 3, 0), rank), each_dimension(argument(node, 4, 1), rank),
        argument(node, 5, False),
    )  # fmt: skip
    pooled = model.graph.call_function(target, arguments)
    inherit_meta(pooled, node)
    retype(pooled, qparams.dtype)
    pooled.meta[FUSED] = Fused((node.name,), (qparams.scale, qparams.zero_point))
    return pooled


def _max_pool(model: fx.GraphModule, node: fx.Node) -> bool:
    """The largest of a window is the largest of the integers; the dequantize moves behind."""
    found = dequantized(node.args[0])
    if found is None or not _batched(node, _MAX_POOL[node.target][0]):
        return False
    with model.graph.inserting_before(node):
        pooled = _pool_integers(model, node, *found)
        back = model.graph.call_function(node.args[0].target, (pooled, *node.args[0].args[1:]))
    replace_node(node, back)
    return True


def quantize_before_max_pool(model: fx.GraphModule, node: fx.Node) -> bool:
    """max_pool -> quantize becomes quantize -> max_pool: quantization keeps the order.

    Returns:
        Whether node was a quantize behind a pooling that nobody else reads.
    """
    output = quantize_qparams(node)
    pool = node.args[0] if output is not None else None
    if output is None or not is_call(pool, set(_MAX_POOL)) or only_user(pool) is not node:
        return False
    if not _batched(pool, _MAX_POOL[pool.target][0]):
        return False
    with model.graph.inserting_before(node):
        quantize = model.graph.call_function(node.target, (pool.args[0], *node.args[1:]))
        inherit_meta(quantize, pool.args[0])
        retype(quantize, output.dtype)
        pooled = _pool_integers(model, pool, quantize, output)
    node.replace_all_uses_with(pooled)
    model.graph.erase_node(node)
    model.graph.erase_node(pool)
    return True


def _average(model: fx.GraphModule, node: fx.Node, rank: int, target: Any, rest: tuple[Any, ...]) -> bool:
    found = dequantized(node.args[0])
    if found is None or not _batched(node, rank):
        return False
    tail = plain_tail(node)
    source, qparams = found
    arguments = (source, qparams.scale, qparams.zero_point, *output_arguments(tail.output), *rest)
    return replace_tail(model, tail, target, arguments)


def _avg_pool(model: fx.GraphModule, node: fx.Node) -> bool:
    rank, target = _AVG_POOL[node.target]
    rest = (
        each_dimension(node.args[1], rank), _stride(node, rank),
        each_dimension(argument(node, 3, 0), rank), argument(node, 4, False), argument(node, 5, True),
        argument(node, 6),
    )  # fmt: skip
    return _average(model, node, rank, target, rest)


def _adaptive(model: fx.GraphModule, node: fx.Node) -> bool:
    rank, target = _ADAPTIVE[node.target]
    return _average(model, node, rank, target, (each_dimension(node.args[1], rank),))


def _mean(model: fx.GraphModule, node: fx.Node) -> bool:
    """Mean over all spatial dimensions is adaptive pooling to one position; channels may be the last one."""
    value = node.args[0].meta.get("val")
    if value is None or value.dim() not in (3, 4, 5) or len(node.args) < 2 or node.args[1] is None:
        return False
    rank = value.dim() - 2
    over = sorted(d % value.dim() for d in node.args[1])
    last = over == list(range(1, rank + 1))
    if not last and over != list(range(2, value.dim())):
        return False
    if node.kwargs.get("dtype") not in (None, torch.float32) or dequantized(node.args[0]) is None:
        return False
    target = {1: aten.adaptive_avg_pool1d, 2: aten.adaptive_avg_pool2d, 3: aten.adaptive_avg_pool3d}[rank]
    axes = list(range(value.dim()))
    with model.graph.inserting_before(node):
        source = node.args[0]
        if last:
            source = model.graph.call_function(aten.permute.default, (source, [0, axes[-1], *axes[1:-1]]))
            source.meta["val"] = value.permute(0, axes[-1], *axes[1:-1])
        result = model.graph.call_function(target.default, (source, [1] * rank))
        if not argument(node, 2, False):
            result = model.graph.call_function(aten.flatten.using_ints, (result, 1))
        elif last:
            result = model.graph.call_function(aten.permute.default, (result, [0, *axes[2:], 1]))
    replace_node(node, result)
    return True  # the pooling is lowered on its own


def _cat(model: fx.GraphModule, node: fx.Node) -> bool:
    """Cat of quantized tensors with the output's qparams, or of any that all have their own."""
    after = only_user(node)
    output = quantize_qparams(after)
    sources = [dequantized(n) for n in node.args[0]]
    if after is None or output is None or not output.full_range or any(s is None for s in sources):
        return False
    found = [s for s in sources if s is not None]
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    arguments = (
        [q for q, _ in found], [p.scale for _, p in found], [p.zero_point for _, p in found], dim,
        output.scale, output.zero_point, output.dtype,
    )  # fmt: skip
    with model.graph.inserting_before(after):
        call = model.graph.call_function(ao.cat.default, arguments)
    inherit_meta(call, after)
    call.meta[FUSED] = Fused((node.name,), (output.scale, output.zero_point))
    after.replace_all_uses_with(call)
    model.graph.erase_node(after)
    model.graph.erase_node(node)
    return True


Rule = Callable[[fx.GraphModule, fx.Node], bool]
_RULES: dict[Any, Rule] = {
    **dict.fromkeys(ADD, lambda model, node: _binary(model, node, ao.add.default)),
    **dict.fromkeys(MUL, lambda model, node: _binary(model, node, ao.mul.default)),
    **dict.fromkeys(MATMUL, lower_matmul),
    **dict.fromkeys(SOFTMAX, lower_softmax),
    **dict.fromkeys(_MAX_POOL, _max_pool),
    **dict.fromkeys(_AVG_POOL, _avg_pool),
    **dict.fromkeys(_ADAPTIVE, _adaptive),
    aten.mean.dim: _mean,
    aten.cat.default: _cat,
}


def lower_between(model: fx.GraphModule, node: fx.Node) -> bool:
    """Replaces one node with all that it absorbs.

    Returns:
        Whether it did.
    """
    if node.op != "call_function":
        return False
    rule = _RULES.get(node.target)
    return rule(model, node) if rule is not None else _activation(model, node)
