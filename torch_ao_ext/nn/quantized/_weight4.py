"""Float weights to 4 bits in groups along K: scale rule, rounding, two per byte.

Layout: byte [n][j] holds k = 2j in its low and k = 2j + 1 in its high nibble, each
unsigned with zero point 8. Scales are [N, ceil(K / group_size)]; the last group of a
row may be short. With an odd K the last high nibble holds 8, which stands for 0.
"""

import torch

from torch_ao_ext.nn.quantized._weight import row_blocks

__all__ = ["quantize_groups", "unpack_groups"]

# Half the width of [-8, 7]: both ends of the range are used.
_HALF_RANGE = 7.5
_ZERO_POINT = 8


def _check_group_size(group_size: int) -> None:
    if isinstance(group_size, bool) or not isinstance(group_size, int) or group_size < 1:
        raise ValueError(f"argument 'group_size' must be an integer >= 1, got {group_size!r}")


def quantize_groups(weight: torch.Tensor, group_size: int = 128) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes s = max|w| / 7.5 of each group and q = clamp(round_half_even(w / s), -8, 7) + 8.

    A group of zeros gets scale 1.

    Args:
        weight: float tensor `[N, K]`, finite.
        group_size: elements along K that share a scale, >= 1.

    Returns:
        uint8 `[N, ceil(K / 2)]` as the module says, and float32
        `[N, ceil(K / group_size)]`, positive and normal.

    Raises:
        ValueError: a bad group_size.
    """
    _check_group_size(group_size)
    n, k = weight.shape
    groups = -(-k // group_size)
    packed = torch.empty(n, (k + 1) // 2, dtype=torch.uint8)
    scales = torch.ones(n, groups, dtype=torch.float32)
    if k == 0:
        return packed, scales
    smallest = torch.finfo(torch.float32).tiny
    for begin, end in row_blocks(weight):
        rows = weight[begin:end].detach().to(torch.float32)
        padded = torch.nn.functional.pad(rows, (0, groups * group_size - k))
        padded = padded.view(end - begin, groups, group_size)
        largest = padded.abs().amax(dim=2)
        scale = (largest / _HALF_RANGE).clamp_min_(smallest)
        scales[begin:end] = torch.where(largest == 0, torch.ones_like(scale), scale)
        q = padded.div(scales[begin:end].unsqueeze(2)).round_().clamp_(-8, 7)
        q = q.add_(_ZERO_POINT).to(torch.uint8).view(end - begin, -1)[:, :k]
        q = torch.nn.functional.pad(q, (0, k % 2), value=_ZERO_POINT)
        packed[begin:end] = q[:, 0::2] | (q[:, 1::2] << 4)
    return packed, scales


def unpack_groups(packed: torch.Tensor, k: int) -> torch.Tensor:
    """Returns the int8 values `[N, k]` in [-8, 7] behind `[N, ceil(k / 2)]` bytes."""
    q = torch.stack((packed & 15, packed >> 4), dim=2).view(packed.shape[0], -1)
    return q[:, :k].to(torch.int8) - _ZERO_POINT
