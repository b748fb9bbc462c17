"""The borders of a quantized region: float to int8 and back."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext._quantized_functions import quantize_per_tensor
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized._static import QuantizedOutput, observer_of, output_qparams

__all__ = ["DeQuantize", "Quantize"]


class Quantize(QuantizedOutput):
    """y = clamp(round(x / scale) + zero_point) over the whole range of dtype.

    Args:
        scale: real units per step.
        zero_point: integer of real 0.
        dtype: torch.quint8 (uint8) or torch.qint8 (int8).
        factory_kwargs: accepted, has no effect: the module holds no tensor.

    Example:
        >>> import torch, torch_ao_ext
        >>> q = torch_ao_ext.nn.quantized.Quantize(0.5, 10, torch.quint8)
        >>> q(torch.tensor([0.0, 1.0, 200.0])).int_repr()
        tensor([ 10,  12, 255], dtype=torch.uint8)
    """

    def __init__(
        self, scale: float = 1.0, zero_point: int = 0, dtype: torch.dtype = torch.uint8,
        factory_kwargs: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.set_output(scale, zero_point, dtype)

    def forward(self, x: torch.Tensor) -> QuantizedTensor:
        """Float tensor of any shape -> QuantizedTensor.

        Raises:
            TypeError: not a float tensor.
        """
        if not isinstance(x, torch.Tensor) or not x.is_floating_point():
            got = x.dtype if isinstance(x, torch.Tensor) else type(x).__name__
            raise TypeError(f"Quantize: argument 'x' must be a float tensor, got {got}")
        return quantize_per_tensor(x.to(torch.float32), *self.qparams)

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> "Quantize":
        """Of a QuantStub that has observed."""
        return cls(*output_qparams(observer_of(mod, "Quantize"), "Quantize"))

    def extra_repr(self) -> str:
        """Output qparams."""
        return self._output_repr()


class DeQuantize(nn.Module):
    """x = (integer - zero_point) * scale, float32; a float tensor passes as it is.

    Example:
        >>> import torch, torch_ao_ext
        >>> nnq = torch_ao_ext.nn.quantized
        >>> nnq.DeQuantize()(nnq.Quantize(0.5, 10)(torch.tensor([0.6])))
        tensor([0.5000])
    """

    def forward(self, x: Any) -> torch.Tensor:
        """QuantizedTensor -> float32 tensor of its shape."""
        return x.dequantize() if isinstance(x, QuantizedTensor) else x

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> "DeQuantize":
        """Of a DeQuantStub."""
        return cls()
