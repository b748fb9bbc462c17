"""What modules with an int8 weight share, under torch.ao's names."""

from itertools import repeat
from typing import Any

import torch

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized._weight import quantize_rows
from torch_ao_ext.nn.quantized._weighted import WeightedModule as WeightedQuantizedModule

__all__ = ["WeightedQuantizedModule"]


def _quantize_weight(float_wt: torch.Tensor, observer: Any) -> QuantizedTensor:
    """The int8 weight under the qparams that an observer has found.

    Args:
        float_wt: `[N, ...]`.
        observer: has seen it; per tensor, or per channel on axis 0.
    """
    scale, zero_point = observer.calculate_qparams()
    scale, points = scale.to(torch.float32).reshape(-1), zero_point.to(torch.int32).reshape(-1)
    rows = quantize_rows(float_wt.flatten(1), scale, points if bool(points.any()) else None)
    return QuantizedTensor(rows.reshape(float_wt.shape), scale, points)


def _clamp_weights(
    qweight: QuantizedTensor, observer: Any, scale: Any = None, zp: Any = None
) -> QuantizedTensor:
    """The weight cut to the integers that an observer allows; those of int8 where it has no bounds."""
    low, high = getattr(observer, "quant_min", None), getattr(observer, "quant_max", None)
    info = torch.iinfo(torch.int8)
    data = qweight.int_repr().clamp(info.min if low is None else low, info.max if high is None else high)
    return QuantizedTensor(data, qweight._scale, qweight._zero_point)


def _ntuple_from_first(n: int) -> Any:
    """A function that repeats the first element of a sequence n times."""

    def parse(x: Any) -> tuple[Any, ...]:
        first = x if not hasattr(x, "__iter__") else next(iter(x))
        return tuple(repeat(first, n))

    return parse


_pair_from_first = _ntuple_from_first(2)


def _hide_packed_params_repr(self: Any, params: Any) -> str:
    """Repr of a module without its parts of these types."""
    shown = [(key, module) for key, module in self._modules.items() if not isinstance(module, params)]
    lines = [self.extra_repr()] if self.extra_repr() else []
    lines += [f"({key}): {module!r}" for key, module in shown]
    text = ", ".join(lines) if not shown else "\n  " + "\n  ".join(lines) + "\n"
    return f"{self._get_name()}({text})"
