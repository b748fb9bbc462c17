"""Prunes the packed weights of an LSTM, the same number of rows in each gate."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext.pruning._experimental.pruner._row_norm import row_saliency
from torch_ao_ext.pruning._experimental.pruner.base_structured_sparsifier import BaseStructuredSparsifier
from torch_ao_ext.pruning._experimental.pruner.parametrization import FakeStructuredSparsity

__all__ = ["LSTMSaliencyPruner"]


class LSTMSaliencyPruner(BaseStructuredSparsifier):
    """Masks the rows of least L1 norm in each of the four gates of `weight_ih/hh_l{k}`.

    The weights of the gates i, f, g, o are stacked along the rows. Each gate chooses
    its own `int(hidden_size * sparsity_level)` rows.
    """

    def update_mask(self, module: nn.Module, tensor_name: str, **kwargs: Any) -> None:
        """Adds the pruned rows of one packed weight to its mask."""
        weight = getattr(module, tensor_name)
        for parametrization in module.parametrizations[tensor_name]:
            if not isinstance(parametrization, FakeStructuredSparsity):
                continue
            saliency = row_saliency(weight, tensor_name)
            gate = len(parametrization.mask) // 4
            count = int(gate * kwargs["sparsity_level"])
            for mask, norm in zip(
                torch.split(parametrization.mask, gate), torch.split(saliency, gate), strict=True
            ):
                mask[norm.topk(count, largest=False, sorted=False).indices] = False
