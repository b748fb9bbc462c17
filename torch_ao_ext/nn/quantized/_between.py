"""Modules between quantized tensors without an int8 weight."""

import warnings
from typing import Any

import torch
from torch import nn

from torch_ao_ext._quantized_functions import RANGE, quantize_per_tensor
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized._static import (
    MODULE_PATH,
    QuantizedOutput,
    integers,
    observer_of,
    output_qparams,
)

__all__ = ["Between", "FloatToo", "Norm", "Pointwise", "ThroughFloat"]


def every_integer(dtype: torch.dtype) -> tuple[int, int]:
    """First and last + 1 of an 8-bit dtype."""
    low, high = RANGE[dtype]
    return low, high + 1


class Between(QuantizedOutput):
    """Made of the float module of its name; a subclass says how in `_like`."""

    @classmethod
    def _like(cls, mod: nn.Module, scale: float, zero_point: int, dtype: torch.dtype) -> Any:
        return cls(scale, zero_point, dtype=dtype)

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Any:
        """Of the float module of this name that has observed its output; parameters are copied."""
        return cls._like(mod, *output_qparams(observer_of(mod, cls.__name__), cls.__name__))

    @classmethod
    def from_reference(cls, mod: nn.Module, scale: float, zero_point: int) -> Any:
        """Of the float module of this name and the qparams of its output, uint8; parameters are copied."""
        return cls._like(mod, float(scale), int(zero_point), torch.uint8)

    def _get_name(self) -> str:
        return f"Quantized{type(self).__name__}"


class ThroughFloat(Between):
    """y = quantize(f(dequantize(x))) with f the float module that a subclass derives from too.

    The rounding is that of an int8 kernel that is exact inside; the time is that of the float
    module plus two passes over the data. Float parameters keep their names.
    """

    def forward(self, input: QuantizedTensor) -> QuantizedTensor:
        """Sizes as the float module, with the module's output qparams.

        Raises:
            TypeError: a float tensor.
        """
        x = QuantizedTensor(*integers(self, input)).dequantize()
        return quantize_per_tensor(self._float(x), *self.qparams)

    def _float(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)

    def float_reason(self) -> str:
        """Why forward computes in float32; empty when an int8 operator runs."""
        return "int8 in and out, computed in float32"

    @classmethod
    def _arguments(cls, mod: Any) -> dict[str, Any]:
        """Constructor arguments of the float module."""
        return {}

    @classmethod
    def _make(cls, scale: float, zero_point: int, dtype: torch.dtype, mod: Any) -> Any:
        new = cls(**cls._arguments(mod))
        new.set_output(scale, zero_point, dtype)
        return new

    @classmethod
    def _like(cls, mod: nn.Module, scale: float, zero_point: int, dtype: torch.dtype) -> Any:
        new = cls._make(scale, zero_point, dtype, mod)
        source = mod[0] if isinstance(mod, nn.Sequential) else mod
        for name, value in (*source._parameters.items(), *source._buffers.items()):
            copy = None if value is None else value.detach().clone()
            if name in new._parameters:
                new._parameters[name] = None if copy is None else nn.Parameter(copy, requires_grad=False)
            elif name in new._buffers:
                new._buffers[name] = copy
        return new

    def train(self, mode: bool = True) -> Any:
        """Stays in evaluation mode: statistics are those of the float model."""
        return super().train(False)

    def extra_repr(self) -> str:
        """Of the float module, and the output qparams."""
        own = super().extra_repr()
        return f"{own}, {self._output_repr()}" if own else self._output_repr()


class FloatToo(Between):
    """First base of the modules that torch.ao's default table lacks: there such a layer stays float.

    A model whose stubs leave it in the float part works on: floats in, floats out, with a warning
    and a row of `report`.
    """

    got_floats = False

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """A QuantizedTensor -> one with the module's output qparams; floats -> the float module's result."""
        floats = isinstance(input, torch.Tensor) and not isinstance(input, QuantizedTensor)
        if not floats or not input.is_floating_point() or self.__dict__.get("edge") is not None:
            return super().forward(input)
        if not self.got_floats and not torch.compiler.is_compiling():
            self.got_floats = True
            warnings.warn(
                f"nn.quantized.{type(self).__name__} {self.__dict__.get(MODULE_PATH, '')!r} got floats and "
                "computes in floats; qconfig = None keeps the float module",
                stacklevel=2,
            )
        return self._float(input)


class Pointwise(ThroughFloat):
    """A function of one value: a table of what it gives for each of the 256."""

    def forward(self, input: QuantizedTensor) -> QuantizedTensor:
        """Any shape -> the same shape with the module's output qparams.

        Raises:
            TypeError: a float tensor.
        """
        data, scale, point = integers(self, input)
        table = self._table(data.dtype, scale, point)
        return QuantizedTensor(torch.ops.torch_ao.lookup.default(data, table), *self.qparams[:2])

    def _channels(self) -> int:
        """Tables, one for each channel on axis 1."""
        return 1

    def _table(self, dtype: torch.dtype, scale: float, point: int) -> torch.Tensor:
        every = torch.arange(*every_integer(dtype)).to(dtype).expand(1, self._channels(), 256)
        x = QuantizedTensor(every.contiguous(), scale, point).dequantize()
        table = quantize_per_tensor(self._float(x), *self.qparams).int_repr()[0]
        return table[0] if self._channels() == 1 else table

    def float_reason(self) -> str:
        """Empty: the table is read by an int8 operator."""
        return ""


class Norm(ThroughFloat):
    """A normalization whose float class comes after it in the bases; one int8 operator runs it."""

    def forward(self, input: QuantizedTensor) -> QuantizedTensor:
        """Sizes as the float module, with the module's output qparams.

        Raises:
            TypeError: a float tensor.
        """
        data, scale, point = integers(self, input)
        if self.float_reason():
            return super().forward(QuantizedTensor(data, scale, point))
        y = self._integers(data, scale, point)
        return QuantizedTensor(y, *self.qparams[:2])

    def _integers(self, data: torch.Tensor, scale: float, point: int) -> torch.Tensor:
        """Integers of the result."""
        raise NotImplementedError

    def float_reason(self) -> str:
        """Why forward computes in float32; empty when an int8 operator runs."""
        statistics = (self._buffers.get(name) for name in ("running_mean", "running_var"))
        for tensor in (*self._parameters.values(), *statistics):
            if tensor is not None and tensor.dtype not in (torch.float32, torch.bfloat16):
                return f"parameters of {tensor.dtype}"
        return ""

    def _finish(
        self, weight: Any, bias: Any, scale: float, zero_point: int, output_dtype: torch.dtype
    ) -> None:
        """Affine tensors and output qparams of the constructor."""
        for name, value in (("weight", weight), ("bias", bias)):
            if isinstance(value, torch.Tensor):
                known = self._parameters.get(name)
                if known is not None and value.shape != known.shape:
                    raise ValueError(
                        f"{type(self).__name__}: argument '{name}' must be {list(known.shape)}, got "
                        f"{list(value.shape)}"
                    )
                like = value if known is None else known
                copied = value.detach().to(like.device, like.dtype, copy=True)
                self.register_parameter(name, nn.Parameter(copied, requires_grad=False))
        if bias is False:
            self.register_parameter("bias", None)
        self.set_output(scale, zero_point, output_dtype)
        self.eval()

    @classmethod
    def _features(cls, mod: Any) -> dict[str, Any]:
        mod = mod[0] if isinstance(mod, nn.Sequential) else mod
        names = ("num_features", "eps", "momentum", "affine", "track_running_stats")
        return {name: getattr(mod, name) for name in names}
