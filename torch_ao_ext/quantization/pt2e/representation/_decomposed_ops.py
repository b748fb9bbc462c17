"""quantize and dequantize of converted graphs that `lower` leaves, in ATen operators."""

from typing import Any

import torch

from torch_ao_ext.quantization.pt2e.representation._values import Value, aten, known, quantize, real, to


def _per_tensor(x: Value, scale: Value, zero_point: Value, low: int, high: int, dtype: torch.dtype) -> Value:
    return quantize(x, scale, zero_point, low, high, dtype)


def _per_tensor_back(
    q: Value, scale: Value, zero_point: Value, low: int, high: int, dtype: torch.dtype,
    out_dtype: torch.dtype | None = None,
) -> Value:  # fmt: skip
    return to(real(q, scale, zero_point), out_dtype or torch.float32)


def _along(x: Value, values: Value, axis: int) -> Value:
    shape = [1] * known(x).dim()
    shape[axis] = -1
    return aten.reshape.default(values, shape)


def _per_channel(
    x: Value, scales: Value, zero_points: Value, axis: int, low: int, high: int, dtype: torch.dtype
) -> Value:
    return quantize(x, _along(x, scales, axis), _along(x, zero_points, axis), low, high, dtype)


def _per_channel_back(
    q: Value, scales: Value, zero_points: Value, axis: int, low: int, high: int, dtype: torch.dtype,
    out_dtype: torch.dtype | None = None,
) -> Value:  # fmt: skip
    points = 0 if zero_points is None else _along(q, zero_points, axis)
    return to(real(q, _along(q, scales, axis), points), out_dtype or torch.float32)


def _choose(x: Value, low: int, high: int, eps: float, dtype: torch.dtype) -> tuple[Value, Value]:
    least = to(aten.clamp.default(aten.amin.default(x), None, 0.0), torch.float64)
    most = to(aten.clamp.default(aten.amax.default(x), 0.0), torch.float64)
    scale = aten.clamp.default(aten.div.Tensor(aten.sub.Tensor(most, least), high - low), eps)
    steps = aten.rsub.Scalar(aten.round.default(aten.div.Tensor(least, scale)), low)
    point = to(aten.clamp.default(steps, low, high), torch.int64)
    return aten.reshape.default(scale, [1]), aten.reshape.default(point, [1])


def _choose_symmetric(x: Value, low: int, high: int, eps: float, dtype: torch.dtype) -> tuple[Value, Value]:
    most = to(aten.amax.default(aten.abs.default(x)), torch.float64)
    scale = aten.reshape.default(aten.clamp.default(aten.div.Tensor(most, (high - low) / 2), eps), [1])
    return scale, aten.zeros_like.default(scale, dtype=torch.int64)


def _choose_rows(x: Value, dtype: torch.dtype) -> tuple[Value, Value]:
    low, high = -128, 127
    least = aten.clamp.default(aten.amin.default(x, [-1], True), None, 0.0)
    most = aten.clamp.default(aten.amax.default(x, [-1], True), 0.0)
    scale = aten.div.Tensor(aten.sub.Tensor(most, least), float(high - low))
    scale = aten.clamp.default(scale, torch.finfo(torch.float32).eps)
    down, up = aten.div.Tensor(least, scale), aten.div.Tensor(most, scale)
    ends = aten.add.Tensor(aten.add.Scalar(down, low), aten.add.Scalar(up, high))
    point = aten.where.self(aten.gt.Scalar(ends, 0), aten.rsub.Scalar(down, low), aten.rsub.Scalar(up, high))
    point = aten.round.default(aten.clamp.default(point, low, high))
    return to(scale, torch.float64), to(point, torch.int64)


def _per_token(x: Value, scales: Value, points: Value, low: int, high: int, dtype: torch.dtype) -> Value:
    steps = aten.add.Tensor(aten.mul.Tensor(x, aten.reciprocal.default(scales)), points)
    return to(aten.clamp.default(aten.round.default(steps), low, high), dtype)


def _per_token_back(
    q: Value, scales: Value, points: Value, low: int, high: int, dtype: torch.dtype, out_dtype: torch.dtype
) -> Value:
    return to(aten.mul.Tensor(aten.sub.Tensor(q, points), scales), out_dtype)


# Names of `quantized_decomposed`, overload included.
DECOMPOSED: dict[str, Any] = {
    "quantize_per_tensor.default": _per_tensor,
    "quantize_per_tensor.tensor": _per_tensor,
    "dequantize_per_tensor.default": _per_tensor_back,
    "dequantize_per_tensor.tensor": _per_tensor_back,
    "quantize_per_channel.default": _per_channel,
    "dequantize_per_channel.default": _per_channel_back,
    "quantize_per_token.default": _per_token,
    "dequantize_per_token.default": _per_token_back,
    "choose_qparams_per_token_asymmetric.default": _choose_rows,
    "choose_qparams.tensor": _choose,
    "choose_qparams_symmetric.tensor": _choose_symmetric,
}
