"""Float to integers and back, a scale and zero point for each row of the last dimension."""

import torch

from torch_ao_ext.ops import _fake

__all__ = ["dequantize_per_token", "quantize_per_token"]

Tensor = torch.Tensor


def quantize_per_token(
    input: Tensor,
    scales: Tensor,
    zero_points: Tensor,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
) -> Tensor:
    """Computes q = clamp(round_half_even(x * (1 / s[row])) + z[row], quant_min, quant_max).

    Args:
        input: `[*, K]`, float32 or bfloat16.
        scales: `[*, 1]`, float32 or float64, each normal and > 0.
        zero_points: `[*, 1]`, int32 or int64, in the range of dtype.
        quant_min: smallest result.
        quant_max: largest result, in the range of dtype.
        dtype: torch.uint8 or torch.int8.

    Returns:
        `[*, K]`, contiguous.

    Raises:
        TypeError: wrong dtype.
        ValueError: bad sizes, scale, zero point or range.

    Source: torch.ops.quantized_decomposed.quantize_per_token.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, s = torch.tensor([[1.0], [1.0]]), torch.tensor([[0.5], [0.25]])
        >>> z = torch.zeros(2, 1, dtype=torch.int64)
        >>> torch_ao_ext.ops.quantize_per_token(x, s, z, 0, 255, torch.uint8)
        tensor([[2],
                [4]], dtype=torch.uint8)
    """
    return torch.ops.torch_ao.quantize_per_token(
        input, scales, zero_points, quant_min, quant_max, dtype
    )


def dequantize_per_token(
    input: Tensor,
    scales: Tensor,
    zero_points: Tensor,
    output_dtype: torch.dtype | None = None,
) -> Tensor:
    """Computes x = (q - z[row]) * s[row].

    Args:
        input: `[*, K]`, uint8 or int8.
        scales: `[*, 1]`, float32 or float64.
        zero_points: `[*, 1]`, int32 or int64.
        output_dtype: float32 (default) or bfloat16.

    Returns:
        `[*, K]`, contiguous.

    Raises:
        TypeError: wrong dtype.
        ValueError: bad sizes, scale or zero point.

    Source: torch.ops.quantized_decomposed.dequantize_per_token.

    Example:
        >>> import torch, torch_ao_ext
        >>> q, s = torch.tensor([[2], [4]], dtype=torch.int8), torch.tensor([[0.5], [0.25]])
        >>> torch_ao_ext.ops.dequantize_per_token(q, s, torch.zeros(2, 1, dtype=torch.int64))
        tensor([[1.],
                [1.]])
    """
    return torch.ops.torch_ao.dequantize_per_token(input, scales, zero_points, output_dtype)


def _check_rows(op: str, input: Tensor, scales: Tensor, zero_points: Tensor) -> None:
    want = [*input.shape[:-1], 1]
    rule = f"have sizes [{', '.join(str(s) for s in want)}], one value for each row of input"
    for name, t in (("scales", scales), ("zero_points", zero_points)):
        _fake.check_shape(op, name, t, want, rule)


@torch.library.register_fake("torch_ao::quantize_per_token")
def _(input, scales, zero_points, quant_min, quant_max, dtype):
    op = "quantize_per_token"
    _fake.check_tensor(op, "input", input, _fake.FLOAT)
    _fake.check_min_rank(op, "input", input, 1)
    _fake.check_tensor(op, "scales", scales, _fake.SCALES)
    _fake.check_tensor(op, "zero_points", zero_points, _fake.ZERO_POINTS)
    _fake.check_dtype(op, "dtype", dtype, _fake.QUANTIZED)
    _check_rows(op, input, scales, zero_points)
    return input.new_empty(input.shape, dtype=dtype)


@torch.library.register_fake("torch_ao::dequantize_per_token")
def _(input, scales, zero_points, output_dtype=None):
    op = "dequantize_per_token"
    _fake.check_tensor(op, "input", input, _fake.QUANTIZED)
    _fake.check_min_rank(op, "input", input, 1)
    _fake.check_tensor(op, "scales", scales, _fake.SCALES)
    _fake.check_tensor(op, "zero_points", zero_points, _fake.ZERO_POINTS)
    output = _fake.dequantized(op, input, output_dtype)
    _check_rows(op, input, scales, zero_points)
    return output.new_empty(output.shape)
