"""Loads and freezes a program, and reads it."""

import warnings
from typing import Any

import torch
from torch import fx

from torch_ao_ext._lower._script import LoweredModule
from torch_ao_ext.quantization._archive import (
    _elementwise,
    _embedding,
    _pool,
    _products,
    _recurrent,
    _through_float,
)
from torch_ao_ext.quantization._archive._reader import Reader

__all__ = ["load_archive"]

_TABLES = (_elementwise, _embedding, _pool, _products, _recurrent, _through_float)
_HANDLERS = {kind: handler for table in _TABLES for kind, handler in table.HANDLERS.items()}


def _load(program: Any) -> torch.jit.ScriptModule:
    """An archive; torch packs sparse weights under some of its engines only."""
    own = torch.backends.quantized.engine
    others = [name for name in torch.backends.quantized.supported_engines if name not in (own, "none")]
    first: RuntimeError | None = None
    try:
        for engine in (own, *others):
            torch.backends.quantized.engine = engine
            if hasattr(program, "seek"):
                program.seek(0)
            try:
                return torch.jit.load(program)
            except RuntimeError as error:
                first = first or error
                if "engine" not in str(error):
                    break
    finally:
        torch.backends.quantized.engine = own
    raise first


def load_archive(program: Any) -> fx.GraphModule:
    """See `legacy.load_archive`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about the dtypes that it will delete
        if not isinstance(program, torch.jit.ScriptModule):
            program = _load(program)
        if not program._c._has_method("forward"):
            raise ValueError(
                "legacy.load_archive: argument 'program' must have a method forward, got none (script a "
                "module that calls it)"
            )
        frozen = torch.jit.freeze(program.eval())
        for node in list(frozen.graph.nodes()):
            if node.kind() == "prim::If" and node.outputsSize() == 0:
                node.destroy()  # checks of sizes; the operators check their own
        torch._C._jit_pass_dce(frozen.graph)
        reader = Reader(frozen, _HANDLERS)
        reader.read()
    if not reader.count:
        raise ValueError("legacy.load_archive: argument 'program' must hold quantized:: operators, got none")
    result = LoweredModule(reader.root, reader.graph)
    result.graph.eliminate_dead_code()
    result.graph.lint()
    result.recompile()
    return result
