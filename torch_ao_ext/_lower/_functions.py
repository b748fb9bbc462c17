"""What else computes in float between integers: functions of one value, activations, resizing."""

from typing import Any

import torch
from torch import fx

from torch_ao_ext._float_functions import FUNCTIONS
from torch_ao_ext._graph_ops import FUSED, Fused
from torch_ao_ext._lower._moves import NEAREST, spatial_sizes
from torch_ao_ext._lower._post_ops import plain_tail, read_tail, replace_tail, unary
from torch_ao_ext._lower._qdq import dequantized, quantize_qparams
from torch_ao_ext.quantization.pt2e._graph import (
    add_constant,
    inherit_meta,
    replace_node,
    set_value,
    tensor_of,
)
from torch_ao_ext.quantization.quantizer._targets import argument, aten, is_call, only_user

__all__ = ["lower_function", "nearest_of_integers"]

ao = torch.ops.torch_ao

_OVERLOADS = ("default", "Tensor", "Scalar", "Tensor_Scalar")


def _pointwise() -> set[Any]:
    names = [name + end for name in FUNCTIONS for end in ("", "_")]
    packets = [getattr(aten, name) for name in names if hasattr(aten, name)]
    return {getattr(p, o) for p in packets for o in _OVERLOADS if o in p.overloads()}


_POINTWISE = _pointwise()


def _numbers_only(model: fx.GraphModule, node: fx.Node) -> bool:
    """Whether all that node reads beside its first argument is known now."""
    rest = (*node.args[1:], *node.kwargs.values())
    if is_call(node, {aten.prelu.default}):
        return tensor_of(model, node.args[1]) is not None
    return not any(isinstance(a, (fx.Node, list, tuple)) for a in rest)


def _chain(model: fx.GraphModule, first: fx.Node) -> list[fx.Node]:
    """The functions of one value that follow each other from node on."""
    chain: list[fx.Node] = []
    node: fx.Node | None = first
    while node is not None and (unary(node) is not None or is_call(node, _POINTWISE)):
        reads = node.args[0] if node.args else None
        if (chain and reads is not chain[-1]) or not _numbers_only(model, node):
            break
        chain.append(node)
        node = only_user(node)
    return chain


def _function(model: fx.GraphModule, node: fx.Node) -> bool:
    """Functions of one value between integers: a table of what they give for each of the 256."""
    found = dequantized(node.args[0]) if node.args else None
    if found is None:
        return False
    chain = _chain(model, node)
    last = only_user(chain[-1]) if chain else None
    output = quantize_qparams(last)
    if last is None or output is None or all(unary(n) is not None for n in chain):
        return False
    source, qparams = found
    slopes = [tensor_of(model, n.args[1]) for n in chain if is_call(n, {aten.prelu.default})]
    channels = max((s.numel() for s in slopes if s is not None), default=1)
    info = torch.iinfo(qparams.dtype)
    every = torch.arange(info.min, info.max + 1).to(qparams.dtype).expand(1, channels, 256)
    with torch.no_grad():
        y = node.args[0].target(every, *node.args[0].args[1:])
        for step in chain:
            rest = [tensor_of(model, a) if isinstance(a, fx.Node) else a for a in step.args[1:]]
            y = step.target(y.clone(), *rest, **step.kwargs)
        table = last.target(y, *last.args[1:])[0].contiguous()
    table = table[0] if channels == 1 else table
    with model.graph.inserting_before(next(iter(model.graph.nodes))):
        constant = add_constant(model, f"_{node.name}_table", table)
    set_value(constant, table)
    with model.graph.inserting_before(last):
        call = model.graph.call_function(ao.lookup.default, (source, constant))
    inherit_meta(call, last)
    call.meta[FUSED] = Fused(tuple(n.name for n in chain), (output.scale, output.zero_point))
    last.replace_all_uses_with(call)
    for old in (last, *reversed(chain)):
        model.graph.erase_node(old)
    return True


def _activation(model: fx.GraphModule, node: fx.Node) -> bool:
    """An activation of floats in front of a quantize."""
    source = node.args[0] if node.args else None
    value = source.meta.get("val") if isinstance(source, fx.Node) else None
    if unary(node) is None or dequantized(source) is not None or not isinstance(value, torch.Tensor):
        return False
    if value.dtype not in (torch.float32, torch.bfloat16):
        return False
    tail = read_tail(node, adds=False)
    if tail.output is None:
        return False
    name, numbers = unary(node) or ("", [])
    out = tail.output
    arguments = (
        source, 1.0, 0, out.scale, out.zero_point, out.dtype, ",".join([name, *tail.names]),
        [*numbers, *tail.numbers],
    )  # fmt: skip
    return replace_tail(model, tail, ao.requantize.default, arguments)


def _resize(model: fx.GraphModule, node: fx.Node) -> bool:
    """Bilinear interpolation between integers; nearest is a move."""
    found, sizes = dequantized(node.args[0]), spatial_sizes(node)
    if found is None or sizes is None:
        return False
    tail = plain_tail(node)
    output = tail.output
    if output is None:
        return False
    source, qparams = found
    arguments = (
        source, qparams.scale, qparams.zero_point, output.scale, output.zero_point, output.dtype,
        sizes, "bilinear", bool(node.args[2]), argument(node, 3) or [],
    )  # fmt: skip
    return replace_tail(model, tail, ao.interpolate.default, arguments)


def nearest_of_integers(model: fx.GraphModule) -> None:
    """Nearest interpolation of integers by the int8 operator: torch has none for int8; in place."""
    for node in list(model.graph.nodes):
        value = node.meta.get("val") if is_call(node, set(NEAREST)) else None
        if not isinstance(value, torch.Tensor) or value.dtype not in (torch.uint8, torch.int8):
            continue
        sizes = spatial_sizes(node)
        if sizes is None:
            continue
        # Any qparams: they are those of the input.
        rest = (1.0, 0, 1.0, 0, None, sizes, "nearest", False, argument(node, 2) or [])
        with model.graph.inserting_before(node):
            call = model.graph.call_function(ao.interpolate.default, (node.args[0], *rest))
        replace_node(node, call)


def lower_function(model: fx.GraphModule, node: fx.Node) -> bool:
    """Replaces a node with all that it absorbs.

    Returns:
        Whether it did.
    """
    if node.op != "call_function":
        return False
    if is_call(node, {aten.upsample_bilinear2d.vec}):
        return _resize(model, node)
    return _function(model, node) or _activation(model, node)
