"""Float attention of a lowered graph runs in this library's operator: torch's takes twice its time."""

from typing import Any

import torch
from torch import fx

from torch_ao_ext._graph_ops import arguments_of
from torch_ao_ext._lower._attention import same_batch
from torch_ao_ext.quantization.pt2e._graph import replace_node
from torch_ao_ext.quantization.quantizer._targets import is_call

__all__ = ["lower_sdpa"]

aten, ao = torch.ops.aten, torch.ops.torch_ao


def _value(node: Any) -> torch.Tensor | None:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value if isinstance(value, torch.Tensor) else None


def _taken(a: dict[str, Any]) -> bool:
    """Whether the operator computes the same: no dropout, no repeated heads or batches, float32."""
    values = [_value(a[name]) for name in ("query", "key", "value")]
    if any(v is None or v.dtype != torch.float32 or v.dim() < 2 for v in values):
        return False
    alike = same_batch([a[name] for name in ("query", "key", "value")])
    mask = a.get("attn_mask")
    if mask is not None:
        mask_value = _value(mask)
        if mask_value is None or mask_value.dtype not in (torch.bool, torch.float32):
            return False
        if mask_value.dim() > values[0].dim() or a.get("is_causal"):
            return False
    scale = a.get("scale")
    usual_scale = scale is None or (isinstance(scale, (int, float)) and 1e-30 < scale < 1e30)
    return alike and usual_scale and not a.get("dropout_p") and not a.get("enable_gqa")


def lower_sdpa(model: fx.GraphModule) -> None:
    """Replaces scaled_dot_product_attention of float32 values; in place."""
    for node in list(model.graph.nodes):
        if not is_call(node, {aten.scaled_dot_product_attention.default}):
            continue
        a = arguments_of(node)
        if not _taken(a):
            continue
        names = ("query", "key", "value", "attn_mask", "is_causal", "scale")
        with model.graph.inserting_before(node):
            call = model.graph.call_function(
                ao.scaled_dot_product_attention.default,
                tuple(a.get(name, False if name == "is_causal" else None) for name in names),
            )
        replace_node(node, call)
