"""Fake kernels of the normalizations (csrc/ops/norm_common.cpp)."""

import torch

from torch_ao_ext.ops import _fake
from torch_ao_ext.ops._fake_conv import empty_channels_last
from torch_ao_ext.ops._post_ops import check_output

Tensor = torch.Tensor
Dtype = torch.dtype | None


def _check_parameters(op: str, shape, what: str, **parameters) -> None:
    for name, t in parameters.items():
        if t is not None:
            _fake.check_tensor(op, name, t, _fake.FLOAT)
            _fake.check_same_sizes(op, name, t, shape, what)


def _check_rows(op: str, input: Tensor, shape, **parameters) -> None:
    got = f"[{', '.join(str(n) for n in shape)}]"
    _fake.check_value(len(shape) >= 1, op, "normalized_shape", "have at least 1 value", got)
    _fake.check_min_rank(op, "input", input, len(shape))
    rule = f"be the last sizes of input [{', '.join(str(n) for n in input.shape)}]"
    for have, want in zip(input.shape[input.dim() - len(shape) :], shape, strict=True):
        _fake.check_value(have == want, op, "normalized_shape", rule, got)
    _check_parameters(op, shape, "normalized_shape", **parameters)


@torch.library.register_fake("torch_ao::layer_norm")
def _(
    input, input_scale, input_zero_point, weight, bias, output_scale, output_zero_point, output_dtype,
    normalized_shape, eps=1e-5, post_ops="", post_op_args=(),
):  # fmt: skip
    op = "layer_norm"
    _fake.check_tensor(op, "input", input, _fake.OUTPUT)
    check_output(op, output_dtype, post_ops, post_op_args)
    _check_rows(op, input, normalized_shape, weight=weight, bias=bias)
    return input.new_empty(input.shape, dtype=output_dtype or input.dtype)


@torch.library.register_fake("torch_ao::rms_norm")
def _(
    input, input_scale, input_zero_point, weight, output_scale, output_zero_point, output_dtype,
    normalized_shape, eps=None, post_ops="", post_op_args=(),
):  # fmt: skip
    op = "rms_norm"
    _fake.check_tensor(op, "input", input, _fake.OUTPUT)
    check_output(op, output_dtype, post_ops, post_op_args)
    _check_rows(op, input, normalized_shape, weight=weight)
    return input.new_empty(input.shape, dtype=output_dtype or input.dtype)


def _sum(op, input, other, weight, bias, output_dtype, normalized_shape, post_ops, post_op_args):
    _fake.check_tensor(op, "input", input, _fake.OUTPUT)
    _fake.check_tensor(op, "other", other, _fake.OUTPUT)
    _fake.check_same_sizes(op, "other", other, input.shape, "input")
    check_output(op, output_dtype, post_ops, post_op_args)
    _check_rows(op, input, normalized_shape, weight=weight, bias=bias)
    return input.new_empty(input.shape, dtype=output_dtype or input.dtype)


@torch.library.register_fake("torch_ao::add_layer_norm")
def _(
    input, input_scale, input_zero_point, other, other_scale, other_zero_point, weight, bias, output_scale,
    output_zero_point, output_dtype, normalized_shape, eps=1e-5, post_ops="", post_op_args=(),
):  # fmt: skip
    return _sum(
        "add_layer_norm", input, other, weight, bias, output_dtype, normalized_shape, post_ops, post_op_args
    )


@torch.library.register_fake("torch_ao::add_layer_norm_sum")
def _(
    input, input_scale, input_zero_point, other, other_scale, other_zero_point, weight, bias, output_scale,
    output_zero_point, output_dtype, normalized_shape, eps=1e-5, post_ops="", post_op_args=(),
    sum_dtype=None,
):  # fmt: skip
    op = "add_layer_norm_sum"
    if sum_dtype is not None:
        _fake.check_dtype(op, "sum_dtype", sum_dtype, _fake.FLOAT)
    y = _sum(op, input, other, weight, bias, output_dtype, normalized_shape, post_ops, post_op_args)
    return y, input.new_empty(input.shape, dtype=sum_dtype or torch.float32)


def _channels(op, input, least_rank, output_dtype, post_ops, post_op_args, **parameters):
    """Checks, and the output in input's memory order."""
    _fake.check_tensor(op, "input", input, _fake.OUTPUT if op == "batch_norm" else _fake.QUANTIZED)
    _fake.check_min_rank(op, "input", input, least_rank)
    rule = "have no dimension of size 0 but the batch"
    for size in input.shape[1:]:
        _fake.check_value(size >= 1, op, "input", rule, _fake.sizes(input))
    check_output(op, output_dtype, post_ops, post_op_args)
    _check_parameters(op, [input.shape[1]], "input.size(1)", **parameters)
    dtype = output_dtype or input.dtype
    if not input.is_contiguous() and input.movedim(1, -1).is_contiguous():
        return empty_channels_last(input, list(input.shape), dtype)
    return input.new_empty(input.shape, dtype=dtype)


@torch.library.register_fake("torch_ao::group_norm")
def _(
    input, input_scale, input_zero_point, weight, bias, output_scale, output_zero_point, output_dtype,
    num_groups, eps=1e-5, post_ops="", post_op_args=(),
):  # fmt: skip
    op = "group_norm"
    _fake.check_tensor(op, "input", input, _fake.QUANTIZED)
    _fake.check_min_rank(op, "input", input, 2)
    rule = f"be at least 1 and divide input.size(1) ({input.shape[1]})"
    _fake.check_value(num_groups >= 1, op, "num_groups", rule, num_groups)
    _fake.check_value(input.shape[1] % num_groups == 0, op, "num_groups", rule, num_groups)
    return _channels(op, input, 2, output_dtype, post_ops, post_op_args, weight=weight, bias=bias)


@torch.library.register_fake("torch_ao::instance_norm")
def _(
    input, input_scale, input_zero_point, weight, bias, output_scale, output_zero_point, output_dtype,
    eps=1e-5, post_ops="", post_op_args=(),
):  # fmt: skip
    return _channels(
        "instance_norm", input, 3, output_dtype, post_ops, post_op_args, weight=weight, bias=bias
    )


@torch.library.register_fake("torch_ao::batch_norm")
def _(
    input, input_scale, input_zero_point, running_mean, running_var, weight, bias, output_scale,
    output_zero_point, output_dtype, eps=1e-5, post_ops="", post_op_args=(),
):  # fmt: skip
    op = "batch_norm"
    if running_mean is None or running_var is None:  # no tensor at all
        _fake.check_tensor(op, "running_mean" if running_mean is None else "running_var", None, _fake.FLOAT)
    return _channels(
        op, input, 2, output_dtype, post_ops, post_op_args, running_mean=running_mean,
        running_var=running_var, weight=weight, bias=bias,
    )  # fmt: skip
