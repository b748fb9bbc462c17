"""The description inside a file: modules, tensors and their digests, as one JSON text."""

import json
import zlib
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from torch_ao_ext._quantized_functions import RANGE

__all__ = ["FORMAT_VERSION", "FileError", "Manifest", "crc32_text", "crc32_tensor", "loads_unique"]

FORMAT_VERSION = 1

# Ranges of zero points by the name of a dtype.
EDGE_RANGE = {str(dtype).removeprefix("torch."): limits for dtype, limits in RANGE.items()}

# Longest text shown in an error.
_SHOWN = 80


class FileError(ValueError):
    """Something is wrong with a file; load_quantized puts its name in front of the text."""


@dataclass
class Manifest:
    """What a file says about its model.

    Attributes:
        writer: version of torch_ao_ext that wrote it.
        modules: fqn -> [type, constructor arguments]; arguments are None for a type that
            only model_fn can make. Parents come before children.
        shared: other fqn of a module -> the fqn in `modules`.
        tensors: key -> crc32 of dtype, shape and bytes, eight hex digits.
        tied: other key of a tensor -> the key in `tensors`.
        reasons: fqn -> why a layer stayed float, for `report`.
        edges: fqn -> [scale, zero point, dtype] for floats that come to a module of a model
            prepared with auto_edges; the text has the key only when there are some.
    """

    writer: str
    modules: dict[str, list[Any]] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, str] = field(default_factory=dict)
    tied: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    edges: dict[str, list[Any]] = field(default_factory=dict)

    def dumps(self) -> str:
        """The JSON text."""
        parts = asdict(self)
        if not self.edges:
            del parts["edges"]
        return json.dumps(parts, separators=(",", ":"))

    @staticmethod
    def loads(text: str) -> "Manifest":
        """Reads and checks the text.

        Raises:
            FileError: not a manifest; says what is wrong.
        """
        parts = loads_unique(text)
        wanted = Manifest.__dataclass_fields__.keys() - {"edges"}
        if not isinstance(parts, dict) or parts.keys() - {"edges"} != wanted:
            found = sorted(parts) if isinstance(parts, dict) else type(parts).__name__
            raise FileError(f"manifest must have the keys {sorted(wanted)}, got {str(found)[:_SHOWN]}")
        if not isinstance(parts["writer"], str):
            raise FileError("manifest 'writer' must be a string")
        rules = {"modules": _is_module, "edges": _is_edge}
        for name in ("shared", "tensors", "tied", "reasons", "modules", "edges"):
            if not isinstance(parts.get(name, {}), dict):
                raise FileError(f"manifest '{name}' must be an object")
            for key, value in parts.get(name, {}).items():
                if not rules.get(name, _is_text)(value):
                    raise FileError(
                        f"manifest '{name}' has a malformed entry '{key[:_SHOWN]}': "
                        f"{str(value)[:_SHOWN]}"
                    )
        manifest = Manifest(**parts)
        lost = [name for name in manifest.edges if name not in manifest.modules]
        if lost:
            raise FileError(f"manifest 'edges' has a malformed entry '{lost[0][:_SHOWN]}': no such module")
        for name, table in (("shared", "modules"), ("tied", "tensors")):
            targets = getattr(manifest, table)
            for alias, target in getattr(manifest, name).items():
                if target not in targets or alias in targets:
                    raise FileError(f"manifest '{name}' has a malformed entry '{alias}': '{target}'")
        return manifest


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(v, int) for v in value)
    return value is None or isinstance(value, (bool, int, float, str))


def _is_module(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], str):
        return False
    args = value[1]
    return args is None or (isinstance(args, dict) and all(map(_is_plain, args.values())))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_edge(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 3 or not _is_text(value[2]) or value[2] not in EDGE_RANGE:
        return False
    scale, point, (low, high) = value[0], value[1], EDGE_RANGE[value[2]]
    good = type(scale) is float and torch.finfo(torch.float32).tiny <= scale < float("inf")
    return good and type(point) is int and low <= point <= high


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise FileError(f"the key '{key[:_SHOWN]}' appears twice")
            seen.add(key)
    return result


def loads_unique(text: str | bytes) -> Any:
    """json.loads that raises FileError, also for a repeated key and for deep nesting."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise FileError("it is nested too deeply") from None
    except FileError:
        raise
    except ValueError as error:  # of JSON, of UTF-8
        raise FileError(str(error)) from None


def crc32_text(text: str) -> str:
    """crc32 of the UTF-8 bytes, eight hex digits."""
    return f"{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"


def crc32_tensor(tensor: torch.Tensor) -> str:
    """crc32 of "dtype [d0, d1]" and then the bytes; finds every flipped bit.

    Args:
        tensor: contiguous, on CPU.
    """
    start = zlib.crc32(f"{tensor.dtype} {list(tensor.shape)}".encode())
    data = tensor.detach().reshape(-1).view(torch.uint8)
    return f"{torch.ops.torch_ao._crc32(data, start):08x}"
