"""Zeroes the weight blocks of least norm."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from torch_ao_ext.pruning.sparsifier._block_mask import block_mask, check_blocks, tensor_mask
from torch_ao_ext.pruning.sparsifier.base_sparsifier import BaseSparsifier
from torch_ao_ext.pruning.sparsifier.utils import _find_mask, _write_mask

__all__ = ["WeightNormSparsifier"]


def _square(x: torch.Tensor) -> torch.Tensor:
    return x * x


_NORMS = {1: torch.abs, 2: _square}


class WeightNormSparsifier(BaseSparsifier):
    """Zeroes blocks of a weight [rows, columns] by their norm.

    The blocks start at element (0, 0); at the far edges they may be cut off, so any
    shape of weight works with any block. `round(sparsity_level * blocks)` blocks of
    least mean norm are chosen, at least one is kept while the level is under 1. In
    each chosen block the `zeros_per_block` smallest elements become zero.

    Args:
        sparsity_level: Fraction of blocks, 0..1.
        sparse_block_shape: Rows and columns of a block.
        zeros_per_block: Zeros in a chosen block; None means the whole block.
        norm: 1 for `|w|`, 2 for `w^2` (default), or a function of the weight.

    Raises:
        ValueError: When `norm` is another number; from `step`, when the weight is
            not 2-D or a count does not fit the block.
    """

    def __init__(
        self,
        sparsity_level: float = 0.5,
        sparse_block_shape: tuple[int, int] = (1, 4),
        zeros_per_block: int | None = None,
        norm: Callable[[torch.Tensor], torch.Tensor] | int | None = None,
    ) -> None:
        if zeros_per_block is None:
            zeros_per_block = math.prod(sparse_block_shape)
        if norm is None:
            norm = 2
        if not callable(norm) and norm not in _NORMS:
            raise NotImplementedError(
                f"WeightNormSparsifier: argument 'norm' must be 1, 2 or a function, got {norm!r}"
            )
        self.norm_fn = norm if callable(norm) else _NORMS[norm]
        super().__init__(
            {
                "sparsity_level": sparsity_level,
                "sparse_block_shape": sparse_block_shape,
                "zeros_per_block": zeros_per_block,
            }
        )

    def update_mask(
        self,
        module: nn.Module,
        tensor_name: str,
        sparsity_level: float,
        sparse_block_shape: tuple[int, int],
        zeros_per_block: int,
        **kwargs: Any,
    ) -> None:
        """Recomputes the mask of one tensor from its masked value."""
        check_blocks("WeightNormSparsifier", sparse_block_shape, zeros_per_block)
        mask = _find_mask(module, tensor_name).mask
        block = tuple(sparse_block_shape)
        size = math.prod(block)
        if sparsity_level <= 0 or zeros_per_block == 0:
            mask.fill_(1)
            return
        if sparsity_level >= 1 and zeros_per_block == size:
            mask.fill_(0)
            return
        weight = getattr(module, tensor_name)
        if weight.dim() != 2:
            raise ValueError(
                f"WeightNormSparsifier: tensor {tensor_name!r} must be 2-D, got {tuple(weight.shape)}"
            )
        norm = self.norm_fn(weight)
        if sparsity_level >= 1:
            keep = torch.zeros_like(norm, dtype=torch.bool)
        else:
            blocks = math.prod(-(-n // b) for n, b in zip(weight.shape, block, strict=True))
            count = min(round(sparsity_level * blocks), blocks - 1)
            keep = tensor_mask(norm, count, block)
        if zeros_per_block != size:
            keep = keep | block_mask(norm, zeros_per_block, block)
        _write_mask(mask, keep)
