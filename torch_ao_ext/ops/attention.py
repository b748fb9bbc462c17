"""Attention of 8-bit queries, keys and values in one operator."""

import torch

from torch_ao_ext.ops import _fake
from torch_ao_ext.ops._post_ops import check_output
from torch_ao_ext.ops.matmul import MOST_K

__all__ = ["attention"]

Tensor = torch.Tensor


def attention(
    query: Tensor,
    query_scale: float,
    query_zero_point: int,
    key: Tensor,
    key_scale: float,
    key_zero_point: int,
    value: Tensor,
    value_scale: float,
    value_zero_point: int,
    output_scale: float = 1.0,
    output_zero_point: int = 0,
    output_dtype: torch.dtype | None = None,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Computes y = quantize(softmax(q @ k^T * scale + attn_mask) @ v).

    Both products are exact sums of integers. With e = exp(score - the row's largest score), the
    weights are w = round(255 * e) and the result (sum w * v) / (sum w): that of float64 is within
    sum abs(v - y) / (2 * sum w), half a step of the output and the rounding of float32. A query that
    sees no key gives 0; one with a NaN or +inf among its scores NaN, quantized the smallest value.
    The operator of floats is `scaled_dot_product_attention`.

    Args:
        query: uint8 or int8, `[*, L, E]`, any strides, E at most 33025.
        query_scale: real units per step of query.
        query_zero_point: in the range of query's dtype.
        key: uint8 or int8, `[*, S, E]`, query's leading sizes, any strides, S at most 33025.
        key_scale: real units per step of key.
        key_zero_point: in the range of key's dtype.
        value: uint8 or int8, `[*, S, V]`, query's leading sizes, any strides.
        value_scale: real units per step of value.
        value_zero_point: in the range of value's dtype.
        output_scale: real units per step of the output; 1.0 for a float output.
        output_zero_point: in the range of the output's dtype; 0 for a float output.
        output_dtype: uint8, int8, float32 or bfloat16; default query's.
        attn_mask: sizes that expand to `[*, L, S]`; float32, added to the scores, or bool, True where a
            query sees a key.
        is_causal: query i sees keys up to i, besides what attn_mask leaves out.
        scale: positive factor of the scores; default 1 / sqrt(E).

    Returns:
        `[*, L, V]`, contiguous.

    Raises:
        TypeError: wrong dtype.
        ValueError: sizes that do not fit, a bad scale or zero point.

    Source: Vaswani et al., arXiv:1706.03762, equation 1.

    Example:
        >>> import torch, torch_ao_ext
        >>> q = torch.tensor([[0, 0], [9, 0]], dtype=torch.uint8)
        >>> k = torch.tensor([[9, 0], [0, 9]], dtype=torch.uint8)
        >>> v = torch.tensor([[10], [20]], dtype=torch.uint8)
        >>> torch_ao_ext.ops.attention(q, 1.0, 0, k, 1.0, 0, v, 1.0, 0)
        tensor([[15],
                [10]], dtype=torch.uint8)
    """
    return torch.ops.torch_ao.attention(
        query,
        query_scale,
        query_zero_point,
        key,
        key_scale,
        key_zero_point,
        value,
        value_scale,
        value_zero_point,
        output_scale,
        output_zero_point,
        output_dtype,
        attn_mask,
        is_causal,
        scale,
    )


def _check_leading(op, name, t, query):
    rule = f"have query's leading sizes, those of {_fake.listed(query.shape)}"
    _fake.check_value(t.dim() == query.dim(), op, name, rule, _fake.sizes(t))
    for have, want in zip(t.shape[:-2], query.shape[:-2], strict=True):
        _fake.check_value(have == want, op, name, rule, _fake.sizes(t))


@torch.library.register_fake("torch_ao::attention")
def _(
    query,
    query_scale,
    query_zero_point,
    key,
    key_scale,
    key_zero_point,
    value,
    value_scale,
    value_zero_point,
    output_scale=1.0,
    output_zero_point=0,
    output_dtype=None,
    attn_mask=None,
    is_causal=False,
    scale=None,
):
    op = "attention"
    _fake.check_tensor(op, "query", query, _fake.QUANTIZED)
    _fake.check_tensor(op, "key", key, _fake.QUANTIZED)
    _fake.check_tensor(op, "value", value, _fake.QUANTIZED)
    check_output(op, output_dtype, "", ())
    _fake.check_min_rank(op, "query", query, 2)
    _check_leading(op, "key", key, query)
    _check_leading(op, "value", value, query)
    _fake.check_size(op, "key", key, key.dim() - 1, query.size(-1), "query.size(-1)")
    _fake.check_size(op, "value", value, value.dim() - 2, key.size(-2), "key.size(-2)")
    for name, t, d in (("query", query, -1), ("key", key, -2)):
        rule = f"have size({d}) of at most {MOST_K}, the most whose sum fits int32"
        _fake.check_value(t.size(d) <= MOST_K, op, name, rule, t.size(d))
    if attn_mask is not None:
        _fake.check_tensor(op, "attn_mask", attn_mask, (torch.float32, torch.bool))
        scores = [*query.shape[:-1], key.size(-2)]
        rule = f"have sizes that expand to those of the scores, {_fake.listed(scores)}"
        _fake.check_expands(op, "attn_mask", attn_mask, scores, rule)
    return query.new_empty([*query.shape[:-1], value.size(-1)], dtype=output_dtype or query.dtype)
