"""Zeroes the blocks of least norm of named tensors."""

import math
from typing import Any

import torch

from torch_ao_ext.pruning._experimental.data_sparsifier.base_data_sparsifier import BaseDataSparsifier
from torch_ao_ext.pruning.sparsifier._block_mask import block_mask, check_blocks, tensor_mask
from torch_ao_ext.pruning.sparsifier.utils import _write_mask

__all__ = ["DataNormSparsifier"]


class DataNormSparsifier(BaseDataSparsifier):
    """Block sparsity by L1 or L2 norm; all settings can be given per data.

    `round(sparsity_level * blocks)` blocks of least mean norm are chosen; in each the
    `zeros_per_block` smallest elements become zero. 1-D data counts as one row,
    dimensions of size 1 are ignored, and blocks may be cut off at the far edges.

    Args:
        data_list: (name, tensor) pairs to add.
        sparsity_level: Fraction of blocks, 0..1.
        sparse_block_shape: Rows and columns of a block.
        zeros_per_block: Zeros in a chosen block; None means the whole block.
        norm: "L1" or "L2".
    """

    def __init__(
        self,
        data_list: list[tuple[str, Any]] | None = None,
        sparsity_level: float = 0.5,
        sparse_block_shape: tuple[int, int] = (1, 4),
        zeros_per_block: int | None = None,
        norm: str = "L1",
    ) -> None:
        if zeros_per_block is None:
            zeros_per_block = math.prod(sparse_block_shape)
        if norm not in ("L1", "L2"):
            raise ValueError(f"DataNormSparsifier: argument 'norm' must be 'L1' or 'L2', got {norm!r}")
        self.norm = norm
        super().__init__(
            data_list,
            sparsity_level=sparsity_level,
            sparse_block_shape=sparse_block_shape,
            zeros_per_block=zeros_per_block,
        )

    def update_mask(
        self,
        name: str,
        data: torch.Tensor,
        sparsity_level: float,
        sparse_block_shape: tuple[int, int],
        zeros_per_block: int,
        **kwargs: Any,
    ) -> None:
        """Recomputes the mask of one tensor from its unmasked value."""
        check_blocks("DataNormSparsifier", sparse_block_shape, zeros_per_block)
        mask = self.get_mask(name)
        size = math.prod(sparse_block_shape)
        if sparsity_level <= 0 or zeros_per_block == 0:
            mask.fill_(1)
            return
        if sparsity_level >= 1 and zeros_per_block == size:
            mask.fill_(0)
            return
        norm = data.detach().abs() if self.norm == "L1" else data.detach() * data.detach()
        if norm.dim() != 2:
            norm = norm.squeeze()
        if norm.dim() < 2:
            norm = norm.reshape(1, -1)
        if norm.dim() > 2:
            raise ValueError(
                "DataNormSparsifier: data must have at most 2 dimensions above size 1, "
                f"got {name!r} of shape {tuple(data.shape)}"
            )
        block = tuple(sparse_block_shape)
        blocks = math.prod(-(-n // b) for n, b in zip(norm.shape, block, strict=True))
        keep = tensor_mask(norm, round(sparsity_level * blocks), block)
        if zeros_per_block != size:
            keep = keep | block_mask(norm, zeros_per_block, block)
        _write_mask(mask, keep)
