"""Cross-layer equalization: ranges of weights on both sides of an activation become equal.

For layers y = W2 f(W1 x + b1) with f(s a) = s f(a), s > 0 (ReLU, leaky ReLU, none), the channels
between them can be scaled: W1 / s, b1 / s, W2 s. s = sqrt(r1 / r2) makes the ranges r of both
weights equal, which spends a per-tensor scale better (Nagel et al. 2019, section 4.1).
"""

from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from torch_ao_ext.quantization._copy import copied

__all__ = ["cross_layer_equalization", "equalize"]

# Rounds after which it stops without having converged.
_MOST_ROUNDS = 100


def _product(op: str, module: nn.Module) -> Any:
    """The layer with the weight: the module, or the first of a container."""
    found = module[0] if isinstance(module, nn.Sequential) and len(module) > 0 else module
    if not isinstance(found, (nn.Linear, _ConvNd)):
        raise ValueError(f"{op}: modules must be linear or convolution layers, got {type(module).__name__}")
    return found


def _by_output(module: Any, values: torch.Tensor) -> torch.Tensor:
    """A factor for each output channel in the shape of the weight."""
    rest = [1] * (module.weight.dim() - 2)
    if isinstance(module, _ConvTransposeNd):
        inputs = module.in_channels // module.groups
        split = values.reshape(module.groups, 1, -1).expand(-1, inputs, -1)
        return split.reshape(module.in_channels, -1, *rest)
    return values.reshape(-1, 1, *rest)


def _by_input(module: Any, values: torch.Tensor) -> torch.Tensor:
    """A factor for each input channel in the shape of the weight."""
    rest = [1] * (module.weight.dim() - 2)
    if isinstance(module, _ConvTransposeNd):
        return values.reshape(-1, 1, *rest)
    groups = getattr(module, "groups", 1)
    if groups == 1:
        return values.reshape(1, -1, *rest)
    outputs = module.weight.shape[0] // groups
    return values.reshape(groups, 1, -1).expand(-1, outputs, -1).reshape(module.weight.shape[0], -1, *rest)


def _ranges(module: Any, output: bool) -> torch.Tensor:
    """Max - min of the weights of each output (or input) channel."""
    transposed, groups = isinstance(module, _ConvTransposeNd), getattr(module, "groups", 1)
    weight = module.weight.detach().double()
    # [groups, first / groups, second, taps]
    split = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    # A conv is [out, in / groups], a transposed one [in, out / groups].
    first = output != transposed
    axis = 2 if first else 1
    spread = split.amax((axis, 3)) - split.amin((axis, 3))
    return spread.reshape(-1)


def _channels(module: Any) -> tuple[int, int]:
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return module.in_channels, module.out_channels


@torch.no_grad()
def cross_layer_equalization(
    module1: nn.Module, module2: nn.Module, output_axis: int = 0, input_axis: int = 1
) -> None:
    """Scales two layers in a row, in place, so that their channels have equal ranges.

    Grouped and transposed convolutions are taken, too. A channel that is zero on one side stays.

    Args:
        module1: linear or convolution, or a container that begins with one.
        module2: the next one; only positively homogeneous functions lie between them.
        output_axis: torch.ao's argument; must be 0, layouts follow from the layers.
        input_axis: torch.ao's argument; must be 1.

    Raises:
        ValueError: another kind of module, other axes, channel counts that differ.
    """
    if (output_axis, input_axis) != (0, 1):
        raise ValueError(
            f"cross_layer_equalization: axes must be 0 and 1, got {output_axis} and {input_axis}"
        )
    first, second = (_product("cross_layer_equalization", m) for m in (module1, module2))
    outputs, inputs = _channels(first)[1], _channels(second)[0]
    if outputs != inputs:
        raise ValueError(
            "cross_layer_equalization: argument 'module2' must take as many channels as module1 gives "
            f"({outputs}), got {inputs}"
        )
    here, there = _ranges(first, output=True), _ranges(second, output=False)
    factor = torch.sqrt(here / there)
    factor = torch.where((here > 0) & (there > 0), factor, torch.ones_like(factor))
    first.weight.copy_(first.weight.double() / _by_output(first, factor))
    if first.bias is not None:
        first.bias.copy_(first.bias.double() / factor)
    second.weight.copy_(second.weight.double() * _by_input(second, factor))


def _names(model: nn.Module, groups: Any) -> list[list[str]]:
    by_module = {id(module): name for name, module in model.named_modules()}
    found = []
    for group in groups:
        names = []
        for item in group:
            name = item if isinstance(item, str) else by_module.get(id(item))
            if name is None or name not in by_module.values():
                raise ValueError(
                    f"equalize: argument 'paired_modules_list' must hold modules of the model, got {item!r}"
                )
            names.append(name)
        if len(names) < 2:
            raise ValueError(
                f"equalize: argument 'paired_modules_list' must hold groups of two or more, got {group!r}"
            )
        found.append(names)
    return found


def equalize(
    model: nn.Module, paired_modules_list: Any, threshold: float = 1e-4, inplace: bool = True
) -> nn.Module:
    """Equalizes layers in a row, pair by pair, until their weights move less than threshold.

    Args:
        model: float model.
        paired_modules_list: lists of modules or names in the order of the data, with ReLU, leaky
            ReLU or nothing between them.
        threshold: sum of the norms of the last change of each weight.
        inplace: change `model` instead of a copy.

    Returns:
        The model; it computes what it did, up to rounding.

    Raises:
        ValueError: a module that is not in the model or not a layer, groups of one, channel
            counts that differ.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization._equalize import equalize
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> x = torch.randn(3, 4)
        >>> torch.allclose(equalize(net, [["0", "2"]], inplace=False)(x), net(x), atol=1e-5)
        True
    """
    groups = _names(model, paired_modules_list)
    model = model if inplace else copied("equalize", model)
    pairs = [(a, b) for names in groups for a, b in zip(names, names[1:], strict=False)]
    layers = {name: _product("equalize", model.get_submodule(name)) for pair in pairs for name in pair}
    for _ in range(_MOST_ROUNDS):
        before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
        for a, b in pairs:
            cross_layer_equalization(model.get_submodule(a), model.get_submodule(b))
        moved = sum(float((layers[name].weight.detach() - old).norm()) for name, old in before.items())
        if moved < threshold:
            break
    return model
