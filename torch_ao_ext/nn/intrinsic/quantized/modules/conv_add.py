"""Convolutions with a residual sum inside the operator."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized.modules.conv import Conv2d

__all__ = ["ConvAdd2d", "ConvAddReLU2d"]


class ConvAdd2d(Conv2d):
    """y = quantize(conv2d(x, W) + b + extra_input), the end of a residual block in one pass.

    Example:
        >>> import torch, torch_ao_ext
        >>> nnq, nniq = torch_ao_ext.nn.quantized, torch_ao_ext.nn.intrinsic.quantized
        >>> x = nnq.Quantize(0.1, 128, torch.quint8)(torch.randn(1, 4, 8, 8))
        >>> nniq.ConvAdd2d(4, 4, 3, padding=1)(x, x).shape
        torch.Size([1, 4, 8, 8])
    """

    _POST_OPS = "add"

    def forward(self, input: QuantizedTensor, extra_input: QuantizedTensor) -> QuantizedTensor:
        """`input` `[N, C, H, W]`, `extra_input` of the result's sizes, with qparams of its own.

        Raises:
            TypeError: a float tensor.
        """
        return self._run(input, extra_input)

    @classmethod
    def _check_container(cls, converter: str, mod: nn.Module) -> None:
        for name, rule in (("add", _is_add), ("relu", _is_relu)):
            if hasattr(mod, name) and not rule(getattr(mod, name)):
                raise ValueError(
                    f"{cls.__name__}.{converter}: '{name}' of argument 'mod' must be torch's {name}, got "
                    f"{getattr(mod, name)!r}"
                )

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Any:
        """Of a container of this name whose `add` is a sum.

        Raises:
            ValueError: `add` or `relu` is something else; or as `Conv2d.from_float`.
        """
        cls._check_container("from_float", mod)
        return super().from_float(mod, use_precomputed_fake_quant)

    @classmethod
    def from_reference(cls, ref: nn.Module, output_scale: float, output_zero_point: int) -> Any:
        """Of a container of this name that holds a reference layer and whose `add` is a sum.

        Raises:
            ValueError: `add` or `relu` is something else; or as `Conv2d.from_reference`.
        """
        cls._check_container("from_reference", ref)
        return super().from_reference(ref, output_scale, output_zero_point)


class ConvAddReLU2d(ConvAdd2d):
    """y = quantize(max(0, conv2d(x, W) + b + extra_input)); see `ConvAdd2d`."""

    _POST_OPS = "add,relu"


def _is_add(function: Any) -> bool:
    owner = getattr(function, "__self__", None)  # FloatFunctional().add
    return function in (torch.add,) or getattr(function, "__name__", "") == "add" and owner is not None


def _is_relu(function: Any) -> bool:
    return isinstance(function, nn.ReLU) or function in (torch.relu, nn.functional.relu)
