"""Prunes the rows nearest to all others."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from torch_ao_ext.pruning._experimental.pruner.base_structured_sparsifier import BaseStructuredSparsifier
from torch_ao_ext.pruning.sparsifier.utils import _find_mask

__all__ = ["FPGMPruner"]


def _l1(x: torch.Tensor) -> torch.Tensor:
    return torch.cdist(x, x, p=1)


def _l2(x: torch.Tensor) -> torch.Tensor:
    return torch.cdist(x, x, p=2)


_DISTANCES = {1: _l1, 2: _l2}


class FPGMPruner(BaseStructuredSparsifier):
    """Masks `round(rows * sparsity_level)` filters with the least summed distance.

    Such a filter lies near the geometric median of all, so the others can stand in
    for it. Source: He et al. 2019, arXiv 1811.00250.

    Args:
        sparsity_level: Fraction of rows, 0..1.
        dist: 1 or 2 for the L1 or L2 distance (default 2), or a function
            [rows, n] -> [rows, rows].
    """

    def __init__(
        self, sparsity_level: float = 0.5, dist: Callable[[torch.Tensor], torch.Tensor] | int | None = None
    ) -> None:
        if dist is None:
            dist = 2
        if not callable(dist) and dist not in _DISTANCES:
            raise NotImplementedError(f"FPGMPruner: argument 'dist' must be 1, 2 or a function, got {dist!r}")
        self.dist_fn = dist if callable(dist) else _DISTANCES[dist]
        super().__init__({"sparsity_level": sparsity_level})

    def _compute_distance(self, t: torch.Tensor) -> torch.Tensor:
        """Sum of the distances of each row to all rows, [rows, ...] -> [rows]."""
        return self.dist_fn(t.flatten(1)).abs().sum(1)

    def update_mask(self, module: nn.Module, tensor_name: str, sparsity_level: float, **kwargs: Any) -> None:
        """Adds the pruned rows of one tensor to its mask."""
        mask = _find_mask(module, tensor_name).mask
        if sparsity_level <= 0 or sparsity_level >= 1:
            mask.fill_(sparsity_level <= 0)
            return
        weight = getattr(module, tensor_name)
        count = round(sparsity_level * weight.shape[0])
        mask[self._compute_distance(weight).topk(count, largest=False).indices] = False
