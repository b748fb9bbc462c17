"""Activations between quantized tensors with qparams of their own."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized._between import Between, FloatToo, Pointwise, ThroughFloat
from torch_ao_ext.nn.quantized._static import integers
from torch_ao_ext.nn.quantized.modules.attention import MultiheadAttention

__all__ = [
    "CELU", "ELU", "Hardswish", "LeakyReLU", "Mish", "MultiheadAttention", "PReLU", "ReLU6", "SELU", "SiLU",
    "Sigmoid", "Softmax", "Softmax2d",
]  # fmt: skip

_requantize = torch.ops.torch_ao.requantize.default


class ReLU6(nn.ReLU6):
    """min(max(0, x), 6) on the integers; the output has the input's qparams.

    Args:
        inplace: overwrite the input's integers.
    """

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> "ReLU6":
        """Of an nn.ReLU6."""
        return cls(mod.inplace)

    def _get_name(self) -> str:
        return "QuantizedReLU6"


class _Activation(Between):
    """One post-op of `ops.requantize`: int8 in, int8 out, one pass."""

    _POST_OP = ""

    def __init__(
        self, scale: float = 1.0, zero_point: int = 0, device: Any = None, dtype: torch.dtype = torch.uint8
    ) -> None:
        super().__init__()
        if device is not None:
            torch.device(device)  # raises if it is none
        self.post_op_args: list[float] = []
        self.set_output(scale, zero_point, dtype)

    def forward(self, input: QuantizedTensor) -> QuantizedTensor:
        """Any shape -> the same shape with the module's output qparams."""
        data, in_scale, in_point = integers(self, input)
        scale, point, dtype = self.qparams
        y = _requantize(
            data, in_scale, in_point, scale, point, dtype, self._POST_OP, self.post_op_args
        )
        return QuantizedTensor(y, scale, point)

    def extra_repr(self) -> str:
        """Output qparams."""
        return self._output_repr()


class Hardswish(_Activation):
    """x * min(max(0, x + 3), 6) / 6.

    Args:
        scale: of the output, as zero_point and dtype.
        zero_point: integer of real 0.
        device: accepted, has no effect: the module holds no tensor.
        dtype: torch.quint8 or torch.qint8.
    """

    _POST_OP = "hardswish"


class SiLU(FloatToo, _Activation):
    """x / (1 + exp(-x)).

    Args:
        scale: of the output, as zero_point and dtype.
        zero_point: integer of real 0.
        dtype: torch.quint8 or torch.qint8.
    """

    _POST_OP = "silu"
    _float = staticmethod(torch.nn.functional.silu)

    def __init__(
        self, scale: float = 1.0, zero_point: int = 0, dtype: torch.dtype = torch.uint8
    ) -> None:
        super().__init__(scale, zero_point, dtype=dtype)


class Sigmoid(FloatToo, _Activation):
    """1 / (1 + exp(-x)); the default qparams cover [0, 1).

    Args:
        output_scale: of the output, as the arguments that follow.
        output_zero_point: integer of real 0.
        dtype: torch.quint8 or torch.qint8.
    """

    _POST_OP = "sigmoid"
    _float = staticmethod(torch.sigmoid)

    def __init__(
        self,
        output_scale: float = 1.0 / 256,
        output_zero_point: int = 0,
        dtype: torch.dtype = torch.uint8,
    ) -> None:
        super().__init__(output_scale, output_zero_point, dtype=dtype)


class LeakyReLU(_Activation):
    """max(0, x) + negative_slope * min(0, x).

    Args:
        scale: of the output, as zero_point and dtype.
        zero_point: integer of real 0.
        negative_slope: factor below 0.
        inplace: accepted, has no effect: the output has qparams of its own.
        device: accepted, has no effect: the module holds no tensor.
        dtype: torch.quint8 or torch.qint8.
    """

    _POST_OP = "leaky_relu"

    def __init__(
        self,
        scale: float = 1.0,
        zero_point: int = 0,
        negative_slope: float = 1e-2,
        inplace: bool = False,
        device: Any = None,
        dtype: torch.dtype = torch.uint8,
    ) -> None:
        super().__init__(scale, zero_point, device, dtype)
        self.negative_slope = negative_slope
        self.post_op_args = [float(negative_slope)]

    @classmethod
    def _like(cls, mod: nn.Module, scale: float, zero_point: int, dtype: torch.dtype) -> "LeakyReLU":
        return cls(scale, zero_point, mod.negative_slope, dtype=dtype)


