"""The statistics of a model's observers, apart from its weights."""

from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from torch_ao_ext.quantization.observer._base import ObserverBase

_MARK = "activation_post_process"  # how observers are called inside a prepared model


def get_observer_state_dict(mod: nn.Module) -> "OrderedDict[str, torch.Tensor]":
    """The entries of mod's state_dict that belong to its observers.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization.observer import MinMaxObserver, get_observer_state_dict
        >>> model = torch.nn.Linear(2, 2)
        >>> model.activation_post_process = MinMaxObserver()
        >>> sorted(get_observer_state_dict(model))[1:]
        ['activation_post_process.max_val', 'activation_post_process.min_val']
    """
    mark = "observer" if isinstance(mod, torch.jit.RecursiveScriptModule) else _MARK
    state = mod.state_dict()
    found = OrderedDict((name, value) for name, value in state.items() if mark in name)
    found._metadata = state._metadata  # type: ignore[attr-defined]  # versions, for loading
    return found


def load_observer_state_dict(mod: nn.Module, obs_dict: dict[str, Any]) -> None:
    """Loads what get_observer_state_dict gave into the observers of an equal model.

    Raises:
        KeyError: an observer of mod has no entry, or an entry has no observer.
    """
    state, known = OrderedDict(obs_dict), set()
    missing: list[str] = []
    errors: list[str] = []
    versions = getattr(obs_dict, "_metadata", {})
    for name, module in mod.named_modules():
        if not isinstance(module, ObserverBase):
            continue
        prefix = f"{name}." if name else ""
        known.update(prefix + own for own in module.state_dict())
        metadata = versions.get(name, {})
        module._load_from_state_dict(state, prefix, metadata, True, missing, [], errors)
    unexpected = sorted(name for name in obs_dict if name not in known)
    if missing:
        raise KeyError(f"load_observer_state_dict: argument 'obs_dict' must have {', '.join(missing)}")
    if unexpected:
        raise KeyError(
            "load_observer_state_dict: argument 'obs_dict' must name observers of the model, got "
            + ", ".join(unexpected)
        )
    if errors:
        raise ValueError("load_observer_state_dict: " + "; ".join(errors))
