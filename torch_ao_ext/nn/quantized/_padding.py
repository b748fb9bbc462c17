"""Padding of integers before a convolution, in every padding mode of torch."""

from typing import Any

import torch
import torch.nn.functional as F

__all__ = ["explicit_padding", "pad"]


def explicit_padding(conv: Any) -> tuple[list[int], list[int] | None]:
    """Padding for the operator, and what goes before it instead.

    Args:
        conv: has kernel_size, stride, dilation, padding ("same" and "valid" too), padding_mode.

    Returns:
        Symmetric padding per dimension for the operator; amounts in F.pad's order (last
        dimension first, low before high) to be padded before, or None.
    """
    rank = len(conv.kernel_size)
    if conv.padding == "valid":
        return [0] * rank, None
    if conv.padding == "same":
        totals = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        sides = [(total // 2, total - total // 2) for total in totals]
    else:
        sides = [(p, p) for p in conv.padding]
    if conv.padding_mode == "zeros" and all(low == high for low, high in sides):
        return [low for low, _ in sides], None
    return [0] * rank, [amount for side in reversed(sides) for amount in side]


def _positions(size: int, low: int, high: int, mode: str) -> torch.Tensor:
    """Which element each padded position repeats."""
    positions = torch.arange(-low, size + high)
    if mode == "replicate":
        return positions.clamp_(0, size - 1)
    if mode == "circular":
        return positions % size
    positions = positions.abs()
    return torch.where(positions >= size, 2 * (size - 1) - positions, positions)


def pad(data: torch.Tensor, amounts: list[int], mode: str, zero_point: int) -> torch.Tensor:
    """Pads the last dimensions; integers of the input's zero point for mode "zeros".

    Args:
        data: integers `[N, C, *]`.
        amounts: in F.pad's order, not negative.
        mode: "zeros", "reflect", "replicate" or "circular".
        zero_point: of the data.

    Raises:
        ValueError: reflect padding must be smaller than the dimension, circular at most its size.
    """
    if mode == "zeros":
        return F.pad(data, amounts, value=zero_point)
    for i in range(len(amounts) // 2):
        low, high = amounts[2 * i : 2 * i + 2]
        axis = data.dim() - 1 - i
        size = data.shape[axis]
        most = {"reflect": size - 1, "circular": size}.get(mode)
        if most is not None and max(low, high) > most or size == 0:
            raise ValueError(
                f"{mode} padding of dimension {axis} must be at most {most} for size {size}, "
                f"got {max(low, high)}"
            )
        if low or high:
            data = data.index_select(axis, _positions(size, low, high, mode))
    return data
