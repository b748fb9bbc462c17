"""The modules of a loaded model: made from the file's description or by model_fn."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from torch_ao_ext._saved import registry
from torch_ao_ext._saved.manifest import FileError, Manifest

__all__ = [
    "MAX_MODULES",
    "check_nothing_left",
    "check_types",
    "from_function",
    "from_manifest",
    "make",
]

# Most modules made from a description alone: bounds what a small file can allocate.
MAX_MODULES = 4096
# Deepest tree: a walk of modules recurses once a level.
MAX_DEPTH = 200

# torch's older re-parametrizations recompute a float `weight` before forward.
_WEIGHT_HOOK_MODULES = (
    "torch.nn.utils.weight_norm",
    "torch.nn.utils.spectral_norm",
    "torch.nn.utils.prune",
)


def check_types(manifest: Manifest) -> None:
    """Every described type must be one of ours."""
    if "" not in manifest.modules:
        raise FileError("manifest must describe the root module")
    for name, (kind, args) in manifest.modules.items():
        if args is not None and kind not in registry.QUANTIZED and kind not in registry.FLOAT:
            raise FileError(
                f"module '{name}' must be of a known type, got '{kind[:80]}'; upgrade torch_ao_ext"
            )


def make(name: str, kind: str, args: dict[str, Any]) -> nn.Module:
    """An empty module of a known type, on the meta device."""
    entry = registry.QUANTIZED.get(kind) or registry.FLOAT[kind]
    try:
        with torch.device("meta"):
            return entry.make(args)
    except Exception as error:  # whatever a constructor says to arguments from a file
        raise FileError(f"module '{name}' ({kind}) must have valid arguments: {error}") from error


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Parent and key of a name that is not the root's."""
    prefix, _, key = name.rpartition(".")
    parent: nn.Module | None = model
    for part in prefix.split(".") if prefix else ():
        parent = None if parent is None else parent._modules.get(part)
    if parent is None:
        raise FileError(f"module '{name}' must have a parent module '{prefix}' in the model")
    return parent, key


def _share(model: nn.Module, manifest: Manifest, wanted: Callable[[str], bool]) -> None:
    for alias, name in manifest.shared.items():
        if alias == "" or name == "":
            raise FileError("manifest must not share the root module")
        if wanted(name):
            parent, key = _place(model, name)
            other, other_key = _place(model, alias)
            if parent._modules.get(key) is None:
                raise FileError(f"module '{alias}' must share a module '{name}' of the model")
            other._modules[other_key] = parent._modules[key]
    _check_no_cycle(model)


def _check_no_cycle(model: nn.Module) -> None:
    """A module that contains itself would be walked for ever. Each module is visited once."""
    open_modules: set[int] = set()
    done: set[int] = set()
    stack: list[tuple[nn.Module, bool]] = [(model, False)]
    while stack:
        module, leave = stack.pop()
        if leave:
            open_modules.discard(id(module))
            done.add(id(module))
        elif id(module) in open_modules:
            raise FileError(f"no module must contain itself, got a {type(module).__name__} that does")
        elif id(module) not in done:
            open_modules.add(id(module))
            stack.append((module, True))
            stack += [(child, False) for child in module._modules.values() if child is not None]


def from_manifest(manifest: Manifest) -> nn.Module:
    """The tree as the file describes it."""
    unknown = [(n, kind) for n, (kind, args) in manifest.modules.items() if args is None]
    if unknown:
        shown = ", ".join(f"'{n or '(root)'}' ({kind[:80]})" for n, kind in unknown[:5])
        raise FileError(
            f"argument 'model_fn' (or 'into') must be given: only code can make {len(unknown)} of "
            f"its {len(manifest.modules)} modules: {shown}"
        )
    if len(manifest.modules) > MAX_MODULES:
        raise FileError(
            f"argument 'model_fn' (or 'into') must be given: the file has {len(manifest.modules)} "
            f"modules, more than {MAX_MODULES}"
        )
    deepest = max(manifest.modules, key=lambda name: name.count("."))
    if deepest.count(".") >= MAX_DEPTH:
        raise FileError(
            f"modules must be nested less deeply than {MAX_DEPTH} names, got {deepest.count('.') + 1} "
            f"in '{deepest[:80]}...'"
        )
    model = make("", *manifest.modules[""])
    for name, (kind, args) in manifest.modules.items():
        if name != "":
            parent, key = _place(model, name)
            parent._modules[key] = make(name, kind, args)
    _share(model, manifest, lambda name: True)
    return model


def _carry_hooks(old: nn.Module | None, new: nn.Module) -> None:
    if old is None:
        return
    for name in (
        "_forward_pre_hooks",
        "_forward_pre_hooks_with_kwargs",
        "_forward_hooks",
        "_forward_hooks_with_kwargs",
        "_forward_hooks_always_called",
    ):
        for key, hook in getattr(old, name).items():
            if type(old._forward_pre_hooks.get(key)).__module__ not in _WEIGHT_HOOK_MODULES:
                getattr(new, name)[key] = hook


def from_function(
    manifest: Manifest, model_fn: Callable[[], nn.Module], meta: bool
) -> nn.Module:
    """The float model with the file's int8 modules in place of its own."""
    if meta:
        try:
            with torch.device("meta"):
                model = model_fn()
        except Exception as error:
            raise RuntimeError(
                "load_quantized: model_fn must work on the meta device; meta=False calls it on the "
                f"CPU. It raised {type(error).__name__}: {error}"
            ) from error
    else:
        model = model_fn()
    if not isinstance(model, nn.Module):
        raise FileError(
            f"argument 'model_fn' must return an nn.Module, got {type(model).__name__}"
        )
    for name, (kind, args) in manifest.modules.items():
        if kind not in registry.QUANTIZED or args is None:
            continue
        new = make(name, kind, args)
        if name == "":
            _carry_hooks(model, new)
            model = new
            continue
        parent, key = _place(model, name)
        if key not in parent._modules:
            raise FileError(f"module '{name}' ({kind}) must be in the model that model_fn made")
        _carry_hooks(parent._modules[key], new)
        parent._modules[key] = new
    _share(model, manifest, lambda name: manifest.modules[name][0] in registry.QUANTIZED)
    return model


def _tensors_in(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        yield from (v for v in value if isinstance(v, torch.Tensor))
    elif isinstance(value, dict):
        yield from (v for v in value.values() if isinstance(v, torch.Tensor))


def check_nothing_left(model: nn.Module) -> None:
    """A tensor that is no buffer is in no file: on the meta device its values are lost."""
    for name, module in model.named_modules():
        for key, value in module.__dict__.items():
            if key in ("_parameters", "_buffers", "_modules"):
                continue
            if any(t.is_meta for t in _tensors_in(value)):
                raise FileError(
                    f"module '{name}' must not keep a tensor in the plain attribute '{key}': no file "
                    "has it; call load_quantized with meta=False"
                )
