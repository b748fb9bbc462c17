"""Which chains of layers can be pruned, and by which function."""

from collections.abc import Callable
from operator import getitem
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from torch_ao_ext.pruning._experimental.pruner.prune_functions import (
    prune_chain,
    prune_conv2d,
    prune_conv2d_activation_conv2d,
    prune_conv2d_activation_pool_conv2d,
    prune_conv2d_conv2d,
    prune_conv2d_pool_activation_conv2d,
    prune_conv2d_pool_flatten_linear,
    prune_linear,
    prune_linear_activation_linear,
    prune_linear_linear,
)
from torch_ao_ext.pruning._experimental.pruner.prune_lstm import (
    prune_lstm_output_layernorm_linear,
    prune_lstm_output_linear,
)

__all__: list[str] = []

Pattern = tuple[Any, ...]

_ACTIVATION_FUNCTIONS = (
    "celu elu gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu logsigmoid mish prelu relu relu6 "
    "rrelu selu sigmoid silu softplus softsign tanh tanhshrink"
).split()
_ACTIVATION_MODULES = (
    "CELU ELU GELU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid Mish PReLU RReLU ReLU "
    "ReLU6 SELU SiLU Sigmoid Softplus Softsign Tanh Tanhshrink"
).split()


def _get_supported_structured_pruning_modules() -> set[type[nn.Module]]:
    return {nn.Linear, nn.Conv2d, nn.LSTM}


def _get_supported_activation_functions() -> set[Callable[..., Any]]:
    functions = {getattr(F, name) for name in _ACTIVATION_FUNCTIONS}
    return functions | {torch.relu, torch.sigmoid, torch.tanh}


def _get_supported_activation_modules() -> set[type[nn.Module]]:
    return {getattr(nn, name) for name in _ACTIVATION_MODULES}


def _get_default_structured_pruning_patterns() -> dict[Pattern, Callable[..., None]]:
    """Chain of module classes, functions and "output" -> function that prunes it."""
    patterns: dict[Pattern, Callable[..., None]] = {
        (nn.Linear, "output"): prune_linear,
        (nn.Linear, nn.Linear): prune_linear_linear,
        (nn.Conv2d, "output"): prune_conv2d,
        (nn.Conv2d, nn.Conv2d): prune_conv2d_conv2d,
        (nn.LSTM, getitem, nn.Linear): prune_lstm_output_linear,
        (nn.LSTM, getitem, nn.LayerNorm, nn.Linear): prune_lstm_output_layernorm_linear,
        (nn.Linear, nn.BatchNorm1d, "output"): prune_chain,
        (nn.Linear, nn.BatchNorm1d, nn.Linear): prune_chain,
        (nn.Conv2d, nn.BatchNorm2d, "output"): prune_chain,
        (nn.Conv2d, nn.BatchNorm2d, nn.Conv2d): prune_chain,
    }
    pools = (nn.AvgPool2d, F.avg_pool2d, nn.MaxPool2d, F.max_pool2d)
    heads = [
        (pool, flatten, nn.Linear)
        for pool in (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
        for flatten in (nn.Flatten, torch.flatten)
    ]
    for head in heads:
        patterns[(nn.Conv2d, *head)] = prune_conv2d_pool_flatten_linear
        patterns[(nn.Conv2d, nn.BatchNorm2d, *head)] = prune_chain
    for activation in [*_get_supported_activation_functions(), *_get_supported_activation_modules()]:
        patterns[nn.Linear, activation, nn.Linear] = prune_linear_activation_linear
        patterns[nn.Linear, nn.BatchNorm1d, activation, nn.Linear] = prune_chain
        patterns[nn.Conv2d, activation, nn.Conv2d] = prune_conv2d_activation_conv2d
        patterns[nn.Conv2d, nn.BatchNorm2d, activation, nn.Conv2d] = prune_chain
        for pool in pools:
            patterns[nn.Conv2d, activation, pool, nn.Conv2d] = prune_conv2d_activation_pool_conv2d
            patterns[nn.Conv2d, pool, activation, nn.Conv2d] = prune_conv2d_pool_activation_conv2d
            patterns[nn.Conv2d, nn.BatchNorm2d, activation, pool, nn.Conv2d] = prune_chain
        for head in heads:
            patterns[(nn.Conv2d, activation, *head)] = prune_chain
            patterns[(nn.Conv2d, nn.BatchNorm2d, activation, *head)] = prune_chain
    return patterns
