"""What loading and moving have in common in all quantized modules."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

__all__ = ["LOAD_FLOAT_FIRST", "CheckedLoad", "keep_dtypes", "load_float_first"]


def load_float_first(converter: str) -> str:
    """What load_state_dict says about the state of a float layer."""
    return f"load it into the float model, then convert that with {converter}"


LOAD_FLOAT_FIRST = load_float_first("quantize_dynamic")


class CheckedLoad(nn.Module):
    """load_state_dict that checks the state of this module before it copies anything."""

    _FORMAT_VERSION = 1  # the newest that this library reads
    _CONVERTER = "quantize_dynamic"  # what makes the module of a float layer

    def _refusal(self, state_dict: dict[str, Any], prefix: str) -> str | None:
        """An error message for a newer format or the state of a float layer, else None.

        Also for loads that are not strict (torch passes True to modules here): the old int8
        weights would stay in silence.
        """
        version, newest = state_dict.get(prefix + "format_version"), self._FORMAT_VERSION
        if version is not None and int(version) > newest:
            return f"{prefix}format_version must be <= {newest}, got {int(version)}; upgrade torch_ao_ext"
        if prefix + "weight" in state_dict and prefix + "qweight" not in state_dict:
            return f"{prefix}weight is a float weight; {load_float_first(self._CONVERTER)}"
        return None

    def _take_form(self, state_dict: dict[str, Any], prefix: str) -> str | None:
        """Gives buffers the shapes of the file where these are data; or an error message."""
        return None

    def _after_load(self) -> None:
        """Python attributes follow their buffers."""

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        refusal = self._refusal(state_dict, prefix) or self._take_form(state_dict, prefix)
        if refusal is not None:
            error_msgs.append(refusal)
            return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        self._after_load()


def keep_dtypes(module: nn.Module, names: Iterable[str], apply: Callable[[], Any]) -> None:
    """Runs `apply`, an nn.Module._apply, after which only the device of these buffers may differ.

    The kernels read float32: .half(), .to(dtype) would round scales and biases.
    """
    kept = {name: module._buffers[name] for name in names}
    apply()
    for name, before in kept.items():
        after = module._buffers[name]
        if isinstance(before, torch.Tensor) and after.dtype != before.dtype:
            module._buffers[name] = before.to(after.device)
