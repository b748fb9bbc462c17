"""Base classes of the observers, and the rule that turns a range into qparams."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

# torch's quantized dtypes go away; until then they are spellings of these.
_QINT8 = getattr(torch, "qint8", torch.int8)
_QUINT8 = getattr(torch, "quint8", torch.uint8)
_SIGNED = (torch.int8, _QINT8)
_UNSIGNED = (torch.uint8, _QUINT8)
# Packed widths of embedding rows: largest value by dtype.
_PACKED = {
    getattr(torch, name): most for name, most in (("quint4x2", 15), ("quint2x4", 3)) if hasattr(torch, name)
}
# Wide integers, as biases and accumulators have them.
_WIDE = {
    getattr(torch, name): (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for name, bits in (("int16", 16), ("int32", 32), ("qint32", 32))
    if hasattr(torch, name)
}
_EPS = torch.finfo(torch.float32).eps

_SYMMETRIC = (torch.per_tensor_symmetric, torch.per_channel_symmetric)
_PER_TENSOR = (torch.per_tensor_affine, torch.per_tensor_symmetric)
_PER_CHANNEL = (
    torch.per_channel_affine,
    torch.per_channel_symmetric,
    torch.per_channel_affine_float_qparams,
)


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
        least, most = _WIDE.get(dtype, (0, 255))
        if quant_max - quant_min > most - least:
            raise ValueError(
                "observer: arguments 'quant_min', 'quant_max' must span at most "
                f"{most - least + 1} values, got [{quant_min}, {quant_max}]"
            )
        return (quant_min // 2, quant_max // 2) if reduce_range else (quant_min, quant_max)
    if dtype in _PACKED:
        return (0, _PACKED[dtype])
    if dtype in _WIDE:
        return _WIDE[dtype]
    if dtype in _SIGNED:
        return (-64, 63) if reduce_range else (-128, 127)
    return (0, 127) if reduce_range else (0, 255)


def qparams_of_range(
    min_val: torch.Tensor, max_val: torch.Tensor, quant_min: int, quant_max: int, dtype: torch.dtype,
    eps: torch.Tensor, has_customized_qrange: bool, qscheme: torch.qscheme,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Scale and zero point, 1-D; the rule is `UniformQuantizationObserverBase`'s."""
    width = float(quant_max - quant_min)  # this function is scripted, too
    if qscheme == torch.per_channel_affine_float_qparams:
        scale = (max_val - min_val) / width
        scale = torch.where(scale > eps, scale, torch.ones_like(scale))
        return scale.reshape(-1), (-1 * min_val / scale).reshape(-1)
    low = torch.clamp(min_val, max=0)
    high = torch.clamp(max_val, min=0)
    if qscheme == torch.per_tensor_symmetric or qscheme == torch.per_channel_symmetric:
        scale = torch.max(torch.max(-low, high) / (width / 2), eps)
        middle = 0
        if dtype == torch.uint8 or dtype == torch.quint8:
            middle = (quant_min + quant_max) // 2 if has_customized_qrange else 128
        zero_point = torch.full(scale.shape, middle, dtype=torch.int64, device=scale.device)
    else:
        scale = torch.max((high - low) / width, eps)
        zero_point = quant_min - torch.round(low / scale).to(torch.int)
        zero_point = torch.clamp(zero_point, quant_min, quant_max)
    return scale.reshape(-1), zero_point.reshape(-1)


class UniformQuantizationObserverBase(ObserverBase):
    """Scale and zero point from a minimum and a maximum.

    symmetric: scale = max(-min, max) / ((quant_max - quant_min) / 2), zero point 0
    (128 for uint8). affine: scale = (max - min) / (quant_max - quant_min),
    zero_point = clamp(quant_min - round(min / scale)), where the range includes 0.
    Scales are at least eps. per_channel_affine_float_qparams: the range need not
    include 0, zero_point = -min / scale is a float, scales up to eps become 1.

    Args:
        dtype: torch.int8 / qint8, torch.uint8 / quint8, quint4x2, quint2x4, int16, int32 / qint32.
        qscheme: torch.per_tensor_affine, per_tensor_symmetric, per_channel_affine, per_channel_symmetric or
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

    _version = 3  # of the state: 1 had min_vals and max_vals, 2 empty tensors before the first call

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
        if dtype not in _SIGNED + _UNSIGNED and dtype not in _PACKED and dtype not in _WIDE:
            raise ValueError(
                "observer: argument 'dtype' must be int8, uint8, qint8, quint8, int16, int32, "
                f"qint32, quint4x2 or quint2x4, got {dtype}"
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

    def reset_min_max_vals(self) -> None:
        """Forgets what was seen; for subclasses."""
        raise NotImplementedError(f"{type(self).__name__}: has no reset_min_max_vals")

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: dict[str, Any], *args: Any
    ) -> None:
        if "eps" in self._buffers:  # absent from the first files
            state_dict.setdefault(prefix + "eps", self.eps)
        super()._load_from_state_dict(state_dict, prefix, metadata, *args)

    def _called(self) -> str:
        """Name of the class, for messages; scripts have no classes to name."""
        if torch.jit.is_scripting():
            return "observer"
        else:
            return type(self).__name__

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
        return qparams_of_range(
            min_val, max_val, self.quant_min, self.quant_max, self.dtype, self.eps,
            self.has_customized_qrange, self.qscheme,
        )  # fmt: skip


def _finite_values(name: str, x: torch.Tensor) -> torch.Tensor:
    """x, or without its infinities, with a warning; ValueError for a NaN.

    Args:
        name: of the observer, for the messages.
        x: values with a minimum or maximum that is not finite.
    """
    if bool(x.isnan().any()):
        raise ValueError(f"{name}: argument 'x' must hold no NaN, got {int(x.isnan().sum())} of them")
    finite = x[x.isfinite()]
    warnings.warn(
        f"{name}: ignored {x.numel() - finite.numel()} infinite of {x.numel()} values", stacklevel=3
    )
    return finite


def _require_scheme(name: str, qscheme: torch.qscheme, allowed: tuple[torch.qscheme, ...]) -> None:
    if qscheme not in allowed:
        names = " or ".join(str(scheme) for scheme in allowed)
        raise NotImplementedError(f"{name}: argument 'qscheme' must be {names}, got {qscheme}")
