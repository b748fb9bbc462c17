"""Joining 8-bit tensors of different qparams."""

import torch

from torch_ao_ext.ops import _fake
from torch_ao_ext.ops._fake_conv import empty_channels_last

__all__ = ["cat"]

Tensor = torch.Tensor


def cat(
    tensors: list[Tensor],
    scales: list[float],
    zero_points: list[int],
    dim: int = 0,
    output_scale: float = 1.0,
    output_zero_point: int = 0,
    output_dtype: torch.dtype | None = None,
) -> Tensor:
    """Joins tensors along dim, each requantized to the output's qparams, in one pass.

    Args:
        tensors: at least one, uint8 or int8, of sizes that are equal but for dim.
        scales: real units per step of each tensor.
        zero_points: of each tensor, in the range of its dtype.
        dim: the dimension that grows.
        output_scale: see `requantize`, as the arguments that follow.
        output_zero_point: see `requantize`.
        output_dtype: see `requantize`; default that of the first tensor.

    Returns:
        Channels last when every tensor is that and not all are contiguous, else contiguous. A tensor
        with the output's qparams is copied.

    Raises:
        TypeError: wrong dtype.
        ValueError: sizes that do not fit, a bad scale or zero point.
        IndexError: no such dim.

    Example:
        >>> import torch, torch_ao_ext
        >>> a = torch.tensor([10, 20], dtype=torch.uint8)
        >>> b = torch.tensor([-4, 4], dtype=torch.int8)
        >>> torch_ao_ext.ops.cat([a, b], [0.5, 1.0], [0, 0], 0, 0.5, 10)
        tensor([20, 30,  2, 18], dtype=torch.uint8)
    """
    return torch.ops.torch_ao.cat(
        tensors, scales, zero_points, dim, output_scale, output_zero_point, output_dtype
    )


def _lies_channels_last(t: Tensor) -> bool:
    return t.dim() >= 3 and t.movedim(1, -1).is_contiguous()


@torch.library.register_fake("torch_ao::cat")
def _(tensors, scales, zero_points, dim=0, output_scale=1.0, output_zero_point=0, output_dtype=None):
    op, count = "cat", len(tensors)
    _fake.check_value(count >= 1, op, "tensors", "have at least 1 tensor", count)
    _fake.check_value(len(scales) == count, op, "scales", f"have {count} values", len(scales))
    _fake.check_value(len(zero_points) == count, op, "zero_points", f"have {count} values", len(zero_points))
    for t in tensors:
        _fake.check_tensor(op, "tensors", t, _fake.QUANTIZED)
    first = tensors[0]
    _fake.check_min_rank(op, "tensors", first, 1)
    dim = _fake.check_axis(op, "dim", dim, first.dim())
    rule = f"have the first one's sizes [{', '.join(str(n) for n in first.shape)}] but for dim"
    for t in tensors:
        _fake.check_value(t.dim() == first.dim(), op, "tensors", rule, _fake.sizes(t))
        for d, (have, want) in enumerate(zip(t.shape, first.shape, strict=True)):
            if d != dim:
                _fake.check_value(have == want, op, "tensors", rule, _fake.sizes(t))
    _fake.check_output_dtype(op, output_dtype)
    sizes = list(first.shape)
    sizes[dim] = sum(t.shape[dim] for t in tensors)
    dtype = output_dtype or first.dtype
    last = all(_lies_channels_last(t) for t in tensors)
    if last and not all(t.is_contiguous() for t in tensors):
        return empty_channels_last(first, sizes, dtype)
    return first.new_empty(sizes, dtype=dtype)
