"""Keeps a band around the main diagonal."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext.pruning.sparsifier.base_sparsifier import BaseSparsifier
from torch_ao_ext.pruning.sparsifier.utils import _find_mask, _write_mask

__all__ = ["NearlyDiagonalSparsifier"]


class NearlyDiagonalSparsifier(BaseSparsifier):
    """Keeps the elements with `|row - column| <= nearliness // 2`.

    Args:
        nearliness: Number of diagonals kept, odd; 1 is the main diagonal alone,
            0 or less keeps nothing.
    """

    def __init__(self, nearliness: int = 1) -> None:
        super().__init__({"nearliness": nearliness})

    def update_mask(self, module: nn.Module, tensor_name: str, nearliness: int, **kwargs: Any) -> None:
        """Writes the band into the mask of one 2-D tensor.

        Raises:
            ValueError: When `nearliness` is even, or half of it reaches the smaller
                side of the tensor.
        """
        mask = _find_mask(module, tensor_name).mask
        if nearliness <= 0:
            mask.fill_(0)
            return
        reach = nearliness // 2
        if nearliness % 2 == 0:
            raise ValueError(f"NearlyDiagonalSparsifier: argument 'nearliness' must be odd, got {nearliness}")
        if mask.dim() != 2 or reach >= min(mask.shape):
            raise ValueError(
                "NearlyDiagonalSparsifier: argument 'nearliness' must be under twice the smaller side of a "
                f"2-D tensor, got {nearliness} for shape {tuple(mask.shape)}"
            )
        row = torch.arange(mask.shape[0], device=mask.device)[:, None]
        column = torch.arange(mask.shape[1], device=mask.device)
        _write_mask(mask, (row - column).abs() <= reach)
