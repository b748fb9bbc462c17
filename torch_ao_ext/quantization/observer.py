"""Observers: statistics of tensors and the qparams that follow from them.

Names, constructor arguments and arithmetic are those of torch.ao's observer
module; dtypes are accepted in both spellings (torch.int8 and torch.qint8).
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from torch_ao_ext.nn.quantized._weight import symmetric_row_scale
from torch_ao_ext.nn.quantized.dynamic.modules.linear import DynamicQuant

__all__ = [
    "ChannelWeightObserver",
    "MinMaxObserver",
    "ObserverBase",
    "PerChannelMinMaxObserver",
    "PlaceholderObserver",
    "RowPlaceholderObserver",
    "UniformQuantizationObserverBase",
    "default_channel_weight_observer",
    "default_dynamic_quant_observer",
    "default_float_qparams_observer",
    "default_float_qparams_observer_4bit",
    "default_per_channel_weight_observer",
    "default_placeholder_observer",
    "default_row_quant_observer",
    "default_weight_observer",
    "mse_channel_weight_observer",
    "per_channel_weight_observer_range_neg_127_to_127",
    "weight_observer_range_neg_127_to_127",
]

# torch's quantized dtypes go away; until then they are spellings of these.
_QINT8 = getattr(torch, "qint8", torch.int8)
_QUINT8 = getattr(torch, "quint8", torch.uint8)
_SIGNED = (torch.int8, _QINT8)
_UNSIGNED = (torch.uint8, _QUINT8)
# Packed widths of embedding rows: largest value by dtype.
_PACKED = {
    getattr(torch, name): most for name, most in (("quint4x2", 15), ("quint2x4", 3)) if hasattr(torch, name)
}
_EPS = torch.finfo(torch.float32).eps

_SYMMETRIC = (torch.per_tensor_symmetric, torch.per_channel_symmetric)


class _PartialWrapper:
    """A factory: calling it makes an observer, `with_args` gives one with more arguments."""

    def __init__(self, p: Callable[..., Any]) -> None:
        self.p = p
        self.callable_args: dict[str, Callable[[], Any]] = {}

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        for name, make in self.callable_args.items():
            keywords.setdefault(name, make())
        return self.p(*args, **keywords)

    def __repr__(self) -> str:
        return repr(self.p) + repr(self.callable_args)

    def with_args(self, **kwargs: Any) -> "_PartialWrapper":
        """A factory that passes these arguments as well."""
        result = _PartialWrapper(partial(self.p, **kwargs))
        result.callable_args = dict(self.callable_args)
        return result

    def with_callable_args(self, **kwargs: Callable[[], Any]) -> "_PartialWrapper":
        """A factory whose arguments are computed when it is called."""
        result = _PartialWrapper(self.p)
        result.callable_args = {**self.callable_args, **kwargs}
        return result


class ObserverBase(ABC, nn.Module):
    """Base class: `forward` records, `calculate_qparams` answers.

    Args:
        dtype: dtype of the quantized values.
        is_dynamic: qparams are computed at run time, not from recorded values.
    """

    def __init__(self, dtype: torch.dtype, is_dynamic: bool = False) -> None:
        super().__init__()
        self.dtype = dtype
        self.is_dynamic = is_dynamic

    @abstractmethod
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Records x and returns it."""

    @abstractmethod
    def calculate_qparams(self) -> Any:
        """(scale, zero_point)."""

    @classmethod
    def with_args(cls, **kwargs: Any) -> _PartialWrapper:
        """A factory of this class with these arguments.

        Example:
            >>> from torch_ao_ext.quantization.observer import MinMaxObserver
            >>> factory = MinMaxObserver.with_args(quant_min=0).with_args(quant_max=127)
            >>> factory().quant_max
            127
        """
        return _PartialWrapper(partial(cls, **kwargs))

    @classmethod
    def with_callable_args(cls, **kwargs: Callable[[], Any]) -> _PartialWrapper:
        """A factory whose arguments are computed when it is called."""
        return _PartialWrapper(cls).with_callable_args(**kwargs)


