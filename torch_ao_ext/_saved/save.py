"""save_quantized: a model's tensors and its description, as one safetensors file."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.nn.parameter import is_lazy

from torch_ao_ext._describe import FLOAT_REASON
from torch_ao_ext._saved import container, registry
from torch_ao_ext._saved.manifest import FORMAT_VERSION, FileError, Manifest, crc32_tensor, crc32_text
from torch_ao_ext.nn.quantized._static import QuantizedOutput
from torch_ao_ext.version import __version__

__all__ = ["save_quantized"]


def _error(text: str) -> ValueError:
    return ValueError(f"save_quantized: {text}")


def _describe(name: str, module: nn.Module) -> list[Any]:
    for table in (registry.QUANTIZED, registry.FLOAT):
        kind = registry.name_of(module, table)
        if kind is not None:
            return [kind, table[kind].args_of(module)]
    for entry in registry.QUANTIZED.values():
        if isinstance(module, entry.cls):
            raise _error(
                f"module '{name}' must be of a type that files know, got {type(module).__name__}, "
                f"a subclass of {entry.cls.__name__}"
            )
    return [type(module).__qualname__, None]


def _storable(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if is_lazy(tensor):
        raise _error(f"tensor '{name}' must be initialised, got a lazy one")
    if tensor.device.type != "cpu" or tensor.layout != torch.strided:
        raise _error(
            f"tensor '{name}' must be a dense CPU tensor, got {tensor.layout} on {tensor.device}"
        )
    if type(tensor) not in (torch.Tensor, nn.Parameter):
        raise _error(f"tensor '{name}' must be a plain tensor, got {type(tensor).__name__}")
    tensor = tensor.detach()
    whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if whole else tensor.clone(memory_format=torch.contiguous_format)


def _collect(model: nn.Module) -> tuple[Manifest, dict[str, torch.Tensor]]:
    manifest = Manifest(__version__)
    tensors: dict[str, torch.Tensor] = {}
    modules: dict[int, str] = {}
    keys: dict[int, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if id(module) in modules:
            manifest.shared[name] = modules[id(module)]
            continue
        modules[id(module)] = name
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            raise _error(f"module '{name}' must not have extra state, which can be any object")
        manifest.modules[name] = _describe(name, module)
        reason = module.__dict__.get(FLOAT_REASON)
        if reason is not None:
            manifest.reasons[name] = str(reason)
        edge = module.__dict__.get("edge")
        if edge is not None and isinstance(module, QuantizedOutput):
            manifest.edges[name] = [*edge[:2], str(edge[2]).removeprefix("torch.")]
        # Buffers that state_dict leaves out are stored, too: a model built on the meta
        # device has no other source for them.
        for own, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is None:
                continue
            key = f"{name}.{own}" if name else own
            if id(tensor) in keys:
                manifest.tied[key] = keys[id(tensor)]
                continue
            keys[id(tensor)] = key
            tensors[key] = _storable(key, tensor)
            manifest.tensors[key] = crc32_tensor(tensors[key])
    return manifest, tensors


def save_quantized(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Writes a converted model to one safetensors file that `load_quantized` maps.

    Stored are all parameters and buffers (also non-persistent ones) as plain tensors,
    tied ones once, a crc32 of each, and which modules are int8. No code and no packed
    form is stored, so the file loads on every CPU. Forward hooks are not stored, but for
    those of auto_edges. The file
    replaces an old one at once when it is complete: processes that have the old one
    mapped keep it.

    Args:
        model: a Python module with at least one int8 module.
        path: of the file; by custom `*.safetensors`.

    Raises:
        ValueError: a model that no file can describe; names the module or tensor.
        OSError: the file cannot be written.

    Example:
        >>> import os, tempfile, torch, torch_ao_ext
        >>> model = torch_ao_ext.quantization.quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(8, 4)))
        >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
        >>> torch_ao_ext.save_quantized(model, path)
        >>> x = torch.randn(2, 8)
        >>> torch.equal(torch_ao_ext.load_quantized(path)(x), model(x))
        True
    """
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise _error(f"argument 'model' must be a Python nn.Module, got {type(model).__name__}")
    if isinstance(model, fx.GraphModule):
        raise _error(
            "argument 'model' must be a model of int8 modules, got a graph: save it by "
            "torch.export.save(torch.export.export(model, example_inputs), path)"
        )
    manifest, tensors = _collect(model)
    if not any(kind in registry.QUANTIZED for kind, _ in manifest.modules.values()):
        raise _error("argument 'model' must have an int8 module, got none; convert it first")
    version, text = str(FORMAT_VERSION), manifest.dumps()
    metadata = {
        "format": "pt",
        container.VERSION: version,
        container.MANIFEST: text,
        container.MANIFEST_CRC: crc32_text(version + text),
    }
    target = Path(path)
    fresh = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        container.write(fresh, tensors, metadata)
        os.replace(fresh, target)
    except FileError as error:
        raise _error(str(error)) from None
    finally:
        fresh.unlink(missing_ok=True)
