"""Prunes the rows of least L1 norm."""

from typing import Any

from torch import nn

from torch_ao_ext.pruning._experimental.pruner._row_norm import row_saliency
from torch_ao_ext.pruning._experimental.pruner.base_structured_sparsifier import BaseStructuredSparsifier
from torch_ao_ext.pruning.sparsifier.utils import _find_mask

__all__ = ["SaliencyPruner"]


class SaliencyPruner(BaseStructuredSparsifier):
    """Masks the `int(rows * sparsity_level)` rows of least L1 norm.

    Rows masked by an earlier step have norm 0, so they are chosen again first.
    """

    def update_mask(self, module: nn.Module, tensor_name: str, **kwargs: Any) -> None:
        """Adds the pruned rows of one tensor to its mask."""
        mask = _find_mask(module, tensor_name).mask
        saliency = row_saliency(getattr(module, tensor_name), tensor_name)
        count = int(len(mask) * kwargs["sparsity_level"])
        mask[saliency.topk(count, largest=False).indices] = False
