"""Removes masked rows of a layer and the matching columns of the layer behind it.

A masked row leaves a constant channel: 0, or the row's bias where the bias is kept.
The layers between turn this constant into another. If that is 0 the channel is
dropped; otherwise its share is added to the next layer's bias. Where neither is exact
(a zero-padded convolution mixes the constant with zeros at the border) the channel
stays, with zero weights. The pruned model computes what the masked one computed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from torch_ao_ext.pruning._experimental.pruner._weights import (
    cut_columns,
    finish_layer,
    kept_bias,
    pruned_bias,
    row_mask,
)
from torch_ao_ext.pruning._experimental.pruner.prune_lstm import (
    prune_lstm_output_layernorm_linear,
    prune_lstm_output_linear,
)

__all__ = [
    "prune_chain",
    "prune_conv2d",
    "prune_conv2d_activation_conv2d",
    "prune_conv2d_activation_pool_conv2d",
    "prune_conv2d_conv2d",
    "prune_conv2d_padded",
    "prune_conv2d_pool_activation_conv2d",
    "prune_conv2d_pool_flatten_linear",
    "prune_linear",
    "prune_linear_activation_linear",
    "prune_linear_linear",
    "prune_lstm_output_layernorm_linear",
    "prune_lstm_output_linear",
]

_Layer = nn.Linear | nn.Conv2d
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_POOLS = (nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_POOL_FUNCTIONS = (F.avg_pool2d, F.max_pool2d)
_FLATTEN_FUNCTIONS = (torch.flatten,)


class Call:
    """A function of a graph with the arguments it had there, the first one left open."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, *self.args, **self.kwargs)


def _function(step: Any) -> Any:
    return step.function if isinstance(step, Call) else step


def _moves_only(step: Any) -> bool:
    """Pools and flatten: a constant channel stays the same constant."""
    return isinstance(step, (*_POOLS, nn.Flatten)) or _function(step) in (
        *_POOL_FUNCTIONS,
        *_FLATTEN_FUNCTIONS,
    )


def _breaks_constants(step: Any) -> bool:
    """Average pools that count padding, or divide by a fixed number, change constants."""
    if isinstance(step, nn.AvgPool2d):
        padded = step.count_include_pad and any(_pair(step.padding))
        return padded or step.divisor_override is not None
    if isinstance(step, Call) and step.function is F.avg_pool2d:
        return len(step.args) > 2 or bool(set(step.kwargs) - {"kernel_size", "stride"})
    return False


