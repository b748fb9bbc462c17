"""scaled_dot_product_attention as the operators that it stands for, which can be annotated.

softmax(q k^T * scale + mask) v
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from torch_ao_ext._graph_ops import REASON, arguments_of
from torch_ao_ext.quantization.pt2e._graph import add_constant, inherit_meta, tensor_of
from torch_ao_ext.quantization.quantizer._targets import aten, float_value, is_call

ATTENTION = {aten.scaled_dot_product_attention.default}


class _Steps:
    """Makes the nodes of one attention, in front of it."""

    def __init__(self, model: fx.GraphModule, attention: fx.Node) -> None:
        self.model, self.attention = model, attention

    def call(self, target: Any, *args: Any) -> fx.Node:
        """A node whose value is known, as those of an export are."""
        node = self.model.graph.call_function(target, args)
        inherit_meta(node, self.attention)
        node.meta.pop("tensor_meta", None)
        values = [a.meta["val"] if isinstance(a, fx.Node) else a for a in args]
        node.meta["val"] = target(*values)
        return node


def _whole(node: fx.Node) -> str | None:
    """Why an attention stays one operator; None when it need not."""
    given = arguments_of(node)
    q, k, v = (given[name].meta.get("val") for name in ("query", "key", "value"))
    if not all(float_value(given[name]) for name in ("query", "key", "value")):
        return "attention of unknown or integer operands"
    if given.get("dropout_p", 0.0):
        return "attention with dropout"
    if given.get("enable_gqa", False) and q.shape[-3] != k.shape[-3]:
        return "attention whose queries share keys (enable_gqa)"
    if v.dtype != torch.float32:
        return f"attention in {v.dtype}"
    if given.get("is_causal", False) and not all(isinstance(s, int) for s in (q.shape[-2], k.shape[-2])):
        return "causal attention over a free sequence length"
    return None


class _Masks:
    """What is added to the scores, made once for all layers that share a mask."""

    def __init__(self, model: fx.GraphModule) -> None:
        self._model = model
        self._made: dict[Any, fx.Node] = {}

    def _constant(self, name: str, value: torch.Tensor) -> fx.Node:
        with self._model.graph.inserting_before(next(iter(self._model.graph.nodes))):
            return add_constant(self._model, name, value)

    def causal(self, rows: int, columns: int) -> fx.Node:
        """0 where a query may look, -inf behind it."""
        key = (rows, columns)
        if key not in self._made:
            self._made[key] = self._constant("causal_mask", torch.full(key, -math.inf).triu(1))
        return self._made[key]

    def added(self, steps: _Steps, mask: fx.Node) -> fx.Node:
        """The mask itself; of one of booleans 0 where it is True, else -inf."""
        if mask.meta["val"].dtype != torch.bool:
            return mask
        if mask not in self._made:
            known = tensor_of(self._model, mask)
            if known is not None:
                value = torch.zeros(known.shape).masked_fill(~known, -math.inf)
                self._made[mask] = self._constant("attention_mask", value)
            else:
                zeros = steps.call(aten.to.dtype, steps.call(aten.zeros_like.default, mask), torch.float32)
                left_out = steps.call(aten.logical_not.default, mask)
                self._made[mask] = steps.call(aten.masked_fill.Scalar, zeros, left_out, -math.inf)
        return self._made[mask]


def _decompose(model: fx.GraphModule, node: fx.Node, masks: _Masks) -> None:
    given = arguments_of(node)
    q, k, v = given["query"], given["key"], given["value"]
    scale = given.get("scale")
    if scale is None:
        scale = q.meta["val"].shape[-1] ** -0.5
    steps = _Steps(model, node)
    mask = given.get("attn_mask")
    rows, columns = q.meta["val"].shape[-2], k.meta["val"].shape[-2]
    if given.get("is_causal", False):
        mask = masks.causal(rows, columns)
    with model.graph.inserting_before(node):
        x = steps.call(aten.matmul.default, q, steps.call(aten.transpose.int, k, -2, -1))
        x = steps.call(aten.mul.Tensor, x, scale)
        if mask is not None:
            x = steps.call(aten.add.Tensor, x, masks.added(steps, mask))
        x = steps.call(aten.matmul.default, steps.call(aten.softmax.int, x, -1), v)
    node.replace_all_uses_with(x)
    model.graph.erase_node(node)


def decompose_attention(model: fx.GraphModule, wanted: Callable[[fx.Node], bool]) -> fx.GraphModule:
    """Two matmuls and a softmax in the place of each attention that has such a form.

    Args:
        model: changed in place.
        wanted: whether a node is to be decomposed. One that cannot be gets a reason, which
            `report` shows.
    """
    masks = _Masks(model)
    for node in list(model.graph.nodes):
        if not is_call(node, ATTENTION) or not wanted(node):
            continue
        reason = _whole(node)
        if reason is None:
            _decompose(model, node, masks)
        else:
            node.meta[REASON] = f"{reason} has no int8 form"
    model.recompile()
    return model
