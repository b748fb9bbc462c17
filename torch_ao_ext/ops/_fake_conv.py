"""Fake kernels of the convolutions (csrc/ops/conv_common.cpp)."""

import torch

from torch_ao_ext.ops import _fake
from torch_ao_ext.ops._post_ops import check_other, check_post_op_tensors, check_post_ops

Tensor = torch.Tensor

_MOST_POSITIONS = 1 << 60  # of one axis, as in csrc/ops/conv_common.cpp


def _sizes(op, rank, transposed, input, weight, stride, padding, output_padding, dilation, groups):
    """Channels and sizes of the output."""
    stride = _fake.check_numbers(op, "stride", stride, rank, 1)
    padding = _fake.check_numbers(op, "padding", padding, rank, 0)
    dilation = _fake.check_numbers(op, "dilation", dilation, rank, 1)
    if transposed:
        output_padding = _fake.check_numbers(op, "output_padding", output_padding, rank, 0)
        ok = all(o < max(s, d) for o, s, d in zip(output_padding, stride, dilation, strict=True))
        rule = "be smaller than stride or dilation"
        _fake.check_value(ok, op, "output_padding", rule, output_padding)
    _fake.check_value(groups >= 1, op, "groups", "be at least 1", groups)
    for size in weight.shape:
        _fake.check_value(size >= 1, op, "weight", "have no dimension of size 0", _fake.sizes(weight))
    rule = f"divide weight.size(0) ({weight.shape[0]})"
    _fake.check_value(weight.shape[0] % groups == 0, op, "groups", rule, groups)
    _fake.check_rank(op, "input", input, rank + 2)
    if transposed:
        _fake.check_size(op, "input", input, 1, weight.shape[0], "weight.size(0)")
    else:
        channels = weight.shape[1] * groups
        _fake.check_size(op, "input", input, 1, channels, "weight.size(1) * groups")
    sizes = []
    for i in range(rank):
        size, reach = input.shape[2 + i], dilation[i] * (weight.shape[2 + i] - 1)
        rule = "give a dilated kernel of at most 2^60 in each dimension"
        _fake.check_value(reach < _MOST_POSITIONS, op, "dilation", rule, dilation[i])
        rule = "have no spatial dimension of size 0"
        _fake.check_value(size >= 1, op, "input", rule, _fake.sizes(input))
        rule = "have at most 2^60 in each spatial dimension"
        _fake.check_value(size <= _MOST_POSITIONS, op, "input", rule, _fake.sizes(input))
        if transposed:
            rule = "give an output of at most 2^60 in each dimension"
            steps = (size - 1) * stride[i]
            _fake.check_value(steps < _MOST_POSITIONS, op, "input", rule, _fake.sizes(input))
            out = steps - 2 * padding[i] + reach + output_padding[i] + 1
            rule = "give an output of at least 1 in each dimension"
            _fake.check_value(out >= 1, op, "input", rule, _fake.sizes(input))
        else:
            room = size + 2 * padding[i] - reach - 1
            rule = "be, with padding, at least as large as the dilated kernel"
            _fake.check_value(room >= 0, op, "input", rule, _fake.sizes(input))
            out = room // stride[i] + 1
        sizes.append(out)
    return sizes


def empty_channels_last(input: Tensor, sizes: list, dtype: torch.dtype | None) -> Tensor:
    strides, step = [1] * len(sizes), sizes[1]
    for i in range(len(sizes) - 1, 1, -1):
        strides[i] = step
        step = step * sizes[i]
    strides[0] = step
    return input.new_empty_strided(sizes, strides, dtype=dtype)


def _output(
    op, rank, transposed, input, input_dtypes, weight, weight_scale, weight_zero_point, bias,
    output_dtype, output_dtypes, numbers, post=("", (), None), other_dtypes=_fake.FLOAT,
    tensors=(None, None, None), bn=None,
):  # fmt: skip
    """The checks that need no values, then an empty output."""
    _fake.check_tensor(op, "input", input, input_dtypes)
    _fake.check_output_dtype(op, output_dtype, output_dtypes)
    _fake.check_tensor(op, "weight", weight, (torch.int8,))
    _fake.check_rank(op, "weight", weight, rank + 2)
    stride, padding, output_padding, dilation, groups = numbers
    spatial = _sizes(op, rank, transposed, input, weight, stride, padding, output_padding, dilation, groups)
    n = weight.shape[1] * groups if transposed else weight.shape[0]
    what = "weight.size(1) * groups" if transposed else "weight.size(0)"
    _fake.check_columns(op, n, what, weight_scale, weight_zero_point, bias)
    check_post_op_tensors(op, post[0], n, what, *tensors)
    if bn is not None:
        _fake.check_batch_norm(op, n, what, *bn)
    output = empty_channels_last(input, [input.shape[0], n, *spatial], output_dtype)
    post_ops, post_op_args, other = post
    check_other(op, post_ops, other, output, other_dtypes)
    check_post_ops(op, post_ops, post_op_args)
    return output


