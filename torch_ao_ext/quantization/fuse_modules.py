"""Fuses named layers of a model, in the order in which the data passes them."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from torch_ao_ext.quantization._copy import copied
from torch_ao_ext.quantization._hooks import (
    POST_HOOKS,
    PRE_HOOKS,
    hooks_restored_on_error,
    move_hooks,
)
from torch_ao_ext.quantization.fuser_method_mappings import (
    fuse_conv_bn,  # noqa: F401  (torch.quantization.fuse_modules has them)
    fuse_conv_bn_relu,  # noqa: F401
    get_fuser_method,
)

__all__ = ["fuse_known_modules", "fuse_modules", "fuse_modules_qat"]

_BACKWARD = ("_backward_hooks", "_backward_pre_hooks")


def _refuse_inner_hooks(layers: list[nn.Module]) -> None:
    """A hook between two fused layers would see another value, or never run."""
    last = len(layers) - 1
    for i, layer in enumerate(layers):
        kinds = _BACKWARD + (PRE_HOOKS[:1] if i > 0 else ()) + (POST_HOOKS[:1] if i < last else ())
        for kind in kinds:
            if getattr(layer, kind):
                raise ValueError(
                    "fuse_modules: only the first layer may have forward pre-hooks and only the "
                    f"last one forward hooks, got {kind.strip('_')} on layer {i} "
                    f"({type(layer).__name__})"
                )


def fuse_known_modules(
    mod_list: list[nn.Module],
    is_qat: bool,
    additional_fuser_method_mapping: dict[Any, Callable[..., nn.Module]] | None = None,
) -> list[nn.Module]:
    """The modules that take the places of those given: the fused one, then `nn.Identity`.

    Forward pre-hooks of the first layer and forward hooks of the last go with the fused module.

    Args:
        mod_list: float layers in the order of the data.
        is_qat: keep batch norms, training updates them.
        additional_fuser_method_mapping: types -> fuser method, looked at first.

    Raises:
        ValueError: nothing fuses these types, hooks sit between the layers, or the fuser
            method refuses.
    """
    types = tuple(type_before_parametrizations(m) for m in mod_list)
    fuser_method = get_fuser_method(types, additional_fuser_method_mapping)
    _refuse_inner_hooks(mod_list)
    fused = fuser_method(is_qat, *mod_list)
    move_hooks(mod_list[0], fused, PRE_HOOKS)
    move_hooks(mod_list[-1], fused, POST_HOOKS)
    fused.training = mod_list[0].training
    rest = [nn.Identity() for _ in mod_list[1:]]
    for identity in rest:
        identity.training = mod_list[0].training
    return [fused, *rest]


def _groups(modules_to_fuse: Any, op: str) -> list[list[str]]:
    """A list of lists of names, each name once."""
    one = all(isinstance(name, str) for name in modules_to_fuse)
    groups = [modules_to_fuse] if one else modules_to_fuse
    seen: set[str] = set()
    for group in groups:
        if isinstance(group, str) or not all(isinstance(n, str) for n in group):
            raise ValueError(
                f"{op}: argument 'modules_to_fuse' must be a list of names or a list of such "
                f"lists, got {modules_to_fuse!r}"
            )
        for name in group:
            if name in seen:
                raise ValueError(
                    f"{op}: argument 'modules_to_fuse' must hold each name once, got {name!r} twice"
                )
            seen.add(name)
    return [list(group) for group in groups if len(group) > 0]


def _layers(model: nn.Module, names: list[str], op: str) -> list[nn.Module]:
    found = []
    for name in names:
        try:
            found.append(model.get_submodule(name) if name else None)
        except AttributeError:
            found.append(None)
        if found[-1] is None:
            raise ValueError(f"{op}: argument 'modules_to_fuse' must name modules of the model, got {name!r}")
    return found


def _fuse(
    op: str,
    model: nn.Module,
    modules_to_fuse: Any,
    is_qat: bool,
    inplace: bool,
    fuser_func: Callable[..., list[nn.Module]],
    fuse_custom_config_dict: dict[str, Any] | None,
) -> nn.Module:
    config = fuse_custom_config_dict or {}
    unknown = sorted(set(config) - {"additional_fuser_method_mapping"})
    if unknown:
        raise ValueError(
            f"{op}: argument 'fuse_custom_config_dict' must have the key "
            f"'additional_fuser_method_mapping' only, got {unknown[0]!r}"
        )
    model = model if inplace else copied(op, model)
    groups = _groups(modules_to_fuse, op)
    layers = [_layers(model, names, op) for names in groups]
    # All are fused before the first one takes its place: the model is whole after an error.
    places: list[tuple[str, nn.Module]] = []
    with hooks_restored_on_error([layer for group in layers for layer in group]):
        for names, group in zip(groups, layers, strict=True):
            try:
                fused = fuser_func(group, is_qat, config.get("additional_fuser_method_mapping"))
            except ValueError as error:
                raise ValueError(f"{op}: modules_to_fuse {names}: {error}") from error
            places += zip(names, fused, strict=True)
    for name, module in places:
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, module)
    return model


def fuse_modules(
    model: nn.Module,
    modules_to_fuse: Any,
    inplace: bool = False,
    fuser_func: Callable[..., list[nn.Module]] = fuse_known_modules,
    fuse_custom_config_dict: dict[str, Any] | None = None,
) -> nn.Module:
    """Fuses layers of a model in evaluation mode; batch norms are folded.

    Sequences: conv, linear or transposed conv with batch norm; conv with batch norm and
    ReLU; conv, linear or batch norm (2-D, 3-D) with ReLU. The first place of each sequence
    gets the fused module, the others `nn.Identity`.

    Args:
        model: float model.
        modules_to_fuse: names in the order of the data, `["conv", "bn", "relu"]`, or a list
            of such lists; a name may have dots.
        inplace: change `model` instead of a copy. Either way nothing changes on an error.
        fuser_func: `(modules, is_qat, additional mapping)` -> modules that take their places.
        fuse_custom_config_dict: `{"additional_fuser_method_mapping": {types: fuser method}}`.

    Raises:
        ValueError: a name is not in the model or is there twice, nothing fuses the types,
            training mode with a batch norm, no running statistics, hooks between the layers,
            a parametrized weight. Names the modules.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization import fuse_modules
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).eval()
        >>> [type(m).__name__ for m in fuse_modules(net, ["0", "1"])]
        ['Conv2d', 'Identity']
    """
    return _fuse("fuse_modules", model, modules_to_fuse, False, inplace, fuser_func, fuse_custom_config_dict)


def fuse_modules_qat(
    model: nn.Module,
    modules_to_fuse: Any,
    inplace: bool = False,
    fuser_func: Callable[..., list[nn.Module]] = fuse_known_modules,
    fuse_custom_config_dict: dict[str, Any] | None = None,
) -> nn.Module:
    """Puts layers into containers that keep the batch norm, for training.

    Arguments and errors: as `fuse_modules`; the batch norm must be affine, a transposed conv
    is refused.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization import fuse_modules_qat
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
        >>> [type(m).__name__ for m in fuse_modules_qat(net, ["0", "1"])]
        ['ConvBn2d', 'Identity']
    """
    return _fuse(
        "fuse_modules_qat", model, modules_to_fuse, True, inplace, fuser_func,
        fuse_custom_config_dict,
    )  # fmt: skip
