"""The operators `quantized_decomposed`, in which converted graphs are written.

PyTorch defines them in a module of its own while it has that module; torch.compile knows
them by these names. Where the module is gone the same schemas are defined here.
Defining them first would make PyTorch's own definition fail later, so that never happens.
"""

import functools
import importlib
from typing import Any

import torch

_CORE = "torch.ao.quantization.fx._decomposed"


@functools.cache
def operators() -> Any:
    """`torch.ops.quantized_decomposed`, with its operators defined."""
    try:
        importlib.import_module(_CORE)
    except ModuleNotFoundError as error:
        if error.name is None or not _CORE.startswith(error.name):
            raise
        _define()
    return torch.ops.quantized_decomposed


def _quantize(
    x: torch.Tensor, scale: Any, zero_point: Any, low: int, high: int, dtype: torch.dtype
) -> torch.Tensor:
    return torch.clamp(torch.round(x * (1.0 / scale)) + zero_point, low, high).to(dtype)


def _dequantize(x: torch.Tensor, scale: Any, zero_point: Any, dtype: torch.dtype | None) -> torch.Tensor:
    return (x.to(dtype or torch.float32) - zero_point) * scale


def _along(x: torch.Tensor, values: torch.Tensor, axis: int) -> torch.Tensor:
    shape = [1] * x.dim()
    shape[axis] = -1
    return values.reshape(shape)


def _choose(x: torch.Tensor, low: int, high: int, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    least, most = (v.double() for v in torch.aminmax(x))
    least, most = torch.clamp(least, max=0), torch.clamp(most, min=0)
    scale = torch.clamp((most - least) / (high - low), min=eps)
    zero_point = torch.clamp(low - torch.round(least / scale), low, high)
    return scale.reshape(1), zero_point.to(torch.int64).reshape(1)


def _choose_symmetric(x: torch.Tensor, low: int, high: int, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    most = x.abs().max().double()
    scale = torch.clamp(most / ((high - low) / 2), min=eps).reshape(1)
    return scale, torch.zeros(1, dtype=torch.int64, device=x.device)


def _choose_rows(x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = -128, 127
    least, most = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    scale = ((most - least) / (high - low)).clamp(min=torch.finfo(torch.float32).eps)
    from_least, from_most = low - least / scale, high - most / scale
    # The end whose value is known better.
    nearer = (low + least / scale) + (high + most / scale) > 0
    zero_point = torch.where(nearer, from_least, from_most).clamp(low, high).round()
    return scale.to(torch.float64), zero_point.to(torch.int64)


def _define() -> None:
    library = torch.library.Library("quantized_decomposed", "DEF")
    _KEEP.append(library)

    def add(schema: str, function: Any) -> None:
        library.define(schema)
        library.impl(schema.partition("(")[0], function, "CompositeExplicitAutograd")

    bounds = "int quant_min, int quant_max, ScalarType dtype"
    plain = "Tensor input, float scale, int zero_point"
    tensor = "Tensor input, Tensor scale, Tensor zero_point"
    channel = "Tensor input, Tensor scales, Tensor zero_points, int axis"
    channel_back = "Tensor input, Tensor scales, Tensor? zero_points, int axis"
    out = "*, ScalarType? out_dtype=None"

    def channels(x, scales, zero_points, axis, low, high, dtype):  # noqa: ANN001, ANN202
        return _quantize(x, _along(x, scales, axis), _along(x, zero_points, axis), low, high, dtype)

    def channels_back(x, scales, zero_points, axis, low, high, dtype, *, out_dtype=None):  # noqa: ANN001, ANN202
        zeros = 0 if zero_points is None else _along(x, zero_points, axis)
        return _dequantize(x, _along(x, scales, axis), zeros, out_dtype)

    def back(x, scale, zero_point, low, high, dtype, *, out_dtype=None):  # noqa: ANN001, ANN202
        return _dequantize(x, scale, zero_point, out_dtype)

    add(f"quantize_per_tensor({plain}, {bounds}) -> Tensor", _quantize)
    add(f"quantize_per_tensor.tensor({tensor}, {bounds}) -> Tensor", _quantize)
    add(f"dequantize_per_tensor({plain}, {bounds}, {out}) -> Tensor", back)
    add(f"dequantize_per_tensor.tensor({tensor}, {bounds}, {out}) -> Tensor", back)
    add(f"quantize_per_channel({channel}, {bounds}) -> Tensor", channels)
    add(f"dequantize_per_channel({channel_back}, {bounds}, {out}) -> Tensor", channels_back)
    choose = "(Tensor input, int quant_min, int quant_max, float eps, ScalarType dtype) -> (Tensor, Tensor)"
    add(f"choose_qparams.tensor{choose}", lambda x, low, high, eps, dtype: _choose(x, low, high, eps))
    add(
        f"choose_qparams_symmetric.tensor{choose}",
        lambda x, low, high, eps, dtype: _choose_symmetric(x, low, high, eps),
    )
    token = "Tensor input, Tensor scales, Tensor zero_points"
    add(
        "choose_qparams_per_token_asymmetric(Tensor input, ScalarType dtype) -> (Tensor, Tensor)",
        _choose_rows,
    )
    add(
        f"quantize_per_token({token}, {bounds}) -> Tensor",
        lambda x, scales, points, low, high, dtype: (
            (x * (1.0 / scales) + points).round().clamp(low, high).to(dtype)
        ),
    )
    add(
        f"dequantize_per_token({token}, {bounds}, ScalarType output_dtype) -> Tensor",
        lambda x, scales, points, low, high, dtype, output_dtype: ((x - points) * scales).to(output_dtype),
    )


_KEEP: list[Any] = []
