"""int8 weights by the rule of a qconfig, and what observers found."""

from typing import Any, NamedTuple

import torch
from torch import nn

from torch_ao_ext.nn.quantized._weight import check_finite, quantize_rows, symmetric_row_scale

__all__ = [
    "INT8",
    "QuantizedWeight",
    "check_weight_dtype",
    "qconfig_of",
    "qparams_found",
    "quantize_weight",
    "weight_observer",
]

INT8 = (torch.int8, getattr(torch, "qint8", torch.int8))


def check_weight_dtype(owner: str, dtype: Any) -> None:
    """Refuses what is not int8.

    Args:
        owner: module, for the message.
        dtype: argument of a constructor.

    Raises:
        ValueError: another dtype.
    """
    if dtype not in INT8:
        raise ValueError(f"{owner}: argument 'dtype' must be torch.qint8 or int8, got {dtype}")


class QuantizedWeight(NamedTuple):
    """int8 `[N, K]` with scale `[1]` or `[N]` and zero point of that shape or None."""

    data: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor | None


def qconfig_of(kind: type, module: nn.Module) -> Any:
    """The qconfig that `from_float` goes by.

    Args:
        kind: class whose `from_float` was called, for the message.
        module: its argument.

    Raises:
        ValueError: it has none.
    """
    qconfig = getattr(module, "qconfig", None)
    if qconfig is None:
        raise ValueError(f"{kind.__name__}.from_float: argument 'mod' must have a qconfig")
    return qconfig


def weight_observer(qconfig: Any) -> Any:
    """A fresh weight observer of the qconfig; None when it names none.

    Raises:
        ValueError: it is not for int8 weights with output channels on axis 0.
    """
    if qconfig.weight is None:
        return None
    observer = qconfig.weight()
    dtype = getattr(observer, "dtype", None)
    if dtype not in INT8:
        raise ValueError(f"qconfig.weight must observe for int8 (torch.qint8), got {dtype}")
    if getattr(observer, "ch_axis", 0) != 0:
        raise ValueError(
            f"qconfig.weight must have ch_axis 0 (output channels), got {observer.ch_axis}"
        )
    return observer


def quantize_weight(weight: torch.Tensor, qconfig: Any, observer: Any = None) -> QuantizedWeight:
    """int8 weight under the qconfig's weight observer; default rule when it has none.

    Args:
        weight: float `[N, K]` on CPU.
        qconfig: object with `activation` and `weight` factories (torch.ao's too).
        observer: one that has seen the weight already (training), in the qconfig's stead.

    Raises:
        ValueError: the weight is not finite, or the observer is not an int8 one.
    """
    check_finite(weight, "weight")
    if observer is None:
        observer = weight_observer(qconfig)
        if observer is not None:
            observer(weight.detach())
    if observer is None:
        scale = symmetric_row_scale(weight)
        return QuantizedWeight(quantize_rows(weight, scale), scale, None)
    scale, zero_point = observer.calculate_qparams()
    scale = scale.to(torch.float32).reshape(-1)
    zero_point = zero_point.to(torch.int32).reshape(-1)
    points = zero_point if bool(zero_point.any()) else None
    # torch.ao rounds weights into all of [-128, 127] whatever the observer's range.
    return QuantizedWeight(quantize_rows(weight, scale, points), scale, points)


def qparams_found(observer: Any) -> dict[str, Any]:
    """What an observer found, by name; see `quantization.utils.get_qparam_dict`."""
    qscheme = getattr(observer, "qscheme", None)
    kinds = [kind.__name__ for kind in type(observer).__mro__]
    if qscheme is None or "PlaceholderObserver" in kinds:
        return {"qscheme": None, "dtype": observer.dtype}
    found: dict[str, Any] = {"dtype": observer.dtype}
    if qscheme in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        found["qscheme"] = torch.per_tensor_affine
    else:
        symmetric = qscheme == torch.per_channel_symmetric
        found["qscheme"] = torch.per_channel_affine if symmetric else qscheme
        found["axis"] = observer.ch_axis
    found["scale"], found["zero_point"] = observer.calculate_qparams()
    for name in ("quant_min", "quant_max"):
        if hasattr(observer, name):
            found[name] = getattr(observer, name)
    return found
