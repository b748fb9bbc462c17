"""Takes away what computes nothing: dropout in evaluation mode, padding that a conv can do."""

from typing import Any

from torch import fx

from torch_ao_ext.quantization import _decomposed
from torch_ao_ext.quantization.quantizer._targets import (
    CONV,
    RANK,
    argument,
    aten,
    is_call,
    only_user,
)

PAD = {aten.pad.default, aten.constant_pad_nd.default}
_DROPOUT = {aten.dropout.default, aten.dropout_.default, aten.feature_dropout.default}


def pad_value(node: fx.Node) -> float | None:
    """What a constant pad fills in, None for another mode."""
    if node.target is aten.constant_pad_nd.default:
        return float(argument(node, 2, 0))
    mode, value = argument(node, 2, "constant"), argument(node, 3)
    return None if mode != "constant" else float(value or 0)


def _amounts(node: fx.Node) -> list[Any]:
    """[first axis ... last axis] of (before, after), as padding lists have them reversed."""
    values = list(node.args[1])
    return [(values[i], values[i + 1]) for i in range(len(values) - 2, -1, -2)]


def fold_pads(model: fx.GraphModule) -> None:
    """Zero padding before a conv becomes the conv's own; padding of nothing goes.

    A quantize and dequantize between the two stay where they are.
    """
    ops = _decomposed.operators()
    pairs = {ops.quantize_per_tensor.default, ops.dequantize_per_tensor.default}
    for pad in list(model.graph.nodes):
        if not is_call(pad, PAD) or pad_value(pad) != 0 or not all(type(v) is int for v in pad.args[1]):
            continue
        amounts = _amounts(pad)
        if all(a == b == 0 for a, b in amounts):
            pad.replace_all_uses_with(pad.args[0])
            model.graph.erase_node(pad)
            continue
        conv: Any = only_user(pad)
        while conv is not None and is_call(conv, pairs):
            conv = only_user(conv)
        if conv is None or not is_call(conv, CONV) or isinstance(argument(conv, 4, 0), str):
            continue
        rank = RANK[conv.target]
        even = all(a == b and a >= 0 for a, b in amounts)
        if not even or len(amounts) > rank or pad.args[0].meta["val"].dim() != rank + 2:
            continue
        extra = [0] * (rank - len(amounts)) + [a for a, _ in amounts]
        own = argument(conv, 4, 0)
        own = list(own) if isinstance(own, (list, tuple)) else [own]
        own = own * rank if len(own) == 1 else own
        arguments = list(conv.args)
        arguments += [None, [1] * rank, [0] * rank][len(arguments) - 2 :]
        arguments[4] = [a + b for a, b in zip(own, extra, strict=True)]
        conv.args = tuple(arguments)
        pad.replace_all_uses_with(pad.args[0])
        model.graph.erase_node(pad)


def drop_dropouts(model: fx.GraphModule) -> None:
    """Dropout in evaluation mode is nothing."""
    for node in list(model.graph.nodes):
        if is_call(node, _DROPOUT) and not node.args[2]:
            node.replace_all_uses_with(node.args[0])
            model.graph.erase_node(node)
