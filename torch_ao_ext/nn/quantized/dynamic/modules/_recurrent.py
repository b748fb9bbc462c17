"""What recurrent layers and cells with int8 weights share."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized._observed import quantize_weight
from torch_ao_ext.nn.quantized._state import LOAD_FLOAT_FIRST, CheckedLoad, keep_dtypes
from torch_ao_ext.nn.quantized._weighted import weight_of_tensor

__all__ = ["Recurrent", "check_nonlinearity"]


def _quantized(module: nn.Module, name: str, qconfig: Any) -> tuple[torch.Tensor, torch.Tensor]:
    part = quantize_weight(getattr(module, name).detach(), qconfig)
    if part.zero_point is not None:
        raise ValueError(f"{name}: qconfig.weight must give zero point 0, got {part.zero_point}")
    return part.data, part.scale


class Recurrent(CheckedLoad):
    """Buffers of the float module's names, int8 and float32."""

    _MORE: tuple[str, ...] = ()  # arguments of the constructor beside sizes and bias

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> "Recurrent":
        """Quantized copy of a float module whose `qconfig` is set.

        Raises:
            ValueError: no qconfig, a weight that is not finite, an unsupported qconfig.
        """
        del use_precomputed_fake_quant
        qconfig = getattr(mod, "qconfig", None)
        if qconfig is None:
            raise ValueError(f"{cls.__name__}.from_float: argument 'mod' must have a qconfig")
        more = {name: getattr(mod, name) for name in cls._MORE}
        new = cls(mod.input_size, mod.hidden_size, bias=mod.bias, **more)
        for name, own in list(new._buffers.items()):
            if own is not None and name.startswith("bias"):
                new._buffers[name] = getattr(mod, name).detach().to(torch.float32, copy=True)
            elif own is not None and own.dtype == torch.int8:
                data, scale = _quantized(mod, name, qconfig)
                new._buffers[name], new._buffers[name + "_scale"] = data, scale.expand(len(data)).clone()
        return new

    def get_weight(self) -> dict[str, QuantizedTensor]:
        """Parameter name -> int8 weight with its scales (shares memory)."""
        int8 = [n for n, own in self._buffers.items() if own is not None and own.dtype == torch.int8]
        return {n: QuantizedTensor(self._buffers[n], self._buffers[f"{n}_scale"]) for n in int8}

    def get_bias(self) -> dict[str, torch.Tensor]:
        """Parameter name -> float32 bias; none without biases."""
        return {n: own for n, own in self._buffers.items() if own is not None and n.startswith("bias")}

    def set_weight_bias(self, weight_bias_dict: dict[str, Any]) -> None:
        """Replaces weights and biases.

        Args:
            weight_bias_dict: parameter name -> int8 weight (a QuantizedTensor, or what has `int_repr()` and
                `qscheme()`) or float bias; names that are not in it keep theirs.

        Raises:
            ValueError: another name, shape or dtype, a zero point that is not 0.
        """
        who, new = f"{type(self).__name__}.set_weight_bias", {}
        weights, biases = self.get_weight(), self.get_bias()
        for name, value in weight_bias_dict.items():
            if name not in weights and name not in biases:
                raise ValueError(f"{who}: names must be {[*weights, *biases]}, got {name!r}")
            if name in weights:
                part = weight_of_tensor(value, 0)
                if part.zero_point is not None:
                    raise ValueError(f"{who}: '{name}' must have zero point 0, got {part.zero_point}")
                new[name], rows = part.data, self._buffers[f"{name}_scale"]
                new[f"{name}_scale"] = part.scale.expand(rows.shape).clone()
            else:
                new[name] = value.detach().to(torch.float32, copy=True)
            own = self._buffers[name]
            if new[name].shape != own.shape or new[name].dtype != own.dtype:
                got = f"{new[name].dtype} {list(new[name].shape)}"
                raise ValueError(f"{who}: '{name}' must be {own.dtype} {list(own.shape)}, got {got}")
        self._buffers.update(new)

    def _apply(self, fn: Any, recurse: bool = True) -> "Recurrent":
        inner = super()._apply
        keep_dtypes(self, list(self._buffers), lambda: inner(fn, recurse))
        return self

    def _take_form(self, state_dict: dict[str, Any], prefix: str) -> str | None:
        for name, own in self._buffers.items():
            value = state_dict.get(prefix + name)
            # Weights have the float module's names: copied, they would become 0 in silence.
            if own is not None and own.dtype == torch.int8 and value is not None and value.dtype != own.dtype:
                return f"{prefix}{name} is a float weight; {LOAD_FLOAT_FIRST}"
        return None


def check_nonlinearity(who: str, nonlinearity: str) -> None:
    """ValueError unless it is one of torch's two."""
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"{who}: argument 'nonlinearity' must be 'tanh' or 'relu', got {nonlinearity!r}")
