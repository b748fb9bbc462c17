"""HistogramObserver: the range that quantizes what was seen with the least squared error."""

from typing import Any

import torch

from torch_ao_ext.quantization.observer._base import (
    _EPS,
    _PACKED,
    _PER_TENSOR,
    _QUINT8,
    _WIDE,
    UniformQuantizationObserverBase,
    _finite_values,
    _require_scheme,
)
from torch_ao_ext.quantization.observer._extremes import extremes

_ops = torch.ops.torch_ao


class HistogramObserver(UniformQuantizationObserverBase):
    """Histogram of everything seen; `[*] -> scale [1]`.

    The histogram spans the smallest to the largest finite value; a wider x widens it (each old bin
    in 16 parts). `calculate_qparams` narrows that range by quantiles of 1e-5 as long as the squared
    quantization error falls. Memory is `bins` floats whatever the data.

    Args:
        bins: number of bins, 1 to 2^20.
        dtype: see UniformQuantizationObserverBase, as the other arguments.
        qscheme: per_tensor_affine or per_tensor_symmetric.
        reduce_range: halve the range.
        quant_min: smallest quantized value.
        quant_max: largest quantized value.
        factory_kwargs: `{"device": ...}` for the buffers.
        eps: smallest scale.
        is_dynamic: must be False.

    Raises:
        ValueError: a NaN in x, or a range whose product with `bins` float32 cannot hold.

    Source: caffe2's NormMinimization, as torch.ao's HistogramObserver has it: the same qparams.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization.observer import HistogramObserver
        >>> observer = HistogramObserver()
        >>> _ = observer(torch.linspace(-1, 1, 4096))
        >>> scale, zero_point = observer.calculate_qparams()
        >>> (round(scale.item() * 255, 2), zero_point.item())
        (2.0, 128)
    """

    histogram: torch.Tensor
    min_val: torch.Tensor
    max_val: torch.Tensor

    def __init__(
        self,
        bins: int = 2048,
        dtype: torch.dtype = _QUINT8,
        qscheme: torch.qscheme = torch.per_tensor_affine,
        reduce_range: bool = False,
        quant_min: int | None = None,
        quant_max: int | None = None,
        factory_kwargs: dict[str, Any] | None = None,
        eps: float = _EPS,
        is_dynamic: bool = False,
        **kwargs: Any,
    ) -> None:
        name = "HistogramObserver"
        _require_scheme(name, qscheme, _PER_TENSOR)
        if is_dynamic:
            raise NotImplementedError(f"{name}: argument 'is_dynamic' must be False, got True")
        if not 1 <= bins <= 1 << 20:
            raise ValueError(f"{name}: argument 'bins' must be in [1, 2^20], got {bins}")
        if dtype in _PACKED or dtype in _WIDE:
            raise ValueError(f"{name}: argument 'dtype' must be an 8-bit dtype, got {dtype}")
        super().__init__(dtype, qscheme, reduce_range, quant_min, quant_max, factory_kwargs, eps, **kwargs)
        self.bins = bins
        self.dst_nbins = 256
        self.upsample_rate = 16  # of _histogram_widen
        self.register_buffer("histogram", torch.zeros(bins, **self._factory_kwargs))
        self.register_buffer("min_val", torch.tensor(float("inf"), **self._factory_kwargs))
        self.register_buffer("max_val", torch.tensor(float("-inf"), **self._factory_kwargs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Counts the values of x; an empty x changes nothing, infinities are left out."""
        values = x.detach().to(self.histogram.dtype)
        if values.numel() == 0:
            return x
        ends = extremes(values)
        low, high = float(ends[0]), float(ends[1])
        if not abs(low) + abs(high) < float("inf"):
            values = _finite_values(self._called(), values)
            if values.numel() == 0:
                return x
            ends = extremes(values)
            low, high = float(ends[0]), float(ends[1])
        if self._observed(self.min_val):
            old_low, old_high = float(self.min_val), float(self.max_val)
            low, high = min(low, old_low), max(high, old_high)
            counts = self._count(values, low, high) + self._widened(old_low, old_high, low, high)
        else:
            counts = self._count(values, low, high)
        # All at once: an x that raises leaves the observer as it was.
        self.histogram.copy_(counts)
        self.min_val.fill_(low)
        self.max_val.fill_(high)
        return x

    def _count(self, values: torch.Tensor, low: float, high: float) -> torch.Tensor:
        if low == high:  # as torch.histc: one unit to both sides
            low, high = low - 1.0, high + 1.0
        return _ops._histogram(values, self.bins, low, high)

    def _widened(self, old_low: float, old_high: float, low: float, high: float) -> torch.Tensor:
        """What was counted, over the new range."""
        if old_low == low and old_high == high:
            return self.histogram
        if old_low == old_high:
            place = self._count(torch.tensor([old_low]), low, high)
            return place * self.histogram.sum()
        return _ops._histogram_widen(self.histogram, old_low, old_high, low, high)

    def reset_histogram(self, x: torch.Tensor, min_val: torch.Tensor, max_val: torch.Tensor) -> None:
        """Forgets what was seen and counts x over [min_val, max_val]."""
        low, high = float(min_val), float(max_val)
        self.histogram.copy_(self._count(x.detach().to(self.histogram.dtype), low, high))
        self.min_val.fill_(low)
        self.max_val.fill_(high)

    @torch.jit.export
    def reset_min_max_vals(self) -> None:
        """Forgets what was seen."""
        self.histogram.zero_()
        self.min_val.fill_(float("inf"))
        self.max_val.fill_(float("-inf"))

    @torch.jit.export
    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale float32 `[1]` and zero point `[1]`."""
        if not self._observed(self.min_val):
            return self._calculate_qparams(self.min_val, self.max_val)
        low, high = float(self.min_val), float(self.max_val)
        found = _ops._histogram_search(self.histogram, low, high, self.dst_nbins)
        first, last = float(found[0]), float(found[1])
        width = (self.max_val - self.min_val) / self.bins
        return self._calculate_qparams(self.min_val + width * first, self.min_val + width * (last + 1))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        for name, fresh in (("min_val", "inf"), ("max_val", "-inf")):
            value = state_dict.get(prefix + name)
            if value is not None and value.shape == (0,):  # version 2
                state_dict[prefix + name] = torch.tensor(float(fresh))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        """The range seen."""
        return f"min_val={self.min_val}, max_val={self.max_val}"
