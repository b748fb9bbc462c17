"""Convolutions and transposed convolutions between quantized tensors."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized._conv import ConvBase, Transposed
from torch_ao_ext.nn.quantized._padding import pad
from torch_ao_ext.nn.quantized._product import StaticProduct
from torch_ao_ext.nn.quantized._static import integers

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]

ao = torch.ops.torch_ao


class _Conv(StaticProduct, ConvBase):
    """Between quantized tensors."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        with self.qweight.device:
            self.set_output(1.0, 0, torch.uint8)

    def _input(self, x: Any) -> tuple[torch.Tensor, float, int, bool]:
        """Integers `[N, C, *]`, scale, zero point, and whether N was added."""
        data, scale, point = integers(self, x)
        single = data.dim() == self._RANK + 1
        if single:
            data = data.unsqueeze(0)
        if self._before is not None:
            data = pad(data, self._before, self.padding_mode, point)
        return data, scale, point, single

    def _run(self, x: Any, other: QuantizedTensor | None = None) -> QuantizedTensor:
        data, in_scale, in_point, single = self._input(x)
        b = self._buffers
        scale, point, dtype = self.qparams
        added = () if other is None else ([], *integers(self, other))
        y = self._OP(
            data, in_scale, in_point, b["qweight"], b["weight_scale"], b["weight_zero_point"], b["qbias"],
            scale, point, dtype, self.stride, self._op_padding, self.dilation, self.groups, self._POST_OPS,
            *added,
        )  # fmt: skip
        return QuantizedTensor(y.squeeze(0) if single else y, scale, point)

    def forward(self, input: QuantizedTensor) -> QuantizedTensor:
        """`[N, C, *]` or `[C, *]` -> the sizes of the float layer, with the layer's output qparams.

        Raises:
            TypeError: a float tensor.
        """
        # Between two convolutions Python runs with cold caches: no calls in the usual case.
        usual = type(input) is QuantizedTensor and type(input._scale) is float and self._before is None
        if not usual or input._data.dim() != self._RANK + 2:
            return self._run(input)
        b = self._buffers
        scale, point, dtype = self.qparams
        y = self._OP(
            input._data, input._scale, input._zero_point, b["qweight"], b["weight_scale"],
            b["weight_zero_point"], b["qbias"], scale, point, dtype, self.stride, self._op_padding,
            self.dilation, self.groups, self._POST_OPS,
        )  # fmt: skip
        return QuantizedTensor(y, scale, point)

    @classmethod
    def _make(cls, product: nn.Module) -> "_Conv":
        return cls(**cls._arguments(product))

    def _get_name(self) -> str:
        return f"Quantized{type(self).__name__}"

    def extra_repr(self) -> str:
        """What differs from torch's defaults, and the output qparams."""
        return f"{self._sizes_repr()}, {self._output_repr()}"


class Conv1d(_Conv):
    """y = quantize(conv1d(x, W) + b); arguments as `Conv2d`, input `[N, C, L]` or `[C, L]`."""

    _RANK = 1
    _FLOAT = nn.Conv1d
    _OP = ao.conv1d.default


class Conv2d(_Conv):
    """y = quantize(conv2d(x, W) + b), x and y int8 with one scale each, W int8.

    Input `[N, C, H, W]` or `[C, H, W]`; the result has the channels last in memory. State as
    in `nn.quantized.Linear`, `qweight` is `[O, C / groups, *kernel]`.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: int or one number per dimension, as stride, padding and dilation.
        stride: see torch.nn.Conv2d, as all that follow.
        padding: "same" and "valid" too.
        dilation: distance of the taps.
        groups: divides both channel counts.
        bias: with a bias.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        device: of the state.
        dtype: None or torch.float32, that of the bias.

    Example:
        >>> import torch, torch_ao_ext
        >>> nnq = torch_ao_ext.nn.quantized
        >>> x = nnq.Quantize(0.1, 128, torch.quint8)(torch.randn(1, 3, 8, 8))
        >>> nnq.Conv2d(3, 4, 3)(x).shape
        torch.Size([1, 4, 6, 6])
    """

    _RANK = 2
    _FLOAT = nn.Conv2d
    _OP = ao.conv2d.default


class Conv3d(_Conv):
    """y = quantize(conv3d(x, W) + b); arguments as `Conv2d`, input `[N, C, D, H, W]`."""

    _RANK = 3
    _FLOAT = nn.Conv3d
    _OP = ao.conv3d.default


class _ConvTranspose(Transposed, _Conv):
    def forward(self, input: QuantizedTensor, output_size: Any = None) -> QuantizedTensor:
        """`[N, C, *]` or `[C, *]` -> the sizes of the float layer, with the layer's output qparams.

        Args:
            input: quantized tensor.
            output_size: wanted spatial sizes, as in torch.
        """
        data, in_scale, in_point, single = self._input(input)
        extra = self._extra_lines(data, output_size)
        b = self._buffers
        scale, point, dtype = self.qparams
        y = self._OP(
            data, in_scale, in_point, b["qweight"], b["weight_scale"], b["weight_zero_point"], b["qbias"],
            scale, point, dtype, self.stride, self._op_padding, extra, self.groups, self.dilation,
        )  # fmt: skip
        return QuantizedTensor(y.squeeze(0) if single else y, scale, point)


class ConvTranspose1d(_ConvTranspose):
    """y = quantize(conv_transpose1d(x, W) + b); arguments as torch.nn.ConvTranspose1d."""

    _RANK = 1
    _FLOAT = nn.ConvTranspose1d
    _OP = ao.conv_transpose1d.default


class ConvTranspose2d(_ConvTranspose):
    """y = quantize(conv_transpose2d(x, W) + b); arguments as torch.nn.ConvTranspose2d.

    Example:
        >>> import torch, torch_ao_ext
        >>> nnq = torch_ao_ext.nn.quantized
        >>> x = nnq.Quantize(0.1, 128, torch.quint8)(torch.randn(1, 3, 8, 8))
        >>> nnq.ConvTranspose2d(3, 4, 2, stride=2)(x).shape
        torch.Size([1, 4, 16, 16])
    """

    _RANK = 2
    _FLOAT = nn.ConvTranspose2d
    _OP = ao.conv_transpose2d.default


class ConvTranspose3d(_ConvTranspose):
    """y = quantize(conv_transpose3d(x, W) + b); arguments as torch.nn.ConvTranspose3d."""

    _RANK = 3
    _FLOAT = nn.ConvTranspose3d
    _OP = ao.conv_transpose3d.default
