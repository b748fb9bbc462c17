"""Fake-quantize modules: observe, then round to the quantized grid in float, with gradients.

Names, arguments, buffers and arithmetic are those of torch.ao's module; the rounding and its
straight-through gradient are torch's own `fake_quantize_*` operators.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn

from torch_ao_ext.quantization._rounding import (
    ends_of,
    of_scaled_weight,
    rounded,
    takes_scaled_weights,
    takes_values,
)
from torch_ao_ext.quantization.observer import (
    FixedQParamsObserver,
    HistogramObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    _PartialWrapper,
    default_fixed_qparams_range_0to1_observer,
    default_fixed_qparams_range_neg1to1_observer,
)
from torch_ao_ext.quantization.observer._base import (
    _PER_CHANNEL,
    _PER_TENSOR,
    _QINT8,
    _QUINT8,
    _SYMMETRIC,
)

__all__ = [
    "FakeQuantize",
    "FakeQuantizeBase",
    "FixedQParamsFakeQuantize",
    "FusedMovingAvgObsFakeQuantize",
    "default_affine_fixed_qparams_fake_quant",
    "default_dynamic_fake_quant",
    "default_embedding_fake_quant",
    "default_embedding_fake_quant_4bit",
    "default_fake_quant",
    "default_fixed_qparams_range_0to1_fake_quant",
    "default_fixed_qparams_range_neg1to1_fake_quant",
    "default_fused_act_fake_quant",
    "default_fused_per_channel_wt_fake_quant",
    "default_fused_wt_fake_quant",
    "default_histogram_fake_quant",
    "default_per_channel_weight_fake_quant",
    "default_symmetric_fixed_qparams_fake_quant",
    "default_weight_fake_quant",
    "disable_fake_quant",
    "disable_observer",
    "enable_fake_quant",
    "enable_observer",
    "fused_per_channel_wt_fake_quant_range_neg_127_to_127",
    "fused_wt_fake_quant_range_neg_127_to_127",
]


class FakeQuantizeBase(ABC, nn.Module):
    """Base class: two switches, kept as buffers so that DDP replicates them."""

    fake_quant_enabled: torch.Tensor
    observer_enabled: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("fake_quant_enabled", torch.tensor([1], dtype=torch.uint8))
        self.register_buffer("observer_enabled", torch.tensor([1], dtype=torch.uint8))

    @abstractmethod
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Observes x and returns it fake-quantized."""

    @abstractmethod
    def calculate_qparams(self) -> Any:
        """(scale, zero_point)."""

    def of_scaled_weight(self, weight: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """self(weight * factor) / factor, faster where the module is one of this file.

        Args:
            weight: `[N, ...]`, channels on axis 0.
            factor: `[N]`, not 0.
        """
        own = type(self).forward in (FakeQuantize.forward, FusedMovingAvgObsFakeQuantize.forward)
        if own and takes_scaled_weights(self, weight):
            return of_scaled_weight(self, weight, factor)
        factor = factor.reshape([-1] + [1] * (weight.dim() - 1))
        return self(weight * factor) / factor

    @torch.jit.export
    def enable_fake_quant(self, enabled: bool = True) -> None:
        """Round to the quantized grid, or pass values through."""
        self.fake_quant_enabled[0] = 1 if enabled else 0

    @torch.jit.export
    def disable_fake_quant(self) -> None:
        """Pass values through."""
        self.enable_fake_quant(False)

    @torch.jit.export
    def enable_observer(self, enabled: bool = True) -> None:
        """Follow the data, or keep scale and zero point."""
        self.observer_enabled[0] = 1 if enabled else 0

    @torch.jit.export
    def disable_observer(self) -> None:
        """Keep scale and zero point."""
        self.enable_observer(False)

    @classmethod
    def with_args(cls, **kwargs: Any) -> _PartialWrapper:
        """A factory of this class with these arguments."""
        return _PartialWrapper(cls).with_args(**kwargs)


class FakeQuantize(FakeQuantizeBase):
    """y = (clamp(round(x / scale) + zero_point, quant_min, quant_max) - zero_point) * scale.

    The gradient passes where the rounded value lies in [quant_min, quant_max], else it is 0.

    Args:
        observer: class or factory of the observer that gives scale and zero point.
        quant_min: smallest quantized value; with quant_max, within the dtype's range.
        quant_max: largest quantized value.
        is_dynamic: qparams are computed at run time after conversion.
        observer_kwargs: further arguments of the observer.

    Raises:
        ValueError: a range outside the dtype's, or an observer without a scheme per tensor or
            channel.

    Source: Jacob et al. 2018, section 3; Bengio et al. 2013 for the gradient.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization import FakeQuantize
        >>> fake = FakeQuantize(averaging_constant=1.0)
        >>> fake(torch.tensor([0.0, 0.1003, 2.55])).round(decimals=4)
        tensor([0.0000, 0.1000, 2.5500])
    """

    scale: torch.Tensor
    zero_point: torch.Tensor

    def __init__(
        self,
        observer: Any = MovingAverageMinMaxObserver,
        quant_min: int | None = None,
        quant_max: int | None = None,
        is_dynamic: bool = False,
        **observer_kwargs: Any,
    ) -> None:
        super().__init__()
        if quant_min is not None and quant_max is not None:
            self._check_range(observer, quant_min, quant_max, observer_kwargs)
            observer_kwargs.update(quant_min=quant_min, quant_max=quant_max)
        made = observer(is_dynamic=is_dynamic, **observer_kwargs)
        if getattr(made, "qscheme", None) not in _PER_TENSOR + _PER_CHANNEL:
            raise ValueError(
                f"{type(self).__name__}: argument 'observer' must have a qscheme per tensor or per "
                f"channel, got {type(made).__name__} with {getattr(made, 'qscheme', None)}"
            )
        self.activation_post_process = made
        self.quant_min, self.quant_max = made.quant_min, made.quant_max
        self.is_dynamic = made.is_dynamic
        self.dtype, self.qscheme = made.dtype, made.qscheme
        self.ch_axis = getattr(made, "ch_axis", -1)
        self.is_per_channel = made.qscheme in _PER_CHANNEL
        is_float = made.qscheme == torch.per_channel_affine_float_qparams
        self.register_buffer("scale", torch.tensor([1.0]))
        self.register_buffer("zero_point", torch.tensor([0], dtype=torch.float if is_float else torch.int))

    def _check_range(self, observer: Any, quant_min: int, quant_max: int, kwargs: Any) -> None:
        name = type(self).__name__
        if quant_min > quant_max:
            raise ValueError(
                f"{name}: argument 'quant_min' must be at most quant_max ({quant_max}), got {quant_min}"
            )
        keywords = getattr(getattr(observer, "p", None), "keywords", {})
        limits = torch.iinfo(keywords.get("dtype", kwargs.get("dtype", _QUINT8)))
        for argument, value in (("quant_min", quant_min), ("quant_max", quant_max)):
            if not limits.min <= value <= limits.max:
                raise ValueError(
                    f"{name}: argument '{argument}' must be in [{limits.min}, {limits.max}], got {value}"
                )

    @torch.jit.export
    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and zero point of what was observed."""
        return self.activation_post_process.calculate_qparams()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Observes x while enabled, then rounds it; an empty x changes nothing."""
        if self.observer_enabled[0] == 1:
            self.activation_post_process(x.detach())
            if x.numel() > 0:
                scale, zero_point = self.calculate_qparams()
                self.scale.resize_(scale.shape).copy_(scale)
                self.zero_point.resize_(zero_point.shape).copy_(zero_point)
        return self.rounded(x)

    def rounded(self, x: torch.Tensor) -> torch.Tensor:
        """X on the grid, without a look at it; x itself while rounding is disabled."""
        if self.fake_quant_enabled[0] != 1:
            return x
        if self.is_per_channel:
            return torch.fake_quantize_per_channel_affine(
                x, self.scale, self.zero_point, self.ch_axis, self.quant_min, self.quant_max
            )
        if not torch.jit.is_scripting():
            if takes_values(self, x):
                return rounded(self, x)
        return torch.fake_quantize_per_tensor_affine(
            x, self.scale, self.zero_point, self.quant_min, self.quant_max
        )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Per channel, a fresh module has one value each; they take the file's size.
        for name in ("scale", "zero_point"):
            value = state_dict.get(prefix + name)
            if value is not None:
                self._buffers[name].resize_(value.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        """Switches, range and qparams."""
        return (
            f"fake_quant_enabled={self.fake_quant_enabled}, "
            f"observer_enabled={self.observer_enabled}, quant_min={self.quant_min}, "
            f"quant_max={self.quant_max}, dtype={self.dtype}, qscheme={self.qscheme}, "
            f"ch_axis={self.ch_axis}, scale={self.scale}, zero_point={self.zero_point}"
        )


class FixedQParamsFakeQuantize(FakeQuantize):
    """FakeQuantize with the qparams of a FixedQParamsObserver.

    Args:
        observer: factory of a FixedQParamsObserver.
    """

    def __init__(self, observer: Any) -> None:
        super().__init__(observer=observer)
        if type(self.activation_post_process) is not FixedQParamsObserver:
            raise ValueError(
                "FixedQParamsFakeQuantize: argument 'observer' must make a FixedQParamsObserver, got "
                f"{type(self.activation_post_process).__name__}"
            )
        self._observer_ctr = observer
        self.scale = self.activation_post_process.scale
        self.zero_point = self.activation_post_process.zero_point

    @torch.jit.export
    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The fixed scale `[1]` and zero point `[1]`."""
        return self.scale, self.zero_point


class FusedMovingAvgObsFakeQuantize(FakeQuantize):
    """FakeQuantize whose moving average, qparams and rounding are one operator of torch.

    Args:
        observer: class or factory of a moving-average observer, whose state it shares.
        quant_min: smallest quantized value.
        quant_max: largest quantized value.
        observer_kwargs: further arguments of the observer.
    """

    def __init__(
        self,
        observer: Any = MovingAverageMinMaxObserver,
        quant_min: int = 0,
        quant_max: int = 255,
        **observer_kwargs: Any,
    ) -> None:
        super().__init__(observer, quant_min, quant_max, **observer_kwargs)
        kinds = (MovingAverageMinMaxObserver, MovingAveragePerChannelMinMaxObserver)
        if not isinstance(self.activation_post_process, kinds):
            raise ValueError(
                "FusedMovingAvgObsFakeQuantize: argument 'observer' must be a moving-average "
                f"observer, got {type(self.activation_post_process).__name__}"
            )
        # What the operator takes; torch.ao's files have this dtype too.
        self.register_buffer("fake_quant_enabled", torch.tensor([1], dtype=torch.long))
        self.register_buffer("observer_enabled", torch.tensor([1], dtype=torch.long))
        self.is_symmetric_quant = self.qscheme in _SYMMETRIC

    @torch.jit.export
    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and zero point that forward rounds with; the observer's when it does not round.

        The operator's symmetric scale is max(-min / 128, max / 127), the observer's
        max(-min, max) / 127.5. torch.ao converts with the latter, so that its int8 weights are
        not those that were trained.
        """
        scale, zero_point = self.activation_post_process.calculate_qparams()
        # Not close: ranges were observed that no forward has rounded with yet.
        current = self.scale.shape == scale.shape and torch.allclose(self.scale, scale, rtol=0.01, atol=0.0)
        if current and bool(self.fake_quant_enabled[0]):
            return self.scale, self.zero_point
        return scale, zero_point

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Observes x while enabled, then rounds it; an empty x changes nothing."""
        if x.numel() == 0:
            return x
        if torch.jit.is_scripting():
            return self._fused(x)
        elif torch.jit.is_tracing() and torch.onnx.is_in_onnx_export():
            return self.rounded(x)  # ONNX has no operator that observes
        elif takes_values(self, x) and self.fake_quant_enabled[0] == 1:
            if self.observer_enabled[0] == 1:
                self._fused(ends_of(x))  # all that it reads of x for its qparams
            return self.rounded(x)
        else:
            return self._fused(x)

    def _fused(self, x: torch.Tensor) -> torch.Tensor:
        observer = self.activation_post_process
        # The operator takes channels on axis 0 only; transposed convolutions have them on axis 1.
        moved = self.is_per_channel and self.ch_axis != 0
        y = torch.fused_moving_avg_obs_fake_quant(
            x.transpose(0, self.ch_axis).contiguous() if moved else x,
            self.observer_enabled,
            self.fake_quant_enabled,
            observer.min_val,
            observer.max_val,
            self.scale,
            self.zero_point,
            observer.averaging_constant,
            self.quant_min,
            self.quant_max,
            0 if moved else self.ch_axis,
            self.is_per_channel,
            self.is_symmetric_quant,
        )
        return y.transpose(0, self.ch_axis) if moved else y


_ACTIVATION = {"quant_min": 0, "quant_max": 255, "dtype": _QUINT8}
_WEIGHT = {"quant_min": -128, "quant_max": 127, "dtype": _QINT8}
_NARROW_WEIGHT = {"quant_min": -127, "quant_max": 127, "dtype": _QINT8, "eps": 2**-12}
_TENSOR = {"observer": MovingAverageMinMaxObserver, "qscheme": torch.per_tensor_symmetric}
_CHANNEL = {
    "observer": MovingAveragePerChannelMinMaxObserver,
    "qscheme": torch.per_channel_symmetric,
}
# Rows of embedding tables.
_ROWS = {
    "observer": MovingAveragePerChannelMinMaxObserver,
    "qscheme": torch.per_channel_affine_float_qparams,
    "ch_axis": 0,
    "averaging_constant": 1,
}

default_fake_quant = FakeQuantize.with_args(
    observer=MovingAverageMinMaxObserver,
    qscheme=torch.per_tensor_affine,
    reduce_range=True,
    **_ACTIVATION,
)
default_histogram_fake_quant = FakeQuantize.with_args(
    observer=HistogramObserver, qscheme=torch.per_tensor_affine, reduce_range=True, **_ACTIVATION
)
default_dynamic_fake_quant = FakeQuantize.with_args(
    observer=MovingAverageMinMaxObserver, is_dynamic=True, averaging_constant=1, **_ACTIVATION
)
default_weight_fake_quant = FakeQuantize.with_args(reduce_range=False, **_TENSOR, **_WEIGHT)
default_per_channel_weight_fake_quant = FakeQuantize.with_args(
    reduce_range=False, ch_axis=0, **_CHANNEL, **_WEIGHT
)
default_embedding_fake_quant = FakeQuantize.with_args(**_ROWS, **_ACTIVATION)
default_embedding_fake_quant_4bit = FakeQuantize.with_args(dtype=getattr(torch, "quint4x2", None), **_ROWS)
default_fixed_qparams_range_neg1to1_fake_quant = FixedQParamsFakeQuantize.with_args(
    observer=default_fixed_qparams_range_neg1to1_observer
)
default_fixed_qparams_range_0to1_fake_quant = FixedQParamsFakeQuantize.with_args(
    observer=default_fixed_qparams_range_0to1_observer
)
default_symmetric_fixed_qparams_fake_quant = default_fixed_qparams_range_neg1to1_fake_quant
default_affine_fixed_qparams_fake_quant = default_fixed_qparams_range_0to1_fake_quant
default_fused_act_fake_quant = FusedMovingAvgObsFakeQuantize.with_args(
    observer=MovingAverageMinMaxObserver, **_ACTIVATION
)
default_fused_wt_fake_quant = FusedMovingAvgObsFakeQuantize.with_args(**_TENSOR, **_WEIGHT)
default_fused_per_channel_wt_fake_quant = FusedMovingAvgObsFakeQuantize.with_args(**_CHANNEL, **_WEIGHT)
fused_wt_fake_quant_range_neg_127_to_127 = FusedMovingAvgObsFakeQuantize.with_args(
    **_TENSOR, **_NARROW_WEIGHT
)
fused_per_channel_wt_fake_quant_range_neg_127_to_127 = FusedMovingAvgObsFakeQuantize.with_args(
    **_CHANNEL, **_NARROW_WEIGHT
)


def _has_switches(mod: nn.Module) -> bool:
    """Whether it is a FakeQuantize, or the script of one."""
    scripted = isinstance(mod, torch.jit.ScriptModule) and hasattr(mod, "enable_fake_quant")
    return scripted or isinstance(mod, FakeQuantizeBase)


def enable_fake_quant(mod: nn.Module) -> None:
    """For `model.apply`: fake-quantize in every FakeQuantize."""
    if _has_switches(mod):
        mod.enable_fake_quant()


def disable_fake_quant(mod: nn.Module) -> None:
    """For `model.apply`: pass values through every FakeQuantize."""
    if _has_switches(mod):
        mod.disable_fake_quant()


def enable_observer(mod: nn.Module) -> None:
    """For `model.apply`: let every FakeQuantize follow the data."""
    if _has_switches(mod):
        mod.enable_observer()


def disable_observer(mod: nn.Module) -> None:
    """For `model.apply`: keep every FakeQuantize's scale and zero point."""
    if _has_switches(mod):
        mod.disable_observer()
