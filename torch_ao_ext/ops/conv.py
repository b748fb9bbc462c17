"""Static convolutions of 1 to 3 dimensions and their transposed forms, channels last."""

import torch

from torch_ao_ext.ops import _fake_conv  # noqa: F401  (registers the fake kernels)

__all__ = [
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
]

Tensor = torch.Tensor


def conv1d(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    weight: Tensor,
    weight_scale: Tensor,
    weight_zero_point: Tensor | None = None,
    bias: Tensor | None = None,
    output_scale: float = 1.0,
    output_zero_point: int = 0,
    output_dtype: torch.dtype | None = None,
    stride: int | list[int] = 1,
    padding: int | list[int] = 0,
    dilation: int | list[int] = 1,
    groups: int = 1,
    post_ops: str = "",
    post_op_args: list[float] | None = None,
    other: Tensor | None = None,
    other_scale: float = 1.0,
    other_zero_point: int = 0,
    slope: Tensor | None = None,
    affine_weight: Tensor | None = None,
    affine_bias: Tensor | None = None,
) -> Tensor:
    """Computes y = quantize(post_ops(conv1d(x, W) + b)).

    input `[N, C, L]`, arguments as in `conv2d`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.full((1, 1, 1), 2, dtype=torch.uint8)
        >>> w = torch.full((1, 1, 1), 2, dtype=torch.int8)
        >>> torch_ao_ext.ops.conv1d(x, 1.0, 0, w, torch.tensor([1.0]))
        tensor([[[4]]], dtype=torch.uint8)
    """
    return torch.ops.torch_ao.conv1d(
        input,
        input_scale,
        input_zero_point,
        weight,
        weight_scale,
        weight_zero_point,
        bias,
        output_scale,
        output_zero_point,
        output_dtype,
        stride,
        padding,
        dilation,
        groups,
        post_ops,
        post_op_args or [],
        other,
        other_scale,
        other_zero_point,
        slope,
        affine_weight,
        affine_bias,
    )


def conv2d(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    weight: Tensor,
    weight_scale: Tensor,
    weight_zero_point: Tensor | None = None,
    bias: Tensor | None = None,
    output_scale: float = 1.0,
    output_zero_point: int = 0,
    output_dtype: torch.dtype | None = None,
    stride: int | list[int] = 1,
    padding: int | list[int] = 0,
    dilation: int | list[int] = 1,
    groups: int = 1,
    post_ops: str = "",
    post_op_args: list[float] | None = None,
    other: Tensor | None = None,
    other_scale: float = 1.0,
    other_zero_point: int = 0,
    slope: Tensor | None = None,
    affine_weight: Tensor | None = None,
    affine_bias: Tensor | None = None,
) -> Tensor:
    """Computes y = quantize(post_ops(conv2d(x, W) + b)), x = (input - zp_x) s_x, W = (weight - zp_w) s_w.

    x is 0 in the padding. Rounding and the arguments not listed are those of `linear`.

    Args:
        input: `[N, C, H, W]`, uint8 or int8. Channels last is read as it lies, another layout is
            copied once.
        input_scale: real units per step of input.
        input_zero_point: in the range of input's dtype.
        weight: `[O, C / groups, kH, kW]`, int8. Packed for the CPU at its first use.
        weight_scale: `[O]` or `[1]`, float32.
        weight_zero_point: `[O]` or `[1]`, int32 or int64; None means 0.
        bias: `[O]`, float32, in real units.
        output_scale: real units per step of the output; 1.0 for a float output.
        output_zero_point: in the range of the output's dtype; 0 for a float output.
        output_dtype: uint8, int8, float32 or bfloat16; default the input's.
        stride: one number, or one for each spatial dimension.
        padding: as stride; on both sides.
        dilation: as stride.
        groups: divides C and O.
        post_ops: see `linear_dynamic`; `add` makes a residual connection of `other`.
        post_op_args: numbers of the post-ops, in order.
        other: operand of `add`, the output's shape: uint8, int8, float32, bfloat16.
        other_scale: real units per step of an integer `other`.
        other_zero_point: zero point of an integer `other`.
        slope: of the post-op `prelu`, `[O]` or `[1]`, float32.
        affine_weight: of the post-op `affine`, `[O]`, float32, finite.
        affine_bias: of the post-op `affine`, `[O]`, float32, finite.

    Returns:
        `[N, O, H', W']`, channels last.

    Raises:
        TypeError: a tensor of the wrong dtype or layout.
        ValueError: sizes that do not fit, a bad scale, zero point, number or post-op.

    Source: Jacob et al. 2018, equation 7.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.full((1, 1, 2, 2), 3, dtype=torch.uint8)
        >>> w = torch.ones(1, 1, 2, 2, dtype=torch.int8)
        >>> torch_ao_ext.ops.conv2d(x, 1.0, 1, w, torch.tensor([0.5]), output_dtype=torch.float32)
        tensor([[[[4.]]]])
    """
    return torch.ops.torch_ao.conv2d(
        input,
        input_scale,
        input_zero_point,
        weight,
        weight_scale,
        weight_zero_point,
        bias,
        output_scale,
        output_zero_point,
        output_dtype,
        stride,
        padding,
        dilation,
        groups,
        post_ops,
        post_op_args or [],
        other,
        other_scale,
        other_zero_point,
        slope,
        affine_weight,
        affine_bias,
    )


