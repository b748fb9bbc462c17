"""What runs where: engine choice, packing, settings. JSON of the library, as Python."""

import json
from typing import Any

import torch

__all__ = ["explain_weight", "info", "pack_count", "repack_weight"]


def info() -> dict[str, Any]:
    """Engines, instruction sets, versions and caps of the loaded library.

    Example:
        >>> from torch_ao_ext.ops import service
        >>> any(e["name"] == "reference" for e in service.info()["engines"])
        True
    """
    return json.loads(torch.ops.torch_ao._info())


def explain_weight(weight: torch.Tensor) -> dict[str, Any]:
    """Packed states of a weight: engine, kernel, bytes, refusals of other engines."""
    return json.loads(torch.ops.torch_ao._explain(weight))


def repack_weight(weight: torch.Tensor) -> None:
    """Drops the packed states of a weight; the next call packs again."""
    torch.ops.torch_ao._repack(weight)


def pack_count(weight: torch.Tensor) -> int:
    """How often this weight tensor was packed since it was made."""
    return int(torch.ops.torch_ao._pack_count(weight))
