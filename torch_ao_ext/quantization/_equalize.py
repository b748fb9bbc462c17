"""Cross-layer equalization: ranges of weights on both sides of an activation become equal.

For layers y = W2 f(W1 x + b1) with f(s a) = s f(a), s > 0 (ReLU, leaky ReLU, none), the channels
between them can be scaled: W1 / s, b1 / s, W2 s. s = sqrt(r1 / r2) makes the ranges r of both
weights equal, which spends a per-tensor scale better (Nagel et al. 2019, section 4.1).
"""

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from torch_ao_ext.quantization._copy import copied

__all__ = [
    "channel_range",
    "converged",
    "cross_layer_equalization",
    "equalize",
    "expand_groups_in_paired_modules_list",
    "get_module_bias",
    "get_module_weight",
    "get_name_by_module",
    "has_bias",
    "max_over_ndim",
    "min_over_ndim",
    "process_paired_modules_list_to_name",
    "set_module_bias",
    "set_module_weight",
]

# Rounds after which it stops without having converged.
_MOST_ROUNDS = 100


def _product(op: str, module: nn.Module) -> Any:
    """The layer with the weight: the module, or the first of a container."""
    found = module[0] if isinstance(module, nn.Sequential) and len(module) > 0 else module
    if not isinstance(found, (nn.Linear, _ConvNd)):
        raise ValueError(f"{op}: modules must be linear or convolution layers, got {type(module).__name__}")
    return found


def get_module_weight(module: nn.Module) -> torch.Tensor:
    """The weight of a layer, or of the first layer of a container."""
    return _product("get_module_weight", module).weight


def get_module_bias(module: nn.Module) -> torch.Tensor | None:
    """The bias of a layer, or of the first layer of a container."""
    return _product("get_module_bias", module).bias


def has_bias(module: nn.Module) -> bool:
    """Whether a layer, or the first layer of a container, has a bias."""
    return get_module_bias(module) is not None


def set_module_weight(module: nn.Module, weight: torch.Tensor) -> None:
    """Gives a layer, or the first layer of a container, a weight."""
    _product("set_module_weight", module).weight = nn.Parameter(weight)


def set_module_bias(module: nn.Module, bias: torch.Tensor) -> None:
    """Gives a layer, or the first layer of a container, a bias."""
    _product("set_module_bias", module).bias = nn.Parameter(bias)


def max_over_ndim(input: torch.Tensor, axis_list: list[int], keepdim: bool = False) -> torch.Tensor:
    """Largest values over some axes."""
    return input.amax(tuple(axis_list), keepdim) if axis_list else input


def min_over_ndim(input: torch.Tensor, axis_list: list[int], keepdim: bool = False) -> torch.Tensor:
    """Smallest values over some axes."""
    return input.amin(tuple(axis_list), keepdim) if axis_list else input


def channel_range(input: torch.Tensor, axis: int = 0) -> torch.Tensor:
    """Max - min of each index of an axis, `[N]`."""
    rest = [other for other in range(input.dim()) if other != axis % input.dim()]
    return max_over_ndim(input, rest) - min_over_ndim(input, rest)


def get_name_by_module(model: nn.Module, module: nn.Module) -> str:
    """The name of a module in a model.

    Raises:
        ValueError: it is not in the model.
    """
    for name, found in model.named_modules():
        if found is module:
            return name
    got = type(module).__name__
    raise ValueError(f"get_name_by_module: argument 'module' must be in the model, got {got}")


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


def process_paired_modules_list_to_name(model: nn.Module, paired_modules_list: Any) -> list[list[str]]:
    """Names in the place of modules.

    Raises:
        ValueError: what is neither a module of the model nor the name of one.
    """
    by_module = {id(module): name for name, module in model.named_modules()}
    found = []
    for group in paired_modules_list:
        names = []
        for item in group:
            name = item if isinstance(item, str) else by_module.get(id(item))
            if name is None or name not in by_module.values():
                raise ValueError(
                    f"equalize: argument 'paired_modules_list' must hold modules of the model, got {item!r}"
                )
            names.append(name)
        found.append(names)
    return found


def expand_groups_in_paired_modules_list(paired_modules_list: Any) -> list[list[Any]]:
    """Neighbours in each group, as pairs.

    Raises:
        ValueError: a group of one.
    """
    for group in paired_modules_list:
        if len(group) < 2:
            raise ValueError(
                f"equalize: argument 'paired_modules_list' must hold groups of two or more, got {group!r}"
            )
    return [[a, b] for group in paired_modules_list for a, b in zip(group, group[1:], strict=False)]


def converged(
    curr_modules: dict[str, nn.Module], prev_modules: dict[str, Any], threshold: float = 1e-4
) -> bool:
    """Whether weights have moved less than threshold since: the sum of the norms of their changes.

    Args:
        curr_modules: name -> layer or container.
        prev_modules: the same before; None where there was none yet.
        threshold: see above.

    Raises:
        ValueError: other names.
    """
    if curr_modules.keys() != prev_modules.keys():
        raise ValueError(
            f"converged: argument 'prev_modules' must have the names {sorted(curr_modules)}, "
            f"got {sorted(prev_modules)}"
        )
    if any(module is None for module in prev_modules.values()):
        return False
    moved = [get_module_weight(m) - get_module_weight(prev_modules[name]) for name, m in curr_modules.items()]
    return sum(float(change.detach().norm()) for change in moved) < threshold


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
    pairs = expand_groups_in_paired_modules_list(
        process_paired_modules_list_to_name(model, paired_modules_list)
    )
    model = model if inplace else copied("equalize", model)
    layers = {name: _product("equalize", model.get_submodule(name)) for pair in pairs for name in pair}
    for _ in range(_MOST_ROUNDS):
        before = copy.deepcopy(layers)
        for a, b in pairs:
            cross_layer_equalization(model.get_submodule(a), model.get_submodule(b))
        if converged(layers, before, threshold):
            break
    return model
