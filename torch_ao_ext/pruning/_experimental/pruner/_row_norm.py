"""Norms of the rows of a weight."""

import torch

__all__ = ["row_saliency"]


def row_saliency(weight: torch.Tensor, name: str) -> torch.Tensor:
    """L1 norm of each row, [rows, ...] -> [rows]."""
    if weight.dim() < 2:
        raise ValueError(
            f"structured pruning: tensor {name!r} must have 2 or more dimensions, got {tuple(weight.shape)}"
        )
    return weight.norm(dim=tuple(range(1, weight.dim())), p=1)
