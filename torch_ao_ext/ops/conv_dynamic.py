"""Convolutions of 1 to 3 dimensions with int8 weights and an input quantized at run time, channels last."""

import torch

from torch_ao_ext.ops import _fake_conv  # noqa: F401  (registers the fake kernels)

__all__ = [
    "conv1d_dynamic",
    "conv2d_dynamic",
    "conv3d_dynamic",
    "conv_transpose1d_dynamic",
    "conv_transpose2d_dynamic",
    "conv_transpose3d_dynamic",
]

Tensor = torch.Tensor
Numbers = int | list[int]


def conv1d_dynamic(
    input: Tensor, weight: Tensor, weight_scale: Tensor, weight_zero_point: Tensor | None = None,
    bias: Tensor | None = None, per_sample: bool = True, symmetric: bool = False, reduce_range: bool = False,
    output_dtype: torch.dtype | None = None, stride: Numbers = 1, padding: Numbers = 0, dilation: Numbers = 1,
    groups: int = 1, post_ops: str = "", post_op_args: list[float] | None = None, other: Tensor | None = None,
    slope: Tensor | None = None, affine_weight: Tensor | None = None, affine_bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Computes y = post_ops(conv1d(x, W) + b), x quantized by the op.

    input `[N, C, L]`, other arguments as in `conv2d_dynamic`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, w = torch.ones(1, 1, 1), torch.full((1, 1, 1), 2, dtype=torch.int8)
        >>> torch_ao_ext.ops.conv1d_dynamic(x, w, torch.tensor([1.0]))
        tensor([[[2.]]])
    """
    return torch.ops.torch_ao.conv1d_dynamic(
        input, weight, weight_scale, weight_zero_point, bias, per_sample, symmetric, reduce_range,
        output_dtype, stride, padding, dilation, groups, post_ops, post_op_args or [], other, slope,
        affine_weight, affine_bias,
    )  # fmt: skip


def conv2d_dynamic(
    input: Tensor, weight: Tensor, weight_scale: Tensor, weight_zero_point: Tensor | None = None,
    bias: Tensor | None = None, per_sample: bool = True, symmetric: bool = False, reduce_range: bool = False,
    output_dtype: torch.dtype | None = None, stride: Numbers = 1, padding: Numbers = 0, dilation: Numbers = 1,
    groups: int = 1, post_ops: str = "", post_op_args: list[float] | None = None, other: Tensor | None = None,
    slope: Tensor | None = None, affine_weight: Tensor | None = None, affine_bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Computes y = post_ops(conv2d(x, W) + b), x = input quantized by the op, W = (weight - zp_w) s_w.

    Each sample of the input (or, with per_sample=False, the whole tensor) is quantized with the scale
    and zero point of its own minimum and maximum, 0 included; see csrc/engines/linear.h for every
    rounding, where a sample is a row. x is 0 in the padding. A sample with a NaN or an infinity gives NaN.

    Args:
        input: `[N, C, H, W]`, float32 or bfloat16, any layout.
        weight: `[O, C / groups, kH, kW]`, int8. Packed for the CPU at its first use.
        weight_scale: `[O]` or `[1]`, float32, real units per step.
        weight_zero_point: `[O]` or `[1]`, int32 or int64; None means 0.
        bias: `[O]`, float32, in real units.
        per_sample: one scale for each sample instead of one for the tensor.
        symmetric: zero point 0 and values -127..127 instead of 0..255.
        reduce_range: half the values, as torch.ao's x86 kernels need.
        output_dtype: float32 or bfloat16; default the input's.
        stride: one number, or one for each spatial dimension.
        padding: as stride; on both sides.
        dilation: as stride.
        groups: divides C and O.
        post_ops: see `linear_dynamic`.
        post_op_args: numbers of the post-ops, in order.
        other: operand of `add`, the output's shape, float32 or bfloat16.
        slope: of the post-op `prelu`, `[O]` or `[1]`, float32.
        affine_weight: of the post-op `affine`, `[O]`, float32, finite.
        affine_bias: of the post-op `affine`, `[O]`, float32, finite.

    Returns:
        `[N, O, H', W']`, channels last.

    Raises:
        TypeError: a tensor of the wrong dtype or layout.
        ValueError: sizes that do not fit, a bad scale, number or post-op.

    Source: Jacob et al. 2018, section 2 (integer arithmetic); dynamic ranges of samples.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.tensor([[[[1.0, -1.0]]]])
        >>> w = torch.tensor([[[[100, 50]]]], dtype=torch.int8)
        >>> torch_ao_ext.ops.conv2d_dynamic(x, w, torch.tensor([0.01])).round(decimals=2)
        tensor([[[[0.5000]]]])
    """
    return torch.ops.torch_ao.conv2d_dynamic(
        input, weight, weight_scale, weight_zero_point, bias, per_sample, symmetric, reduce_range,
        output_dtype, stride, padding, dilation, groups, post_ops, post_op_args or [], other, slope,
        affine_weight, affine_bias,
    )  # fmt: skip


def conv3d_dynamic(
    input: Tensor, weight: Tensor, weight_scale: Tensor, weight_zero_point: Tensor | None = None,
    bias: Tensor | None = None, per_sample: bool = True, symmetric: bool = False, reduce_range: bool = False,
    output_dtype: torch.dtype | None = None, stride: Numbers = 1, padding: Numbers = 0, dilation: Numbers = 1,
    groups: int = 1, post_ops: str = "", post_op_args: list[float] | None = None, other: Tensor | None = None,
    slope: Tensor | None = None, affine_weight: Tensor | None = None, affine_bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Computes y = post_ops(conv3d(x, W) + b), x quantized by the op.

    input `[N, C, D, H, W]`, other arguments as in `conv2d_dynamic`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, w = torch.ones(1, 1, 1, 1, 1), torch.full((1, 1, 1, 1, 1), 2, dtype=torch.int8)
        >>> torch_ao_ext.ops.conv3d_dynamic(x, w, torch.tensor([1.0]))
        tensor([[[[[2.]]]]])
    """
    return torch.ops.torch_ao.conv3d_dynamic(
        input, weight, weight_scale, weight_zero_point, bias, per_sample, symmetric, reduce_range,
        output_dtype, stride, padding, dilation, groups, post_ops, post_op_args or [], other, slope,
        affine_weight, affine_bias,
    )  # fmt: skip


def conv_transpose1d_dynamic(
    input: Tensor, weight: Tensor, weight_scale: Tensor, weight_zero_point: Tensor | None = None,
    bias: Tensor | None = None, per_sample: bool = True, symmetric: bool = False, reduce_range: bool = False,
    output_dtype: torch.dtype | None = None, stride: Numbers = 1, padding: Numbers = 0,
    output_padding: Numbers = 0, groups: int = 1, dilation: Numbers = 1, post_ops: str = "",
    post_op_args: list[float] | None = None, other: Tensor | None = None,
    slope: Tensor | None = None, affine_weight: Tensor | None = None, affine_bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Computes y = post_ops(conv_transpose1d(x, W) + b), x quantized by the op.

    input `[N, C, L]`, weight `[C, O / groups, *kernel]`, output_padding as in torch.
    Other arguments as in `conv2d_dynamic`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, w = torch.ones(1, 1, 1), torch.full((1, 1, 1), 2, dtype=torch.int8)
        >>> torch_ao_ext.ops.conv_transpose1d_dynamic(x, w, torch.tensor([1.0]))
        tensor([[[2.]]])
    """
    return torch.ops.torch_ao.conv_transpose1d_dynamic(
        input, weight, weight_scale, weight_zero_point, bias, per_sample, symmetric, reduce_range,
        output_dtype, stride, padding, output_padding, groups, dilation, post_ops, post_op_args or [], other,
        slope, affine_weight, affine_bias,
    )  # fmt: skip


def conv_transpose2d_dynamic(
    input: Tensor, weight: Tensor, weight_scale: Tensor, weight_zero_point: Tensor | None = None,
    bias: Tensor | None = None, per_sample: bool = True, symmetric: bool = False, reduce_range: bool = False,
    output_dtype: torch.dtype | None = None, stride: Numbers = 1, padding: Numbers = 0,
    output_padding: Numbers = 0, groups: int = 1, dilation: Numbers = 1, post_ops: str = "",
    post_op_args: list[float] | None = None, other: Tensor | None = None,
    slope: Tensor | None = None, affine_weight: Tensor | None = None, affine_bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Computes y = post_ops(conv_transpose2d(x, W) + b), x quantized by the op.

    input `[N, C, H, W]`, weight `[C, O / groups, *kernel]`, output_padding as in torch.
    Other arguments as in `conv2d_dynamic`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, w = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 2, dtype=torch.int8)
        >>> torch_ao_ext.ops.conv_transpose2d_dynamic(x, w, torch.tensor([1.0]))
        tensor([[[[2.]]]])
    """
    return torch.ops.torch_ao.conv_transpose2d_dynamic(
        input, weight, weight_scale, weight_zero_point, bias, per_sample, symmetric, reduce_range,
        output_dtype, stride, padding, output_padding, groups, dilation, post_ops, post_op_args or [], other,
        slope, affine_weight, affine_bias,
    )  # fmt: skip


def conv_transpose3d_dynamic(
    input: Tensor, weight: Tensor, weight_scale: Tensor, weight_zero_point: Tensor | None = None,
    bias: Tensor | None = None, per_sample: bool = True, symmetric: bool = False, reduce_range: bool = False,
    output_dtype: torch.dtype | None = None, stride: Numbers = 1, padding: Numbers = 0,
    output_padding: Numbers = 0, groups: int = 1, dilation: Numbers = 1, post_ops: str = "",
    post_op_args: list[float] | None = None, other: Tensor | None = None,
    slope: Tensor | None = None, affine_weight: Tensor | None = None, affine_bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Computes y = post_ops(conv_transpose3d(x, W) + b), x quantized by the op.

    input `[N, C, D, H, W]`, weight `[C, O / groups, *kernel]`, output_padding as in torch.
    Other arguments as in `conv2d_dynamic`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, w = torch.ones(1, 1, 1, 1, 1), torch.full((1, 1, 1, 1, 1), 2, dtype=torch.int8)
        >>> torch_ao_ext.ops.conv_transpose3d_dynamic(x, w, torch.tensor([1.0]))
        tensor([[[[[2.]]]]])
    """
    return torch.ops.torch_ao.conv_transpose3d_dynamic(
        input, weight, weight_scale, weight_zero_point, bias, per_sample, symmetric, reduce_range,
        output_dtype, stride, padding, output_padding, groups, dilation, post_ops, post_op_args or [], other,
        slope, affine_weight, affine_bias,
    )  # fmt: skip
