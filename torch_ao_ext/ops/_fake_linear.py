"""Fake kernels of the static linear and its fused names (csrc/ops/linear_common.cpp)."""

import torch

from torch_ao_ext.ops import _fake
from torch_ao_ext.ops._post_ops import check_other, check_post_op_tensors, check_post_ops

Tensor = torch.Tensor


def _output(
    op: str,
    input: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    weight_zero_point: Tensor | None,
    bias: Tensor | None,
    output_dtype: torch.dtype | None,
    post_ops: str = "",
    post_op_args=(),
    other: Tensor | None = None,
    slope: Tensor | None = None,
    affine_weight: Tensor | None = None,
    affine_bias: Tensor | None = None,
) -> Tensor:
    """The checks that need no values, then an empty output."""
    _fake.check_tensor(op, "input", input, _fake.QUANTIZED)
    _fake.check_output_dtype(op, output_dtype)
    _fake.check_weight(op, weight, weight_scale, weight_zero_point, bias)
    _fake.check_min_rank(op, "input", input, 1)
    _fake.check_size(op, "input", input, -1, weight.shape[1], "weight.size(1)")
    output = input.new_empty([*input.shape[:-1], weight.shape[0]], dtype=output_dtype)
    columns = (weight.shape[0], "weight.size(0)")
    check_post_op_tensors(op, post_ops, *columns, slope, affine_weight, affine_bias)
    check_other(op, post_ops, other, output, _fake.FLOAT + _fake.QUANTIZED)
    check_post_ops(op, post_ops, post_op_args)
    return output


@torch.library.register_fake("torch_ao::linear")
def _(
    input,
    input_scale,
    input_zero_point,
    weight,
    weight_scale,
    weight_zero_point,
    bias,
    output_scale,
    output_zero_point,
    output_dtype=None,
    post_ops="",
    post_op_args=(),
    other=None,
    other_scale=1.0,
    other_zero_point=0,
    slope=None,
    affine_weight=None,
    affine_bias=None,
):
    return _output(
        "linear", input, weight, weight_scale, weight_zero_point, bias, output_dtype, post_ops,
        post_op_args, other, slope, affine_weight, affine_bias,
    )  # fmt: skip


@torch.library.register_fake("torch_ao::linear.tensor")
def _(
    input,
    input_scale,
    input_zero_point,
    weight,
    weight_scale,
    weight_zero_point,
    bias,
    output_scale,
    output_zero_point,
    output_dtype=None,
    post_ops="",
    post_op_args=(),
    other=None,
    other_scale=1.0,
    other_zero_point=0,
    slope=None,
    affine_weight=None,
    affine_bias=None,
):
    for name, scale in (("input_scale", input_scale), ("output_scale", output_scale)):
        _fake.check_one_element("linear", name, scale, _fake.SCALES)
    for name, point in (
        ("input_zero_point", input_zero_point),
        ("output_zero_point", output_zero_point),
    ):
        _fake.check_one_element("linear", name, point, _fake.ZERO_POINTS)
    return _output(
        "linear", input, weight, weight_scale, weight_zero_point, bias, output_dtype, post_ops,
        post_op_args, other, slope, affine_weight, affine_bias,
    )  # fmt: skip


def _register_fused(name: str, post_ops: str, with_other: bool = False) -> None:
    """Fake kernel of a fused name: `linear` with these post-ops."""

    def fake(
        input,
        input_scale,
        input_zero_point,
        weight,
        weight_scale,
        weight_zero_point,
        bias,
        output_scale,
        output_zero_point,
        output_dtype=None,
        extra=None,  # other, or negative_slope
        *_,
    ):
        args = [] if post_ops != "leaky_relu" else [0.0]
        other = extra if with_other else None
        return _output(
            name, input, weight, weight_scale, weight_zero_point, bias, output_dtype, post_ops,
            args, other,
        )  # fmt: skip

    torch.library.register_fake(f"torch_ao::{name}", fake)


_register_fused("linear_relu", "relu")
_register_fused("linear_leaky_relu", "leaky_relu")
_register_fused("linear_tanh", "tanh")
_register_fused("linear_add", "add", with_other=True)
_register_fused("linear_add_relu", "add,relu", with_other=True)
