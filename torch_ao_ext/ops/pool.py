"""Pooling of 8-bit tensors over 1 to 3 dimensions, channels last."""

import torch

from torch_ao_ext.ops import _fake
from torch_ao_ext.ops._fake_conv import empty_channels_last

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

_OUTPUT = (torch.uint8, torch.int8, torch.float32, torch.bfloat16)


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


def _numbers(op: str, name: str, values, rank: int, least: int) -> list:
    values = [values] * rank if isinstance(values, int) else list(values)
    _fake.check_value(len(values) == rank, op, name, f"have {rank} values", values)
    for value in values:
        _fake.check_value(least <= value < 2**31, op, name, f"hold values in [{least}, 2^31)", value)
    return values


def _check_input(op: str, input: Tensor, rank: int) -> None:
    _fake.check_tensor(op, "input", input, _fake.QUANTIZED)
    _fake.check_rank(op, "input", input, rank + 2)
    for size in input.shape[1:]:
        _fake.check_value(
            size >= 1, op, "input", "have no dimension of size 0 but the batch", _fake.sizes(input)
        )


def _windows(op, input, rank, kernel_size, stride, padding, dilation, ceil_mode):
    """Spatial sizes of the output (csrc/ops/pool_common.cpp)."""
    kernel = _numbers(op, "kernel_size", kernel_size, rank, 1)
    stride = _numbers(op, "stride", stride, rank, 1) if stride or stride == 0 else kernel
    padding = _numbers(op, "padding", padding, rank, 0)
    dilation = _numbers(op, "dilation", dilation, rank, 1)
    sizes = []
    for i in range(rank):
        reach = dilation[i] * (kernel[i] - 1) + 1
        rule = "be at most half of the dilated kernel"
        _fake.check_value(padding[i] <= reach // 2, op, "padding", rule, padding[i])
        room = input.shape[2 + i] + 2 * padding[i] - reach
        rule = "with dilation fit into the padded input"
        _fake.check_value(room >= 0, op, "kernel_size", rule, kernel[i])
        size = (room + (stride[i] - 1 if ceil_mode else 0)) // stride[i] + 1
        if ceil_mode and (size - 1) * stride[i] >= input.shape[2 + i] + padding[i]:
            size = size - 1
        sizes.append(size)
    return sizes


def _register(rank: int) -> None:
    @torch.library.register_fake(f"torch_ao::max_pool{rank}d")
    def _(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
        op = f"max_pool{rank}d"
        _check_input(op, input, rank)
        spatial = _windows(op, input, rank, kernel_size, stride, padding, dilation, ceil_mode)
        return empty_channels_last(input, [input.shape[0], input.shape[1], *spatial], input.dtype)

    @torch.library.register_fake(f"torch_ao::avg_pool{rank}d")
    def _(
        input, input_scale, input_zero_point, output_scale, output_zero_point, output_dtype, kernel_size,
        stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None,
    ):  # fmt: skip
        op = f"avg_pool{rank}d"
        _check_input(op, input, rank)
        if output_dtype is not None:
            _fake.check_dtype(op, "output_dtype", output_dtype, _OUTPUT)
        spatial = _windows(op, input, rank, kernel_size, stride, padding, 1, ceil_mode)
        return empty_channels_last(input, [input.shape[0], input.shape[1], *spatial], output_dtype)

    @torch.library.register_fake(f"torch_ao::adaptive_avg_pool{rank}d")
    def _(input, input_scale, input_zero_point, output_scale, output_zero_point, output_dtype, output_size):
        op = f"adaptive_avg_pool{rank}d"
        _check_input(op, input, rank)
        if output_dtype is not None:
            _fake.check_dtype(op, "output_dtype", output_dtype, _OUTPUT)
        spatial = _numbers(op, "output_size", output_size, rank, 1)
        return empty_channels_last(input, [input.shape[0], input.shape[1], *spatial], output_dtype)


for _rank in (1, 2, 3):
    _register(_rank)
