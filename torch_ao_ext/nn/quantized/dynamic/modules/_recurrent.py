"""What recurrent layers and cells share: buffers of int8, int16 or bfloat16 weights, loading, accessors."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext._flags import check_flags
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized._observed import qconfig_of
from torch_ao_ext.nn.quantized._state import LOAD_FLOAT_FIRST, CheckedLoad, keep_dtypes
from torch_ao_ext.nn.quantized._weighted import weight_of_tensor
from torch_ao_ext.nn.quantized.dynamic.modules._recurrent_weights import (
    RecurrentRule,
    check_int16,
    quantize_recurrent,
    rule_of,
    weight_dtypes,
)

__all__ = ["Recurrent", "check_nonlinearity", "check_rule"]

_INTEGERS = {torch.int8, torch.int16}  # either takes the other's place
_STORED = {*_INTEGERS, torch.bfloat16}


def _is_weight(name: str) -> bool:
    return name.startswith("weight_") and not name.endswith("_scale")


def _dtype_in(mod: nn.Module, name: str, dtype: torch.dtype | None) -> torch.dtype:
    """Of the weight of this name in a float module, for the dtype of a RecurrentRule."""
    part, end = name[:9], name[9:]  # "weight_hh", and "" of a cell, "_l0_reverse" and the like of a layer
    layer = int(end[2:].partition("_")[0]) if end else None
    sizes = getattr(mod, f"weight_ih{end}"), getattr(mod, f"weight_hh{end}")
    return weight_dtypes(dtype, *sizes, layer)[part != "weight_ih"]


class Recurrent(CheckedLoad):
    """Buffers of the float module's names.

    Weights are int8 or int16 with a scale for each row, or bfloat16 with scales of 1; scales and
    biases are float32. Without per_row there is the buffer `act_quant` int64 `[3]`: per_row,
    symmetric (False), reduce_range.
    """

    __jit_unused_properties__ = ("weight_dtype",)

    per_row = True
    reduce_range = False

    _MORE: tuple[str, ...] = ()  # arguments of the constructor beside sizes and bias

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> "Recurrent":
        """Quantized copy of a float module whose `qconfig` is set.

        Raises:
            ValueError: no qconfig, a weight that is not finite, an unsupported qconfig.
        """
        del use_precomputed_fake_quant
        qconfig = qconfig_of(cls, mod)
        return cls._of_float(mod, qconfig, rule_of(qconfig))

    @classmethod
    def _of_float(cls, mod: nn.Module, qconfig: Any, rule: RecurrentRule) -> "Recurrent":
        """Weights by the qconfig's weight observer, x and h by the rule."""
        more = {name: getattr(mod, name) for name in cls._MORE}
        new = cls(mod.input_size, mod.hidden_size, bias=mod.bias, dtype=rule.dtype or torch.int8, **more)
        new._set_rule(rule.per_row, rule.reduce_range)
        for name, own in list(new._buffers.items()):
            if own is not None and name.startswith("bias"):
                new._buffers[name] = getattr(mod, name).detach().to(torch.float32, copy=True)
            elif _is_weight(name):
                dtype = _dtype_in(mod, name, rule.dtype)
                data, scale = quantize_recurrent(getattr(mod, name).detach(), dtype, qconfig, name)
                new._buffers[name], new._buffers[name + "_scale"] = data, scale.expand(len(data)).clone()
        return new

    def _set_rule(self, per_row: bool, reduce_range: bool) -> None:
        # Python bools for forward, and a buffer so that every file format keeps them.
        self.per_row, self.reduce_range = bool(per_row), bool(reduce_range)
        self._buffers.pop("act_quant", None)
        if not self.per_row:
            self.register_buffer("act_quant", torch.tensor([False, False, self.reduce_range]).long())

    def _rule_text(self) -> str:
        return "" if self.per_row else f", per_row=False, reduce_range={self.reduce_range}"

    @classmethod
    def _from_saved(cls, args: dict[str, Any]) -> "Recurrent":
        """Of the constructor's arguments in a file, where a dtype is a name and may have exceptions."""
        narrow = args.pop("int8_weights", "")
        dtype = args.pop("dtype", "int8")
        if dtype not in ("int8", "int16", "bfloat16"):
            raise ValueError(f"dtype must be 'int8', 'int16' or 'bfloat16', got {dtype!r}")
        new = cls(**args, dtype=getattr(torch, dtype))
        weights = list(filter(_is_weight, new._buffers))
        known = isinstance(narrow, str) and all(name in weights for name in narrow.split())
        if not known or (narrow and dtype != "int16"):
            raise ValueError(f"int8_weights must be of {weights} beside dtype 'int16', got {narrow!r}")
        for name in narrow.split():
            new._buffers[name] = torch.zeros_like(new._buffers[name], dtype=torch.int8)
        return new

    @property
    def weight_dtype(self) -> torch.dtype:
        """torch.int8, int16 (also of some weights only) or bfloat16."""
        found = {b.dtype for name, b in self._buffers.items() if _is_weight(name)}
        return torch.int16 if torch.int16 in found else found.pop()

    def get_weight(self) -> dict[str, Any]:
        """Parameter name -> int8 or int16 weight with its scales, or bfloat16 weight (shares memory)."""
        b, names = self._buffers, list(filter(_is_weight, self._buffers))
        if self.weight_dtype == torch.bfloat16:
            return {n: b[n] for n in names}
        return {n: QuantizedTensor(b[n], b[f"{n}_scale"]) for n in names}

    def get_bias(self) -> dict[str, torch.Tensor]:
        """Parameter name -> float32 bias; none without biases."""
        return {n: own for n, own in self._buffers.items() if own is not None and n.startswith("bias")}

    def set_weight_bias(self, weight_bias_dict: dict[str, Any]) -> None:
        """Replaces weights and biases.

        Args:
            weight_bias_dict: parameter name -> int8 or int16 weight (a QuantizedTensor, or what has
                `int_repr()` and `qscheme()`), bfloat16 weight or float bias; names that are not in it
                keep theirs.

        Raises:
            ValueError: another name, shape or dtype, a zero point that is not 0, int16 without per_row or
                above 32639.
        """
        who, new = f"{type(self).__name__}.set_weight_bias", {}
        weights, biases = self.get_weight(), self.get_bias()
        for name, value in weight_bias_dict.items():
            if name not in weights and name not in biases:
                raise ValueError(f"{who}: names must be {[*weights, *biases]}, got {name!r}")
            if name in weights and self.weight_dtype != torch.bfloat16:
                part = weight_of_tensor(value, 0)
                if part.zero_point is not None:
                    raise ValueError(f"{who}: '{name}' must have zero point 0, got {part.zero_point}")
                if part.data.dtype == torch.int16 and not self.per_row:
                    raise ValueError(f"{who}: '{name}' must be int8 with per_row=False, got int16")
                check_int16(f"{who}: '{name}'", part.data)
                new[name], rows = part.data, self._buffers[f"{name}_scale"]
                new[f"{name}_scale"] = part.scale.expand(rows.shape).clone()
            elif name in weights:
                new[name], new[f"{name}_scale"] = value.detach().clone(), torch.ones(len(value))
            else:
                new[name] = value.detach().to(torch.float32, copy=True)
            own = self._buffers[name]
            dtypes = {new[name].dtype, own.dtype}
            if new[name].shape != own.shape or (len(dtypes) > 1 and dtypes != _INTEGERS):
                got = f"{new[name].dtype} {list(new[name].shape)}"
                raise ValueError(f"{who}: '{name}' must be {own.dtype} {list(own.shape)}, got {got}")
        self._buffers.update(new)

    def _apply(self, fn: Any, recurse: bool = True) -> "Recurrent":
        inner = super()._apply
        keep_dtypes(self, list(self._buffers), lambda: inner(fn, recurse))
        return self

    def _take_form(self, state_dict: dict[str, Any], prefix: str) -> str | None:
        own = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        given = {name: state_dict[prefix + name] for name in own if prefix + name in state_dict}
        weights, found = filter(_is_weight, own), [name for name in given if _is_weight(name)]
        rule, per_row, reduce_range = state_dict.get(f"{prefix}act_quant"), self.per_row, self.reduce_range
        if rule is not None:
            if rule.tolist() not in ([0, 0, 0], [0, 0, 1]):
                return f"{prefix}act_quant must be [0, 0, reduce_range], got {rule.tolist()}"
            per_row, reduce_range = False, bool(rule[2])
        elif found:
            per_row, reduce_range = True, False
        for name in found:
            # Weights have the float module's names: copied, they would become 0 in silence.
            if given[name].dtype not in _STORED or f"{prefix}{name}_scale" not in state_dict:
                return f"{prefix}{name} is a float weight; {LOAD_FLOAT_FIRST}"
        dtypes = {name: given.get(name, own[name]).dtype for name in weights}
        for name, dtype in dtypes.items():
            if not per_row and dtype != torch.int8:
                return f"{prefix}{name} must be int8 beside act_quant, got {dtype}"
        if torch.bfloat16 in dtypes.values() and len(set(dtypes.values())) > 1:
            return f"weights in '{prefix}' must be int8 and int16, or all bfloat16, got {dtypes}"
        for name, value in given.items():
            if name not in ("act_quant", "format_version") and value.shape != own[name].shape:
                return f"{prefix}{name} must have shape {list(own[name].shape)}, got {list(value.shape)}"
        # All is checked: only now anything changes.
        if rule is not None or found:
            self._set_rule(per_row, reduce_range)
        for name in found:
            if own[name].dtype != dtypes[name]:
                self._buffers[name] = torch.zeros_like(own[name], dtype=dtypes[name])
        return None


def check_rule(who: str, dtype: torch.dtype, per_row: bool, reduce_range: bool) -> None:
    """Refuses flags that are no bools, 7 bits with a scale for each row, 16 without."""
    check_flags(who, per_row=per_row, reduce_range=reduce_range)
    if per_row and reduce_range:
        raise ValueError(f"{who}: argument 'reduce_range' must be False with per_row, got True")
    if not per_row and dtype != torch.int8:
        raise ValueError(
            f"{who}: argument 'dtype' must be torch.qint8 or int8 with per_row=False, got {dtype}"
        )


def check_nonlinearity(who: str, nonlinearity: str) -> None:
    """ValueError unless it is one of torch's two."""
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"{who}: argument 'nonlinearity' must be 'tanh' or 'relu', got {nonlinearity!r}")
