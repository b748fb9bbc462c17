"""Convolutions and transposed convolutions between quantized tensors."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized._conv import ConvBase, Transposed
from torch_ao_ext.nn.quantized._padding import pad
from torch_ao_ext.nn.quantized._reference import reference_layer, reference_weight
from torch_ao_ext.nn.quantized._static import (
    QuantizedOutput,
    integers,
    observer_of,
    output_qparams,
    product_of,
    static_weight,
)

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]

ao = torch.ops.torch_ao


class _Conv(QuantizedOutput, ConvBase):
    """Between quantized tensors."""

    _CONVERTER = "convert"
    _POST_OPS = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
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

    def forward(self, x: QuantizedTensor) -> QuantizedTensor:
        """`[N, C, *]` or `[C, *]` -> the sizes of the float layer, with the layer's output qparams.

        Raises:
            TypeError: a float tensor.
        """
        # Between two convolutions Python runs with cold caches: no calls in the usual case.
        usual = type(x) is QuantizedTensor and type(x._scale) is float and self._before is None
        if not usual or x._data.dim() != self._RANK + 2:
            return self._run(x)
        b = self._buffers
        scale, point, dtype = self.qparams
        y = self._OP(
            x._data, x._scale, x._zero_point, b["qweight"], b["weight_scale"], b["weight_zero_point"],
            b["qbias"], scale, point, dtype, self.stride, self._op_padding, self.dilation, self.groups,
            self._POST_OPS,
        )  # fmt: skip
        return QuantizedTensor(y, scale, point)

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> "_Conv":
        """Quantized copy of a float layer with qconfig and observed output.

        Args:
            mod: the float class of this name, or the container of this layer's name in
                `nn.intrinsic`. Transposed convolutions take per-channel qconfigs, too.
            use_precomputed_fake_quant: see `Linear.from_float`.

        Raises:
            ValueError: another type, no qconfig or observer, a weight that is not finite, a
                qconfig that is not for int8.
        """
        conv = product_of(mod)
        if not isinstance(conv, cls._FLOAT):
            raise ValueError(
                f"{cls.__name__}.from_float: argument 'mod' must be nn.{cls._FLOAT.__name__} or hold one, "
                f"got {type(mod).__name__}"
            )
        scale, point, dtype = output_qparams(observer_of(mod, cls.__name__), cls.__name__)
        new = cls(**cls._arguments(conv))
        weight = static_weight(
            mod, conv, use_precomputed_fake_quant, lambda w: cls._rows(w, conv.groups)
        )
        new._set_weight(conv, weight)
        new.set_output(scale, point, dtype)
        return new.train(mod.training)

    @classmethod
    def from_reference(cls, ref: nn.Module, output_scale: float, output_zero_point: int) -> "_Conv":
        """Quantized copy of a reference layer.

        Args:
            ref: layer of `nn.quantized.reference` with a qint8 weight; for a class with an
                activation, its container in `nn.intrinsic`.
            output_scale: real units per step of the output, which is quint8.
            output_zero_point: the integer of real 0.

        Raises:
            ValueError: another type, a weight of another dtype or axis.
        """
        conv = reference_layer(cls.__name__, ref, cls._FLOAT, held=bool(cls._POST_OPS))
        new = cls(**cls._arguments(conv))
        weight = reference_weight(cls.__name__, conv, cls._CHANNEL_AXIS)
        new._set_state(weight, conv.bias)
        new.set_output(output_scale, output_zero_point, torch.uint8)
        return new.train(ref.training)

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
    def forward(self, x: QuantizedTensor, output_size: Any = None) -> QuantizedTensor:
        """`[N, C, *]` or `[C, *]` -> the sizes of the float layer, with the layer's output qparams.

        Args:
            x: quantized tensor.
            output_size: wanted spatial sizes, as in torch.
        """
        data, in_scale, in_point, single = self._input(x)
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
