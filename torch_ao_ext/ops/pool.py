"""Pooling of 8-bit tensors over 1 to 3 dimensions, channels last."""

import torch

from torch_ao_ext.ops import _fake_pool  # noqa: F401  (registers the fake kernels)

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
]

Tensor = torch.Tensor
Numbers = int | list[int]


def max_pool1d(
    input: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Largest value of each window of `[N, C, L]`; arguments as in `max_pool2d`.

    Example:
        >>> import torch, torch_ao_ext
        >>> torch_ao_ext.ops.max_pool1d(torch.arange(4, dtype=torch.uint8).view(1, 1, 4), 2)
        tensor([[[1, 3]]], dtype=torch.uint8)
    """
    return torch.ops.torch_ao.max_pool1d(input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d(
    input: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Largest value of each window, as torch.nn.functional.max_pool2d; qparams stay the input's.

    Args:
        input: `[N, C, H, W]`, uint8 or int8. Channels last is read as it lies, another layout is
            copied once.
        kernel_size: one number, or one for each spatial dimension.
        stride: as kernel_size; None is kernel_size.
        padding: as kernel_size; at most half of the dilated kernel. Padding never wins.
        dilation: as kernel_size.
        ceil_mode: a last window may reach over the end.

    Returns:
        `[N, C, H', W']`, input's dtype, channels last.

    Raises:
        TypeError: wrong dtype.
        ValueError: sizes or numbers that do not fit.

    Example:
        >>> import torch, torch_ao_ext
        >>> torch_ao_ext.ops.max_pool2d(torch.arange(4, dtype=torch.uint8).view(1, 1, 2, 2), 2)
        tensor([[[[3]]]], dtype=torch.uint8)
    """
    return torch.ops.torch_ao.max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool3d(
    input: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Largest value of each window of `[N, C, D, H, W]`; arguments as in `max_pool2d`.

    Example:
        >>> import torch, torch_ao_ext
        >>> torch_ao_ext.ops.max_pool3d(torch.arange(8, dtype=torch.uint8).view(1, 1, 2, 2, 2), 2)
        tensor([[[[[7]]]]], dtype=torch.uint8)
    """
    return torch.ops.torch_ao.max_pool3d(input, kernel_size, stride, padding, dilation, ceil_mode)


def avg_pool1d(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    output_scale: float,
    output_zero_point: int,
    output_dtype: torch.dtype | None,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Mean of each window of `[N, C, L]`; arguments as in `avg_pool2d`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.tensor([[[1, 3]]], dtype=torch.uint8)
        >>> torch_ao_ext.ops.avg_pool1d(x, 1.0, 0, 1.0, 0, None, 2)
        tensor([[[2]]], dtype=torch.uint8)
    """
    return torch.ops.torch_ao.avg_pool1d(
        input, input_scale, input_zero_point, output_scale, output_zero_point, output_dtype,
        kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override,
    )  # fmt: skip


def avg_pool2d(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    output_scale: float,
    output_zero_point: int,
    output_dtype: torch.dtype | None,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Computes y = quantize(mean of each window), as torch.nn.functional.avg_pool2d.

    The sum of input - input_zero_point is exact, then (sum * input_scale) / count in float32.

    Args:
        input: `[N, C, H, W]`, uint8 or int8. Channels last is read as it lies, another layout is
            copied once.
        input_scale: real units per step of input.
        input_zero_point: in the range of input's dtype.
        output_scale: real units per step of the output; 1.0 for a float output.
        output_zero_point: in the range of the output's dtype; 0 for a float output.
        output_dtype: uint8, int8, float32 or bfloat16; None is the input's.
        kernel_size: one number, or one for each spatial dimension.
        stride: as kernel_size; None is kernel_size.
        padding: as kernel_size; at most half of it. Padding is 0.
        ceil_mode: a last window may reach over the end.
        count_include_pad: the padding counts as positions.
        divisor_override: used in place of the count; not 0.

    Returns:
        `[N, C, H', W']`, channels last.

    Raises:
        TypeError: wrong dtype.
        ValueError: sizes or numbers that do not fit, a bad scale or zero point.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.tensor([[[[1, 3], [5, 7]]]], dtype=torch.uint8)
        >>> torch_ao_ext.ops.avg_pool2d(x, 1.0, 0, 0.5, 0, None, 2)
        tensor([[[[8]]]], dtype=torch.uint8)
    """
    return torch.ops.torch_ao.avg_pool2d(
        input, input_scale, input_zero_point, output_scale, output_zero_point, output_dtype,
        kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override,
    )  # fmt: skip


def avg_pool3d(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    output_scale: float,
    output_zero_point: int,
    output_dtype: torch.dtype | None,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Mean of each window of `[N, C, D, H, W]`; arguments as in `avg_pool2d`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.full((1, 1, 2, 2, 2), 3, dtype=torch.uint8)
        >>> torch_ao_ext.ops.avg_pool3d(x, 1.0, 0, 1.0, 0, None, 2)
        tensor([[[[[3]]]]], dtype=torch.uint8)
    """
    return torch.ops.torch_ao.avg_pool3d(
        input, input_scale, input_zero_point, output_scale, output_zero_point, output_dtype,
        kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override,
    )  # fmt: skip


def adaptive_avg_pool1d(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    output_scale: float,
    output_zero_point: int,
    output_dtype: torch.dtype | None,
    output_size: Numbers,
) -> Tensor:
    """Means of `[N, C, L]` in output_size even windows; arguments as in `adaptive_avg_pool2d`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.tensor([[[1, 3, 5, 7]]], dtype=torch.uint8)
        >>> torch_ao_ext.ops.adaptive_avg_pool1d(x, 1.0, 0, 1.0, 0, None, 2)
        tensor([[[2, 6]]], dtype=torch.uint8)
    """
    return torch.ops.torch_ao.adaptive_avg_pool1d(
        input, input_scale, input_zero_point, output_scale, output_zero_point, output_dtype, output_size
    )


def adaptive_avg_pool2d(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    output_scale: float,
    output_zero_point: int,
    output_dtype: torch.dtype | None,
    output_size: Numbers,
) -> Tensor:
    """Computes y = quantize(means in even windows), as torch.nn.functional.adaptive_avg_pool2d.

    Args:
        input: see `avg_pool2d`, as the arguments not listed.
        input_scale: see `avg_pool2d`.
        input_zero_point: see `avg_pool2d`.
        output_scale: see `avg_pool2d`.
        output_zero_point: see `avg_pool2d`.
        output_dtype: see `avg_pool2d`.
        output_size: one number, or one for each spatial dimension; at least 1.

    Returns:
        `[N, C, *output_size]`, channels last.

    Raises:
        TypeError: wrong dtype.
        ValueError: sizes or numbers that do not fit, a bad scale or zero point.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.tensor([[[[1, 3], [5, 7]]]], dtype=torch.uint8)
        >>> torch_ao_ext.ops.adaptive_avg_pool2d(x, 1.0, 0, 1.0, 0, torch.float32, 1)
        tensor([[[[4.]]]])
    """
    return torch.ops.torch_ao.adaptive_avg_pool2d(
        input, input_scale, input_zero_point, output_scale, output_zero_point, output_dtype, output_size
    )


def adaptive_avg_pool3d(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    output_scale: float,
    output_zero_point: int,
    output_dtype: torch.dtype | None,
    output_size: Numbers,
) -> Tensor:
    """Means of `[N, C, D, H, W]` in even windows; arguments as in `adaptive_avg_pool2d`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.full((1, 1, 2, 2, 2), 3, dtype=torch.uint8)
        >>> torch_ao_ext.ops.adaptive_avg_pool3d(x, 1.0, 0, 1.0, 0, None, 1)
        tensor([[[[[3]]]]], dtype=torch.uint8)
    """
    return torch.ops.torch_ao.adaptive_avg_pool3d(
        input, input_scale, input_zero_point, output_scale, output_zero_point, output_dtype, output_size
    )
