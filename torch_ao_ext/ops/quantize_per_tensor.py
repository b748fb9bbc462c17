"""Float to integers and back, one scale and zero point for the tensor."""

import torch

from torch_ao_ext.ops import _fake

__all__ = ["dequantize_per_tensor", "quantize_per_tensor"]

Tensor = torch.Tensor


def quantize_per_tensor(
    input: Tensor,
    scale: float | Tensor,
    zero_point: int | Tensor,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
) -> Tensor:
    """Computes q = clamp(round_half_even(x * (1 / scale)) + zero_point, quant_min, quant_max).

    NaN becomes quant_min.

    Args:
        input: float32 or bfloat16, any shape.
        scale: real units per step, normal and > 0; a number, or with zero_point a 1-element tensor.
        zero_point: in the range of dtype.
        quant_min: smallest result.
        quant_max: largest result, in the range of dtype.
        dtype: torch.uint8 or torch.int8.

    Returns:
        Shape and strides of input.

    Raises:
        TypeError: wrong dtype.
        ValueError: a bad scale, zero point or range.

    Source: torch.ops.quantized_decomposed.quantize_per_tensor.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.tensor([-1.0, 0.25, 9.0])
        >>> torch_ao_ext.ops.quantize_per_tensor(x, 0.5, 0, -128, 10, torch.int8)
        tensor([-2,  0, 10], dtype=torch.int8)
    """
    return torch.ops.torch_ao.quantize_per_tensor(
        input, scale, zero_point, quant_min, quant_max, dtype
    )


def dequantize_per_tensor(
    input: Tensor,
    scale: float | Tensor,
    zero_point: int | Tensor,
    output_dtype: torch.dtype | None = None,
) -> Tensor:
    """Computes x = (q - zero_point) * scale.

    Args:
        input: uint8 or int8, any shape.
        scale: as in `quantize_per_tensor`.
        zero_point: as in `quantize_per_tensor`.
        output_dtype: float32 (default) or bfloat16, rounded to nearest even.

    Returns:
        Shape and strides of input.

    Raises:
        TypeError: wrong dtype.
        ValueError: a bad scale or zero point.

    Source: torch.ops.quantized_decomposed.dequantize_per_tensor.

    Example:
        >>> import torch, torch_ao_ext
        >>> q = torch.tensor([0, 10], dtype=torch.uint8)
        >>> torch_ao_ext.ops.dequantize_per_tensor(q, 0.5, 4)
        tensor([-2.,  3.])
    """
    return torch.ops.torch_ao.dequantize_per_tensor(input, scale, zero_point, output_dtype)


def _check_tensor_qparams(op: str, scale: Tensor, zero_point: Tensor) -> None:
    _fake.check_one_element(op, "scale", scale, _fake.SCALES)
    _fake.check_one_element(op, "zero_point", zero_point, _fake.ZERO_POINTS)


@torch.library.register_fake("torch_ao::quantize_per_tensor")
def _(input, scale, zero_point, quant_min, quant_max, dtype):
    op = "quantize_per_tensor"
    _fake.check_tensor(op, "input", input, _fake.FLOAT)
    _fake.check_dtype(op, "dtype", dtype, _fake.QUANTIZED)
    return _fake.empty_like(input, dtype)


@torch.library.register_fake("torch_ao::quantize_per_tensor.tensor")
def _(input, scale, zero_point, quant_min, quant_max, dtype):
    op = "quantize_per_tensor"
    _check_tensor_qparams(op, scale, zero_point)
    _fake.check_tensor(op, "input", input, _fake.FLOAT)
    _fake.check_dtype(op, "dtype", dtype, _fake.QUANTIZED)
    return _fake.empty_like(input, dtype)


@torch.library.register_fake("torch_ao::dequantize_per_tensor")
def _(input, scale, zero_point, output_dtype=None):
    return _fake.dequantized("dequantize_per_tensor", input, output_dtype)


@torch.library.register_fake("torch_ao::dequantize_per_tensor.tensor")
def _(input, scale, zero_point, output_dtype=None):
    _check_tensor_qparams("dequantize_per_tensor", scale, zero_point)
    return _fake.dequantized("dequantize_per_tensor", input, output_dtype)
