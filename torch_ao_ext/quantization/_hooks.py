"""Hooks of modules that are replaced by others."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["POST_HOOKS", "PRE_HOOKS", "hooks_restored_on_error", "move_hooks", "settle_weight_hooks"]

PRE_HOOKS = ("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs")
POST_HOOKS = ("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called")

# torch's older re-parametrizations recompute `weight` in a forward pre-hook.
_WEIGHT_HOOK_MODULES = (
    "torch.nn.utils.weight_norm",
    "torch.nn.utils.spectral_norm",
    "torch.nn.utils.prune",
)


def move_hooks(
    source: nn.Module,
    target: nn.Module,
    kinds: tuple[str, ...] = PRE_HOOKS + POST_HOOKS,
    dropped: set[int] | frozenset[int] = frozenset(),
) -> None:
    """Moves the dicts themselves: a handle from registration removes its hook from that dict.

    Args:
        source: loses its hooks.
        target: gets them before its own.
        kinds: which.
        dropped: ids of hooks that go.
    """
    if source is target:
        return
    for kind in kinds:
        moved = getattr(source, kind)
        for key in dropped:
            moved.pop(key, None)
        moved.update(getattr(target, kind))
        target.__dict__[kind] = moved
        source.__dict__[kind] = OrderedDict()


@contextmanager
def hooks_restored_on_error(modules: Iterable[nn.Module]) -> Iterator[None]:
    """What was moved inside is back in its place when an error leaves the block."""
    before = [
        (module, kind, hooks := getattr(module, kind), list(hooks.items()))
        for module in modules
        for kind in PRE_HOOKS + POST_HOOKS
    ]
    try:
        yield
    except BaseException:
        for module, kind, hooks, items in before:
            hooks.clear()
            hooks.update(items)
            module.__dict__[kind] = hooks
        raise


def settle_weight_hooks(module: nn.Module) -> set[int]:
    """Runs the hooks that recompute weights; ids of these, which must not be carried over."""
    dropped: set[int] = set()
    for key, hook in module._forward_pre_hooks.items():
        if type(hook).__module__ in _WEIGHT_HOOK_MODULES:
            with torch.no_grad():
                hook(module, None)
            dropped.add(key)
    return dropped
