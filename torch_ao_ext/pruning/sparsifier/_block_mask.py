"""Masks of rectangular blocks; blocks at the right and lower edge may be cut off."""

import torch
import torch.nn.functional as F

__all__ = ["block_mask", "check_blocks", "tensor_mask"]


def check_blocks(who: str, sparse_block_shape: tuple[int, int], zeros_per_block: int) -> None:
    """Refuses block shapes and zero counts that fit no mask."""
    if len(sparse_block_shape) != 2 or min(sparse_block_shape) < 1:
        raise ValueError(
            f"{who}: argument 'sparse_block_shape' must be two positive sizes, got {sparse_block_shape}"
        )
    size = sparse_block_shape[0] * sparse_block_shape[1]
    if not 0 <= zeros_per_block <= size:
        raise ValueError(f"{who}: argument 'zeros_per_block' must be in 0..{size}, got {zeros_per_block}")


def _spread(blocks: torch.Tensor, block: tuple[int, int], shape: torch.Size) -> torch.Tensor:
    """One value per block -> one per element, cut to `shape`."""
    full = blocks.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    return full[: shape[0], : shape[1]]


def tensor_mask(data: torch.Tensor, count: int, block: tuple[int, int]) -> torch.Tensor:
    """False in the `count` blocks with the lowest mean of `data` [H, W].

    The mean of a cut block is taken over its elements inside the tensor. Of equal
    blocks the first in row order goes first.
    """
    mean = F.avg_pool2d(data[None, None], block, block, ceil_mode=True)[0, 0]
    keep = torch.ones(mean.numel(), dtype=torch.bool, device=data.device)
    keep[torch.sort(mean.flatten(), stable=True).indices[:count]] = False
    return _spread(keep.view_as(mean), block, data.shape)


def block_mask(data: torch.Tensor, zeros_per_block: int, block: tuple[int, int]) -> torch.Tensor:
    """False at the `zeros_per_block` smallest elements of every block of `data` [H, W].

    A cut block loses as many of its own elements, at most all of them.
    """
    height, width = data.shape
    padding = (0, -width % block[1], 0, -height % block[0])
    # Padding compares greater than every element, so it is taken last.
    unfolded = F.unfold(F.pad(data, padding, value=torch.nan)[None, None], block, stride=block)
    order = torch.sort(unfolded, dim=1, stable=True).indices[:, :zeros_per_block]
    keep = torch.ones_like(unfolded).scatter_(1, order, 0)
    padded = (height + padding[3], width + padding[1])
    return F.fold(keep, padded, block, stride=block)[0, 0, :height, :width] != 0
