"""Copies a model that is about to change."""

import copy

import torch
from torch import nn

__all__ = ["copied"]


def copied(op: str, model: nn.Module) -> nn.Module:
    """A deep copy.

    Raises:
        ValueError: a tensor of the model has a gradient history, which torch cannot copy.
    """
    for name, module in model.named_modules():
        for key, value in [*vars(module).items(), *module._buffers.items()]:
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                raise ValueError(
                    f"{op}: tensors of argument 'model' must be parameters or buffers to be copied, "
                    f"got a computed one, '{name}.{key}' (call remove_weight_norm and the like, "
                    "or pass inplace=True)"
                )
    return copy.deepcopy(model)