def conv3d(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    weight: Tensor,
    weight_scale: Tensor,
    weight_zero_point: Tensor | None = None,
    bias: Tensor | None = None,
    output_scale: float = 1.0,
    output_zero_point: int = 0,
    output_dtype: torch.dtype | None = None,
    stride: int | list[int] = 1,
    padding: int | list[int] = 0,
    dilation: int | list[int] = 1,
    groups: int = 1,
    post_ops: str = "",
    post_op_args: list[float] | None = None,
    other: Tensor | None = None,
    other_scale: float = 1.0,
    other_zero_point: int = 0,
    slope: Tensor | None = None,
    affine_weight: Tensor | None = None,
    affine_bias: Tensor | None = None,
) -> Tensor:
    """Computes y = quantize(post_ops(conv3d(x, W) + b)).

    input `[N, C, D, H, W]`, arguments as in `conv2d`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.full((1, 1, 1, 1, 1), 2, dtype=torch.uint8)
        >>> w = torch.full((1, 1, 1, 1, 1), 2, dtype=torch.int8)
        >>> torch_ao_ext.ops.conv3d(x, 1.0, 0, w, torch.tensor([1.0]))
        tensor([[[[[4]]]]], dtype=torch.uint8)
    """
    return torch.ops.torch_ao.conv3d(
        input,
        input_scale,
        input_zero_point,
        weight,
        weight_scale,
        weight_zero_point,
        bias,
        output_scale,
        output_zero_point,
        output_dtype,
        stride,
        padding,
        dilation,
        groups,
        post_ops,
        post_op_args or [],
        other,
        other_scale,
        other_zero_point,
        slope,
        affine_weight,
        affine_bias,
    )


def conv_transpose1d(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    weight: Tensor,
    weight_scale: Tensor,
    weight_zero_point: Tensor | None = None,
    bias: Tensor | None = None,
    output_scale: float = 1.0,
    output_zero_point: int = 0,
    output_dtype: torch.dtype | None = None,
    stride: int | list[int] = 1,
    padding: int | list[int] = 0,
    output_padding: int | list[int] = 0,
    groups: int = 1,
    dilation: int | list[int] = 1,
    post_ops: str = "",
    post_op_args: list[float] | None = None,
    other: Tensor | None = None,
    other_scale: float = 1.0,
    other_zero_point: int = 0,
    slope: Tensor | None = None,
    affine_weight: Tensor | None = None,
    affine_bias: Tensor | None = None,
) -> Tensor:
    """Computes y = quantize(post_ops(conv_transpose1d(x, W) + b)).

    input `[N, C, L]`, weight `[C, O / groups, *kernel]`, output_padding as in torch.
    Other arguments as in `conv2d`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.full((1, 1, 1), 2, dtype=torch.uint8)
        >>> w = torch.full((1, 1, 1), 2, dtype=torch.int8)
        >>> torch_ao_ext.ops.conv_transpose1d(x, 1.0, 0, w, torch.tensor([1.0]))
        tensor([[[4]]], dtype=torch.uint8)
    """
    return torch.ops.torch_ao.conv_transpose1d(
        input,
        input_scale,
        input_zero_point,
        weight,
        weight_scale,
        weight_zero_point,
        bias,
        output_scale,
        output_zero_point,
        output_dtype,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        post_ops,
        post_op_args or [],
        other,
        other_scale,
        other_zero_point,
        slope,
        affine_weight,
        affine_bias,
    )


