"""What recurrent layers and cells with int8 or bfloat16 weights share."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized._observed import INT8, qconfig_of, quantize_weight, weight_observer
from torch_ao_ext.nn.quantized._state import LOAD_FLOAT_FIRST, CheckedLoad, keep_dtypes
from torch_ao_ext.nn.quantized._weight import check_finite
from torch_ao_ext.nn.quantized._weighted import weight_of_tensor
from torch_ao_ext.nn.quantized.dynamic.modules.linear import TORCH_AO_DYNAMIC_QUANT, DynamicQuant

__all__ = [
    "MOST_INT16",
    "Recurrent",
    "check_nonlinearity",
    "check_rule",
    "dtype_by_size",
    "quantize_recurrent",
    "rule_of",
    "stored_dtype",
    "weight_dtype_of",
]

_MOST_MIXED = 2**18  # values of W_hh
MOST_INT16 = 32639  # 127 * 256 + 127: two int8 parts

_WIDE = (torch.int16, torch.bfloat16)
_INTEGERS = {torch.int8, torch.int16}  # either takes the other's place
_WEIGHT_DTYPES = {**dict.fromkeys(INT8, torch.int8), **{dtype: dtype for dtype in _WIDE}}


def stored_dtype(who: str, dtype: Any) -> torch.dtype:
    """Dtype of the weight buffers: torch.int8, int16 or bfloat16.

    Raises:
        ValueError: another one was asked for.
    """
    if dtype not in _WEIGHT_DTYPES:
        raise ValueError(
            f"{who}: argument 'dtype' must be torch.qint8, int8, int16 or bfloat16, got {dtype}"
        )
    return _WEIGHT_DTYPES[dtype]


def weight_dtype_of(qconfig: Any) -> torch.dtype | None:
    """Dtype that the qconfig asks for: torch.int16, torch.bfloat16, torch.int8; None: by size.

    Raises:
        ValueError: its weight observer is for none of these.
    """
    observer = None if qconfig.weight is None else qconfig.weight()
    dtype = getattr(observer, "dtype", None)
    if dtype in _WIDE:
        return dtype
    weight_observer(qconfig)
    return None if getattr(observer, "by_size", False) else torch.int8


def rule_of(qconfig: Any) -> tuple[bool, bool]:
    """per_row and reduce_range: torch.ao's rule where the activation observer is a dynamic one of torch.ao's.

    Raises:
        ValueError: a rule of ours that recurrent operators do not have, torch.ao's with weights that
            are not int8.
    """
    activation = None if qconfig.activation is None else qconfig.activation()
    rule = getattr(activation, "dynamic_quant", None)
    if rule is None:
        rule = TORCH_AO_DYNAMIC_QUANT if getattr(activation, "is_dynamic", False) else DynamicQuant()
    if rule.symmetric or (rule.per_row and rule.reduce_range):
        raise ValueError(f"qconfig.activation must be asymmetric, and per row of 8 bits, got {rule}")
    dtype = weight_dtype_of(qconfig)
    if not rule.per_row and dtype in _WIDE:
        raise ValueError(f"qconfig.weight must observe for int8 with one scale for all rows, got {dtype}")
    return rule.per_row, rule.reduce_range


def dtype_by_size(hh: torch.Tensor, ih: torch.Tensor | None = None, first: bool = False) -> torch.dtype:
    """Dtype of a layer's weights by MixedWeightObserver's rule: torch.int8 or int16.

    Args:
        hh: W_hh `[G * H, R]` of the layer and direction.
        ih: its W_ih `[G * H, K]`, when that one is asked about; else W_hh and W_hr are.
        first: whether it is a first layer.
    """
    narrow = ih is not None and first and 2 * ih.shape[1] > hh.shape[1]
    return torch.int8 if narrow or hh.numel() > _MOST_MIXED else torch.int16


def quantize_recurrent(
    weight: torch.Tensor, dtype: torch.dtype, qconfig: Any, name: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight as recurrent operators take it, and its scales.

    Args:
        weight: float `[rows, K]`.
        dtype: torch.int16, with scale max|w| / 32639 of each row; bfloat16, with a scale of 1; int8.
        qconfig: its weight observer is the rule of int8.
        name: of the weight, for messages.

    Returns:
        Data of the dtype, float32 scales `[rows]` or `[1]`.

    Raises:
        ValueError: a weight that is not finite, an int8 zero point that is not 0.
    """
    check_finite(weight, name)
    if dtype == torch.int8:
        part = quantize_weight(weight, qconfig)
        if part.zero_point is not None:
            raise ValueError(f"{name}: qconfig.weight must give zero point 0, got {part.zero_point}")
        return part.data, part.scale
    if dtype == torch.bfloat16:
        return weight.to(dtype, copy=True), torch.ones(1)
    weight = weight.to(torch.float32)
    largest = weight.abs().amax(1)
    scale = (largest / MOST_INT16).clamp_min_(torch.finfo(torch.float32).tiny)
    scale[largest == 0] = 1
    return (weight / scale[:, None]).round_().clamp_(-MOST_INT16, MOST_INT16).to(dtype), scale


