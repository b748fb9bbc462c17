"""Operators that move values and do not change them run on the 8-bit values.

Quantize commutes with them: it moves up to the operator that computed the value and can
become part of it; dequantize moves down to the operator that needs the value.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from torch_ao_ext._lower._qdq import QParams, dequantized, quantize_qparams
from torch_ao_ext.quantization.pt2e._graph import inherit_meta, retype
from torch_ao_ext.quantization.pt2e._simplify import PAD, pad_value
from torch_ao_ext.quantization.quantizer._targets import aten, is_call, only_user

NEAREST = (aten.upsample_nearest1d.vec, aten.upsample_nearest2d.vec, aten.upsample_nearest3d.vec)
# One tensor in, its values out.
_MOVES = {
    *NEAREST,
    aten.flatten.using_ints, aten.view.default, aten.reshape.default, aten.permute.default,
    aten.transpose.int, aten.squeeze.dim, aten.squeeze.dims, aten.squeeze.default, aten.unsqueeze.default,
    aten.slice.Tensor, aten.select.int, aten.expand.default, aten.contiguous.default, aten.clone.default,
    aten.unflatten.int, aten.t.default, aten.pixel_shuffle.default, aten.pixel_unshuffle.default,
    aten.channel_shuffle.default, aten.repeat.default,
}  # fmt: skip
# Behind these the tensor is larger: what needs floats reads them before.
_GROWS = {aten.expand.default, aten.repeat.default, *NEAREST}
_RELU = {aten.relu.default, aten.relu_.default}


def spatial_sizes(node: fx.Node) -> list[int] | None:
    """Of the images that a node gives, [N, C, *sizes]; None where they are free."""
    value = node.meta.get("val")
    sizes = list(value.shape[2:]) if isinstance(value, torch.Tensor) else [None]
    return sizes if all(type(n) is int for n in sizes) else None


def _moved(node: fx.Node, qparams: QParams) -> Callable[[fx.Node], tuple[Any, ...]] | None:
    """Arguments of the operator on integers, given its input; None when it has no such form."""
    if is_call(node, set(NEAREST)) and qparams.dtype != torch.uint8 and spatial_sizes(node) is None:
        return None  # torch has none for int8, and the int8 operator takes sizes as numbers
    if is_call(node, _MOVES):
        return lambda source: (source, *node.args[1:])
    if not is_call(node, PAD):
        return None
    value = pad_value(node)
    if value is None:  # reflect, replicate, circular
        return lambda source: (source, *node.args[1:])
    steps = round(value / qparams.scale) + qparams.zero_point
    if value != 0 and (steps - qparams.zero_point) * qparams.scale != value:
        return None
    filled = min(max(steps, qparams.low), qparams.high)
    if node.target is aten.pad.default:
        return lambda source: (source, node.args[1], "constant", filled)
    return lambda source: (source, node.args[1], filled)


def lift_quantize(model: fx.GraphModule, node: fx.Node) -> bool:
    """Move -> quantize becomes quantize -> move.

    Returns:
        Whether node was a quantize behind a move that nobody else reads.
    """
    output = quantize_qparams(node)
    move = node.args[0] if output is not None else None
    if output is None or not isinstance(move, fx.Node) or only_user(move) is not node:
        return False
    arguments = _moved(move, output)
    if arguments is None:
        return False
    with model.graph.inserting_before(node):
        quantize = model.graph.call_function(node.target, (move.args[0], *node.args[1:]))
        result = model.graph.call_function(move.target, arguments(quantize), move.kwargs)
    inherit_meta(quantize, move.args[0])
    inherit_meta(result, move)
    for made in (quantize, result):
        retype(made, output.dtype)
    node.replace_all_uses_with(result)
    model.graph.erase_node(node)
    model.graph.erase_node(move)
    return True


def sink_dequantize(model: fx.GraphModule, node: fx.Node) -> bool:
    """Dequantize -> move becomes move -> dequantize.

    Returns:
        Whether node was a move of a dequantized tensor.
    """
    if not is_call(node, (_MOVES | PAD) - _GROWS):
        return False
    found = dequantized(node.args[0])
    arguments = _moved(node, found[1]) if found is not None else None
    if found is None or arguments is None:
        return False
    source, qparams = found
    with model.graph.inserting_before(node):
        result = model.graph.call_function(node.target, arguments(source), node.kwargs)
        back = model.graph.call_function(node.args[0].target, (result, *node.args[0].args[1:]))
    inherit_meta(result, node)
    inherit_meta(back, node)
    retype(result, qparams.dtype)
    node.replace_all_uses_with(back)
    model.graph.erase_node(node)
    return True


def relu_of_integers(model: fx.GraphModule, node: fx.Node) -> bool:
    """Dequantize -> relu -> quantize of one scale is a clamp of the integers.

    Returns:
        Whether it was.
    """
    found = dequantized(node.args[0]) if is_call(node, _RELU) else None
    after = only_user(node) if found is not None else None
    output = quantize_qparams(after)
    if found is None or output is None or not found[1].same_steps(output):
        return False
    low = max(output.low, output.zero_point)
    with model.graph.inserting_before(after):
        result = model.graph.call_function(aten.clamp.default, (found[0], low, output.high))
    inherit_meta(result, node)
    retype(result, output.dtype)
    after.replace_all_uses_with(result)
    model.graph.erase_node(after)
    model.graph.erase_node(node)
    return True


def cancel(model: fx.GraphModule, node: fx.Node) -> bool:
    """quantize(dequantize(q)) is q, or q with other qparams.

    Returns:
        Whether node was such a quantize.
    """
    output = quantize_qparams(node)
    found = dequantized(node.args[0]) if output is not None else None
    if output is None or found is None:
        return False
    source, qparams = found
    inside = qparams.low >= output.low and qparams.high <= output.high
    if qparams.same_steps(output) and inside:
        node.replace_all_uses_with(source)
    elif output.full_range:
        arguments = (source, qparams.scale, qparams.zero_point, output.scale, output.zero_point, output.dtype)
        with model.graph.inserting_before(node):
            call = model.graph.call_function(torch.ops.torch_ao.requantize.default, arguments)
        inherit_meta(call, node)
        node.replace_all_uses_with(call)
    else:
        return False
    model.graph.erase_node(node)
    return True
