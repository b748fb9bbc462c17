"""The row mask and the bias that goes with it."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext.pruning.sparsifier.utils import module_contains_param

__all__ = ["BiasHook", "FakeStructuredSparsity", "module_contains_param"]


class FakeStructuredSparsity(nn.Module):
    """Parametrization that zeroes whole rows: `mask` [rows] is bool, x is [rows, ...].

    The mask is a non-persistent buffer, as in FakeSparsity.
    """

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiplies each row by its mask value."""
        if self.mask.shape[0] != x.shape[0]:
            raise ValueError(
                f"FakeStructuredSparsity: argument 'x' must have {self.mask.shape[0]} rows, got {x.shape[0]}"
            )
        return self.mask.reshape(-1, *[1] * (x.dim() - 1)) * x


class BiasHook:
    """Forward hook that adds a layer's `_bias`, without its pruned rows if `prune_bias`.

    The bias is added outside the layer, so that it does not follow the weight's mask
    unless asked to.
    """

    def __init__(self, parametrization: FakeStructuredSparsity, prune_bias: bool) -> None:
        self.param = parametrization
        self.prune_bias = prune_bias

    def __call__(self, module: nn.Module, input: Any, output: torch.Tensor) -> torch.Tensor:
        bias = getattr(module, "_bias", None)
        if bias is None:
            return output
        if self.prune_bias:
            bias = bias * self.param.mask
        # Channels are last after a Linear, and third from the end after a Conv2d.
        trailing = 0 if isinstance(module, nn.Linear) else 2
        return output + bias.reshape(-1, *[1] * trailing)
