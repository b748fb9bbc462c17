"""Masks the input of layers by statistics of what passed through them."""

import copy
import warnings
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from torch_ao_ext.pruning.sparsifier.utils import fqn_to_module, module_to_fqn

__all__ = ["ActivationSparsifier"]

_FUNCTIONS = ("aggregate_fn", "reduce_fn", "mask_fn")
_NOT_SAVED = ("hook", "layer")


class ActivationSparsifier:
    """Zeroes parts of the first input of the registered layers.

    While data passes, `aggregate_fn(sum so far, input)` collects it, starting from
    zeros. `step` computes `mask = mask_fn(reduce_fn(collected), **sparse_config)`.
    `squash_mask` then multiplies each later input by the mask. With `features` all
    of this happens separately for each index of dimension `feature_dim`, and inputs
    outside `features` pass unchanged.

    Args:
        model: The model that contains the layers.
        aggregate_fn: Default for `register_layer`.
        reduce_fn: Default for `register_layer`.
        mask_fn: Default for `register_layer`.
        features: Default list of indices.
        feature_dim: Default dimension of these indices.
        sparse_config: Default keyword arguments of `mask_fn`.
    """

    def __init__(
        self,
        model: nn.Module,
        aggregate_fn: Callable[..., Any] | None = None,
        reduce_fn: Callable[..., Any] | None = None,
        mask_fn: Callable[..., Any] | None = None,
        features: list[int] | None = None,
        feature_dim: int | None = None,
        **sparse_config: Any,
    ) -> None:
        self.model = model
        self.defaults: dict[str, Any] = {
            "sparse_config": sparse_config,
            "aggregate_fn": aggregate_fn,
            "reduce_fn": reduce_fn,
            "mask_fn": mask_fn,
            "features": features,
            "feature_dim": feature_dim,
        }
        self.data_groups: dict[str, dict[str, Any]] = defaultdict(dict)
        self.state: dict[str, Any] = defaultdict(dict)

    @staticmethod
    def _safe_rail_checks(args: dict[str, Any]) -> None:
        if args["features"] is not None and args["feature_dim"] is None:
            raise ValueError("register_layer: argument 'feature_dim' must be given with 'features', got None")
        for key in _FUNCTIONS:
            if not callable(args[key]):
                raise TypeError(f"register_layer: argument {key!r} must be a function, got {args[key]!r}")

    def register_layer(
        self,
        layer: nn.Module,
        aggregate_fn: Callable[..., Any] | None = None,
        reduce_fn: Callable[..., Any] | None = None,
        mask_fn: Callable[..., Any] | None = None,
        features: list[int] | None = None,
        feature_dim: int | None = None,
        **sparse_config: Any,
    ) -> None:
        """Starts collecting the inputs of a layer of the model.

        Arguments left out take the sparsifier's defaults. Registering a layer again
        replaces its configuration, with a warning.
        """
        name = module_to_fqn(self.model, layer)
        if name is None:
            raise ValueError(
                "register_layer: argument 'layer' must be part of the model, got a foreign module"
            )
        given = {
            "aggregate_fn": aggregate_fn,
            "reduce_fn": reduce_fn,
            "mask_fn": mask_fn,
            "features": features,
            "feature_dim": feature_dim,
        }
        group = {k: copy.deepcopy(v) for k, v in self.defaults.items()}
        group.update({k: v for k, v in given.items() if v is not None})
        group["sparse_config"].update(sparse_config)
        self._safe_rail_checks(group)
        if name in self.data_groups:
            warnings.warn(
                f"layer {name!r} was registered; its configuration is replaced", UserWarning, stacklevel=2
            )
            self.unregister_layer(name)
        group["layer"] = layer
        group["hook_state"] = "aggregate"
        self.data_groups[name] = group
        self.state[name]["mask"] = None
        group["hook"] = layer.register_forward_pre_hook(self._aggregate_hook(name))

    def unregister_layer(self, name: str) -> None:
        """Removes the hook, the mask and the configuration of a layer."""
        group = self.data_groups.pop(name)
        if group.get("hook") is not None:
            group["hook"].remove()
        self.state.pop(name)

    def get_mask(self, name: str | None = None, layer: nn.Module | None = None) -> Any:
        """The mask of a layer: a tensor, or one per feature.

        Raises:
            ValueError: When the layer is unknown or has seen no input yet.
        """
        if name is None:
            if layer is None:
                raise ValueError("get_mask: argument 'name' or 'layer' must be given, got neither")
            name = module_to_fqn(self.model, layer)
        if name is None or name not in self.state:
            raise ValueError(f"get_mask: argument 'name' must be a registered layer, got {name!r}")
        mask = self.state[name].get("mask")
        if mask is None:
            raise ValueError(f"get_mask: layer {name!r} must have run once before its mask has a shape")
        return mask

    def step(self) -> None:
        """Computes all masks from the inputs since the last step and forgets these."""
        for name, group in self.data_groups.items():
            self.get_mask(name)
            if group.get("data") is None:
                raise ValueError(f"step: layer {name!r} must have seen input since the last step, got none")
        with torch.no_grad():
            for name, group in self.data_groups.items():
                self.update_mask(name, group.pop("data"), group)

    def update_mask(self, name: str, data: Any, configs: dict[str, Any]) -> None:
        """Writes `mask_fn(reduce_fn(data))` of one layer into its mask."""
        mask = self.get_mask(name)
        reduce_fn, mask_fn = configs["reduce_fn"], configs["mask_fn"]
        if configs["features"] is None:
            mask.data = mask_fn(reduce_fn(data), **configs["sparse_config"])
            return
        for one, part in zip(mask, data, strict=True):
            one.data = mask_fn(reduce_fn(part), **configs["sparse_config"])

    def _aggregate_hook(self, name: str) -> "_Hook":
        return _Hook(self, name, "_collect")

    def _sparsify_hook(self, name: str) -> "_Hook":
        self.get_mask(name)
        return _Hook(self, name, "_apply")

    def _collect(self, name: str, args: tuple[Any, ...]) -> None:
        group = self.data_groups[name]
        features, dim = group["features"], group["feature_dim"]
        with torch.no_grad():
            x = args[0].detach()
            parts = [x] if features is None else [_select(x, dim, f) for f in features]
            data = group.get("data")
            if data is None:
                masks = [torch.ones_like(p) for p in parts]
                self.state[name]["mask"] = masks[0] if features is None else masks
                before = [torch.zeros_like(p) for p in parts]
            else:
                before = [data] if features is None else data
            after = [group["aggregate_fn"](b, p) for b, p in zip(before, parts, strict=True)]
            group["data"] = after[0] if features is None else after

    def _apply(self, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        group, mask = self.data_groups[name], self.state[name]["mask"]
        x = args[0]
        if group["features"] is None:
            return (x * mask, *args[1:])
        dim = group["feature_dim"]
        for feature, one in zip(group["features"], mask, strict=True):
            index = torch.tensor([feature], device=x.device)
            x = x.index_copy(dim, index, _select(args[0], dim, feature) * one)
        return (x, *args[1:])

    def squash_mask(self, attach_sparsify_hook: bool = True, **kwargs: Any) -> None:
        """Stops collecting; with `attach_sparsify_hook` the masks apply from now on."""
        hooks = {
            name: self._sparsify_hook(name) if attach_sparsify_hook else None for name in self.data_groups
        }
        for name, group in self.data_groups.items():
            if group.get("hook") is not None:
                group["hook"].remove()
            hook = hooks[name]
            group["hook"] = None if hook is None else group["layer"].register_forward_pre_hook(hook)
            group["hook_state"] = "None" if hook is None else "sparsify"

    def _get_serializable_data_groups(self) -> dict[str, Any]:
        return {
            name: {key: value for key, value in group.items() if key not in _NOT_SAVED}
            for name, group in self.data_groups.items()
        }

    def _convert_mask(self, states_dict: dict[str, Any], sparse_coo: bool = True) -> dict[str, Any]:
        def change(mask: Any) -> Any:
            if mask is None:
                return None
            if isinstance(mask, list):
                return [change(m) for m in mask]
            if sparse_coo:
                return mask.clone() if mask.is_sparse else mask.to_sparse_coo()
            return mask.to_dense() if mask.is_sparse else mask.clone()

        return {name: {**entry, "mask": change(entry["mask"])} for name, entry in states_dict.items()}

    def state_dict(self) -> dict[str, Any]:
        """`state` (masks as sparse COO), `data_groups` (without layers) and `defaults`."""
        return {
            "state": self._convert_mask(self.state),
            "data_groups": self._get_serializable_data_groups(),
            "defaults": self.defaults,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict()` returned and hooks the named layers of the model.

        Layers registered before are released; `state_dict` is not changed.
        """
        groups = {name: dict(group) for name, group in state_dict["data_groups"].items()}
        for name, group in groups.items():
            group["layer"] = fqn_to_module(self.model, name)
            if not isinstance(group["layer"], nn.Module):
                raise RuntimeError(f"load_state_dict: the model must have a layer {name!r}, got none")
        for name in list(self.data_groups):
            self.unregister_layer(name)
        self.state = defaultdict(dict, self._convert_mask(state_dict["state"], sparse_coo=False))
        self.defaults = dict(state_dict["defaults"])
        self.data_groups = defaultdict(dict, groups)
        makers = {"aggregate": self._aggregate_hook, "sparsify": self._sparsify_hook}
        for name, group in groups.items():
            make = makers.get(group.get("hook_state", "None"))
            group["hook"] = None if make is None else group["layer"].register_forward_pre_hook(make(name))

    def __repr__(self) -> str:
        hidden = ("data", "hook", *_FUNCTIONS)
        lines = [f"{type(self).__name__} ("]
        for name, group in self.data_groups.items():
            lines += ["\tData Group", f"\t    name: {name}"]
            lines += [f"\t    {key}: {group[key]}" for key in sorted(group) if key not in hidden]
        return "\n".join([*lines, ")"])


class _Hook:
    """Forward pre-hook that hands a layer's input to the sparsifier."""

    def __init__(self, sparsifier: ActivationSparsifier, name: str, method: str) -> None:
        self.sparsifier, self.name, self.method = sparsifier, name, method

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> Any:
        return getattr(self.sparsifier, self.method)(self.name, args)


def _select(x: torch.Tensor, dim: int, feature: int) -> torch.Tensor:
    return x.index_select(dim, torch.tensor([feature], device=x.device))
