"""Fake kernels of the convolutions (csrc/ops/conv_common.cpp)."""

import torch

from torch_ao_ext.ops import _fake

Tensor = torch.Tensor

_MOST_POSITIONS = 1 << 60  # of one axis, as in csrc/ops/conv_common.cpp
_OUTPUT = (torch.uint8, torch.int8, torch.float32, torch.bfloat16)


def _check_numbers(op: str, name: str, values, rank: int, least: int) -> list:
    values = [values] * rank if isinstance(values, int) else list(values)
    _fake.check_value(len(values) == rank, op, name, f"have {rank} values", values)
    for value in values:
        _fake.check_value(least <= value < 2**31, op, name, f"hold values in [{least}, 2^31)", value)
    return values


def _sizes(op, rank, transposed, input, weight, stride, padding, output_padding, dilation, groups):
    """Channels and sizes of the output."""
    stride = _check_numbers(op, "stride", stride, rank, 1)
    padding = _check_numbers(op, "padding", padding, rank, 0)
    dilation = _check_numbers(op, "dilation", dilation, rank, 1)
    if transposed:
        output_padding = _check_numbers(op, "output_padding", output_padding, rank, 0)
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


def _register(op: str, rank: int, transposed: bool) -> None:
    """Fake kernel: the checks that need no values, then an empty output."""

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
        stride=1,
        padding=0,
        third=None,  # dilation, groups; transposed: output_padding, groups, dilation
        groups=1,
        *rest,
    ):
        output_padding, dilation = 0, 1 if third is None else third
        if transposed:
            output_padding = 0 if third is None else third
            dilation, rest = (rest[0], rest[1:]) if rest else (1, ())
        defaults = ("", (), None)
        post_ops, post_op_args, other = (*rest[:3], *defaults[len(rest[:3]) :])
        _fake.check_tensor(op, "input", input, _fake.QUANTIZED)
        if output_dtype is not None:
            _fake.check_dtype(op, "output_dtype", output_dtype, _OUTPUT)
        _fake.check_tensor(op, "weight", weight, (torch.int8,))
        _fake.check_rank(op, "weight", weight, rank + 2)
        spatial = _sizes(
            op, rank, transposed, input, weight, stride, padding, output_padding, dilation, groups
        )
        n = weight.shape[1] * groups if transposed else weight.shape[0]
        what = "weight.size(1) * groups" if transposed else "weight.size(0)"
        _fake.check_columns(op, n, what, weight_scale, weight_zero_point, bias)
        output = empty_channels_last(input, [input.shape[0], n, *spatial], output_dtype)
        _fake.check_other(op, post_ops, other, output, _fake.FLOAT + _fake.QUANTIZED)
        _fake.check_post_ops(op, post_ops, post_op_args)
        return output

    torch.library.register_fake(f"torch_ao::{op}", fake)


_register("conv1d", 1, False)
_register("conv2d", 2, False)
_register("conv3d", 3, False)
_register("conv_transpose1d", 1, True)
_register("conv_transpose2d", 2, True)
_register("conv_transpose3d", 3, True)
