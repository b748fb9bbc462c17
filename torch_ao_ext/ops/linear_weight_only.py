"""Computes y = x W^T + b with 8-bit or 4-bit W and x in float."""

import torch

from torch_ao_ext.ops import _fake

__all__ = ["linear_weight_only"]

Tensor = torch.Tensor


def linear_weight_only(
    input: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    group_size: int = 0,
    input_bits: int = 8,
) -> Tensor:
    """Computes y[m, n] = sum_k x[m, k] * weight_scale[n, k / group_size] * W[n, k] + bias[n].

    Inside, groups of values along K become integers with a scale of their own; a row gives the
    same bits alone and in every batch. Every rounding is in csrc/engines/weight_only.h. A row
    with a NaN or an infinity gives NaN.

    Args:
        input: `[*, K]`, float32 or bfloat16.
        weight: int8 `[N, K]` with group_size 0; else uint8 `[N, ceil(K / 2)]`, two
            4-bit values a byte, even k in the low nibble, each W + 8. Packed for the
            CPU at its first use.
        weight_scale: real units per step, normal and > 0. float32 `[N]` or `[1]` with
            group_size 0; else float32 or bfloat16 `[N, ceil(K / group_size)]`.
        bias: `[N]`, float32, finite.
        group_size: values along K that share a scale: 0 (all, 8 bit), 32, 64 or 128.
        input_bits: 8: x in 8 bits of the largest value of a group, 64 values with 8-bit weights,
            group_size with 4-bit ones; with 8-bit weights in 16 bits where an outlier would hide
            the others. Its error is 44 to 45 dB below the result with normal values, 40 dB and more
            with others (4-bit weights, whose own error is 20 dB: 32 dB and more). 16: all groups in
            16 bits, 80 dB and more, for twice the work of large batches. The schema's default,
            which calls of torch.ops.torch_ao.linear_weight_only and graphs of `lower` have, is 16.

    Returns:
        `[*, N]`, contiguous, in the input's dtype.

    Raises:
        TypeError: a tensor of the wrong dtype or layout.
        ValueError: sizes that do not fit, a bad scale.

    Source: Frantar et al. 2022 (GPTQ), section 4, for the grouped layout.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.tensor([[1.0, -1.0]])
        >>> w = torch.tensor([[100, 0], [50, 50]], dtype=torch.int8)
        >>> torch_ao_ext.ops.linear_weight_only(x, w, torch.tensor([0.01])).round(decimals=2)
        tensor([[1., 0.]])
    """
    return torch.ops.torch_ao.linear_weight_only(input, weight, weight_scale, bias, group_size, input_bits)


@torch.library.register_fake("torch_ao::linear_weight_only")
def _(input, weight, weight_scale, bias=None, group_size=0, input_bits=16):
    op = "linear_weight_only"
    _fake.check_tensor(op, "input", input, _fake.FLOAT)
    _fake.check_min_rank(op, "input", input, 1)
    k = input.shape[-1]
    sizes = group_size in (0, 32, 64, 128)
    _fake.check_value(sizes, op, "group_size", "be 0, 32, 64 or 128", group_size)
    _fake.check_value(input_bits in (8, 16), op, "input_bits", "be 8 or 16", input_bits)
    _fake.check_tensor(op, "weight", weight, (torch.uint8 if group_size else torch.int8,))
    _fake.check_rank(op, "weight", weight, 2)
    columns = (k + 1) // 2 if group_size else k
    rule = f"have size(1) equal to {columns} for input.size(-1) {k}"
    _fake.check_value(weight.shape[1] == columns, op, "weight", rule, weight.shape[1])
    n = weight.shape[0]
    if group_size:
        _fake.check_tensor(op, "weight_scale", weight_scale, _fake.FLOAT)
        _fake.check_rank(op, "weight_scale", weight_scale, 2)
        _fake.check_size(op, "weight_scale", weight_scale, 0, n, "weight.size(0)")
        groups = (k + group_size - 1) // group_size
        _fake.check_size(op, "weight_scale", weight_scale, 1, groups, "the count of groups")
    else:
        _fake.check_tensor(op, "weight_scale", weight_scale, (torch.float32,))
        _fake.check_per_channel(op, "weight_scale", weight_scale, n)
    if bias is not None:
        _fake.check_tensor(op, "bias", bias, (torch.float32,))
        _fake.check_rank(op, "bias", bias, 1)
        _fake.check_size(op, "bias", bias, 0, n, "weight.size(0)")
    return input.new_empty([*input.shape[:-1], n])
