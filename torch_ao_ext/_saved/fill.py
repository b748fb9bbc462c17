"""Tensors of a file into the modules of a model: all checked first, then all at once."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext._saved import registry, tree
from torch_ao_ext._saved.manifest import FileError, Manifest
from torch_ao_ext._saved.registry import SavedType

__all__ = ["Fill"]

_SMALLEST = torch.finfo(torch.float32).tiny


def _first_bad(name: str, rule: str, values: torch.Tensor, good: torch.Tensor) -> None:
    if not bool(good.all()):
        index = int((~good.reshape(-1)).to(torch.int8).argmax())
        value = values.reshape(-1)[index].item()
        raise FileError(f"tensor '{name}' must {rule}, got {value} at {index}")


def _dtype_of(entry: SavedType, key: str) -> torch.dtype | None:
    """Of a buffer that the empty module leaves out."""
    if key in entry.zero_points:
        return torch.int32
    return torch.float32 if key in entry.finite or key in entry.scales else None


def _check_like(name: str, tensor: torch.Tensor, like: torch.Tensor) -> None:
    if tensor.dtype != like.dtype:
        raise FileError(f"tensor '{name}' must have dtype {like.dtype}, got {tensor.dtype}")
    if tensor.shape != like.shape:
        raise FileError(
            f"tensor '{name}' must have shape {list(like.shape)}, got {list(tensor.shape)}"
        )


class Fill:
    """One load: `prepare` checks and changes nothing that the caller has, `commit` cannot fail.

    Args:
        manifest: of the file.
        tensors: of the file, by key.
        fresh: the model was made for this load, so its modules may be filled directly.
    """

    def __init__(self, manifest: Manifest, tensors: dict[str, torch.Tensor], fresh: bool) -> None:
        self.manifest = manifest
        self.tensors = tensors
        self.fresh = fresh
        self.mapped = {id(t) for t in tensors.values()}
        # (name, module of the model, filled module); the same object twice when fresh.
        self.quantized: list[tuple[str, nn.Module, nn.Module]] = []
        self._values: list[tuple[dict[str, Any], str, torch.Tensor]] = []
        self._parameters: dict[str, nn.Parameter] = {}
        self._groups: dict[str, dict[str, str]] = {}
        for key, name in (*((k, k) for k in tensors), *manifest.tied.items()):
            module, _, own = key.rpartition(".")
            self._groups.setdefault(module, {})[own] = name

    def prepare(self, model: nn.Module) -> None:
        """Checks every module against the file.

        Raises:
            FileError: the first difference.
        """
        used: set[str] = set()
        for name, module in model.named_modules():
            source = self.manifest.shared.get(name, name)
            used.add(source)
            own = self._groups.get(source, {})
            kind, args = self.manifest.modules.get(source, ("", None))
            if kind in registry.QUANTIZED and args is not None:
                self._prepare_quantized(source, module, kind, args, own)
            else:
                self._prepare_float(source, module, own)
        for name, own in self._groups.items():
            if name not in used:
                raise FileError(f"tensor '{_join(name, next(iter(own)))}' must have a module in the model")

    def _prepare_float(self, name: str, module: nn.Module, own: dict[str, str]) -> None:
        for table in (module._parameters, module._buffers):
            for key, like in table.items():
                if like is None:
                    continue
                label = _join(name, key)
                if key not in own:
                    raise FileError(f"tensor '{label}' of the model must be in the file, got no such tensor")
                tensor = self.tensors[own[key]]
                _check_like(label, tensor, like)
                value = tensor
                if table is module._parameters:
                    grad = like.requires_grad and not self.fresh
                    value = self._parameters.setdefault(own[key], nn.Parameter(tensor, grad))
                self._values.append((table, key, value))
        for key in own:
            if module._parameters.get(key) is None and module._buffers.get(key) is None:
                raise FileError(f"tensor '{_join(name, key)}' must have a place in the model, got none")

    def _prepare_quantized(
        self, name: str, module: nn.Module, kind: str, args: dict[str, Any], own: dict[str, str]
    ) -> None:
        entry = registry.QUANTIZED[kind]
        if type(module) is not entry.cls:
            raise FileError(
                f"module '{name}' must be {kind}, got {type(module).__name__} in the model"
            )
        target = module
        if not self.fresh:
            have = entry.args_of(module)
            if have != args:
                raise FileError(f"module '{name}' ({kind}) must have {args}, got {have} in the model")
            module = tree.make(name, kind, args)
        self._check_dtypes(name, entry, module, own)
        asked = entry.args_of(module)
        prefix = name + "." if name else ""
        state = {prefix + key: self.tensors[source] for key, source in own.items()}
        missing: list[str] = []
        extra: list[str] = []
        errors: list[str] = []
        options = {"assign_to_params_buffers": True, "version": module._version}
        try:
            module._load_from_state_dict(state, prefix, options, True, missing, extra, errors)
        except Exception as error:  # what a module says to a tensor of a shape it never expects
            raise FileError(f"module '{name}' ({kind}) must take its tensors: {error}") from error
        if errors:
            raise FileError(errors[0])
        if missing:
            raise FileError(f"tensor '{missing[0]}' must be in the file, got no such tensor")
        extra += [prefix + key for key in own if module._buffers.get(key) is None
                  and module._parameters.get(key) is None]
        if extra:
            raise FileError(f"tensor '{extra[0]}' must not be in the file: {kind} has none")
        found = entry.args_of(module)
        if entry.more and found != asked:
            raise FileError(
                f"module '{name}' ({kind}) must have {asked} by its arguments, got {found} by its tensors"
            )
        _check_values(prefix, entry, module)
        self.quantized.append((name, target, module))

    def _check_dtypes(
        self, name: str, entry: SavedType, module: nn.Module, own: dict[str, str]
    ) -> None:
        for key, source in own.items():
            tensor = self.tensors[source]
            like = module._buffers.get(key)
            dtype = like.dtype if like is not None else _dtype_of(entry, key)
            if dtype is not None and tensor.dtype != dtype:
                raise FileError(
                    f"tensor '{_join(name, key)}' must have dtype {dtype}, got {tensor.dtype}"
                )

    def commit(self) -> None:
        """Puts everything in place: assignments to dicts only."""
        for table, key, value in self._values:
            table[key] = value
        for _, target, filled in self.quantized:
            if target is filled:
                continue
            target._buffers.update(filled._buffers)
            target._parameters.update(filled._parameters)
            for key, value in filled.__dict__.items():
                if not key.startswith("_") and key != "training":
                    target.__dict__[key] = value


def _join(module: str, key: str) -> str:
    return f"{module}.{key}" if module else key


def _check_values(prefix: str, entry: SavedType, module: nn.Module) -> None:
    """What a valid digest does not tell: the kernels' rules for scales and zero points."""
    for key in entry.scales:
        scale = module._buffers.get(key)
        if scale is not None:
            rule = "hold positive normal numbers"
            good = torch.isfinite(scale) & (scale >= _SMALLEST)
            _first_bad(prefix + key, rule, scale, good)
    for key in entry.zero_points:
        point = module._buffers.get(key)
        if point is not None:
            good = (point >= -128) & (point <= 127)
            _first_bad(prefix + key, "hold integers in [-128, 127]", point, good)
    if entry.check is not None:
        try:
            entry.check(module)
        except ValueError as error:
            raise FileError(f"module '{prefix[:-1]}' {error}") from None
    for key in entry.finite:
        value = module._buffers.get(key)
        if value is not None:
            _first_bad(prefix + key, "be finite", value, torch.isfinite(value))
