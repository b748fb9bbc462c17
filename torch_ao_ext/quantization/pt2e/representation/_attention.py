"""Products of two activations, softmax and attention in ATen operators."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from torch_ao_ext.quantization.pt2e.representation._values import (
    Value,
    aten,
    finish,
    finish_product,
    integers,
    known,
    post_ops,
    real,
    to,
)


def matmul(
    input: Value, input_scale: float, input_zero_point: int, other: Value, other_scale: float,
    other_zero_point: int, output_scale: float, output_zero_point: int, output_dtype: torch.dtype | None,
    names: str, numbers: Sequence[float],
) -> Value:  # fmt: skip
    sums = aten.matmul.default(integers(input, input_zero_point), integers(other, other_zero_point))
    scale = torch.tensor(input_scale) * torch.tensor(other_scale)  # one float32 operation
    r = post_ops(aten.mul.Tensor(to(sums, torch.float32), scale.item()), names, numbers)
    return finish_product(r, output_scale, output_zero_point, output_dtype or known(input).dtype)


def softmax(
    input: Value, dim: int, input_scale: float, input_zero_point: int, output_scale: float,
    output_zero_point: int, output_dtype: torch.dtype | None, attn_mask: Value | None,
) -> Value:  # fmt: skip
    if known(input).dtype.is_floating_point:
        x = aten.mul.Tensor(to(input, torch.float32), input_scale)
    else:
        x = real(input, input_scale, input_zero_point)
    if attn_mask is not None:
        x = aten.add.Tensor(x, attn_mask)
    y = aten.softmax.int(x, dim)
    return finish(y, output_scale, output_zero_point, output_dtype or known(input).dtype)


def _f32(number: float) -> float:
    return torch.tensor(number, dtype=torch.float32).item()


def _scores(sums: Value, scale: float, mask: Value | None, is_causal: bool) -> Value:
    """Real scores, -inf where a query does not see a key."""
    x = aten.mul.Tensor(to(sums, torch.float32), scale)
    if is_causal:
        seen = aten.tril.default(aten.ones_like.default(x, dtype=torch.bool))
        x = aten.masked_fill.Scalar(x, aten.logical_not.default(seen), -math.inf)
    if mask is None:
        return x
    if known(mask).dtype == torch.bool:
        return aten.masked_fill.Scalar(x, aten.logical_not.default(mask), -math.inf)
    return aten.add.Tensor(x, mask)


def attention(
    query: Value, query_scale: float, query_zero_point: int, key: Value, key_scale: float,
    key_zero_point: int, value: Value, value_scale: float, value_zero_point: int, output_scale: float,
    output_zero_point: int, output_dtype: torch.dtype | None, attn_mask: Value | None, is_causal: bool,
    scale: float | None,
) -> Value:  # fmt: skip
    """The weights of a row are integers, 255 its largest; their sum divides what they give."""
    scale = max(known(query).shape[-1], 1) ** -0.5 if scale is None else _f32(scale)
    keys = aten.transpose.int(integers(key, key_zero_point), -2, -1)
    sums = aten.matmul.default(integers(query, query_zero_point), keys)
    x = _scores(sums, _f32(_f32(query_scale) * _f32(key_scale) * scale), attn_mask, is_causal)
    weights = x
    if known(key).shape[-2] != 0:
        most = aten.amax.default(x, [-1], True)
        unseen = aten.eq.Scalar(most, -math.inf)
        e = aten.exp.default(aten.sub.Tensor(x, most))
        weights = aten.masked_fill.Scalar(aten.round.default(aten.mul.Tensor(e, 255.0)), unseen, 0.0)
    total = aten.sum.dim_IntList(weights, [-1], True)  # NaN with a NaN or +inf among the scores
    each = aten.div.Tensor(aten.full_like.default(total, value_scale), total)
    each = aten.masked_fill.Scalar(each, aten.eq.Scalar(total, 0.0), 0.0)
    weights = to(aten.nan_to_num.default(weights), torch.int64)
    r = to(aten.matmul.default(weights, integers(value, value_zero_point)), torch.float32)
    r = aten.mul.Tensor(r, each)
    return finish(r, output_scale, output_zero_point, output_dtype or known(query).dtype)


ATTENTION: dict[str, Any] = {"matmul": matmul, "softmax": softmax, "attention": attention}
