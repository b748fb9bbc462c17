"""Fake kernels of the pooling (csrc/ops/pool_common.cpp)."""

import torch

from torch_ao_ext.ops import _fake
from torch_ao_ext.ops._fake_conv import empty_channels_last

Tensor = torch.Tensor


def _check_input(op: str, input: Tensor, rank: int) -> None:
    _fake.check_tensor(op, "input", input, _fake.QUANTIZED)
    _fake.check_rank(op, "input", input, rank + 2)
    for size in input.shape[1:]:
        _fake.check_value(
            size >= 1, op, "input", "have no dimension of size 0 but the batch", _fake.sizes(input)
        )


def _windows(op, input, rank, kernel_size, stride, padding, dilation, ceil_mode):
    """Spatial sizes of the output."""
    kernel = _fake.check_numbers(op, "kernel_size", kernel_size, rank, 1)
    stride = _fake.check_numbers(op, "stride", stride, rank, 1) if stride or stride == 0 else kernel
    padding = _fake.check_numbers(op, "padding", padding, rank, 0)
    dilation = _fake.check_numbers(op, "dilation", dilation, rank, 1)
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
        _fake.check_output_dtype(op, output_dtype)
        spatial = _windows(op, input, rank, kernel_size, stride, padding, 1, ceil_mode)
        return empty_channels_last(input, [input.shape[0], input.shape[1], *spatial], output_dtype)

    @torch.library.register_fake(f"torch_ao::adaptive_avg_pool{rank}d")
    def _(input, input_scale, input_zero_point, output_scale, output_zero_point, output_dtype, output_size):
        op = f"adaptive_avg_pool{rank}d"
        _check_input(op, input, rank)
        _fake.check_output_dtype(op, output_dtype)
        spatial = _fake.check_numbers(op, "output_size", output_size, rank, 1)
        return empty_channels_last(input, [input.shape[0], input.shape[1], *spatial], output_dtype)


for _rank in (1, 2, 3):
    _register(_rank)
