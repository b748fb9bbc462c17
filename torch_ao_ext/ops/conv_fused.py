"""Convolutions under the fused names that torch published; each is `conv1d` to `conv3d` with post-ops."""

import torch

from torch_ao_ext.ops import _fake_conv  # noqa: F401  (registers the fake kernels)

__all__ = ["conv1d_relu", "conv2d_add", "conv2d_add_relu", "conv2d_relu", "conv3d_relu"]

Tensor = torch.Tensor
Numbers = int | list[int]


def conv1d_relu(
    input: Tensor, input_scale: float, input_zero_point: int, weight: Tensor, weight_scale: Tensor,
    weight_zero_point: Tensor | None = None, bias: Tensor | None = None, output_scale: float = 1.0,
    output_zero_point: int = 0, output_dtype: torch.dtype | None = None, stride: Numbers = 1,
    padding: Numbers = 0, dilation: Numbers = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Computes y = quantize(max(0, conv1d(x, W) + b)); arguments as in `conv1d`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, w = torch.ones(1, 1, 1, dtype=torch.uint8), torch.full((1, 1, 1), -2, dtype=torch.int8)
        >>> torch_ao_ext.ops.conv1d_relu(x, 1.0, 0, w, torch.tensor([1.0]), output_dtype=torch.int8)
        tensor([[[0]]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.conv1d_relu(
        input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias, output_scale,
        output_zero_point, output_dtype, stride, padding, dilation, groups,
    )  # fmt: skip


def conv2d_relu(
    input: Tensor, input_scale: float, input_zero_point: int, weight: Tensor, weight_scale: Tensor,
    weight_zero_point: Tensor | None = None, bias: Tensor | None = None, output_scale: float = 1.0,
    output_zero_point: int = 0, output_dtype: torch.dtype | None = None, stride: Numbers = 1,
    padding: Numbers = 0, dilation: Numbers = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Computes y = quantize(max(0, conv2d(x, W) + b)); arguments as in `conv2d`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, w = torch.ones(1, 1, 1, 1, dtype=torch.uint8), torch.full((1, 1, 1, 1), -2, dtype=torch.int8)
        >>> torch_ao_ext.ops.conv2d_relu(x, 1.0, 0, w, torch.tensor([1.0]), output_dtype=torch.int8)
        tensor([[[[0]]]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.conv2d_relu(
        input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias, output_scale,
        output_zero_point, output_dtype, stride, padding, dilation, groups,
    )  # fmt: skip


def conv3d_relu(
    input: Tensor, input_scale: float, input_zero_point: int, weight: Tensor, weight_scale: Tensor,
    weight_zero_point: Tensor | None = None, bias: Tensor | None = None, output_scale: float = 1.0,
    output_zero_point: int = 0, output_dtype: torch.dtype | None = None, stride: Numbers = 1,
    padding: Numbers = 0, dilation: Numbers = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Computes y = quantize(max(0, conv3d(x, W) + b)); arguments as in `conv3d`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.ones(1, 1, 1, 1, 1, dtype=torch.uint8)
        >>> w = torch.full((1, 1, 1, 1, 1), -2, dtype=torch.int8)
        >>> torch_ao_ext.ops.conv3d_relu(x, 1.0, 0, w, torch.tensor([1.0]), output_dtype=torch.int8)
        tensor([[[[[0]]]]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.conv3d_relu(
        input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias, output_scale,
        output_zero_point, output_dtype, stride, padding, dilation, groups,
    )  # fmt: skip


def conv2d_add(
    input: Tensor, input_scale: float, input_zero_point: int, weight: Tensor, weight_scale: Tensor,
    weight_zero_point: Tensor | None, bias: Tensor | None, output_scale: float, output_zero_point: int,
    output_dtype: torch.dtype | None, other: Tensor, other_scale: float = 1.0, other_zero_point: int = 0,
    stride: Numbers = 1, padding: Numbers = 0, dilation: Numbers = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Computes y = quantize(conv2d(x, W) + b + other); arguments as in `conv2d`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, w = torch.ones(1, 1, 1, 1, dtype=torch.int8), torch.full((1, 1, 1, 1), -2, dtype=torch.int8)
        >>> torch_ao_ext.ops.conv2d_add(x, 1.0, 0, w, torch.tensor([1.0]), None, None, 1.0, 0, None, x)
        tensor([[[[-1]]]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.conv2d_add(
        input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias, output_scale,
        output_zero_point, output_dtype, other, other_scale, other_zero_point, stride, padding, dilation,
        groups,
    )  # fmt: skip


def conv2d_add_relu(
    input: Tensor, input_scale: float, input_zero_point: int, weight: Tensor, weight_scale: Tensor,
    weight_zero_point: Tensor | None, bias: Tensor | None, output_scale: float, output_zero_point: int,
    output_dtype: torch.dtype | None, other: Tensor, other_scale: float = 1.0, other_zero_point: int = 0,
    stride: Numbers = 1, padding: Numbers = 0, dilation: Numbers = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Computes y = quantize(max(0, conv2d(x, W) + b + other)); arguments as in `conv2d`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, w = torch.ones(1, 1, 1, 1, dtype=torch.int8), torch.full((1, 1, 1, 1), -2, dtype=torch.int8)
        >>> torch_ao_ext.ops.conv2d_add_relu(x, 1.0, 0, w, torch.tensor([1.0]), None, None, 1.0, 0, None, x)
        tensor([[[[0]]]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.conv2d_add_relu(
        input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias, output_scale,
        output_zero_point, output_dtype, other, other_scale, other_zero_point, stride, padding, dilation,
        groups,
    )  # fmt: skip
