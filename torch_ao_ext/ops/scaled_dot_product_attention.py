"""Attention on float rows."""

import torch

from torch_ao_ext.ops import _fake

__all__ = ["scaled_dot_product_attention"]

Tensor = torch.Tensor

_REAL = (torch.float32, torch.bfloat16)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Computes y = softmax(scale * query key^T + attn_mask) value, as torch's function of this name.

    For inference, without dropout. Computed in float32, in bfloat16 as well: with scores below 100
    a result is within 2e-5 of the largest value of that of float64, to which bfloat16 adds its
    rounding. A query whose keys are all masked gives 0; a NaN among its scores gives NaN. Results
    do not depend on the number of threads or the ISA. The operator of 8-bit values is `attention`.

    Args:
        query: float32 or bfloat16 `[*, L, E]`, any strides.
        key: float32 or bfloat16 `[*, S, E]`.
        value: float32 or bfloat16 `[*, S, Ev]`.
        attn_mask: None; bool, True takes part; float32 or bfloat16, added to the scores. Sizes
            that expand to `[*, L, S]`.
        is_causal: keys at positions above the query's are left out; attn_mask must be None.
        scale: of the scores, a normal float32 above 0; None: 1 / sqrt(E).

    Returns:
        `[*, L, Ev]` of query's dtype. With four or more dimensions, `[*, H, L, Ev]`, it lies in memory
        as `[*, L, H, Ev]`.

    Raises:
        TypeError: wrong dtype.
        ValueError: wrong sizes; a mask beside is_causal; a bad scale.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.randn(2, 4, 10, 16)  # batch, heads, positions, channels
        >>> torch_ao_ext.ops.scaled_dot_product_attention(x, x, x).shape
        torch.Size([2, 4, 10, 16])
    """
    return torch.ops.torch_ao.scaled_dot_product_attention(query, key, value, attn_mask, is_causal, scale)


@torch.library.register_fake("torch_ao::scaled_dot_product_attention")
def _(query, key, value, attn_mask=None, is_causal=False, scale=None):
    op = "scaled_dot_product_attention"
    for name, t in (("query", query), ("key", key), ("value", value)):
        _fake.check_tensor(op, name, t, _REAL)
        _fake.check_min_rank(op, name, t, 2)
    rank = query.dim()
    for name, t in (("key", key), ("value", value)):
        _fake.check_rank(op, name, t, rank)
        for d in range(rank - 2):
            _fake.check_size(op, name, t, d, query.size(d), "query's")
    _fake.check_size(op, "key", key, rank - 1, query.size(-1), "query.size(-1)")
    _fake.check_size(op, "value", value, rank - 2, key.size(-2), "key.size(-2)")
    if attn_mask is not None:
        _fake.check_tensor(op, "attn_mask", attn_mask, (torch.bool, *_REAL))
        _fake.check_value(not is_causal, op, "attn_mask", "be None when is_causal", _fake.sizes(attn_mask))
        wanted = [*query.shape[:-1], key.size(-2)]
        rule = f"have sizes that expand to {_fake.listed(wanted)}"
        _fake.check_expands(op, "attn_mask", attn_mask, wanted, rule)
    *leading, queries, _ = query.shape
    if rank < 4:
        return query.new_empty([*leading, queries, value.size(-1)])
    *batch, heads = leading
    return query.new_empty([*batch, queries, heads, value.size(-1)]).transpose(-3, -2)
