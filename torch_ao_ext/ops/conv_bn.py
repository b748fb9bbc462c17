"""Convolutions with the batch normalization behind them: statistics and affine are arguments."""

import torch

from torch_ao_ext.ops import _fake_conv  # noqa: F401  (registers the fake kernels)

__all__ = [
    "conv1d_bn",
    "conv1d_bn_relu",
    "conv2d_bn",
    "conv2d_bn_relu",
    "conv3d_bn",
    "conv3d_bn_relu",
    "conv_transpose1d_bn",
    "conv_transpose2d_bn",
    "conv_transpose3d_bn",
]

Tensor = torch.Tensor
Numbers = int | list[int]


def conv1d_bn(
    input: Tensor, input_scale: float, input_zero_point: int, weight: Tensor, weight_scale: Tensor,
    weight_zero_point: Tensor | None, bias: Tensor | None, running_mean: Tensor, running_var: Tensor,
    bn_weight: Tensor | None = None, bn_bias: Tensor | None = None, eps: float = 1e-5,
    output_scale: float = 1.0, output_zero_point: int = 0, output_dtype: torch.dtype | None = None,
    stride: Numbers = 1, padding: Numbers = 0, dilation: Numbers = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Computes y = quantize(batch_norm(conv1d(x, W) + b)); arguments as in `conv2d_bn`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, w = torch.ones(1, 1, 1, dtype=torch.int8), torch.full((1, 1, 1), 2, dtype=torch.int8)
        >>> one, mean, gamma = torch.ones(1), torch.tensor([5.0]), torch.tensor([2.0])
        >>> torch_ao_ext.ops.conv1d_bn(x, 1.0, 0, w, one, None, None, mean, one, gamma)
        tensor([[[-6]]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.conv1d_bn(
        input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias, running_mean,
        running_var, bn_weight, bn_bias, eps, output_scale, output_zero_point, output_dtype,
        stride, padding, dilation, groups,
    )  # fmt: skip


def conv2d_bn(
    input: Tensor, input_scale: float, input_zero_point: int, weight: Tensor, weight_scale: Tensor,
    weight_zero_point: Tensor | None, bias: Tensor | None, running_mean: Tensor, running_var: Tensor,
    bn_weight: Tensor | None = None, bn_bias: Tensor | None = None, eps: float = 1e-5,
    output_scale: float = 1.0, output_zero_point: int = 0, output_dtype: torch.dtype | None = None,
    stride: Numbers = 1, padding: Numbers = 0, dilation: Numbers = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Computes y = quantize(batch_norm(conv2d(x, W) + b)) with the statistics of an evaluated batch norm.

    batch_norm(z) = (z - running_mean) / sqrt(running_var + eps) * bn_weight + bn_bias for each output
    channel. It is folded into the channel's scale and bias in float32 when the weight is packed, and
    the int8 weight stays as it is: csrc/ops/batch_norm.h has every step. A bn_weight may be negative
    or 0.

    Args:
        input: as in `conv2d`, as are the arguments that are not listed.
        input_scale: real units per step of input.
        input_zero_point: in the range of input's dtype.
        weight: `[O, C / groups, kH, kW]`, int8.
        weight_scale: `[O]` or `[1]`, float32.
        weight_zero_point: `[O]` or `[1]`, int32 or int64; None means 0.
        bias: of the convolution, `[O]`, float32.
        running_mean: `[O]`, float32.
        running_var: `[O]`, float32, above -eps.
        bn_weight: `[O]`, float32; None means 1.
        bn_bias: `[O]`, float32; None means 0.
        eps: at least 0.
        output_scale: real units per step of the output; 1.0 for a float output.
        output_zero_point: in the range of the output's dtype; 0 for a float output.
        output_dtype: uint8, int8, float32 or bfloat16; default the input's.
        stride: one number, or one for each spatial dimension.
        padding: as stride.
        dilation: as stride.
        groups: divides C and O.

    Returns:
        `[N, O, H', W']`, channels last.

    Raises:
        TypeError: a tensor of the wrong dtype or layout.
        ValueError: sizes that do not fit, statistics that are not finite or give no finite scale.

    Source: Jacob et al. 2018, section 3.2 (batch normalization folding).

    Example:
        >>> import torch, torch_ao_ext
        >>> x, w = torch.ones(1, 1, 1, 1, dtype=torch.int8), torch.full((1, 1, 1, 1), 2, dtype=torch.int8)
        >>> one, mean, gamma = torch.ones(1), torch.tensor([5.0]), torch.tensor([2.0])
        >>> torch_ao_ext.ops.conv2d_bn(x, 1.0, 0, w, one, None, None, mean, one, gamma)
        tensor([[[[-6]]]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.conv2d_bn(
        input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias, running_mean,
        running_var, bn_weight, bn_bias, eps, output_scale, output_zero_point, output_dtype,
        stride, padding, dilation, groups,
    )  # fmt: skip


def conv3d_bn(
    input: Tensor, input_scale: float, input_zero_point: int, weight: Tensor, weight_scale: Tensor,
    weight_zero_point: Tensor | None, bias: Tensor | None, running_mean: Tensor, running_var: Tensor,
    bn_weight: Tensor | None = None, bn_bias: Tensor | None = None, eps: float = 1e-5,
    output_scale: float = 1.0, output_zero_point: int = 0, output_dtype: torch.dtype | None = None,
    stride: Numbers = 1, padding: Numbers = 0, dilation: Numbers = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Computes y = quantize(batch_norm(conv3d(x, W) + b)); arguments as in `conv2d_bn`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.ones(1, 1, 1, 1, 1, dtype=torch.int8)
        >>> w = torch.full((1, 1, 1, 1, 1), 2, dtype=torch.int8)
        >>> one, mean, gamma = torch.ones(1), torch.tensor([5.0]), torch.tensor([2.0])
        >>> torch_ao_ext.ops.conv3d_bn(x, 1.0, 0, w, one, None, None, mean, one, gamma)
        tensor([[[[[-6]]]]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.conv3d_bn(
        input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias, running_mean,
        running_var, bn_weight, bn_bias, eps, output_scale, output_zero_point, output_dtype,
        stride, padding, dilation, groups,
    )  # fmt: skip


def conv1d_bn_relu(
    input: Tensor, input_scale: float, input_zero_point: int, weight: Tensor, weight_scale: Tensor,
    weight_zero_point: Tensor | None, bias: Tensor | None, running_mean: Tensor, running_var: Tensor,
    bn_weight: Tensor | None = None, bn_bias: Tensor | None = None, eps: float = 1e-5,
    output_scale: float = 1.0, output_zero_point: int = 0, output_dtype: torch.dtype | None = None,
    stride: Numbers = 1, padding: Numbers = 0, dilation: Numbers = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Computes y = quantize(max(0, batch_norm(conv1d(x, W) + b))); arguments as in `conv2d_bn`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, w = torch.ones(1, 1, 1, dtype=torch.int8), torch.full((1, 1, 1), 2, dtype=torch.int8)
        >>> one, mean, gamma = torch.ones(1), torch.tensor([5.0]), torch.tensor([2.0])
        >>> torch_ao_ext.ops.conv1d_bn_relu(x, 1.0, 0, w, one, None, None, mean, one, gamma)
        tensor([[[0]]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.conv1d_bn_relu(
        input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias, running_mean,
        running_var, bn_weight, bn_bias, eps, output_scale, output_zero_point, output_dtype,
        stride, padding, dilation, groups,
    )  # fmt: skip


def conv2d_bn_relu(
    input: Tensor, input_scale: float, input_zero_point: int, weight: Tensor, weight_scale: Tensor,
    weight_zero_point: Tensor | None, bias: Tensor | None, running_mean: Tensor, running_var: Tensor,
    bn_weight: Tensor | None = None, bn_bias: Tensor | None = None, eps: float = 1e-5,
    output_scale: float = 1.0, output_zero_point: int = 0, output_dtype: torch.dtype | None = None,
    stride: Numbers = 1, padding: Numbers = 0, dilation: Numbers = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Computes y = quantize(max(0, batch_norm(conv2d(x, W) + b))); arguments as in `conv2d_bn`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, w = torch.ones(1, 1, 1, 1, dtype=torch.int8), torch.full((1, 1, 1, 1), 2, dtype=torch.int8)
        >>> one, mean, gamma = torch.ones(1), torch.tensor([5.0]), torch.tensor([2.0])
        >>> torch_ao_ext.ops.conv2d_bn_relu(x, 1.0, 0, w, one, None, None, mean, one, gamma)
        tensor([[[[0]]]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.conv2d_bn_relu(
        input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias, running_mean,
        running_var, bn_weight, bn_bias, eps, output_scale, output_zero_point, output_dtype,
        stride, padding, dilation, groups,
    )  # fmt: skip


def conv3d_bn_relu(
    input: Tensor, input_scale: float, input_zero_point: int, weight: Tensor, weight_scale: Tensor,
    weight_zero_point: Tensor | None, bias: Tensor | None, running_mean: Tensor, running_var: Tensor,
    bn_weight: Tensor | None = None, bn_bias: Tensor | None = None, eps: float = 1e-5,
    output_scale: float = 1.0, output_zero_point: int = 0, output_dtype: torch.dtype | None = None,
    stride: Numbers = 1, padding: Numbers = 0, dilation: Numbers = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Computes y = quantize(max(0, batch_norm(conv3d(x, W) + b))); arguments as in `conv2d_bn`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.ones(1, 1, 1, 1, 1, dtype=torch.int8)
        >>> w = torch.full((1, 1, 1, 1, 1), 2, dtype=torch.int8)
        >>> one, mean, gamma = torch.ones(1), torch.tensor([5.0]), torch.tensor([2.0])
        >>> torch_ao_ext.ops.conv3d_bn_relu(x, 1.0, 0, w, one, None, None, mean, one, gamma)
        tensor([[[[[0]]]]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.conv3d_bn_relu(
        input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias, running_mean,
        running_var, bn_weight, bn_bias, eps, output_scale, output_zero_point, output_dtype,
        stride, padding, dilation, groups,
    )  # fmt: skip


def conv_transpose1d_bn(
    input: Tensor, input_scale: float, input_zero_point: int, weight: Tensor, weight_scale: Tensor,
    weight_zero_point: Tensor | None, bias: Tensor | None, running_mean: Tensor, running_var: Tensor,
    bn_weight: Tensor | None = None, bn_bias: Tensor | None = None, eps: float = 1e-5,
    output_scale: float = 1.0, output_zero_point: int = 0, output_dtype: torch.dtype | None = None,
    stride: Numbers = 1, padding: Numbers = 0,
    output_padding: Numbers = 0, groups: int = 1, dilation: Numbers = 1,
) -> Tensor:  # fmt: skip
    """Computes y = quantize(batch_norm(conv_transpose1d(x, W) + b)).

    weight `[C, O / groups, *kernel]`; arguments as in `conv2d_bn` and `conv_transpose1d`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, w = torch.ones(1, 1, 1, dtype=torch.int8), torch.full((1, 1, 1), 2, dtype=torch.int8)
        >>> one, mean, gamma = torch.ones(1), torch.tensor([5.0]), torch.tensor([2.0])
        >>> torch_ao_ext.ops.conv_transpose1d_bn(x, 1.0, 0, w, one, None, None, mean, one, gamma)
        tensor([[[-6]]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.conv_transpose1d_bn(
        input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias, running_mean,
        running_var, bn_weight, bn_bias, eps, output_scale, output_zero_point, output_dtype,
        stride, padding, output_padding, groups, dilation,
    )  # fmt: skip


def conv_transpose2d_bn(
    input: Tensor, input_scale: float, input_zero_point: int, weight: Tensor, weight_scale: Tensor,
    weight_zero_point: Tensor | None, bias: Tensor | None, running_mean: Tensor, running_var: Tensor,
    bn_weight: Tensor | None = None, bn_bias: Tensor | None = None, eps: float = 1e-5,
    output_scale: float = 1.0, output_zero_point: int = 0, output_dtype: torch.dtype | None = None,
    stride: Numbers = 1, padding: Numbers = 0,
    output_padding: Numbers = 0, groups: int = 1, dilation: Numbers = 1,
) -> Tensor:  # fmt: skip
    """Computes y = quantize(batch_norm(conv_transpose2d(x, W) + b)).

    weight `[C, O / groups, *kernel]`; arguments as in `conv2d_bn` and `conv_transpose2d`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, w = torch.ones(1, 1, 1, 1, dtype=torch.int8), torch.full((1, 1, 1, 1), 2, dtype=torch.int8)
        >>> one, mean, gamma = torch.ones(1), torch.tensor([5.0]), torch.tensor([2.0])
        >>> torch_ao_ext.ops.conv_transpose2d_bn(x, 1.0, 0, w, one, None, None, mean, one, gamma)
        tensor([[[[-6]]]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.conv_transpose2d_bn(
        input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias, running_mean,
        running_var, bn_weight, bn_bias, eps, output_scale, output_zero_point, output_dtype,
        stride, padding, output_padding, groups, dilation,
    )  # fmt: skip


def conv_transpose3d_bn(
    input: Tensor, input_scale: float, input_zero_point: int, weight: Tensor, weight_scale: Tensor,
    weight_zero_point: Tensor | None, bias: Tensor | None, running_mean: Tensor, running_var: Tensor,
    bn_weight: Tensor | None = None, bn_bias: Tensor | None = None, eps: float = 1e-5,
    output_scale: float = 1.0, output_zero_point: int = 0, output_dtype: torch.dtype | None = None,
    stride: Numbers = 1, padding: Numbers = 0,
    output_padding: Numbers = 0, groups: int = 1, dilation: Numbers = 1,
) -> Tensor:  # fmt: skip
    """Computes y = quantize(batch_norm(conv_transpose3d(x, W) + b)).

    weight `[C, O / groups, *kernel]`; arguments as in `conv2d_bn` and `conv_transpose3d`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.ones(1, 1, 1, 1, 1, dtype=torch.int8)
        >>> w = torch.full((1, 1, 1, 1, 1), 2, dtype=torch.int8)
        >>> one, mean, gamma = torch.ones(1), torch.tensor([5.0]), torch.tensor([2.0])
        >>> torch_ao_ext.ops.conv_transpose3d_bn(x, 1.0, 0, w, one, None, None, mean, one, gamma)
        tensor([[[[[-6]]]]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.conv_transpose3d_bn(
        input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias, running_mean,
        running_var, bn_weight, bn_bias, eps, output_scale, output_zero_point, output_dtype,
        stride, padding, output_padding, groups, dilation,
    )  # fmt: skip
