"""Float to integers and back, one scale and zero point for the tensor."""

import torch

from torch_ao_ext.ops import _fake
from torch_ao_ext.ops._fake_conv import empty_channels_last

__all__ = ["dequantize_per_tensor", "quantize_per_tensor"]

Tensor = torch.Tensor


def quantize_per_tensor(
    input: Tensor,
    scale: float | Tensor,
    zero_point: int | Tensor,
    quant_min: int,
    quant_max: int,
    dtype: torch.dtype,
    memory_format: torch.memory_format | None = None,
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
        memory_format: None or torch.preserve_format for the strides of input, torch.contiguous_format, or
            torch.channels_last, which of `[N, C, *S]` (3 to 5 dimensions) makes memory `[N, *S, C]`, as
            convolutions and pools read it (torch.channels_last_3d, too, of 5 dimensions).

    Returns:
        Shape of input; strides of input or those of memory_format.

    Raises:
        TypeError: wrong dtype.
        ValueError: a bad scale, zero point or range, or dimensions that memory_format has no meaning for.

    Source: torch.ops.quantized_decomposed.quantize_per_tensor.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.tensor([-1.0, 0.25, 9.0])
        >>> torch_ao_ext.ops.quantize_per_tensor(x, 0.5, 0, -128, 10, torch.int8)
        tensor([-2,  0, 10], dtype=torch.int8)
    """
    return torch.ops.torch_ao.quantize_per_tensor(
        input, scale, zero_point, quant_min, quant_max, dtype, memory_format
    )


def dequantize_per_tensor(
    input: Tensor,
    scale: float | Tensor,
    zero_point: int | Tensor,
    output_dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
) -> Tensor:
    """Computes x = (q - zero_point) * scale.

    Args:
        input: uint8 or int8, any shape.
        scale: as in `quantize_per_tensor`.
        zero_point: as in `quantize_per_tensor`.
        output_dtype: float32 (default) or bfloat16, rounded to nearest even.
        memory_format: as in `quantize_per_tensor`.

    Returns:
        Shape of input; strides of input or those of memory_format.

    Raises:
        TypeError: wrong dtype.
        ValueError: a bad scale or zero point, or dimensions that memory_format has no meaning for.

    Source: torch.ops.quantized_decomposed.dequantize_per_tensor.

    Example:
        >>> import torch, torch_ao_ext
        >>> q = torch.tensor([0, 10], dtype=torch.uint8)
        >>> torch_ao_ext.ops.dequantize_per_tensor(q, 0.5, 4)
        tensor([-2.,  3.])
    """
    return torch.ops.torch_ao.dequantize_per_tensor(
        input, scale, zero_point, output_dtype, memory_format
    )


def _check_tensor_qparams(op: str, scale: Tensor, zero_point: Tensor) -> None:
    _fake.check_one_element(op, "scale", scale, _fake.SCALES)
    _fake.check_one_element(op, "zero_point", zero_point, _fake.ZERO_POINTS)


def _formatted(
    op: str, input: Tensor, dtype: torch.dtype, memory_format: torch.memory_format | None
) -> Tensor:
    """An empty tensor with the memory order of input or that of the format."""
    if memory_format in (None, torch.preserve_format):
        return _fake.empty_like(input, dtype)
    if memory_format == torch.contiguous_format:
        return input.new_empty(input.shape, dtype=dtype)
    if memory_format == torch.channels_last_3d:
        fits, rule = input.dim() == 5, "have 5 dimensions with memory_format=torch.channels_last_3d"
    else:
        fits, rule = 3 <= input.dim() <= 5, "have 3 to 5 dimensions with memory_format=torch.channels_last"
    _fake.check_value(fits, op, "input", rule, _fake.sizes(input))
    return empty_channels_last(input, list(input.shape), dtype)


def _quantized(input: Tensor, dtype: torch.dtype, memory_format: torch.memory_format | None) -> Tensor:
    op = "quantize_per_tensor"
    _fake.check_tensor(op, "input", input, _fake.FLOAT)
    _fake.check_dtype(op, "dtype", dtype, _fake.QUANTIZED)
    return _formatted(op, input, dtype, memory_format)


def _dequantized(
    input: Tensor, output_dtype: torch.dtype | None, memory_format: torch.memory_format | None
) -> Tensor:
    op = "dequantize_per_tensor"
    return _formatted(op, input, _fake.dequantized(op, input, output_dtype).dtype, memory_format)


@torch.library.register_fake("torch_ao::quantize_per_tensor")
def _(input, scale, zero_point, quant_min, quant_max, dtype, memory_format=None):
    return _quantized(input, dtype, memory_format)


@torch.library.register_fake("torch_ao::quantize_per_tensor.tensor")
def _(input, scale, zero_point, quant_min, quant_max, dtype, memory_format=None):
    _check_tensor_qparams("quantize_per_tensor", scale, zero_point)
    return _quantized(input, dtype, memory_format)


@torch.library.register_fake("torch_ao::dequantize_per_tensor")
def _(input, scale, zero_point, output_dtype=None, memory_format=None):
    return _dequantized(input, output_dtype, memory_format)


@torch.library.register_fake("torch_ao::dequantize_per_tensor.tensor")
def _(input, scale, zero_point, output_dtype=None, memory_format=None):
    _check_tensor_qparams("dequantize_per_tensor", scale, zero_point)
    return _dequantized(input, output_dtype, memory_format)
