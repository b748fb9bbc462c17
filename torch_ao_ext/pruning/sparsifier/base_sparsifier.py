"""The steps that all sparsifiers share: prepare, step, squash, convert, save, load."""

import abc
import copy
from collections import defaultdict
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrize import type_before_parametrizations

from torch_ao_ext.pruning.sparsifier.utils import (
    FakeSparsity,
    _find_mask,
    get_arg_info_from_tensor_fqn,
    module_contains_param,
    module_to_fqn,
    swap_module,
)

__all__ = ["BaseSparsifier"]

SUPPORTED_MODULES: set[type[nn.Module]] = {nn.Linear}

KEYS_NOT_IN_STATE_DICT = ["module", "module_fqn", "tensor_name"]


class BaseSparsifier(abc.ABC):
    """Base class of the sparsifiers of weights; a subclass writes `update_mask`.

    `groups` has one dict per sparsified tensor: its configuration and `tensor_fqn`,
    `module_fqn`, `module`, `tensor_name`. `state` maps each `tensor_fqn` to its mask.

    Args:
        defaults: Configuration of every tensor whose own entry does not name it.
    """

    def __init__(self, defaults: dict[str, Any] | None = None) -> None:
        super().__init__()
        if defaults is not None and not isinstance(defaults, dict):
            raise TypeError(
                f"BaseSparsifier: argument 'defaults' must be a dict, got {type(defaults).__name__}"
            )
        self.defaults: dict[str, Any] = defaults or {}
        self.state: dict[str, dict[str, Any]] = defaultdict(dict)
        self.groups: list[dict[str, Any]] = []
        self.enable_mask_update = True

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.groups):
            lines.append(f"\tGroup {i}")
            lines.append(f"\t    module: {group['module']}")
            lines += [f"\t    {key}: {group[key]}" for key in sorted(group) if key != "module"]
        return "\n".join([*lines, ")"])

    def state_dict(self) -> dict[str, Any]:
        """`state` (masks by tensor_fqn) and `groups` (configurations without modules).

        The masks are the live tensors, as in a module's state_dict.
        """
        groups = [{k: v for k, v in g.items() if k not in KEYS_NOT_IN_STATE_DICT} for g in self.groups]
        return {"state": {fqn: dict(s) for fqn, s in self.state.items()}, "groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any], strict: bool = True) -> None:
        """Restores masks and configurations into the prepared model.

        A tensor that carries no mask yet gets one. `state_dict` is not changed and
        shares no tensor with the sparsifier afterwards.

        Args:
            state_dict: What `state_dict()` returned.
            strict: Raise when the model lacks a tensor; otherwise skip it.
        """
        if getattr(self, "model", None) is None:
            raise RuntimeError(
                f"{type(self).__name__}: 'prepare' must come before 'load_state_dict', got no model"
            )
        saved = copy.deepcopy({"state": dict(state_dict["state"]), "groups": list(state_dict["groups"])})
        state: dict[str, dict[str, Any]] = defaultdict(dict)
        groups = []
        configs = {group["tensor_fqn"].removeprefix("."): group for group in saved["groups"]}
        for fqn, entry in saved["state"].items():
            info = get_arg_info_from_tensor_fqn(self.model, fqn)
            if not isinstance(getattr(info["module"], info["tensor_name"], None), torch.Tensor):
                if strict:
                    raise RuntimeError(
                        f"{type(self).__name__}: the model must have tensor {fqn!r} to load, got none"
                    )
                configs.pop(fqn, None)
                continue
            config = configs.setdefault(fqn, {"tensor_fqn": fqn})
            config.update(info)
            state[fqn] = entry
            self._load_mask(config, entry)
        for group in saved["groups"]:
            fqn = group["tensor_fqn"].removeprefix(".")
            if fqn in configs and "module" not in group:
                group.update(get_arg_info_from_tensor_fqn(self.model, fqn))
            if group.get("module") is not None:
                groups.append(group)
        self.__setstate__({"state": state, "groups": groups})

    def _load_mask(self, config: dict[str, Any], entry: dict[str, Any]) -> None:
        """Gives the tensor's parametrization the loaded mask and shares it with `entry`."""
        module, name = config["module"], config["tensor_name"]
        tensor = getattr(module, name)
        mask = entry.get("mask")
        try:
            holder = _find_mask(module, name)
        except RuntimeError:
            mask = self._new_mask(config, tensor) if mask is None else mask
            holder = self._attach(config, mask)
        if mask is None:
            entry["mask"] = holder.mask
            return
        if mask.shape != holder.mask.shape:
            raise RuntimeError(
                f"{type(self).__name__}: mask of {config['tensor_fqn']!r} must have shape "
                f"{tuple(holder.mask.shape)}, got {tuple(mask.shape)}"
            )
        entry["mask"] = holder.mask = mask.to(tensor.device)

    def make_config_from_model(
        self, model: nn.Module, SUPPORTED_MODULES: set[type[nn.Module]] = SUPPORTED_MODULES
    ) -> None:
        """Sets `config` to the weights of all modules of the supported classes.

        A module that the model uses twice is listed once.
        """
        self.config: list[dict[str, Any]] = []
        seen: set[nn.Module] = set()
        stack = [model]
        while stack:
            for child in stack.pop().children():
                if child in seen:
                    continue
                seen.add(child)
                if type(child) in SUPPORTED_MODULES:
                    self.config.append({"tensor_fqn": f"{module_to_fqn(model, child)}.weight"})
                else:
                    stack.append(child)

    def prepare(self, model: nn.Module, config: list[dict[str, Any]] | None) -> None:
        """Puts an all-ones mask on each configured tensor, in place.

        Args:
            model: The model; it is changed.
            config: One dict per tensor with `tensor_fqn` and options; None takes the
                weights of all supported modules.
        """
        self.model = model
        self.config = config  # type: ignore[assignment]
        if config is None:
            self.make_config_from_model(model)
        groups = [self._make_group(model, entry) for entry in self.config]
        taken = {group["tensor_fqn"] for group in self.groups}
        for group in groups:
            if group["tensor_fqn"] in taken:
                raise ValueError(
                    f"prepare: tensor {group['tensor_fqn']!r} must be configured once, got it again"
                )
            taken.add(group["tensor_fqn"])
        self.groups.extend(groups)
        self._prepare()

    def _make_group(self, model: nn.Module, entry: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(entry, dict):
            raise TypeError(f"prepare: argument 'config' must hold dicts, got {type(entry).__name__}")
        group = copy.deepcopy(self.defaults)
        group.update(entry)
        fqn = group.get("tensor_fqn")
        if not isinstance(fqn, str):
            raise ValueError(f"prepare: each 'config' entry must name its 'tensor_fqn', got {sorted(entry)}")
        fqn = group["tensor_fqn"] = fqn.removeprefix(".")
        info = get_arg_info_from_tensor_fqn(model, fqn)
        for key, value in info.items():
            given = group.get(key, value)
            if given is not value and given != value:
                raise ValueError(f"prepare: {key!r} must agree with tensor_fqn {fqn!r}, got {given!r}")
        if not isinstance(getattr(info["module"], info["tensor_name"], None), torch.Tensor):
            raise ValueError(f"prepare: 'tensor_fqn' must name a tensor of the model, got {fqn!r}")
        group.update(info)
        return group

    def _new_mask(self, config: dict[str, Any], tensor: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(tensor, requires_grad=False)

    def _parametrization(self, config: dict[str, Any]) -> type[nn.Module]:
        return config.get("parametrization", FakeSparsity)

    def _attach(self, config: dict[str, Any], mask: torch.Tensor) -> nn.Module:
        holder = self._parametrization(config)(mask)
        parametrize.register_parametrization(config["module"], config["tensor_name"], holder)
        _follow_flat_weights(config["module"])
        return holder

    def _prepare(self, *args: Any, **kwargs: Any) -> None:
        for config in self.groups:
            if "mask" in self.state[config["tensor_fqn"]]:
                continue
            mask = config.get("mask")
            if mask is None:
                mask = self._new_mask(config, getattr(config["module"], config["tensor_name"]))
            self._attach(config, mask)
            self.state[config["tensor_fqn"]]["mask"] = mask

    def squash_mask(
        self,
        params_to_keep: tuple[str, ...] | None = None,
        params_to_keep_per_layer: dict[str, tuple[str, ...]] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Multiplies the masks into the tensors and removes the parametrizations.

        Args:
            params_to_keep: Configuration keys that each module keeps in its dict
                `sparse_params`.
            params_to_keep_per_layer: The same for the modules named by their fqn.
            args: Ignored.
            kwargs: Ignored.

        Raises:
            KeyError: When a configuration has no such key; nothing is changed then.
        """
        kept = []
        for config in self.groups:
            _find_mask(config["module"], config["tensor_name"])
            names = [*(params_to_keep or ()), *(params_to_keep_per_layer or {}).get(config["module_fqn"], ())]
            kept.append({name: config[name] for name in names})
        for config, params in zip(self.groups, kept, strict=True):
            module = config["module"]
            parametrize.remove_parametrizations(module, config["tensor_name"], leave_parametrized=True)
            _unfollow_flat_weights(module)
            if params:
                module.sparse_params = {**getattr(module, "sparse_params", {}), **params}

    def convert(
        self,
        module: nn.Module,
        mapping: dict[type[nn.Module], type[nn.Module]] | None = None,
        inplace: bool = False,
        parameterization: type[nn.Module] = FakeSparsity,
    ) -> nn.Module:
        """Replaces the masked submodules by those of `mapping`, made with `from_dense`.

        Args:
            module: The model, prepared and not yet squashed.
            mapping: Float class -> sparse class.
            inplace: Change `module` itself rather than a copy.
            parameterization: Only modules that carry this class are replaced.

        Returns:
            The converted model.
        """
        if mapping is None:
            raise NotImplementedError("convert: argument 'mapping' must be given, got None")
        if not inplace:
            module = copy.deepcopy(module)
        swapped: dict[nn.Module, nn.Module] = {}
        for parent in list(module.modules()):
            for name, child in list(parent._modules.items()):
                if child is None or not module_contains_param(child, parameterization):
                    continue
                if type_before_parametrizations(child) in mapping:
                    if child not in swapped:
                        swapped[child] = swap_module(child, mapping)
                    parent._modules[name] = swapped[child]
        return module

    def step(self, use_path: bool = True) -> None:
        """Recomputes every mask, unless `enable_mask_update` is off."""
        if not self.enable_mask_update:
            return
        with torch.no_grad():
            for config in self.groups:
                self.update_mask(**config)

    @abc.abstractmethod
    def update_mask(self, module: nn.Module, tensor_name: str, **kwargs: Any) -> None:
        """Writes a new mask for one tensor; receives the tensor's whole configuration."""


class _FlatWeights:
    """Forward pre-hook: an RNN runs on a list of weights, which must follow the masks."""

    def __call__(self, module: nn.Module, args: Any) -> None:
        module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]


def _follow_flat_weights(module: nn.Module) -> None:
    if isinstance(module, nn.RNNBase) and not _flat_weight_hooks(module):
        module.register_forward_pre_hook(_FlatWeights())


def _flat_weight_hooks(module: nn.Module) -> list[int]:
    return [key for key, hook in module._forward_pre_hooks.items() if isinstance(hook, _FlatWeights)]


def _unfollow_flat_weights(module: nn.Module) -> None:
    """Drops the hook once no tensor of the RNN is parametrized any more."""
    if isinstance(module, nn.RNNBase) and not parametrize.is_parametrized(module):
        for key in _flat_weight_hooks(module):
            del module._forward_pre_hooks[key]
        module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]