def _numbers(transposed, rest):
    """(stride, padding, output_padding, dilation, groups) of arguments in schema order, and what follows."""
    names = ("stride", "padding", "output_padding", "groups", "dilation")
    if not transposed:
        names = ("stride", "padding", "dilation", "groups")
    given = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1}
    given.update(zip(names, rest, strict=False))
    order = ("stride", "padding", "output_padding", "dilation", "groups")
    return [given[name] for name in order], rest[len(names) :]


def _post(rest):
    """(post_ops, post_op_args, other) at the start of what follows the numbers."""
    return (*rest[:3], *("", (), None)[len(rest[:3]) :])


def _tensors(rest):
    """(slope, affine_weight, affine_bias) at the start of what follows `other` and its qparams."""
    return (*rest[:3], *(None, None, None)[len(rest[:3]) :])


def _register(op: str, rank: int, transposed: bool) -> None:
    """Fake kernel of a static convolution."""

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
        *rest,
    ):
        numbers, rest = _numbers(transposed, rest)
        return _output(
            op, rank, transposed, input, _fake.QUANTIZED, weight, weight_scale, weight_zero_point, bias,
            output_dtype, _fake.OUTPUT, numbers, _post(rest), _fake.FLOAT + _fake.QUANTIZED,
            _tensors(rest[5:]),
        )  # fmt: skip

    torch.library.register_fake(f"torch_ao::{op}", fake)


def _register_dynamic(op: str, rank: int, transposed: bool) -> None:
    """Fake kernel of a convolution that quantizes its input."""

    def fake(
        input,
        weight,
        weight_scale,
        weight_zero_point=None,
        bias=None,
        per_sample=True,
        symmetric=False,
        reduce_range=False,
        output_dtype=None,
        *rest,
    ):
        numbers, rest = _numbers(transposed, rest)
        return _output(
            op, rank, transposed, input, _fake.FLOAT, weight, weight_scale, weight_zero_point, bias,
            output_dtype, _fake.FLOAT, numbers, _post(rest), tensors=_tensors(rest[3:]),
        )  # fmt: skip

    torch.library.register_fake(f"torch_ao::{op}", fake)


def _register_bn(op: str, rank: int, transposed: bool) -> None:
    """Fake kernel of a convolution with a batch normalization."""

    def fake(
        input,
        input_scale,
        input_zero_point,
        weight,
        weight_scale,
        weight_zero_point,
        bias,
        running_mean,
        running_var,
        bn_weight,
        bn_bias,
        eps,
        output_scale,
        output_zero_point,
        output_dtype=None,
        *rest,
    ):
        return _output(
            op, rank, transposed, input, _fake.QUANTIZED, weight, weight_scale, weight_zero_point, bias,
            output_dtype, _fake.OUTPUT, _numbers(transposed, rest)[0],
            bn=(running_mean, running_var, bn_weight, bn_bias),
        )  # fmt: skip

    torch.library.register_fake(f"torch_ao::{op}", fake)


def _register_fused(op: str, rank: int, post_ops: str) -> None:
    """Fake kernel of a published name; `add` has its operand before the numbers."""

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
        *rest,
    ):
        other, rest = (rest[0], rest[3:]) if "add" in post_ops else (None, rest)
        return _output(
            op, rank, False, input, _fake.QUANTIZED, weight, weight_scale, weight_zero_point, bias,
            output_dtype, _fake.OUTPUT, _numbers(False, rest)[0], (post_ops, (), other),
            _fake.FLOAT + _fake.QUANTIZED,
        )  # fmt: skip

    torch.library.register_fake(f"torch_ao::{op}", fake)


for _rank in (1, 2, 3):
    for _name, _transposed in (("conv", False), ("conv_transpose", True)):
        _register(f"{_name}{_rank}d", _rank, _transposed)
        _register_dynamic(f"{_name}{_rank}d_dynamic", _rank, _transposed)
        _register_bn(f"{_name}{_rank}d_bn", _rank, _transposed)
    _register_bn(f"conv{_rank}d_bn_relu", _rank, False)
    _register_fused(f"conv{_rank}d_relu", _rank, "relu")
_register_fused("conv2d_add", 2, "add")
_register_fused("conv2d_add_relu", 2, "add,relu")
