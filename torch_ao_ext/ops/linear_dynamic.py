"""Computes y = x W^T + b with int8 W and x quantized at run time."""

import torch

from torch_ao_ext.ops import _fake
from torch_ao_ext.ops._post_ops import check_other, check_post_op_tensors, check_post_ops

__all__ = ["linear_dynamic", "linear_relu_dynamic"]

Tensor = torch.Tensor


def linear_dynamic(
    input: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    weight_zero_point: Tensor | None = None,
    bias: Tensor | None = None,
    per_row: bool = True,
    symmetric: bool = False,
    reduce_range: bool = False,
    output_dtype: torch.dtype | None = None,
    post_ops: str = "",
    post_op_args: list[float] | None = None,
    other: Tensor | None = None,
    slope: Tensor | None = None,
    affine_weight: Tensor | None = None,
    affine_bias: Tensor | None = None,
) -> Tensor:
    """Computes y = post_ops(x W^T + b); the product runs on int8 values of x and W.

    Each row of x (or, with per_row=False, the whole tensor) is quantized with
    the scale and zero point of its own minimum and maximum; see
    csrc/engines/linear.h for every rounding. A row with a NaN or an infinity gives NaN.

    Args:
        input: `[*, K]`, float32 or bfloat16.
        weight: `[N, K]`, int8. Packed for the CPU at its first use.
        weight_scale: `[N]` or `[1]`, float32, real units per step, normal and > 0.
        weight_zero_point: `[N]` or `[1]`, int32 or int64; None means 0.
        bias: `[N]`, float32, finite.
        per_row: one scale per row instead of one for the tensor.
        symmetric: zero point 0 and values -127..127 instead of 0..255.
        reduce_range: half the values, as torch.ao's x86 kernels need.
        output_dtype: float32 or bfloat16; default the input's.
        post_ops: comma-separated, in order: relu, clamp, leaky_relu, silu, gelu (exact),
            gelu_tanh, hardswish, hardsigmoid, sigmoid, tanh, add, prelu, affine;
            `add` and `affine` at most once.
        post_op_args: clamp takes two values, leaky_relu one, in the order of post_ops.
        other: operand of `add`, the output's shape.
        slope: of `prelu`, which is r where r >= 0, else slope[n] * r: `[N]` or `[1]`, float32.
        affine_weight: of `affine`, which is r * affine_weight[n] + affine_bias[n] in float32 without
            FMA, as a batch norm behind an activation: `[N]`, float32, finite.
        affine_bias: of `affine`, as affine_weight.

    Returns:
        `[*, N]`, contiguous.

    Raises:
        TypeError: a tensor of the wrong dtype or layout.
        ValueError: sizes that do not fit, a bad scale or post-op.

    Source: Jacob et al. 2018, section 2 (integer arithmetic); row-wise dynamic ranges.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.tensor([[1.0, -1.0]])
        >>> w = torch.tensor([[100, 0], [50, 50]], dtype=torch.int8)
        >>> torch_ao_ext.ops.linear_dynamic(x, w, torch.tensor([0.01])).round(decimals=2)
        tensor([[1., 0.]])
    """
    return torch.ops.torch_ao.linear_dynamic(
        input,
        weight,
        weight_scale,
        weight_zero_point,
        bias,
        per_row,
        symmetric,
        reduce_range,
        output_dtype,
        post_ops,
        post_op_args or [],
        other,
        slope,
        affine_weight,
        affine_bias,
    )


def linear_relu_dynamic(
    input: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    weight_zero_point: Tensor | None = None,
    bias: Tensor | None = None,
    per_row: bool = True,
    symmetric: bool = False,
    reduce_range: bool = False,
    output_dtype: torch.dtype | None = None,
) -> Tensor:
    """Computes y = max(0, x W^T + b); arguments as in `linear_dynamic`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, w = torch.tensor([[1.0]]), torch.tensor([[-100]], dtype=torch.int8)
        >>> torch_ao_ext.ops.linear_relu_dynamic(x, w, torch.tensor([0.01]))
        tensor([[0.]])
    """
    return torch.ops.torch_ao.linear_relu_dynamic(
        input,
        weight,
        weight_scale,
        weight_zero_point,
        bias,
        per_row,
        symmetric,
        reduce_range,
        output_dtype,
    )


def _shape(
    op: str,
    input: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    weight_zero_point: Tensor | None,
    bias: Tensor | None,
    output_dtype: torch.dtype | None,
) -> Tensor:
    """The checks that need no values, then an empty output."""
    _fake.check_tensor(op, "input", input, _fake.FLOAT)
    _fake.check_output_dtype(op, output_dtype, _fake.FLOAT)
    _fake.check_weight(op, weight, weight_scale, weight_zero_point, bias)
    _fake.check_min_rank(op, "input", input, 1)
    _fake.check_size(op, "input", input, -1, weight.shape[1], "weight.size(1)")
    return input.new_empty([*input.shape[:-1], weight.shape[0]], dtype=output_dtype)


@torch.library.register_fake("torch_ao::linear_dynamic")
def _(
    input,
    weight,
    weight_scale,
    weight_zero_point=None,
    bias=None,
    per_row=True,
    symmetric=False,
    reduce_range=False,
    output_dtype=None,
    post_ops="",
    post_op_args=(),
    other=None,
    slope=None,
    affine_weight=None,
    affine_bias=None,
):
    output = _shape(
        "linear_dynamic", input, weight, weight_scale, weight_zero_point, bias, output_dtype
    )
    check_post_op_tensors(
        "linear_dynamic", post_ops, weight.shape[0], "weight.size(0)", slope, affine_weight, affine_bias
    )
    check_other("linear_dynamic", post_ops, other, output, _fake.FLOAT)
    check_post_ops("linear_dynamic", post_ops, post_op_args)
    return output


@torch.library.register_fake("torch_ao::linear_relu_dynamic")
def _(
    input,
    weight,
    weight_scale,
    weight_zero_point=None,
    bias=None,
    per_row=True,
    symmetric=False,
    reduce_range=False,
    output_dtype=None,
):
    return _shape(
        "linear_relu_dynamic", input, weight, weight_scale, weight_zero_point, bias, output_dtype
    )