def _is_weight(name: str) -> bool:
    return name.startswith("weight_") and not name.endswith("_scale")


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
        more = {name: getattr(mod, name) for name in cls._MORE}
        dtype = weight_dtype_of(qconfig)
        per_row, reduce_range = rule_of(qconfig)
        if not per_row:
            dtype = torch.int8
        new = cls(mod.input_size, mod.hidden_size, bias=mod.bias, dtype=dtype or torch.int8, **more)
        new._set_rule(per_row, reduce_range)
        for name, own in list(new._buffers.items()):
            if own is not None and name.startswith("bias"):
                new._buffers[name] = getattr(mod, name).detach().to(torch.float32, copy=True)
            elif _is_weight(name):
                data, scale = quantize_recurrent(
                    getattr(mod, name).detach(), dtype or cls._dtype_by_size(mod, name), qconfig, name
                )
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
    def _dtype_by_size(cls, mod: nn.Module, name: str) -> torch.dtype:
        """Of the float layer's weight of this name; a cell's is int8."""
        return torch.int8

    @classmethod
    def _from_saved(cls, args: dict[str, Any]) -> "Recurrent":
        """Of the constructor's arguments in a file, where a dtype is a name and may have exceptions."""
        rule = args.pop("per_row", True), args.pop("reduce_range", False)
        narrow = args.pop("int8_weights", "")
        dtype = args.pop("dtype", "int8")
        if dtype not in ("int8", "int16", "bfloat16"):
            raise ValueError(f"dtype must be 'int8', 'int16' or 'bfloat16', got {dtype!r}")
        new = cls(**args, dtype=getattr(torch, dtype))
        weights = list(filter(_is_weight, new._buffers))
        known = isinstance(narrow, str) and all(name in weights for name in narrow.split())
        if not known or (narrow and dtype != "int16"):
            raise ValueError(f"int8_weights must be of {weights} beside dtype 'int16', got {narrow!r}")
        new._set_rule(*rule)
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
            ValueError: another name, shape or dtype, a zero point that is not 0.
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
        rule = state_dict.get(f"{prefix}act_quant")
        if rule is not None:
            if rule.shape != (3,) or rule[0] or rule[1]:
                return f"{prefix}act_quant must be [0, 0, reduce_range], got {rule.tolist()}"
            self._set_rule(False, bool(rule[2]))
        elif any(prefix + name in state_dict for name in filter(_is_weight, list(self._buffers))):
            self._set_rule(True, False)
        for name in filter(_is_weight, list(self._buffers)):
            value = state_dict.get(prefix + name)
            if value is None:
                continue
            # Weights have the float module's names: copied, they would become 0 in silence.
            if value.dtype not in _WEIGHT_DTYPES.values() or f"{prefix}{name}_scale" not in state_dict:
                return f"{prefix}{name} is a float weight; {LOAD_FLOAT_FIRST}"
            own = self._buffers[name]
            if own.dtype != value.dtype:
                self._buffers[name] = torch.zeros_like(own, dtype=value.dtype)
        return None


def check_rule(who: str, per_row: bool, reduce_range: bool) -> None:
    """ValueError for 7 bits with a scale for each row."""
    if per_row and reduce_range:
        raise ValueError(f"{who}: argument 'reduce_range' must be False with per_row, got True")


def check_nonlinearity(who: str, nonlinearity: str) -> None:
    """ValueError unless it is one of torch's two."""
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"{who}: argument 'nonlinearity' must be 'tanh' or 'relu', got {nonlinearity!r}")
