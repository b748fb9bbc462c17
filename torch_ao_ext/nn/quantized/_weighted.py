"""A module with an int8 weight: its state, accessors, loading and moving."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized._observed import QuantizedWeight
from torch_ao_ext.nn.quantized._state import CheckedLoad, keep_dtypes
from torch_ao_ext.nn.quantized._weight import check_finite

__all__ = ["FORMAT_VERSION", "WeightedModule", "weight_of_tensor"]

FORMAT_VERSION = 1


def weight_of_tensor(w: Any, axis: int) -> QuantizedWeight:
    """Integers and qparams of a quantized tensor, ours or torch's own.

    Args:
        w: has `int_repr()` and `qscheme()`.
        axis: of the output channels; 0 is right, too.

    Raises:
        ValueError: quantized along another axis.
    """
    if w.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        scale = torch.tensor([w.q_scale()], dtype=torch.float32)
        point = torch.tensor([w.q_zero_point()], dtype=torch.int32)
    else:
        if w.q_per_channel_axis() not in (0, axis):
            raise ValueError(
                f"must be quantized along axis {axis}, got axis {w.q_per_channel_axis()}"
            )
        scale = w.q_per_channel_scales().to(torch.float32)
        point = w.q_per_channel_zero_points().to(torch.int32)
    return QuantizedWeight(w.int_repr(), scale, point if bool(point.any()) else None)


class WeightedModule(CheckedLoad):
    """Buffers `qweight`, `weight_scale`, `weight_zero_point`, `qbias`, `format_version`.

    Args:
        shape: of the weight.
        channels: N, output channels.
        bias: with a bias.
    """

    # Axis of the weight along which torch.ao names per-channel scales.
    _CHANNEL_AXIS = 0
    _FORMAT_VERSION = FORMAT_VERSION

    qweight: torch.Tensor
    weight_scale: torch.Tensor
    weight_zero_point: torch.Tensor | None
    qbias: torch.Tensor | None

    def __init__(self, shape: tuple[int, ...], channels: int, bias: bool) -> None:
        super().__init__()
        self._channels = channels
        self.register_buffer("qweight", torch.zeros(shape, dtype=torch.int8))
        self.register_buffer("weight_scale", torch.ones(channels))
        self.register_buffer("weight_zero_point", None)
        self.register_buffer("qbias", torch.zeros(channels) if bias else None)
        self.register_buffer("format_version", torch.tensor(FORMAT_VERSION))

    def weight(self) -> QuantizedTensor:
        """The int8 weight with its qparams (shares memory)."""
        return QuantizedTensor(self.qweight, self.weight_scale, self.weight_zero_point)

    def bias(self) -> torch.Tensor | None:
        """The float32 bias `[N]`, or None."""
        return self.qbias

    def set_weight_bias(self, w: Any, b: torch.Tensor | None) -> None:
        """Replaces weight and bias.

        Args:
            w: QuantizedTensor, or any object with `int_repr()` and `qscheme()` of a
                per-tensor or per-channel int8 weight of the layer's shape.
            b: float `[N]`, or None.

        Raises:
            ValueError: wrong shape or dtype.
        """
        try:
            weight = weight_of_tensor(w, self._CHANNEL_AXIS)
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}.set_weight_bias: argument 'w' {error}") from error
        self._set_state(weight, b)

    @classmethod
    def _rows_of(cls, weight: torch.Tensor, product: nn.Module) -> torch.Tensor:
        """`[N, K]`: each row is what makes one output channel of the float layer."""
        return weight

    def _set_weight(self, product: Any, weight: QuantizedWeight) -> None:
        """Rows `[N, K]` in the layout of the float weight, and the bias."""
        self._set_state(weight, product.bias)

    def _set_state(self, weight: QuantizedWeight, bias: torch.Tensor | None) -> None:
        shape, channels = tuple(self.qweight.shape), self._channels
        if weight.data.dtype != torch.int8 or tuple(weight.data.shape) != shape:
            raise ValueError(
                f"{type(self).__name__}: argument 'weight' must be int8 {list(shape)}, "
                f"got {weight.data.dtype} {list(weight.data.shape)}"
            )
        if bias is not None:
            if tuple(bias.shape) != (channels,):
                raise ValueError(
                    f"{type(self).__name__}: argument 'bias' must be [{channels}], "
                    f"got {list(bias.shape)}"
                )
            if not bias.is_floating_point():
                raise ValueError(
                    f"{type(self).__name__}: argument 'bias' must be a float tensor, got {bias.dtype}"
                )
            check_finite(bias, "bias")
            bias = bias.detach().to(torch.float32, copy=True).contiguous()
        self.qweight = weight.data.contiguous()
        self.weight_scale = weight.scale
        self.weight_zero_point = weight.zero_point
        self.qbias = bias

    def _apply(self, fn: Any, recurse: bool = True) -> "WeightedModule":
        inner = super()._apply
        keep_dtypes(self, ("weight_scale", "qbias"), lambda: inner(fn, recurse))
        return self

    def _take_form(self, state_dict: dict[str, Any], prefix: str) -> str | None:
        # The optional and variable-shaped buffers take the form they have in the file.
        # A buffer that has this form already is kept: tied layers share it.
        scale = state_dict.get(prefix + "weight_scale")
        if (
            scale is not None
            and scale.shape != self.weight_scale.shape
            and scale.shape in ((1,), (self._channels,))
        ):
            self.weight_scale = torch.empty(scale.shape, device=self.weight_scale.device)
        if prefix + "qweight" in state_dict:
            self._match_optional(state_dict, prefix, "weight_zero_point", torch.int32)
            self._match_optional(state_dict, prefix, "qbias", torch.float32)
        return None

    def _match_optional(
        self, state_dict: dict[str, Any], prefix: str, name: str, dtype: torch.dtype
    ) -> None:
        value = state_dict.get(prefix + name)
        if value is None:
            self._buffers[name] = None
        elif self._buffers[name] is None or self._buffers[name].shape != value.shape:
            if value.shape in ((1,), (self._channels,)):
                self._buffers[name] = torch.empty(
                    value.shape, dtype=dtype, device=self.qweight.device
                )
