"""Sizes, padding and weight layout that static and dynamic convolutions share."""

from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.modules.utils import _pair, _single, _triple

from torch_ao_ext.nn.quantized._observed import QuantizedWeight
from torch_ao_ext.nn.quantized._padding import explicit_padding
from torch_ao_ext.nn.quantized._weighted import WeightedModule

__all__ = ["ConvBase", "Transposed", "as_tuple"]

_TUPLE = {1: _single, 2: _pair, 3: _triple}
_MODES = ("zeros", "reflect", "replicate", "circular")


def as_tuple(value: Any, rank: int) -> tuple[int, ...]:
    """One number per dimension."""
    return _TUPLE[rank](value)


class ConvBase(WeightedModule):
    """A subclass names its rank, float class and operator."""

    _RANK = 0
    _FLOAT: ClassVar[type[nn.Module]]
    _OP: ClassVar[Any]
    _TRANSPOSED = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if dtype not in (None, torch.float32):
            raise ValueError(
                f"{type(self).__name__}: argument 'dtype' must be None or torch.float32, got {dtype}"
            )
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{type(self).__name__}: argument 'groups' must divide in_channels ({in_channels}) and "
                f"out_channels ({out_channels}), got {groups}"
            )
        if padding_mode not in _MODES[: 1 if self._TRANSPOSED else 4]:
            raise ValueError(
                f"{type(self).__name__}: argument 'padding_mode' must be one of "
                f"{', '.join(_MODES[: 1 if self._TRANSPOSED else 4])}, got {padding_mode!r}"
            )
        kernel = as_tuple(kernel_size, self._RANK)
        first, second = in_channels, out_channels
        if not self._TRANSPOSED:
            first, second = out_channels, in_channels
        with nullcontext() if device is None else torch.device(device):
            super().__init__((first, second // groups, *kernel), out_channels, bias)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel
        self.stride = as_tuple(stride, self._RANK)
        self.padding = padding if isinstance(padding, str) else as_tuple(padding, self._RANK)
        self.dilation = as_tuple(dilation, self._RANK)
        self.groups = groups
        self.padding_mode = padding_mode
        self._set_padding()

    def _set_padding(self) -> None:
        self._op_padding, self._before = explicit_padding(self)

    @classmethod
    def _arguments(cls, conv: Any) -> dict[str, Any]:
        names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        values = {name: getattr(conv, name) for name in names}
        return {**values, "bias": conv.bias is not None, "padding_mode": conv.padding_mode}

    @classmethod
    def _rows_of(cls, weight: torch.Tensor, product: Any) -> torch.Tensor:
        if not cls._TRANSPOSED:
            return weight.reshape(weight.shape[0], -1)
        split = weight.reshape(product.groups, -1, *weight.shape[1:]).transpose(1, 2)
        return split.reshape(split.shape[0] * split.shape[1], -1)

    @classmethod
    def _unrows(cls, rows: torch.Tensor, shape: torch.Size, groups: int) -> torch.Tensor:
        if not cls._TRANSPOSED:
            return rows.reshape(shape)
        split = rows.reshape(groups, shape[1], shape[0] // groups, *shape[2:]).transpose(1, 2)
        return split.reshape(shape).contiguous()

    def _set_weight(self, conv: Any, weight: QuantizedWeight) -> None:
        data = self._unrows(weight.data, conv.weight.shape, conv.groups)
        self._set_state(weight._replace(data=data), conv.bias)

    def _sizes_repr(self) -> str:
        """What differs from torch's defaults."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        text += f", stride={self.stride}"
        for name, usual in (
            ("padding", (0,) * self._RANK), ("output_padding", (0,) * self._RANK),
            ("dilation", (1,) * self._RANK), ("groups", 1), ("padding_mode", "zeros"),
        ):  # fmt: skip
            if getattr(self, name, usual) != usual:
                text += f", {name}={getattr(self, name)}"
        return f"{text}, bias={self.qbias is not None}"


class Transposed:
    """Put before a `ConvBase` in the bases: arguments in torch's order for transposed layers."""

    _TRANSPOSED = True
    _CHANNEL_AXIS = 1

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, bias: bool = True, dilation: Any = 1,
        padding_mode: str = "zeros", device: Any = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device, dtype,
        )  # fmt: skip
        self.output_padding = as_tuple(output_padding, self._RANK)

    def _set_padding(self) -> None:
        self._op_padding, self._before = list(self.padding), None

    @classmethod
    def _arguments(cls, conv: Any) -> dict[str, Any]:
        return {**super()._arguments(conv), "output_padding": conv.output_padding}

    def _extra_lines(self, x: torch.Tensor, output_size: Any) -> Any:
        """`output_padding` that gives the wanted spatial sizes."""
        if output_size is None:
            return self.output_padding
        sizes = (self.stride, self.padding, self.kernel_size, self._RANK, self.dilation)
        return _ConvTransposeNd._output_padding(self, x, output_size, *sizes)
