"""The safetensors container: written in one fixed order, read by the safetensors library.

The library writes metadata in an order that changes from run to run; here the same
model gives the same bytes.
"""

import ctypes
import json
import os
import stat
from pathlib import Path

import torch

from torch_ao_ext._saved import manifest as _manifest
from torch_ao_ext._saved.manifest import FORMAT_VERSION, FileError, Manifest
from torch_ao_ext._saved.pages import release

__all__ = ["MANIFEST", "MANIFEST_CRC", "MAX_HEADER", "VERSION", "read", "write"]

VERSION = "torch_ao_ext.format_version"
MANIFEST = "torch_ao_ext.manifest"
MANIFEST_CRC = "torch_ao_ext.manifest_crc32"

# Bytes of header and commas in it: enough for 8,000 tensors, and parsing one that is all
# tiny entries stays within 64 MB of memory (test/saved/test_damaged.py).
MAX_HEADER = 3 << 20
MAX_COMMAS = 1 << 17

_DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}


def write(file: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Writes contiguous tensors, widest dtype first, so that each is aligned.

    Raises:
        FileError: a dtype that the container has no name for, or a header beyond MAX_HEADER.
    """
    header: dict[str, object] = {"__metadata__": metadata}
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    offset = 0
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in _DTYPES:
            raise FileError(f"tensor '{name}' must have a dtype that files know, got {tensor.dtype}")
        end = offset + tensor.nbytes
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER or text.count(b",") > MAX_COMMAS:
        raise FileError(
            f"the header must have at most {MAX_HEADER} bytes and {MAX_COMMAS} commas, got {len(text)} "
            f"and {text.count(b',')} for {len(names)} tensors"
        )
    with open(file, "wb") as stream:
        stream.write(len(text).to_bytes(8, "little"))
        stream.write(text)
        for name in names:
            tensor = tensors[name]
            if tensor.nbytes > 0:
                stream.write((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr()))
        stream.flush()
        os.fsync(stream.fileno())


def _check_header(file: Path) -> None:
    """Bounds what the parser may take, and refuses keys that appear twice."""
    with open(file, "rb") as stream:
        info = os.fstat(stream.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise FileError("must be a regular file")
        prefix = stream.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > info.st_size - 8:
            raise FileError(
                f"header must fit the file of {info.st_size} bytes, got a length of {length}"
                if len(prefix) == 8
                else f"must have at least 8 bytes, got {len(prefix)}"
            )
        if length > MAX_HEADER:
            raise FileError(f"header must have at most {MAX_HEADER} bytes, got {length}")
        text = stream.read(length)
    if text.count(b",") > MAX_COMMAS:
        raise FileError(f"header must have at most {MAX_COMMAS} commas, got {text.count(b',')}")
    try:
        _manifest.loads_unique(text)
    except FileError as error:
        raise FileError(f"header must be JSON with unique keys: {error}") from None


def _check_metadata(metadata: dict[str, str] | None) -> Manifest:
    metadata = metadata or {}
    for key in (VERSION, MANIFEST, MANIFEST_CRC):
        if key not in metadata:
            raise FileError(f"metadata must have '{key}'; save_quantized did not write this file")
    version = metadata[VERSION]
    if not version.isascii() or not version.isdigit() or int(version[:9]) < 1:
        raise FileError(f"metadata '{VERSION}' must be a positive integer, got '{version[:80]}'")
    if len(version) > 9 or int(version) > FORMAT_VERSION:
        raise FileError(
            f"metadata '{VERSION}' must be <= {FORMAT_VERSION}, got {version[:80]}; upgrade torch_ao_ext"
        )
    text = metadata[MANIFEST]
    got = _manifest.crc32_text(version + text)
    if metadata[MANIFEST_CRC] != got:
        raise FileError(
            f"metadata '{MANIFEST}' is damaged: crc32 must be {metadata[MANIFEST_CRC][:80]}, got {got}"
        )
    return Manifest.loads(text)


def _own_storage(view: torch.Tensor) -> torch.Tensor:
    """The same bytes as a tensor that is no autograd view: packing keys on views differ."""
    result = torch.empty(0, dtype=view.dtype)
    return result.set_(view.untyped_storage(), view.storage_offset(), view.shape, view.stride())


def read(file: Path) -> tuple[Manifest, dict[str, torch.Tensor]]:
    """Maps the file and verifies every tensor; the tensors' bytes stay in the file.

    Raises:
        FileError: without the file's name in front; the caller adds it.
    """
    from safetensors import SafetensorError, safe_open

    _check_header(file)
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            manifest = _check_metadata(opened.metadata())
            names = set(opened.keys())
            missing = sorted(manifest.tensors.keys() - names)
            extra = sorted(names - manifest.tensors.keys())
            if missing:
                raise FileError(f"tensor '{missing[0]}' must be in the file, got no such tensor")
            if extra:
                raise FileError(f"tensor '{extra[0]}' must not be in the file: the manifest has none")
            tensors = {name: _own_storage(opened.get_tensor(name)) for name in manifest.tensors}
    except SafetensorError as error:
        raise FileError(f"must be a safetensors file: {error}") from None
    for name, tensor in tensors.items():
        got = _manifest.crc32_tensor(tensor)
        release(tensor)
        if got != manifest.tensors[name]:
            raise FileError(
                f"tensor '{name}' is damaged: crc32 must be {manifest.tensors[name][:80]}, got {got} "
                f"({tensor.dtype} {list(tensor.shape)})"
            )
    return manifest, tensors