def _quant_range(
    dtype: torch.dtype, quant_min: int | None, quant_max: int | None, reduce_range: bool
) -> tuple[int, int]:
    if quant_min is not None and quant_max is not None:
        if not quant_min <= 0 <= quant_max or quant_min >= quant_max:
            raise ValueError(
                "observer: arguments 'quant_min', 'quant_max' must be a range that includes 0, "
                f"got [{quant_min}, {quant_max}]"
            )
        if quant_max - quant_min > 255:
            raise ValueError(
                "observer: arguments 'quant_min', 'quant_max' must span at most 256 values, "
                f"got [{quant_min}, {quant_max}]"
            )
        return (quant_min // 2, quant_max // 2) if reduce_range else (quant_min, quant_max)
    if dtype in _PACKED:
        return (0, _PACKED[dtype])
    if dtype in _SIGNED:
        return (-64, 63) if reduce_range else (-128, 127)
    return (0, 127) if reduce_range else (0, 255)


class UniformQuantizationObserverBase(ObserverBase):
    """Scale and zero point from a minimum and a maximum.

    symmetric: scale = max(-min, max) / ((quant_max - quant_min) / 2), zero point 0
    (128 for uint8). affine: scale = (max - min) / (quant_max - quant_min),
    zero_point = clamp(quant_min - round(min / scale)), where the range includes 0.
    Scales are at least eps. per_channel_affine_float_qparams: the range need not
    include 0, zero_point = -min / scale is a float, scales up to eps become 1.

    Args:
        dtype: torch.int8 / qint8, torch.uint8 / quint8, or quint4x2, quint2x4.
        qscheme: per_tensor_ or per_channel_, affine or symmetric, or
            per_channel_affine_float_qparams.
        reduce_range: halve the range.
        quant_min: smallest quantized value; with quant_max, replaces the dtype's range.
        quant_max: largest quantized value.
        factory_kwargs: `{"device": ...}` for the buffers.
        eps: smallest scale.
        is_dynamic: see ObserverBase.

    Raises:
        ValueError: unsupported dtype, qscheme or range.
    """

    eps: torch.Tensor

    def __init__(
        self,
        dtype: torch.dtype = _QUINT8,
        qscheme: torch.qscheme = torch.per_tensor_affine,
        reduce_range: bool = False,
        quant_min: int | None = None,
        quant_max: int | None = None,
        factory_kwargs: dict[str, Any] | None = None,
        eps: float = _EPS,
        is_dynamic: bool = False,
    ) -> None:
        super().__init__(dtype=dtype, is_dynamic=is_dynamic)
        if dtype not in _SIGNED + _UNSIGNED and dtype not in _PACKED:
            raise ValueError(
                "observer: argument 'dtype' must be int8, uint8, qint8, quint8, quint4x2 or "
                f"quint2x4, got {dtype}"
            )
        self.qscheme = qscheme
        self.reduce_range = reduce_range
        self.has_customized_qrange = quant_min is not None and quant_max is not None
        self.quant_min, self.quant_max = _quant_range(dtype, quant_min, quant_max, reduce_range)
        self._factory_kwargs = torch.nn.factory_kwargs(factory_kwargs)
        self.register_buffer("eps", torch.tensor([eps], **self._factory_kwargs))
        if qscheme in _SYMMETRIC and reduce_range and dtype in _UNSIGNED:
            raise NotImplementedError(
                "observer: argument 'reduce_range' must be False for symmetric uint8, got True"
            )

    def _observed(self, low: torch.Tensor) -> bool:
        return low.numel() > 0 and not bool((low == float("inf")).all())

    def _calculate_qparams(
        self, min_val: torch.Tensor, max_val: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        device = min_val.device
        if not self._observed(min_val):
            warnings.warn(
                "must run observer before calling calculate_qparams. Returning default values.",
                stacklevel=3,
            )
            return torch.tensor([1.0], device=device), torch.tensor([0], device=device)
        if self.qscheme == torch.per_channel_affine_float_qparams:
            scale = (max_val - min_val) / float(self.quant_max - self.quant_min)
            scale = torch.where(scale > self.eps, scale, torch.ones_like(scale))
            return scale.reshape(-1), (-1 * min_val / scale).reshape(-1)
        low = torch.clamp(min_val, max=0)
        high = torch.clamp(max_val, min=0)
        width = float(self.quant_max - self.quant_min)
        if self.qscheme in _SYMMETRIC:
            scale = torch.max(torch.max(-low, high) / (width / 2), self.eps)
            middle = 0
            if self.dtype in _UNSIGNED:
                custom = self.has_customized_qrange
                middle = (self.quant_min + self.quant_max) // 2 if custom else 128
            zero_point = torch.full(scale.shape, middle, dtype=torch.int64, device=device)
        else:
            scale = torch.max((high - low) / width, self.eps)
            zero_point = self.quant_min - torch.round(low / scale).to(torch.int)
            zero_point = torch.clamp(zero_point, self.quant_min, self.quant_max)
        return scale.reshape(-1), zero_point.reshape(-1)


def _require_scheme(name: str, qscheme: torch.qscheme, allowed: tuple[torch.qscheme, ...]) -> None:
    if qscheme not in allowed:
        names = " or ".join(str(scheme) for scheme in allowed)
        raise NotImplementedError(f"{name}: argument 'qscheme' must be {names}, got {qscheme}")


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
        _require_scheme(
            "MinMaxObserver", qscheme, (torch.per_tensor_affine, torch.per_tensor_symmetric)
        )
        super().__init__(dtype, qscheme, *args, **kwargs)
        self.register_buffer("min_val", torch.tensor(float("inf"), **self._factory_kwargs))
        self.register_buffer("max_val", torch.tensor(float("-inf"), **self._factory_kwargs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Widens the range by x; an empty x changes nothing."""
        if x.numel() == 0:
            return x
        low, high = torch.aminmax(x.detach().to(self.min_val.dtype))
        self.min_val.copy_(torch.min(low, self.min_val))
        self.max_val.copy_(torch.max(high, self.max_val))
        return x

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale float32 `[1]` and zero point `[1]`."""
        return self._calculate_qparams(self.min_val, self.max_val)

    def reset_min_max_vals(self) -> None:
        """Forgets what was seen."""
        self.min_val.fill_(float("inf"))
        self.max_val.fill_(float("-inf"))

    def extra_repr(self) -> str:
        """The range seen."""
        return f"min_val={self.min_val}, max_val={self.max_val}"


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
        _require_scheme(
            "PerChannelMinMaxObserver",
            qscheme,
            (
                torch.per_channel_affine,
                torch.per_channel_symmetric,
                torch.per_channel_affine_float_qparams,
            ),
        )
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
        if x.numel() == 0:
            return x
        y = x.detach().transpose(0, self.ch_axis).to(self.min_val.dtype).flatten(1)
        low, high = torch.aminmax(y, dim=1)
        if self.min_val.numel() > 0:
            low, high = torch.min(low, self.min_val), torch.max(high, self.max_val)
        self.min_val.resize_(low.shape).copy_(low)
        self.max_val.resize_(high.shape).copy_(high)
        return x

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale float32 `[channels]` and zero point `[channels]`."""
        return self._calculate_qparams(self.min_val, self.max_val)

    def reset_min_max_vals(self) -> None:
        """Forgets what was seen."""
        self.min_val = torch.tensor([], **self._factory_kwargs)
        self.max_val = torch.tensor([], **self._factory_kwargs)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # A fresh observer has empty buffers; they take the file's size.
        for name in ("min_val", "max_val"):
            value = state_dict.get(prefix + name)
            if value is not None:
                self._buffers[name].resize_(value.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        """The ranges seen."""
        return f"min_val={self.min_val}, max_val={self.max_val}"


class ChannelWeightObserver(PerChannelMinMaxObserver):
    """This library's weight rule: scale[n] = max_k |w[n][k]| / 127.5, zeros give 1.

    PerChannelMinMaxObserver's symmetric rule without its floor eps (rows of tiny
    weights keep their resolution). `[N, K] -> scale [N]`. Sees one weight, not a stream.

    Args:
        search: "max", or "mse" for the fraction of that scale with the least
            squared error per channel (33 candidates from 0.6 to 1).
        dtype: torch.int8 or qint8.
    """

    def __init__(self, search: str = "max", dtype: torch.dtype = _QINT8) -> None:
        super().__init__(dtype=dtype, qscheme=torch.per_channel_symmetric)
        if dtype not in _SIGNED:
            raise ValueError(
                f"ChannelWeightObserver: argument 'dtype' must be int8 or qint8, got {dtype}"
            )
        if search not in ("max", "mse"):
            raise ValueError(
                f"ChannelWeightObserver: argument 'search' must be 'max' or 'mse', got {search!r}"
            )
        self.search = search
        self.register_buffer("scale", torch.tensor([]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the scales of the weight x `[N, K]`; a later call replaces them."""
        self.scale = symmetric_row_scale(x.detach().flatten(1), self.search)
        return x

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale float32 `[N]` and zero points 0 `[N]`."""
        return self.scale, torch.zeros(self.scale.shape, dtype=torch.int64)


class PlaceholderObserver(ObserverBase):
    """Records nothing; carries the settings of values that are quantized at run time.

    Args:
        dtype: dtype of the quantized values.
        custom_op_name: kept for torch.ao's signature.
        compute_dtype: torch.ao's older name for a dynamic dtype; sets is_dynamic.
        quant_min: smallest quantized value.
        quant_max: largest quantized value.
        qscheme: default per_tensor_affine.
        eps: smallest scale.
        is_dynamic: quantized at run time.
    """

    def __init__(
        self,
        dtype: torch.dtype = torch.float32,
        custom_op_name: str = "",
        compute_dtype: torch.dtype | None = None,
        quant_min: int | None = None,
        quant_max: int | None = None,
        qscheme: torch.qscheme | None = None,
        eps: float | None = None,
        is_dynamic: bool = False,
    ) -> None:
        super().__init__(dtype=dtype, is_dynamic=is_dynamic or compute_dtype is not None)
        if compute_dtype is not None:
            self.dtype = compute_dtype
        self.custom_op = custom_op_name
        self.qscheme = torch.per_tensor_affine if qscheme is None else qscheme
        self.quant_min = quant_min
        self.quant_max = quant_max
        self.eps = _EPS if eps is None else eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x."""
        return x

    def calculate_qparams(self) -> Any:
        """Raises: a placeholder has no statistics."""
        raise RuntimeError("PlaceholderObserver: calculate_qparams needs recorded values")

    def extra_repr(self) -> str:
        """The settings."""
        return f"dtype={self.dtype}, is_dynamic={self.is_dynamic}"


class RowPlaceholderObserver(PlaceholderObserver):
    """Names this library's run-time quantization of activations.

    Args:
        per_row: one scale and zero point per row `[*, K]`; else one for the tensor.
        symmetric: zero point 0 and values -127..127; else 0..255.
        reduce_range: half the values.
    """

    def __init__(
        self, per_row: bool = True, symmetric: bool = False, reduce_range: bool = False
    ) -> None:
        super().__init__(dtype=_QINT8 if symmetric else _QUINT8, is_dynamic=True)
        self.dynamic_quant = DynamicQuant(per_row, symmetric, reduce_range)


default_placeholder_observer = PlaceholderObserver
default_dynamic_quant_observer = PlaceholderObserver.with_args(
    dtype=_QUINT8, quant_min=0, quant_max=255, is_dynamic=True
)
default_weight_observer = MinMaxObserver.with_args(
    dtype=_QINT8, qscheme=torch.per_tensor_symmetric
)
weight_observer_range_neg_127_to_127 = MinMaxObserver.with_args(
    dtype=_QINT8, qscheme=torch.per_tensor_symmetric, quant_min=-127, quant_max=127, eps=2**-12
)
default_per_channel_weight_observer = PerChannelMinMaxObserver.with_args(
    dtype=_QINT8, qscheme=torch.per_channel_symmetric
)
per_channel_weight_observer_range_neg_127_to_127 = PerChannelMinMaxObserver.with_args(
    dtype=_QINT8, qscheme=torch.per_channel_symmetric, quant_min=-127, quant_max=127, eps=2**-12
)
# Rows of embedding tables.
default_float_qparams_observer = PerChannelMinMaxObserver.with_args(
    dtype=_QUINT8, qscheme=torch.per_channel_affine_float_qparams, ch_axis=0
)
default_float_qparams_observer_4bit = PerChannelMinMaxObserver.with_args(
    dtype=getattr(torch, "quint4x2", None), qscheme=torch.per_channel_affine_float_qparams, ch_axis=0
)

# This library's defaults, without counterpart in torch.ao.
default_row_quant_observer = RowPlaceholderObserver
default_channel_weight_observer = ChannelWeightObserver
mse_channel_weight_observer = ChannelWeightObserver.with_args(search="mse")
