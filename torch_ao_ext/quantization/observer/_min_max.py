"""Observers that keep a minimum and a maximum."""

import math
from typing import Any

import torch

from torch_ao_ext.quantization.observer._base import (
    _PER_CHANNEL,
    _PER_TENSOR,
    _QUINT8,
    UniformQuantizationObserverBase,
    _finite_values,
    _require_scheme,
)
from torch_ao_ext.quantization.observer._extremes import extremes, row_extremes


class MinMaxObserver(UniformQuantizationObserverBase):
    """Running minimum and maximum of everything seen; `[*] -> scale [1]`.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization.observer import default_weight_observer
        >>> observer = default_weight_observer()
        >>> _ = observer(torch.tensor([[-1.0, 0.5]]))
        >>> scale, zero_point = observer.calculate_qparams()
        >>> (round(scale.item() * 127.5, 4), zero_point.item())
        (1.0, 0)
    """

    min_val: torch.Tensor
    max_val: torch.Tensor

    def __init__(
        self,
        dtype: torch.dtype = _QUINT8,
        qscheme: torch.qscheme = torch.per_tensor_affine,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        _require_scheme("MinMaxObserver", qscheme, _PER_TENSOR)
        super().__init__(dtype, qscheme, *args, **kwargs)
        self.register_buffer("min_val", torch.tensor(float("inf"), **self._factory_kwargs))
        self.register_buffer("max_val", torch.tensor(float("-inf"), **self._factory_kwargs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Widens the range by x; an empty x changes nothing."""
        found = self._range_of(x)
        if found is not None:
            self.min_val.copy_(torch.min(found[0], self.min_val))
            self.max_val.copy_(torch.max(found[1], self.max_val))
        return x

    def _range_of(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        values = x.detach().to(self.min_val.dtype)
        if values.numel() == 0:
            return None
        low, high = extremes(values)
        if not (math.isfinite(float(low)) and math.isfinite(float(high))):
            values = _finite_values(self._called(), values)
            if values.numel() == 0:
                return None
            low, high = extremes(values)
        return low, high

    @torch.jit.export
    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale float32 `[1]` and zero point `[1]`."""
        return self._calculate_qparams(self.min_val, self.max_val)

    @torch.jit.export
    def reset_min_max_vals(self) -> None:
        """Forgets what was seen."""
        self.min_val.fill_(float("inf"))
        self.max_val.fill_(float("-inf"))

    def extra_repr(self) -> str:
        """The range seen."""
        return f"min_val={self.min_val}, max_val={self.max_val}"


class MovingAverageMinMaxObserver(MinMaxObserver):
    """Minimum and maximum that follow the data; `[*] -> scale [1]`.

    low += averaging_constant * (min(x) - low), and so for the maximum; the first x is taken whole.

    Args:
        averaging_constant: weight of what is new, in [0, 1].
        dtype: see UniformQuantizationObserverBase, as the other arguments.
        qscheme: per_tensor_affine or per_tensor_symmetric.
    """

    def __init__(
        self,
        averaging_constant: float = 0.01,
        dtype: torch.dtype = _QUINT8,
        qscheme: torch.qscheme = torch.per_tensor_affine,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype, qscheme, *args, **kwargs)
        self.averaging_constant = averaging_constant
        if self.is_dynamic and averaging_constant != 1:
            raise NotImplementedError(
                "MovingAverageMinMaxObserver: argument 'averaging_constant' must be 1 when "
                f"is_dynamic, got {averaging_constant}"
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Moves the range towards that of x; an empty x changes nothing."""
        found = self._range_of(x)
        if found is not None:
            low, high = found
            if self._observed(self.min_val):
                low = self.min_val + self.averaging_constant * (low - self.min_val)
                high = self.max_val + self.averaging_constant * (high - self.max_val)
            self.min_val.copy_(low)
            self.max_val.copy_(high)
        return x


class PerChannelMinMaxObserver(UniformQuantizationObserverBase):
    """Running minimum and maximum per channel; `[A, B], ch_axis 0 -> scale [A]`."""

    min_val: torch.Tensor
    max_val: torch.Tensor

    def __init__(
        self,
        ch_axis: int = 0,
        dtype: torch.dtype = _QUINT8,
        qscheme: torch.qscheme = torch.per_channel_affine,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        _require_scheme("PerChannelMinMaxObserver", qscheme, _PER_CHANNEL)
        super().__init__(dtype, qscheme, *args, **kwargs)
        if self.is_dynamic:
            raise NotImplementedError(
                "PerChannelMinMaxObserver: argument 'is_dynamic' must be False, got True"
            )
        self.ch_axis = ch_axis
        self.register_buffer("min_val", torch.tensor([], **self._factory_kwargs))
        self.register_buffer("max_val", torch.tensor([], **self._factory_kwargs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Widens each channel's range by x; an empty x changes nothing."""
        if x.numel() > 0:
            low, high = self._ranges_of(x)
            if self.min_val.numel() > 0:
                low, high = torch.min(low, self.min_val), torch.max(high, self.max_val)
            self._keep(low, high)
        return x

    def _ranges_of(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = x.detach().transpose(0, self.ch_axis).to(self.min_val.dtype).flatten(1)
        low, high = row_extremes(y)
        bad = ~(low.isfinite() & high.isfinite())
        if bool(bad.any()):
            raise ValueError(
                f"{self._called()}: argument 'x' must hold finite values, got others in "
                f"{int(bad.sum())} of {bad.numel()} channels, the first {int(bad.nonzero()[0])}"
            )
        if self.min_val.numel() not in (0, low.numel()):
            raise ValueError(
                f"{self._called()}: argument 'x' must have {self.min_val.numel()} channels in "
                f"dimension {self.ch_axis}, as before, got {low.numel()}"
            )
        return low, high

    def _keep(self, low: torch.Tensor, high: torch.Tensor) -> None:
        self.min_val.resize_(low.shape).copy_(low)
        self.max_val.resize_(high.shape).copy_(high)

    @torch.jit.export
    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale float32 `[channels]` and zero point `[channels]`."""
        return self._calculate_qparams(self.min_val, self.max_val)

    @torch.jit.export
    def reset_min_max_vals(self) -> None:
        """Forgets what was seen."""
        self.min_val = self.min_val.new_empty([0])
        self.max_val = self.max_val.new_empty([0])

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # A fresh observer has empty buffers; they take the file's size.
        for name in ("min_val", "max_val"):
            if f"{prefix}{name}s" in state_dict:  # version 1
                state_dict[prefix + name] = state_dict.pop(f"{prefix}{name}s")
            value = state_dict.get(prefix + name)
            if value is not None:
                self._buffers[name].resize_(value.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        """The ranges seen."""
        return f"min_val={self.min_val}, max_val={self.max_val}"


class MovingAveragePerChannelMinMaxObserver(PerChannelMinMaxObserver):
    """MovingAverageMinMaxObserver for each channel; `[A, B], ch_axis 0 -> scale [A]`."""

    def __init__(
        self,
        averaging_constant: float = 0.01,
        ch_axis: int = 0,
        dtype: torch.dtype = _QUINT8,
        qscheme: torch.qscheme = torch.per_channel_affine,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(ch_axis, dtype, qscheme, *args, **kwargs)
        self.averaging_constant = averaging_constant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Moves each channel's range towards that of x; an empty x changes nothing."""
        if x.numel() > 0:
            low, high = self._ranges_of(x)
            if self.min_val.numel() > 0:
                low = self.min_val + self.averaging_constant * (low - self.min_val)
                high = self.max_val + self.averaging_constant * (high - self.max_val)
            self._keep(low, high)
        return x
