"""Products of two activations, and softmax, between quantized tensors: one operator each, or all in one."""

from dataclasses import replace
from typing import Any

import torch
from torch import fx

from torch_ao_ext._graph_ops import FUSED, Fused, arguments_of
from torch_ao_ext._lower._post_ops import plain_tail, read_tail, replace_tail
from torch_ao_ext._lower._qdq import QParams, dequantized
from torch_ao_ext.quantization.pt2e._graph import replace_node
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
    tail = plain_tail(node)
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


def same_batch(nodes: list[fx.Node]) -> bool:
    """Whether the values of nodes have the same sizes before their last two."""
    first, *others = (node.meta["val"].shape[:-2] for node in nodes)
    return all(
        len(other) == len(first) and all(x is y or x == y for x, y in zip(first, other, strict=True))
        for other in others
    )


def _products_around(softmax: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """The products q k^T and weights v of a softmax that are one attention with it, None for others."""
    given, second = arguments_of(softmax), only_user(softmax)
    first = given["input"]
    if not (is_call(first, {ao.matmul.default}) and is_call(second, {ao.matmul.default})):
        return None
    if not all(FUSED in node.meta for node in (first, softmax, second)):
        return None  # the model's own calls
    scores, values = arguments_of(first), arguments_of(second)
    operands = [scores["input"], scores["other"], values["other"]]
    if any("val" not in node.meta for node in (softmax, *operands)):
        return None
    alone = only_user(first) is softmax and values["input"] is softmax and values["other"] is not softmax
    over_keys = given["dim"] in (-1, softmax.meta["val"].dim() - 1)
    plain = not scores["post_ops"] and not values["post_ops"]
    if not (alone and over_keys and plain and scores["output_dtype"] == torch.float32):
        return None
    return (first, second) if same_batch(operands) else None


def _swapped(node: fx.Node) -> bool:
    """Whether a node is another one with its last two dimensions exchanged."""
    if not is_call(node, {aten.transpose.int}):
        return False
    rank = node.meta["val"].dim()
    return {d % rank for d in node.args[1:]} == {rank - 2, rank - 1}


def _keys(model: fx.GraphModule, transposed: fx.Node) -> fx.Node:
    """The keys, of k^T."""
    if _swapped(transposed):
        return transposed.args[0]
    keys = model.graph.call_function(aten.transpose.int, (transposed, -2, -1))
    keys.meta["val"] = transposed.meta["val"].transpose(-2, -1)
    return keys


def lower_attention(model: fx.GraphModule) -> None:
    """Of matmul -> softmax -> matmul between integers `attention` is made; in place.

    Its weights have a step for each row, not the one that the graph quantizes them with: what it
    computes is within its own error of the softmax of floats. Scores in 8 bits stay as they are asked for.
    """
    for softmax in list(model.graph.nodes):
        found = _products_around(softmax) if is_call(softmax, {ao.softmax.default}) else None
        if found is None:
            continue
        first, second = found
        scores, given, values = arguments_of(first), arguments_of(softmax), arguments_of(second)
        with model.graph.inserting_before(second):
            arguments = (
                scores["input"], scores["input_scale"], scores["input_zero_point"],
                _keys(model, scores["other"]), scores["other_scale"], scores["other_zero_point"],
                values["other"], values["other_scale"], values["other_zero_point"],
                values["output_scale"], values["output_zero_point"], values["output_dtype"],
                given.get("attn_mask"), False, given["input_scale"],
            )  # fmt: skip
            call = model.graph.call_function(ao.attention.default, arguments)
        parts = [node.meta[FUSED] for node in (first, softmax, second)]
        call.meta[FUSED] = Fused(tuple(name for part in parts for name in part.nodes), parts[-1].output)
        replace_node(second, call)
        for node in (softmax, first):
            model.graph.erase_node(node)
    model.graph.eliminate_dead_code()
