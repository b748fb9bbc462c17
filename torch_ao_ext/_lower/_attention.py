"""Products of two activations, and softmax, between quantized tensors become one operator each."""

from dataclasses import replace
from typing import Any

import torch
from torch import fx

from torch_ao_ext._lower._post_ops import Tail, read_tail, replace_tail
from torch_ao_ext._lower._qdq import QParams, dequantized, quantize_qparams
from torch_ao_ext.quantization.quantizer._targets import (
    MUL,
    argument,
    aten,
    is_call,
    only_user,
    plain_add,
)

ao = torch.ops.torch_ao

SOFTMAX = {aten.softmax.int, aten._softmax.default}
_DIV = {aten.div.Tensor, aten.div_.Tensor}


def output_arguments(output: QParams | None) -> tuple[Any, ...]:
    """output_scale, output_zero_point, output_dtype of an operator; None: float."""
    if output is None:
        return 1.0, 0, torch.float32
    return output.scale, output.zero_point, output.dtype


def _factor(node: Any) -> float | None:
    """The positive number that a node multiplies one tensor with, None for anything else."""
    if not is_call(node, MUL | _DIV) or len(node.args) != 2 or not isinstance(node.args[1], (int, float)):
        return None
    number = float(node.args[1])
    if not 1e-30 < number < 1e30:
        return None
    return number if is_call(node, MUL) else 1 / number


def lower_matmul(model: fx.GraphModule, node: fx.Node) -> bool:
    """One operator for dequantize -> matmul -> times a number -> activations -> quantize."""
    first, second = dequantized(node.args[0]), dequantized(node.args[1])
    if first is None or second is None:
        return False
    values = [a.meta.get("val") for a in node.args]
    if any(value is None or value.dim() < 2 for value in values):
        return False
    scaled = only_user(node)
    factor = _factor(scaled)
    tail = read_tail(node if factor is None else scaled, adds=False)
    if factor is not None:
        tail.nodes.insert(0, node)
        first = first[0], replace(first[1], scale=first[1].scale * factor)
    operands = [part for q, p in (first, second) for part in (q, p.scale, p.zero_point)]
    arguments = (*operands, *output_arguments(tail.output), ",".join(tail.names), tail.numbers)
    return replace_tail(model, tail, ao.matmul.default, arguments)


def _expands(mask: fx.Node, scores: fx.Node) -> bool:
    """Whether a float32 mask has sizes that expand to those of the scores."""
    have, want = mask.meta["val"], scores.meta["val"]
    if have.dtype != torch.float32 or have.dim() > want.dim():
        return False
    pairs = zip(have.shape[::-1], want.shape[::-1], strict=False)
    return all((isinstance(h, int) and h == 1) or h is w or h == w for h, w in pairs)


def _absorb_mask(node: fx.Node, before: list[fx.Node]) -> tuple[fx.Node, fx.Node | None]:
    """(scores, mask) of scores + mask that only the softmax reads."""
    if not plain_add(node) or only_user(node) is None:
        return node, None
    for scores, mask in (node.args, reversed(node.args)):
        if scores.meta["val"].shape == node.meta["val"].shape and _expands(mask, scores):
            before.insert(0, node)
            return scores, mask
    return node, None


def lower_softmax(model: fx.GraphModule, node: fx.Node) -> bool:
    """One operator for (dequantize) -> times a number -> + mask -> softmax -> (quantize).

    One end at least is quantized.
    """
    if argument(node, 2) not in (None, False, torch.float32) or node.kwargs.get("dtype") not in (
        None,
        torch.float32,
    ):
        return False
    tail = Tail([node])
    after = only_user(node)
    output = quantize_qparams(after)
    if output is not None and output.full_range:
        tail.nodes.append(after)
        tail.output = output
    before: list[fx.Node] = []
    scores, mask = _absorb_mask(node.args[0], before)
    scale = 1.0
    factor = _factor(scores)
    if factor is not None and only_user(scores) is not None:
        before.insert(0, scores)
        scores, scale = scores.args[0], factor
    found = dequantized(scores)
    if found is None and (tail.output is None or not _real(scores)):
        return False
    source, zero_point = scores, 0
    if found is not None:
        source, scale, zero_point = found[0], scale * found[1].scale, found[1].zero_point
    tail.nodes = [*before, *tail.nodes]
    arguments = (source, node.args[1], scale, zero_point, *output_arguments(tail.output), mask)
    return replace_tail(model, tail, ao.softmax.default, arguments)


def _real(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype in (torch.float32, torch.bfloat16)
