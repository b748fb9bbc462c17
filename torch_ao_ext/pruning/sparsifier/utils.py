"""Names of tensors in a model, the mask parametrization, module swaps."""

from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

__all__ = [
    "FakeSparsity",
    "fqn_to_module",
    "get_arg_info_from_tensor_fqn",
    "module_contains_param",
    "module_to_fqn",
    "swap_module",
]


def module_contains_param(module: nn.Module, parametrization: type[nn.Module]) -> bool:
    """Whether any tensor of `module` carries a parametrization of this class."""
    if not is_parametrized(module):
        return False
    return any(isinstance(p, parametrization) for p in chain.from_iterable(module.parametrizations.values()))


def swap_module(mod: nn.Module, mapping: dict[type[nn.Module], type[nn.Module]]) -> nn.Module:
    """The module that `mapping` gives for `mod`, made by its `from_dense`.

    Forward hooks move along with their options. A module whose class (before
    parametrizations) is not in `mapping` is returned as it is.

    Raises:
        ValueError: When parameters and buffers of `mod` are on several devices.
    """
    target = mapping.get(type_before_parametrizations(mod))
    if target is None:
        return mod
    devices = {t.device for t in chain(mod.parameters(), mod.buffers())}
    if len(devices) > 1:
        names = ", ".join(sorted(str(d) for d in devices))
        raise ValueError(f"swap_module: argument 'mod' must be on one device, got {names}")
    swapped = target.from_dense(mod)
    for key, hook in mod._forward_pre_hooks.items():
        swapped.register_forward_pre_hook(hook, with_kwargs=key in mod._forward_pre_hooks_with_kwargs)
    for key, hook in mod._forward_hooks.items():
        swapped.register_forward_hook(
            hook,
            with_kwargs=key in mod._forward_hooks_with_kwargs,
            always_call=key in mod._forward_hooks_always_called,
        )
    return swapped.to(devices.pop()) if devices else swapped


def module_to_fqn(model: nn.Module, module: nn.Module, prefix: str = "") -> str | None:
    """Dotted path of `module` inside `model`: "" for the model, None when absent."""
    if module is model:
        return ""
    for name, child in model.named_children():
        rest = module_to_fqn(child, module, ".")
        if rest is not None:
            return prefix + name + rest
    return None


def fqn_to_module(model: nn.Module | None, path: str) -> Any:
    """The module or tensor at a dotted path, or None when nothing is there."""
    found: Any = model
    for name in path.split(".") if path else ():
        found = getattr(found, name, None)
    return found


def get_arg_info_from_tensor_fqn(model: nn.Module, tensor_fqn: str) -> dict[str, Any]:
    """Splits "a.b.weight" into its module and the tensor's own name.

    Returns:
        `module_fqn`, `module` (None when absent), `tensor_name` and `tensor_fqn`.
    """
    module_fqn, _, tensor_name = tensor_fqn.rpartition(".")
    return {
        "module_fqn": module_fqn,
        "module": fqn_to_module(model, module_fqn),
        "tensor_name": tensor_name,
        "tensor_fqn": tensor_fqn,
    }


class FakeSparsity(nn.Module):
    """Parametrization `mask * x`, elementwise.

    The mask belongs to the sparsifier, whose `state_dict` saves it. It is a
    non-persistent buffer here, so a prepared model loads its own state_dict.
    Change the mask's content, never the tensor object: the sparsifier holds it too.
    """

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiplies by the mask of the same shape."""
        if self.mask.shape != x.shape:
            raise ValueError(
                f"FakeSparsity: argument 'x' must have the mask's shape {tuple(self.mask.shape)}, "
                f"got {tuple(x.shape)}"
            )
        return self.mask * x


def _find_mask(module: nn.Module, tensor_name: str) -> nn.Module:
    """The parametrization of a tensor that holds a mask, wherever it stands in the chain."""
    if is_parametrized(module, tensor_name):
        for parametrization in module.parametrizations[tensor_name]:
            if isinstance(getattr(parametrization, "mask", None), torch.Tensor):
                return parametrization
    raise RuntimeError(
        f"sparsifier: tensor {tensor_name!r} must carry a mask, got none; "
        "it was never prepared or its mask is squashed already"
    )


def _write_mask(mask: torch.Tensor, value: torch.Tensor) -> None:
    """Puts new values into a mask without changing the tensor, its dtype or its shape."""
    with torch.no_grad():
        mask.copy_(value.reshape(mask.shape))