def _pair(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def _pads_with_zeros(layer: nn.Module) -> bool:
    if not isinstance(layer, nn.Conv2d) or layer.padding_mode != "zeros" or layer.padding == "valid":
        return False
    if layer.padding == "same":
        return any(k > 1 for k in layer.kernel_size)
    return any(layer.padding)


def _through(step: Any, value: torch.Tensor) -> torch.Tensor:
    """What a normalization or activation makes of a constant in every channel."""
    if isinstance(step, _BATCH_NORMS):
        return F.batch_norm(value, step.running_mean, step.running_var, step.weight, step.bias, eps=step.eps)
    if not isinstance(step, nn.Module):
        return step(value)
    training = step.training
    try:
        return step.eval()(value)
    finally:
        step.train(training)


def _constants(layer: _Layer, mask: torch.Tensor, between: Sequence[Any]) -> torch.Tensor:
    """Value of each pruned channel in front of the next layer, [pruned rows]."""
    value = pruned_bias(layer, mask).reshape(1, -1, *[1] * (2 if isinstance(layer, nn.Conv2d) else 0))
    for step in between:
        if step is not None and not _moves_only(step):
            value = _through(step, value)
    return value.reshape(-1)[~mask]


def _check(layer: nn.Module, between: Sequence[Any], following: nn.Module | None, mask: torch.Tensor) -> None:
    if not bool(mask.any()):
        raise ValueError(f"prune: at least one of {len(mask)} rows must be kept, got none")
    for conv in (layer, following):
        if isinstance(conv, nn.Conv2d) and conv.groups != 1:
            raise ValueError(f"prune: a convolution in the chain must have groups 1, got {conv.groups}")
    for step in between:
        if isinstance(step, _BATCH_NORMS) and step.running_mean is None:
            raise ValueError("prune: a batch norm in the chain must have running statistics, got none")


def _cut_channels(step: Any, mask: torch.Tensor) -> None:
    """Drops the per-channel values of a layer between."""
    if isinstance(step, _BATCH_NORMS):
        step.num_features = int(mask.sum())
        for name in ("weight", "bias"):
            value = getattr(step, name)
            if value is not None:
                setattr(step, name, nn.Parameter(value.detach()[mask], requires_grad=value.requires_grad))
        step.running_mean = step.running_mean[mask]
        step.running_var = step.running_var[mask]
    elif isinstance(step, nn.PReLU) and step.num_parameters > 1:
        step.num_parameters = int(mask.sum())
        step.weight = nn.Parameter(step.weight.detach()[mask], requires_grad=step.weight.requires_grad)


def _add_to_bias(layer: _Layer, columns: torch.Tensor, constants: torch.Tensor) -> None:
    """Adds `weight[:, columns] @ constants` (summed over the kernel) to the bias."""
    if parametrize.is_parametrized(layer, "weight"):
        weight = layer.parametrizations.weight.original.detach()
    else:
        weight = layer.weight.detach()
    share = weight[:, columns]
    while share.dim() > 2:
        share = share.sum(-1)
    share = share @ constants
    old = kept_bias(layer)
    layer.bias = nn.Parameter(share if old is None else old.detach() + share)


@torch.no_grad()
def prune_chain(first: _Layer, *rest: Any) -> None:
    """Prunes `first` and the columns of the last layer of the chain behind it.

    Args:
        first: Linear or Conv2d with a row mask.
        rest: What stands between (activations, pools, flatten, batch norms; None is
            skipped) and the Linear or Conv2d that reads the result. Without that last
            layer, as in front of the model's output, the rows are dropped alone.

    Raises:
        ValueError: When no row is kept, a convolution is grouped, a batch norm has no
            running statistics, or the sizes do not fit.
    """
    following = rest[-1] if rest and isinstance(rest[-1], (nn.Linear, nn.Conv2d)) else None
    between = [step for step in (rest if following is None else rest[:-1]) if step is not None]
    mask = row_mask(first)
    _check(first, between, following, mask)
    if following is None:
        for step in between:
            _cut_channels(step, mask)
        finish_layer(first, mask, cut=True)
        return
    if isinstance(following, nn.Linear) and isinstance(first, nn.Conv2d):
        if following.in_features % len(mask):
            raise ValueError(
                f"prune: in_features behind flatten must be a multiple of {len(mask)} channels, "
                f"got {following.in_features}"
            )
        repeat = following.in_features // len(mask)
    else:
        repeat = 1
    constants = _constants(first, mask, between)
    if constants.any():
        if _pads_with_zeros(following) or any(_breaks_constants(step) for step in between):
            finish_layer(first, mask, cut=False)
            return
        _add_to_bias(following, ~mask.repeat_interleave(repeat), constants.repeat_interleave(repeat))
    for step in between:
        _cut_channels(step, mask)
    finish_layer(first, mask, cut=True)
    cut_columns(following, mask.repeat_interleave(repeat))


def prune_linear(linear: nn.Linear) -> None:
    """Drops the masked rows of a Linear in front of the model's output."""
    prune_chain(linear)


def prune_linear_linear(linear1: nn.Linear, linear2: nn.Linear) -> None:
    """Prunes Linear -> Linear."""
    prune_chain(linear1, linear2)


def prune_linear_activation_linear(linear1: nn.Linear, activation: Any, linear2: nn.Linear) -> None:
    """Prunes Linear -> activation -> Linear."""
    prune_chain(linear1, activation, linear2)


def prune_conv2d_padded(conv2d_1: nn.Conv2d) -> None:
    """Multiplies the row mask into a Conv2d and keeps its size."""
    finish_layer(conv2d_1, row_mask(conv2d_1), cut=False)


def prune_conv2d(conv2d: nn.Conv2d) -> None:
    """Drops the masked rows of a Conv2d in front of the model's output."""
    prune_chain(conv2d)


def prune_conv2d_conv2d(conv2d_1: nn.Conv2d, conv2d_2: nn.Conv2d) -> None:
    """Prunes Conv2d -> Conv2d."""
    prune_chain(conv2d_1, conv2d_2)


def prune_conv2d_activation_conv2d(conv2d_1: nn.Conv2d, activation: Any, conv2d_2: nn.Conv2d) -> None:
    """Prunes Conv2d -> activation -> Conv2d."""
    prune_chain(conv2d_1, activation, conv2d_2)


def prune_conv2d_pool_activation_conv2d(c1: nn.Conv2d, pool: Any, activation: Any, c2: nn.Conv2d) -> None:
    """Prunes Conv2d -> pool -> activation -> Conv2d."""
    prune_chain(c1, pool, activation, c2)


def prune_conv2d_activation_pool_conv2d(c1: nn.Conv2d, activation: Any, pool: Any, c2: nn.Conv2d) -> None:
    """Prunes Conv2d -> activation -> pool -> Conv2d."""
    prune_chain(c1, activation, pool, c2)


def prune_conv2d_pool_flatten_linear(conv2d: nn.Conv2d, pool: Any, flatten: Any, linear: nn.Linear) -> None:
    """Prunes Conv2d -> pool -> flatten -> Linear; a channel is a run of columns there."""
    prune_chain(conv2d, pool, flatten, linear)
