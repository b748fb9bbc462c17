"""Float to integers and back, a scale and zero point for each index of one axis."""

import torch

from torch_ao_ext.ops import _fake

__all__ = ["dequantize_per_channel", "quantize_per_channel"]

Tensor = torch.Tensor


def quantize_per_channel(
    input: Tensor,
    scales: Tensor,
    zero_points: Tensor,
    axis: int,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
) -> Tensor:
    """Computes q = clamp(round_half_even(x * (1 / s[c])) + z[c], quant_min, quant_max).

    Args:
        input: float32 or bfloat16, c is the index on `axis`.
        scales: `[input.size(axis)]`, float32 or float64, each normal and > 0.
        zero_points: same shape, int32 or int64, in the range of dtype.
        axis: may be negative.
        quant_min: smallest result.
        quant_max: largest result, in the range of dtype.
        dtype: torch.uint8 or torch.int8.

    Returns:
        Shape and strides of input.

    Raises:
        TypeError: wrong dtype.
        ValueError: a bad length, scale, zero point or range.
        IndexError: axis out of range.

    Source: torch.ops.quantized_decomposed.quantize_per_channel.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, s = torch.tensor([[1.0], [1.0]]), torch.tensor([0.5, 0.25])
        >>> z = torch.zeros(2, dtype=torch.int64)
        >>> torch_ao_ext.ops.quantize_per_channel(x, s, z, 0, -128, 127, torch.int8)
        tensor([[2],
                [4]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.quantize_per_channel(
        input, scales, zero_points, axis, quant_min, quant_max, dtype
    )


def dequantize_per_channel(
    input: Tensor,
    scales: Tensor,
    zero_points: Tensor | None,
    axis: int,
    output_dtype: torch.dtype | None = None,
) -> Tensor:
    """Computes x = (q - z[c]) * s[c].

    Args:
        input: uint8 or int8, c is the index on `axis`.
        scales: `[input.size(axis)]`, float32 or float64.
        zero_points: same shape, int32 or int64; None means 0.
        axis: may be negative.
        output_dtype: float32 (default) or bfloat16.

    Returns:
        Shape and strides of input.

    Raises:
        TypeError: wrong dtype.
        ValueError: a bad length, scale or zero point.
        IndexError: axis out of range.

    Source: torch.ops.quantized_decomposed.dequantize_per_channel.

    Example:
        >>> import torch, torch_ao_ext
        >>> q, s = torch.tensor([[2], [4]], dtype=torch.int8), torch.tensor([0.5, 0.25])
        >>> torch_ao_ext.ops.dequantize_per_channel(q, s, None, 0)
        tensor([[1.],
                [1.]])
    """
    return torch.ops.torch_ao.dequantize_per_channel(input, scales, zero_points, axis, output_dtype)


def _check_lengths(
    op: str, input: Tensor, scales: Tensor, zero_points: Tensor | None, axis: int
) -> None:
    axis = _fake.check_axis(op, "axis", axis, input.dim())
    for name, t in (("scales", scales), ("zero_points", zero_points)):
        if t is not None:
            _fake.check_rank(op, name, t, 1)
            _fake.check_size(op, name, t, 0, input.shape[axis], "input.size(axis)")


@torch.library.register_fake("torch_ao::quantize_per_channel")
def _(input, scales, zero_points, axis, quant_min, quant_max, dtype):
    op = "quantize_per_channel"
    _fake.check_tensor(op, "input", input, _fake.FLOAT)
    _fake.check_min_rank(op, "input", input, 1)
    _fake.check_tensor(op, "scales", scales, _fake.SCALES)
    _fake.check_tensor(op, "zero_points", zero_points, _fake.ZERO_POINTS)
    _fake.check_dtype(op, "dtype", dtype, _fake.QUANTIZED)
    _check_lengths(op, input, scales, zero_points, axis)
    return _fake.empty_like(input, dtype)


@torch.library.register_fake("torch_ao::dequantize_per_channel")
def _(input, scales, zero_points, axis, output_dtype=None):
    op = "dequantize_per_channel"
    _fake.check_tensor(op, "input", input, _fake.QUANTIZED)
    _fake.check_min_rank(op, "input", input, 1)
    _fake.check_tensor(op, "scales", scales, _fake.SCALES)
    if zero_points is not None:
        _fake.check_tensor(op, "zero_points", zero_points, _fake.ZERO_POINTS)
    output = _fake.dequantized(op, input, output_dtype)
    _check_lengths(op, input, scales, zero_points, axis)
    return output
