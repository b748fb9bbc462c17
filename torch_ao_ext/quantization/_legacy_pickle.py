"""Pickled modules of torch.ao as modules of this library, once the old imports mean this library.

A pickle names a class and gives it a state. What torch.ao packs becomes entries of a state_dict, which
`legacy.load_state_dict` reads.
"""

import importlib
import inspect
import weakref
from typing import Any

import torch
from torch import nn

from torch_ao_ext.nn.quantized import LSTM, MultiheadAttention, ReLU6
from torch_ao_ext.nn.quantized._static import QuantizedOutput
from torch_ao_ext.nn.quantized._weighted import WeightedModule
from torch_ao_ext.nn.quantized.dynamic.modules import rnn
from torch_ao_ext.nn.quantized.dynamic.modules._recurrent import Recurrent
from torch_ao_ext.nn.quantized.modules import embedding_ops
from torch_ao_ext.nn.sparse.quantized._base import SparseLinearBase
from torch_ao_ext.quantization import _packed, legacy
from torch_ao_ext.quantization._containers import CONTAINERS, container_of, held_in

__all__ = ["install"]

# The state of torch.ao's convolutions.
_CONVOLUTION = (
    "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "transposed",
    "output_padding", "groups", "padding_mode", "weight", "bias", "scale", "zero_point", "training",
)  # fmt: skip
_BASES = (
    QuantizedOutput, WeightedModule, embedding_ops.Embedding, Recurrent, SparseLinearBase, ReLU6,
)  # fmt: skip
# torch.ao builds these of other parts.
_COMPOSED = (LSTM, MultiheadAttention)


# Container -> the object of torch.ao that it was read from, for the layer around it.
_read: weakref.WeakKeyDictionary[nn.Module, dict[str, Any]] = weakref.WeakKeyDictionary()


def _restore_container(self: nn.Module, state: Any) -> None:
    """In place of nn.Module.__setstate__ of a container of packed weights."""
    kind, name = type(self), CONTAINERS[type(self)]
    if isinstance(state, tuple):  # of sparse layers: the object, training, dtype
        state = {name: state[0], "training": state[1]}
    if name not in state:
        nn.Module.__setstate__(self, state)
        return
    packed = state[name]
    vars(self).update(vars(container_of(kind, held_in(kind, packed))))
    self.train(state["training"])
    _read[self] = {name: packed}


# Parts that this library's layers do not have.
_REFUSED = {"nn.quantizable.modules.rnn": ("_LSTMLayer", "_LSTMSingleLayer")}


def _refused(name: str) -> type:
    def new(kind: type, *args: Any) -> Any:
        raise _refusal(f"{name} of a static LSTM")

    return type(name, (), {"__new__": new})


def _refusal(what: str) -> ValueError:
    return ValueError(
        f"legacy.redirect_imports: a pickled module must have a counterpart of the same parts, got {what}; "
        "convert the float model again"
    )


def _argument_names(kind: type[nn.Module]) -> set[str]:
    """What a constructor takes by name, also what it hands on."""
    names: set[str] = set()
    for base in kind.__mro__:
        if "__init__" not in base.__dict__:
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
            break
    if issubclass(kind, rnn.RNNBase):
        names.discard("mode")  # the class says it
    return names - {"self"}


def _unpacked(module: nn.Module, name: str, packed: Any) -> Any:
    """The entry of a state_dict for a packed object."""
    if isinstance(module, SparseLinearBase):
        return _packed.sparse_parts(packed)
    if name == "_packed_params":
        return packed.unpack()
    return _packed.table_weight(packed)


def _entries(module: nn.Module, values: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    """The state_dict that torch.ao's module would have given."""
    entries = {k: torch.as_tensor(values[k]) for k in ("scale", "zero_point") if k in values}
    tensors = {k: v for k, v in values.items() if isinstance(v, torch.Tensor)}
    if not isinstance(module, WeightedModule):  # slopes of PReLU
        tensors = {k: v.dequantize() if v.is_quantized else v for k, v in tensors.items()}
    entries |= tensors
    entries |= {k: v for k, v in values.items() if isinstance(v, torch.ScriptObject)}
    for name, part in parts.items():
        for path, inner in part.named_modules(prefix=name):
            held = {k: v for k, v in _read.get(inner, {}).items() if isinstance(v, torch.ScriptObject)}
            for key, packed in held.items():
                recurrent = isinstance(module, rnn.RNNBase)
                entries[f"{path}.{key}"] = packed if recurrent else _unpacked(module, key, packed)
    if isinstance(module, rnn.RNNCellBase):
        entries = {k: v for k, v in entries.items() if not k.startswith("bias_")}  # not used by torch.ao
    return entries


def _values(state: Any) -> dict[str, Any]:
    """Attributes, parameters and buffers by their names."""
    if isinstance(state, tuple):
        return dict(zip(_CONVOLUTION, state, strict=True))
    found = {k: v for k, v in state.items() if not k.startswith("_") or isinstance(v, torch.ScriptObject)}
    return found | state["_parameters"] | state["_buffers"]


def _is_own(state: Any) -> bool:
    buffers = state.get("_buffers", {}) if isinstance(state, dict) else {}
    return "format_version" in buffers or "output_scale" in buffers


def _restore(self: nn.Module, state: Any) -> None:
    """In place of nn.Module.__setstate__."""
    if _is_own(state):
        nn.Module.__setstate__(self, state)
        return
    kind = type(self)
    if isinstance(self, _COMPOSED):
        raise _refusal(kind.__name__)
    try:
        values = _values(state)
        names = _argument_names(kind)
        if isinstance(state, tuple):
            arguments = {**values, "bias": values["bias"] is not None}
        else:
            arguments = values
        new = kind(**{name: value for name, value in arguments.items() if name in names})
        parts = state.get("_modules", {}) if isinstance(state, dict) else {}
        legacy.load_state_dict(new, _entries(self, values, parts))
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"legacy.redirect_imports: a pickled module must hold what {kind.__module__}.{kind.__name__} "
            f"takes, got: {error}"
        ) from error
    vars(self).update(vars(new))
    if isinstance(state, dict):
        vars(self).update({k: v for k, v in state.items() if k.endswith("_hooks") and v})
    self.train(values["training"])


def install() -> None:
    """Makes this library's classes read the states of torch.ao's."""
    for place, names in _REFUSED.items():
        module = importlib.import_module(f"torch_ao_ext.{place}")
        for name in names:
            setattr(module, name, _refused(name))
    for base in _BASES:
        base.__setstate__ = _restore  # type: ignore[method-assign]
    for kind in CONTAINERS:
        kind.__setstate__ = _restore_container  # type: ignore[method-assign]
