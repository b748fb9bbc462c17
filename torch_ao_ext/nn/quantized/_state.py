"""What loading and moving have in common in all quantized modules."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

__all__ = ["LOAD_FLOAT_FIRST", "keep_dtypes", "load_float_first", "state_refusal", "version_refusal"]


def load_float_first(converter: str) -> str:
    """What load_state_dict says about the state of a float layer."""
    return f"load it into the float model, then convert that with {converter}"


LOAD_FLOAT_FIRST = load_float_first("quantize_dynamic")


def version_refusal(state_dict: dict[str, Any], prefix: str, newest: int) -> str | None:
    """An error message when a state was written by a newer format, else None."""
    version = state_dict.get(prefix + "format_version")
    if version is None or int(version) <= newest:
        return None
    return f"{prefix}format_version must be <= {newest}, got {int(version)}; upgrade torch_ao_ext"


def state_refusal(
    state_dict: dict[str, Any], prefix: str, newest: int, converter: str = "quantize_dynamic"
) -> str | None:
    """An error message for a newer format or the state of a float layer, else None.

    Also for loads that are not strict (torch passes True to modules here): the old int8
    weights would stay in silence.
    """
    refusal = version_refusal(state_dict, prefix, newest)
    if refusal is None and prefix + "weight" in state_dict and prefix + "qweight" not in state_dict:
        refusal = f"{prefix}weight is a float weight; {load_float_first(converter)}"
    return refusal


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