def conv_transpose2d(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    weight: Tensor,
    weight_scale: Tensor,
    weight_zero_point: Tensor | None = None,
    bias: Tensor | None = None,
    output_scale: float = 1.0,
    output_zero_point: int = 0,
    output_dtype: torch.dtype | None = None,
    stride: int | list[int] = 1,
    padding: int | list[int] = 0,
    output_padding: int | list[int] = 0,
    groups: int = 1,
    dilation: int | list[int] = 1,
    post_ops: str = "",
    post_op_args: list[float] | None = None,
    other: Tensor | None = None,
    other_scale: float = 1.0,
    other_zero_point: int = 0,
    slope: Tensor | None = None,
    affine_weight: Tensor | None = None,
    affine_bias: Tensor | None = None,
) -> Tensor:
    """Computes y = quantize(post_ops(conv_transpose2d(x, W) + b)).

    input `[N, C, H, W]`, weight `[C, O / groups, *kernel]`, output_padding as in torch.
    Other arguments as in `conv2d`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.full((1, 1, 1, 1), 2, dtype=torch.uint8)
        >>> w = torch.full((1, 1, 1, 1), 2, dtype=torch.int8)
        >>> torch_ao_ext.ops.conv_transpose2d(x, 1.0, 0, w, torch.tensor([1.0]))
        tensor([[[[4]]]], dtype=torch.uint8)
    """
    return torch.ops.torch_ao.conv_transpose2d(
        input,
        input_scale,
        input_zero_point,
        weight,
        weight_scale,
        weight_zero_point,
        bias,
        output_scale,
        output_zero_point,
        output_dtype,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        post_ops,
        post_op_args or [],
        other,
        other_scale,
        other_zero_point,
        slope,
        affine_weight,
        affine_bias,
    )


def conv_transpose3d(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    weight: Tensor,
    weight_scale: Tensor,
    weight_zero_point: Tensor | None = None,
    bias: Tensor | None = None,
    output_scale: float = 1.0,
    output_zero_point: int = 0,
    output_dtype: torch.dtype | None = None,
    stride: int | list[int] = 1,
    padding: int | list[int] = 0,
    output_padding: int | list[int] = 0,
    groups: int = 1,
    dilation: int | list[int] = 1,
    post_ops: str = "",
    post_op_args: list[float] | None = None,
    other: Tensor | None = None,
    other_scale: float = 1.0,
    other_zero_point: int = 0,
    slope: Tensor | None = None,
    affine_weight: Tensor | None = None,
    affine_bias: Tensor | None = None,
) -> Tensor:
    """Computes y = quantize(post_ops(conv_transpose3d(x, W) + b)).

    input `[N, C, D, H, W]`, weight `[C, O / groups, *kernel]`, output_padding as in torch.
    Other arguments as in `conv2d`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.full((1, 1, 1, 1, 1), 2, dtype=torch.uint8)
        >>> w = torch.full((1, 1, 1, 1, 1), 2, dtype=torch.int8)
        >>> torch_ao_ext.ops.conv_transpose3d(x, 1.0, 0, w, torch.tensor([1.0]))
        tensor([[[[[4]]]]], dtype=torch.uint8)
    """
    return torch.ops.torch_ao.conv_transpose3d(
        input,
        input_scale,
        input_zero_point,
        weight,
        weight_scale,
        weight_zero_point,
        bias,
        output_scale,
        output_zero_point,
        output_dtype,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
        post_ops,
        post_op_args or [],
        other,
        other_scale,
        other_zero_point,
        slope,
        affine_weight,
        affine_bias,
    )
