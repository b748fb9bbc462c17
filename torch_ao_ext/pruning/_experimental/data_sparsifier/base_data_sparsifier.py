"""A sparsifier that owns the masks of named tensors and embedding tables."""

import abc
import copy
import warnings
from collections import defaultdict
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from torch_ao_ext.pruning.sparsifier.base_sparsifier import BaseSparsifier
from torch_ao_ext.pruning.sparsifier.utils import FakeSparsity

__all__ = ["BaseDataSparsifier"]

EMBEDDING_TYPES = {nn.Embedding, nn.EmbeddingBag}

SUPPORTED_TYPES = {torch.Tensor, nn.Parameter, *EMBEDDING_TYPES}


class _Container(nn.Module):
    """Holds the data as buffers, so that they can carry parametrizations."""


class BaseDataSparsifier(BaseSparsifier):
    """Base class of the sparsifiers of data; a subclass writes `update_mask`.

    `squash_mask` writes the masked values into the very tensors that were added, so
    an embedding becomes sparse in place.

    Args:
        data_list: (name, data) pairs to add; data is a tensor, a parameter, an
            Embedding or an EmbeddingBag.
        defaults: Configuration of the data that do not override it.
    """

    def __init__(self, data_list: list[tuple[str, Any]] | None = None, **defaults: Any) -> None:
        super().__init__(defaults)
        self._container = _Container()
        self.data_groups: dict[str, dict[str, Any]] = defaultdict(dict)
        for name, data in data_list or ():
            self.add_data(name, data, **self.defaults)

    def prepare(self, model: Any, config: Any) -> None:
        """Not for data: raises NotImplementedError; use `add_data`."""
        raise NotImplementedError("prepare: data sparsifiers have no model; use add_data")

    def _extract_weight(self, data: Any) -> torch.Tensor:
        return data.weight if type(data) in EMBEDDING_TYPES else data

    def add_data(self, name: str, data: Any, reuse_mask: bool = True, **config: Any) -> torch.Tensor:
        """Adds named data with its configuration, or replaces it with a warning.

        Args:
            name: Name without dots.
            data: Tensor, parameter, Embedding or EmbeddingBag.
            reuse_mask: When replacing, keep the mask; the shape must be the same.
            config: Settings that differ from the defaults (when replacing: from the
                settings of the replaced data).

        Returns:
            The masked tensor.
        """
        if type(data) not in SUPPORTED_TYPES:
            names = ", ".join(sorted(t.__name__ for t in SUPPORTED_TYPES))
            raise TypeError(f"add_data: argument 'data' must be one of {names}, got {type(data).__name__}")
        weight = self._extract_weight(data)
        if name in self.state:
            warnings.warn(
                f"data {name!r} is replaced; another name would keep both", UserWarning, stacklevel=2
            )
            settings = {**copy.deepcopy(self.data_groups[name]), **config}
            mask = config.get("mask")
            if mask is None and reuse_mask:
                mask = self.get_mask(name)
                if mask.shape != weight.shape:
                    raise ValueError(
                        f"add_data: argument 'data' must have shape {tuple(mask.shape)} to keep the mask, "
                        f"got {tuple(weight.shape)}"
                    )
            self._delete_data(name)
        else:
            if not name or "." in name or hasattr(self._container, name):
                raise ValueError(f"add_data: argument 'name' must be a free name without dots, got {name!r}")
            settings = {**copy.deepcopy(self.defaults), **config}
            mask = settings.get("mask")
        if mask is None:
            mask = torch.ones_like(weight, requires_grad=False)
        self._attach_data(name, weight, mask, settings)
        self.state[name] = {"mask": mask}
        self.data_groups[name] = settings
        return getattr(self._container, name)

    def _attach_data(
        self, name: str, weight: torch.Tensor, mask: torch.Tensor, settings: dict[str, Any]
    ) -> None:
        # A buffer, since a parameter slot would refuse a plain tensor; a Parameter stays itself.
        self._container.register_buffer(name, weight)
        holder = settings.get("parametrization", FakeSparsity)(mask)
        parametrize.register_parametrization(self._container, name, holder)

    def get_data(self, name: str, return_original: bool = True) -> torch.Tensor:
        """The data by name: unmasked (`return_original`) or masked."""
        if name not in self.data_groups:
            raise ValueError(f"get_data: argument 'name' must be added data, got {name!r}")
        if not return_original:
            return getattr(self._container, name)
        if not parametrize.is_parametrized(self._container, name):
            raise ValueError(f"get_data: the mask of {name!r} is squashed, so the unmasked data is gone")
        return self._container.parametrizations[name].original

    def get_mask(self, name: str) -> torch.Tensor:
        """The mask by name."""
        if name not in self.state:
            raise ValueError(f"get_mask: argument 'name' must be added data, got {name!r}")
        return self.state[name]["mask"]

    def _convert_mask(self, states: dict[str, Any], sparse_coo: bool = True) -> dict[str, Any]:
        def change(mask: torch.Tensor) -> torch.Tensor:
            if sparse_coo:
                return mask.clone() if mask.is_sparse else mask.to_sparse_coo()
            return mask.to_dense() if mask.is_sparse else mask.clone()

        return {name: {**entry, "mask": change(entry["mask"])} for name, entry in states.items()}

    def state_dict(self) -> dict[str, Any]:
        """`state` (masks as sparse COO), `data_groups` (settings) and `_container` (the data)."""
        return {
            "state": self._convert_mask(self.state),
            "data_groups": {name: dict(settings) for name, settings in self.data_groups.items()},
            "_container": self._container.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any], strict: bool = True) -> None:
        """Restores what `state_dict()` returned, from copies.

        Args:
            state_dict: The saved state.
            strict: Forget data added before; otherwise such data stays, also where
                the saved state has the same name.
        """
        states = self._convert_mask(copy.deepcopy(dict(state_dict["state"])), sparse_coo=False)
        groups = copy.deepcopy(dict(state_dict["data_groups"]))
        contents = copy.deepcopy(dict(state_dict["_container"]))
        data = {name: self._saved_data(name, groups, contents) for name in states}
        if strict:
            self._container = _Container()
            self.state = defaultdict(dict)
            self.data_groups = defaultdict(dict)
        for name, entry in states.items():
            if name in self.state:
                continue
            tensor, masked = data[name]
            if masked:
                self._attach_data(name, tensor, entry["mask"], groups[name])
            else:
                self._container.register_buffer(name, tensor)
            self.state[name] = entry
            self.data_groups[name] = groups[name]

    def _saved_data(
        self, name: str, groups: dict[str, Any], contents: dict[str, Any]
    ) -> tuple[torch.Tensor, bool]:
        original = f"parametrizations.{name}.original"
        if name in groups:
            if name in contents:
                return contents[name], False
            if original in contents:
                return contents[original], True
        raise RuntimeError(f"load_state_dict: data {name!r} must have settings and a tensor, got none")

    def __getstate__(self) -> dict[str, Any]:
        # The container is parametrized and so does not pickle; its tensors do.
        return {**self.__dict__, **self.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        own = ("state", "data_groups", "_container")
        self.__dict__.update({key: value for key, value in state.items() if key not in own})
        if "_container" in state:
            self.load_state_dict({key: state[key] for key in own})

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for name, settings in self.data_groups.items():
            lines += ["\tData Group", f"\t    name: {name}"]
            lines += [f"\t    {key}: {settings[key]}" for key in sorted(settings) if key != "data"]
        return "\n".join([*lines, ")"])

    def squash_mask(
        self, *args: Any, leave_parametrized: bool = True, names: list[str] | None = None, **kwargs: Any
    ) -> None:
        """Removes the parametrizations.

        Args:
            args: Ignored.
            leave_parametrized: Leave masked values in the tensors; otherwise the unmasked.
            names: Data to squash; None means all.
            kwargs: Ignored.
        """
        for name in list(self.data_groups) if names is None else names:
            parametrize.remove_parametrizations(self._container, name, leave_parametrized=leave_parametrized)

    def step(self) -> None:
        """Recomputes every mask, unless `enable_mask_update` is off."""
        if not self.enable_mask_update:
            return
        with torch.no_grad():
            for name, settings in self.data_groups.items():
                self.update_mask(name, self.get_data(name), **settings)

    @abc.abstractmethod
    def update_mask(self, name: str, data: torch.Tensor, **kwargs: Any) -> None:
        """Writes a new mask for one tensor; receives its settings."""

    def _delete_data(self, name: str) -> None:
        if parametrize.is_parametrized(self._container, name):
            self.squash_mask(names=[name], leave_parametrized=False)
        delattr(self._container, name)
        self.state.pop(name)
        self.data_groups.pop(name)
