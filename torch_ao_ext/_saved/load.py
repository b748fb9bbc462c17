"""load_quantized: maps a file and builds, or fills, the model it describes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from torch_ao_ext._describe import FLOAT_REASON, MODULE_PATH
from torch_ao_ext._saved import container, registry, tree
from torch_ao_ext._saved.fill import Fill
from torch_ao_ext._saved.manifest import FileError, Manifest
from torch_ao_ext._saved.pages import release
from torch_ao_ext.nn.quantized.dynamic.modules.transformer import disable_fused_path
from torch_ao_ext.quantization._edges import set_edges

__all__ = ["load_quantized"]


def _check_arguments(model_fn: Any, into: Any, dtype: Any) -> None:
    if model_fn is not None and not callable(model_fn):
        raise ValueError(
            f"load_quantized: argument 'model_fn' must be callable, got {type(model_fn).__name__}"
        )
    if into is not None and not isinstance(into, nn.Module):
        raise ValueError(
            f"load_quantized: argument 'into' must be an nn.Module, got {type(into).__name__}"
        )
    if into is not None and model_fn is not None:
        raise ValueError("load_quantized: argument 'into' must be None when model_fn is given")
    if dtype not in (None, torch.float32, torch.bfloat16):
        raise ValueError(
            f"load_quantized: argument 'dtype' must be torch.float32, torch.bfloat16 or None, got {dtype}"
        )


def _pack(fill: Fill, dtype: torch.dtype) -> None:
    """Packs one layer after the other; the plain bytes of each leave memory again."""
    packing = {entry.cls for entry in registry.QUANTIZED.values() if entry.packs}
    for name, _, module in fill.quantized:
        if type(module) not in packing or not hasattr(module, "prepack"):
            continue  # its parts are packed by themselves, or it reads the plain bytes
        try:
            module.prepack(dtype)
        except (RuntimeError, TypeError, ValueError) as error:
            raise FileError(f"module '{name}' must be packable: {error}") from error
        for buffer in module._buffers.values():
            if buffer is not None and id(buffer) in fill.mapped:
                release(buffer)


def _check_edges(manifest: Manifest) -> None:
    for name in manifest.edges:
        if manifest.modules[name][0] not in registry.QUANTIZED:
            kind = manifest.modules[name][0]
            raise FileError(f"manifest 'edges' must name int8 modules, got '{name}' of {kind}")


def _load(
    file: Path,
    model_fn: Callable[[], nn.Module] | None,
    into: nn.Module | None,
    meta: bool,
    dtype: torch.dtype | None,
) -> nn.Module:
    manifest, tensors = container.read(file)
    tree.check_types(manifest)
    if into is not None:
        model = into
    elif model_fn is not None:
        model = tree.from_function(manifest, model_fn, meta)
    else:
        model = tree.from_manifest(manifest)
    fill = Fill(manifest, tensors, fresh=into is None)
    fill.prepare(model)
    if into is None:
        tree.check_nothing_left(model)
    _check_edges(manifest)
    if dtype is not None:
        _pack(fill, dtype)
    fill.commit()
    if into is None:
        for name, module in model.named_modules():
            module.__dict__[MODULE_PATH] = name
            if name in manifest.reasons:
                module.__dict__[FLOAT_REASON] = manifest.reasons[name]
        classes = tuple(entry.cls for entry in registry.QUANTIZED.values())
        disable_fused_path(model, lambda m: isinstance(m, classes))
        # Not model.eval(), which walks a module again under each of its names.
        for module in model.modules():
            module.training = False
    if manifest.edges:
        set_edges(model, manifest.edges)
    return model


def load_quantized(
    path: str | os.PathLike[str],
    model_fn: Callable[[], nn.Module] | None = None,
    *,
    into: nn.Module | None = None,
    meta: bool = True,
    dtype: torch.dtype | None = torch.float32,
) -> nn.Module:
    """Loads a file of `save_quantized`: no float weights, no pickle, no code from the file.

    The tensors stay mapped to the file. Each int8 layer is packed for this CPU and
    its mapped pages leave memory, so that one copy of the weights is resident. Every
    byte is checked against its crc32 first.

    The file knows which modules are int8. Without `model_fn` and `into` it must consist of
    int8 modules and simple torch.nn modules (`docs/saved_models.md` lists them).

    Args:
        path: the file. It must not be written to while the model lives; replace it by
            renaming, as `save_quantized` does.
        model_fn: makes the float model; its quantized modules are swapped in.
        into: a model converted before; it is filled in place, or left as it was when
            anything is wrong.
        meta: call `model_fn` on the meta device, so that it allocates no weights. False for
            a function that computes with tensors; what it allocates is dropped again.
        dtype: pack for inputs of this dtype, float32 or bfloat16; None packs at the first
            call, and then the mapped pages stay resident.

    Returns:
        The model, in eval mode; `into` itself when it was given.

    Raises:
        ValueError: a damaged or foreign file, a newer format, a model that does not fit;
            the text names file, tensor or module, what was found and what was wanted.
        OSError: the file cannot be read.

    Example:
        >>> import os, tempfile, torch, torch_ao_ext
        >>> make = lambda: torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU())
        >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
        >>> torch_ao_ext.save_quantized(torch_ao_ext.quantization.quantize_dynamic(make()), path)
        >>> torch_ao_ext.load_quantized(path, make)[0].weight().dtype
        torch.int8
    """
    _check_arguments(model_fn, into, dtype)
    file = Path(path)
    try:
        return _load(file, model_fn, into, meta, dtype)
    except RecursionError:
        raise ValueError(f"load_quantized: '{file}': modules must be nested less deeply") from None
    except FileError as error:
        raise ValueError(f"load_quantized: '{file}': {error}") from error.__cause__
