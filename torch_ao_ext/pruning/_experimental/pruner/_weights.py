"""Weights and biases of layers under a row mask."""

import torch
from torch import nn
from torch.nn.utils import parametrize

from torch_ao_ext.pruning._experimental.pruner.parametrization import BiasHook, FakeStructuredSparsity
from torch_ao_ext.pruning.sparsifier.utils import FakeSparsity

__all__ = ["cut_columns", "drop_rows", "finish_layer", "kept_bias", "pruned_bias", "row_mask", "settle_bias"]


def row_mask(module: nn.Module, name: str = "weight") -> torch.Tensor:
    """The bool row mask of a tensor of a module."""
    if parametrize.is_parametrized(module, name):
        for parametrization in module.parametrizations[name]:
            if isinstance(parametrization, FakeStructuredSparsity):
                return parametrization.mask.bool()
    raise ValueError(f"prune: {type(module).__name__}.{name} must carry a row mask, got none")


def kept_bias(layer: nn.Module) -> torch.Tensor | None:
    """The bias that holds for the kept rows.

    While a layer is masked its own bias is `_bias`; `bias` is then what the layer in
    front has already been folded into.
    """
    return layer.bias if layer.bias is not None else getattr(layer, "_bias", None)


def pruned_bias(layer: nn.Module, mask: torch.Tensor) -> torch.Tensor:
    """What a masked layer puts out in its pruned rows: own bias or zeros, [rows]."""
    own = getattr(layer, "_bias", None)
    if own is None or getattr(layer, "prune_bias", False):
        return torch.zeros(len(mask), dtype=layer.weight.dtype, device=mask.device)
    return own.detach()


def _parameter(value: torch.Tensor, like: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().clone(), requires_grad=like.requires_grad)


def drop_rows(module: nn.Module, name: str, value: torch.Tensor) -> None:
    """Removes the parametrizations of a tensor and stores `value` in its place.

    The tensor under the parametrization is not written: another module may share it.
    """
    original = module.parametrizations[name].original
    parametrize.remove_parametrizations(module, name, leave_parametrized=False)
    setattr(module, name, _parameter(value, original))


@torch.no_grad()
def settle_bias(layer: nn.Linear | nn.Conv2d, mask: torch.Tensor, cut: bool) -> None:
    """Makes the bias of a masked layer a plain parameter again, with or without pruned rows."""
    bias = kept_bias(layer)
    if bias is not None:
        merged = torch.where(mask, bias.detach(), pruned_bias(layer, mask))
        layer.bias = _parameter(merged[mask] if cut else merged, bias)
    if hasattr(layer, "_bias"):
        del layer._bias
    for key, hook in list(layer._forward_hooks.items()):
        if isinstance(hook, BiasHook):
            del layer._forward_hooks[key]


@torch.no_grad()
def finish_layer(layer: nn.Linear | nn.Conv2d, mask: torch.Tensor, cut: bool) -> None:
    """Ends the masking of a layer: weight and bias become plain parameters.

    With `cut` the masked rows are dropped, otherwise they stay with zero weights.
    """
    weight = layer.weight.detach()
    settle_bias(layer, mask, cut)
    drop_rows(layer, "weight", weight[mask] if cut else weight)
    rows = "out_features" if isinstance(layer, nn.Linear) else "out_channels"
    setattr(layer, rows, layer.weight.shape[0])


@torch.no_grad()
def cut_columns(layer: nn.Module, keep: torch.Tensor, name: str = "weight") -> None:
    """Keeps the columns `keep` of a weight, also under the masks it may carry."""
    if parametrize.is_parametrized(layer, name):
        chain = layer.parametrizations[name]
        for parametrization in chain:
            if isinstance(parametrization, FakeSparsity):
                parametrization.mask = parametrization.mask[:, keep]
            elif not isinstance(parametrization, FakeStructuredSparsity):
                raise ValueError(
                    f"prune: {type(layer).__name__}.{name} must carry masks alone, "
                    f"got {type(parametrization).__name__}"
                )
        chain.original = _parameter(chain.original[:, keep], chain.original)
        columns = chain.original.shape[1]
    else:
        weight = getattr(layer, name)
        setattr(layer, name, _parameter(weight[:, keep], weight))
        columns = getattr(layer, name).shape[1]
    if isinstance(layer, nn.Linear):
        layer.in_features = columns
    elif isinstance(layer, nn.Conv2d):
        layer.in_channels = columns
