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
    input_bits: int = 16,
) -> Tensor:
    """Computes y[m, n] = sum_k x[m, k] * weight_scale[n, k / group_size] * W[n, k] + bias[n].

    x is rounded to 16 bits of the largest value of its row, 69 to 90 dB below the
    result; see csrc/engines/weight_only.h for every rounding. A row gives the same
    bits alone and in every batch. A row with a NaN or an infinity gives NaN.

    Args:
        input: `[*, K]`, float32 or bfloat16.
        weight: int8 `[N, K]` with group_size 0; else uint8 `[N, ceil(K / 2)]`, two
            4-bit values a byte, even k in the low nibble, each W + 8. Packed for the
            CPU at its first use.
        weight_scale: real units per step, normal and > 0. float32 `[N]` or `[1]` with
            group_size 0; else float32 or bfloat16 `[N, ceil(K / group_size)]`.
        bias: `[N]`, float32, finite.
        group_size: values along K that share a scale: 0 (all, 8 bit), 32, 64 or 128.
        input_bits: 16, or 8: half the work for large batches, and the error of
            `linear_dynamic` with symmetric rows.

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
