"""Weights of recurrent layers: what a qconfig and their sizes ask for, and their integers."""

from typing import Any, NamedTuple

import torch

from torch_ao_ext.nn.quantized._observed import INT8, quantize_weight, weight_observer
from torch_ao_ext.nn.quantized._weight import check_finite
from torch_ao_ext.nn.quantized.dynamic.modules.linear import dynamic_quant_of

__all__ = [
    "RecurrentRule",
    "check_int16",
    "quantize_recurrent",
    "rule_of",
    "stored_dtype",
    "weight_dtype_of",
    "weight_dtypes",
]

_MOST_MIXED = 2**18  # values of W_hh
_MOST_INT16 = 32639  # 127 * 256 + 127: two int8 parts

_WIDE = (torch.int16, torch.bfloat16)
_WEIGHT_DTYPES = {**dict.fromkeys(INT8, torch.int8), **{dtype: dtype for dtype in _WIDE}}


def stored_dtype(who: str, dtype: Any) -> torch.dtype:
    """Dtype of the weight buffers: torch.int8, int16 or bfloat16.

    Raises:
        ValueError: another one was asked for.
    """
    if dtype not in _WEIGHT_DTYPES:
        raise ValueError(
            f"{who}: argument 'dtype' must be torch.qint8, int8, int16 or bfloat16, got {dtype}"
        )
    return _WEIGHT_DTYPES[dtype]


def check_int16(what: str, data: torch.Tensor) -> None:
    """ValueError for a value of an int16 weight that two int8 parts do not hold; others pass."""
    if data.dtype == torch.int16 and data.numel() > 0 and (largest := int(data.max())) > _MOST_INT16:
        raise ValueError(f"{what} must have integers of at most {_MOST_INT16}, got {largest}")


class RecurrentRule(NamedTuple):
    """How weights, x and h become integers.

    Args:
        dtype: of the weights; None: by size, see `weight_dtypes`.
        per_row: as in `ops.lstm`.
        reduce_range: as in `ops.lstm`.
    """

    dtype: torch.dtype | None = None
    per_row: bool = True
    reduce_range: bool = False


def weight_dtype_of(qconfig: Any) -> torch.dtype | None:
    """Dtype that the qconfig asks for: torch.int16, torch.bfloat16, torch.int8; None: by size.

    Raises:
        ValueError: its weight observer is for none of these.
    """
    observer = None if qconfig.weight is None else qconfig.weight()
    dtype = getattr(observer, "dtype", None)
    if dtype in _WIDE:
        return dtype
    weight_observer(qconfig)
    return None if getattr(observer, "by_size", False) else torch.int8


def rule_of(qconfig: Any) -> RecurrentRule:
    """The rule of a qconfig; x and h follow `dynamic_quant_of`, as the input of a linear layer does.

    Raises:
        ValueError: a rule of ours that recurrent operators do not have, torch.ao's with weights that
            are not int8.
    """
    rule, dtype = dynamic_quant_of(qconfig), weight_dtype_of(qconfig)
    if rule.symmetric or (rule.per_row and rule.reduce_range):
        raise ValueError(f"qconfig.activation must be asymmetric, and per row of 8 bits, got {rule}")
    if rule.per_row:
        return RecurrentRule(dtype)
    if dtype in _WIDE:
        raise ValueError(f"qconfig.weight must observe for int8 with one scale for all rows, got {dtype}")
    return RecurrentRule(torch.int8, False, rule.reduce_range)


def weight_dtypes(
    dtype: torch.dtype | None, ih: torch.Tensor, hh: torch.Tensor, layer: int | None
) -> tuple[torch.dtype, torch.dtype]:
    """Dtypes of W_ih, and of W_hh and W_hr, of a layer and direction or a cell.

    Args:
        dtype: of a RecurrentRule; None: by MixedWeightObserver's rule.
        ih: W_ih `[G * H, K]`.
        hh: W_hh `[G * H, R]`.
        layer: its number, None for a cell.
    """
    if dtype is not None:
        return dtype, dtype
    if layer is None or hh.numel() > _MOST_MIXED:
        return torch.int8, torch.int8
    wide = layer > 0 or 2 * ih.shape[1] <= hh.shape[1]
    return torch.int16 if wide else torch.int8, torch.int16


def quantize_recurrent(
    weight: torch.Tensor, dtype: torch.dtype, qconfig: Any, name: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight as recurrent operators take it, and its scales.

    Args:
        weight: float `[rows, K]`.
        dtype: torch.int16, with scale max|w| / 32639 of each row; bfloat16, with a scale of 1; int8.
        qconfig: its weight observer is the rule of int8.
        name: of the weight, for messages.

    Returns:
        Data of the dtype, float32 scales `[rows]` or `[1]`.

    Raises:
        ValueError: a weight that is not finite, an int8 zero point that is not 0.
    """
    check_finite(weight, name)
    if dtype == torch.int8:
        part = quantize_weight(weight, qconfig)
        if part.zero_point is not None:
            raise ValueError(f"{name}: qconfig.weight must give zero point 0, got {part.zero_point}")
        return part.data, part.scale
    if dtype == torch.bfloat16:
        return weight.to(dtype, copy=True), torch.ones(1)
    weight = weight.to(torch.float32)
    largest = weight.abs().amax(1)
    scale = (largest / _MOST_INT16).clamp_min_(torch.finfo(torch.float32).tiny)
    scale[largest == 0] = 1
    return (weight / scale[:, None]).round_().clamp_(-_MOST_INT16, _MOST_INT16).to(dtype), scale