class _WithAlpha(Pointwise):
    """A float class with an alpha comes after it in the bases."""

    def __init__(
        self, scale: float = 1.0, zero_point: int = 0, alpha: float = 1.0, dtype: torch.dtype = torch.uint8
    ) -> None:
        super().__init__(alpha)
        self.set_output(scale, zero_point, dtype)

    @classmethod
    def _arguments(cls, mod: Any) -> dict[str, Any]:
        return {"alpha": mod.alpha}


class ELU(_WithAlpha, nn.ELU):
    """max(0, x) + min(0, alpha (exp(x) - 1)), by a table.

    Args:
        scale: of the output, as zero_point and dtype.
        zero_point: integer of real 0.
        alpha: factor below 0.
        dtype: torch.quint8 or torch.qint8.
    """


class CELU(FloatToo, _WithAlpha, nn.CELU):
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1)), by a table; arguments as ELU."""


class SELU(FloatToo, Pointwise, nn.SELU):
    """1.0507 (max(0, x) + min(0, 1.6733 (exp(x) - 1))), torch.nn.SELU's factors, by a table.

    Args:
        scale: of the output, as zero_point and dtype.
        zero_point: integer of real 0.
        dtype: torch.quint8 or torch.qint8.
    """

    def __init__(
        self, scale: float = 1.0, zero_point: int = 0, dtype: torch.dtype = torch.uint8
    ) -> None:
        super().__init__()
        self.set_output(scale, zero_point, dtype)


class Mish(FloatToo, Pointwise, nn.Mish):
    """x tanh(log(1 + exp(x))), by a table; arguments as SELU."""

    def __init__(
        self, scale: float = 1.0, zero_point: int = 0, dtype: torch.dtype = torch.uint8
    ) -> None:
        super().__init__()
        self.set_output(scale, zero_point, dtype)


class Softmax(FloatToo, ThroughFloat, nn.Softmax):
    """exp(x) / sum exp(x) along dim, computed in float32; the default qparams cover [0, 1).

    Args:
        dim: see torch.nn.Softmax.
        scale: of the output, as zero_point and dtype.
        zero_point: integer of real 0.
        dtype: torch.quint8 or torch.qint8.
    """

    def __init__(
        self,
        dim: int | None = None,
        scale: float = 1.0 / 256,
        zero_point: int = 0,
        dtype: torch.dtype = torch.uint8,
    ) -> None:
        super().__init__(dim)
        self.set_output(scale, zero_point, dtype)

    @classmethod
    def _arguments(cls, mod: Any) -> dict[str, Any]:
        return {"dim": mod.dim}


class Softmax2d(FloatToo, ThroughFloat, nn.Softmax2d):
    """Softmax over the channels of `[N, C, H, W]` or `[C, H, W]`, computed in float32.

    The default qparams cover [0, 1).

    Args:
        scale: of the output, as zero_point and dtype.
        zero_point: integer of real 0.
        dtype: torch.quint8 or torch.qint8.
    """

    def __init__(
        self, scale: float = 1.0 / 256, zero_point: int = 0, dtype: torch.dtype = torch.uint8
    ) -> None:
        super().__init__()
        self.set_output(scale, zero_point, dtype)


class PReLU(Pointwise, nn.PReLU):
    """max(0, x) + weight * min(0, x) with a float weight, by a table for each slope.

    Args:
        output_scale: of the output, as output_zero_point and dtype.
        output_zero_point: integer of real 0.
        num_parameters: 1, or channels on axis 1.
        dtype: torch.quint8 or torch.qint8.
    """

    def __init__(
        self,
        output_scale: float = 1.0,
        output_zero_point: int = 0,
        num_parameters: int = 1,
        dtype: torch.dtype = torch.uint8,
    ) -> None:
        super().__init__(num_parameters)
        self.set_output(output_scale, output_zero_point, dtype)

    def set_weight(self, w: Any) -> None:
        """Slopes `[1]` or `[num_parameters]`: a QuantizedTensor (torch.ao keeps them in 8 bits) or floats.

        Raises:
            ValueError: another shape.
        """
        value = w.dequantize() if hasattr(w, "dequantize") else w
        if tuple(value.shape) != tuple(self.weight.shape):
            raise ValueError(
                f"PReLU.set_weight: argument 'w' must be {list(self.weight.shape)}, got {list(value.shape)}"
            )
        self.weight = nn.Parameter(value.detach().to(torch.float32).clone(), requires_grad=False)

    @classmethod
    def _make(cls, scale: float, zero_point: int, dtype: torch.dtype, mod: Any) -> "PReLU":
        return cls(scale, zero_point, mod.num_parameters, dtype)

    def _channels(self) -> int:
        return self.num_parameters
