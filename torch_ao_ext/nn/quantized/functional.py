"""Functions on quantized tensors under torch.ao's names.

Pooling, bounds and interpolation keep the qparams of their input, as the torch functions of the same
name do on a QuantizedTensor; the others take the scale and zero point of their result. Inputs are
`QuantizedTensor` (uint8 or int8, one scale); a float tensor raises TypeError.
"""

from typing import Any

import torch
import torch.nn.functional as F

from torch_ao_ext._quantized_functions import RANGE, quantize_per_tensor
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized._conv import as_tuple
from torch_ao_ext.nn.quantized._padding import pad
from torch_ao_ext.nn.quantized._static import STORAGE

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "avg_pool2d",
    "avg_pool3d",
    "celu",
    "clamp",
    "conv1d",
    "conv2d",
    "conv3d",
    "elu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "interpolate",
    "leaky_relu",
    "linear",
    "max_pool1d",
    "max_pool2d",
    "threshold",
    "upsample",
    "upsample_bilinear",
    "upsample_nearest",
]

ao = torch.ops.torch_ao


def _check(op: str, name: str, value: Any) -> QuantizedTensor:
    if type(value) is not QuantizedTensor:
        got = f"a {value.dtype} tensor" if isinstance(value, torch.Tensor) else type(value).__name__
        raise TypeError(
            f"nn.quantized.functional.{op}: argument '{name}' must be a QuantizedTensor, got {got}"
        )
    return value


def avg_pool2d(
    input: QuantizedTensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> QuantizedTensor:  # fmt: skip
    """As torch.nn.functional.avg_pool2d."""
    _check("avg_pool2d", "input", input)
    return F.avg_pool2d(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    input: QuantizedTensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> QuantizedTensor:  # fmt: skip
    """As torch.nn.functional.avg_pool3d."""
    _check("avg_pool3d", "input", input)
    return F.avg_pool3d(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def adaptive_avg_pool2d(input: QuantizedTensor, output_size: Any) -> QuantizedTensor:
    """As torch.nn.functional.adaptive_avg_pool2d."""
    return F.adaptive_avg_pool2d(_check("adaptive_avg_pool2d", "input", input), output_size)


def adaptive_avg_pool3d(input: QuantizedTensor, output_size: Any) -> QuantizedTensor:
    """As torch.nn.functional.adaptive_avg_pool3d."""
    return F.adaptive_avg_pool3d(_check("adaptive_avg_pool3d", "input", input), output_size)


def _no_indices(op: str, return_indices: bool) -> None:
    if return_indices:
        raise ValueError(f"nn.quantized.functional.{op}: argument 'return_indices' must be False, got True")


def max_pool1d(
    input: QuantizedTensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> QuantizedTensor:  # fmt: skip
    """As torch.nn.functional.max_pool1d, without indices."""
    _no_indices("max_pool1d", return_indices)
    _check("max_pool1d", "input", input)
    return F.max_pool1d(input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d(
    input: QuantizedTensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> QuantizedTensor:  # fmt: skip
    """As torch.nn.functional.max_pool2d, without indices."""
    _no_indices("max_pool2d", return_indices)
    _check("max_pool2d", "input", input)
    return F.max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode)


def linear(
    input: QuantizedTensor, weight: QuantizedTensor, bias: torch.Tensor | None = None,
    scale: float | None = None, zero_point: int | None = None,
) -> QuantizedTensor:  # fmt: skip
    """Computes y = quantize(x W^T + b).

    Args:
        input: `[*, K]`.
        weight: int8 `[N, K]`, one scale or one per row.
        bias: float32 `[N]` or None.
        scale: of the output; default that of the input.
        zero_point: of the output; default that of the input.

    Example:
        >>> import torch
        >>> from torch_ao_ext._quantized_tensor import QuantizedTensor
        >>> from torch_ao_ext.nn.quantized import functional
        >>> x = QuantizedTensor(torch.tensor([[2, 4]], dtype=torch.uint8), 0.5, 0)
        >>> w = QuantizedTensor(torch.tensor([[1, 1]], dtype=torch.int8), torch.tensor([1.0]))
        >>> functional.linear(x, w).dequantize()
        tensor([[3.]])
    """
    _check("linear", "input", input)
    scale = input.q_scale() if scale is None else float(scale)
    zero_point = input.q_zero_point() if zero_point is None else int(zero_point)
    y = ao.linear.default(
        input.int_repr(), input.q_scale(), input.q_zero_point(), *_weight("linear", weight), bias, scale,
        zero_point,
    )  # fmt: skip
    return QuantizedTensor(y, scale, zero_point)


def _weight(op: str, weight: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """int8 data, scales and zero points as tensors."""
    _check(op, "weight", weight)
    scale, point = weight._scale, weight._zero_point
    if not isinstance(scale, torch.Tensor):
        scale, point = torch.tensor([scale]), torch.tensor([point], dtype=torch.int32)
    if point is not None and not bool(point.any()):
        point = None
    return weight.int_repr(), scale, point


def _conv(
    rank: int, input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int,
    padding_mode: str, scale: float, zero_point: int, dtype: torch.dtype,
) -> QuantizedTensor:  # fmt: skip
    name = f"conv{rank}d"
    _check(name, "input", input)
    if padding_mode not in ("zeros", "reflect", "replicate", "circular"):
        raise ValueError(
            f"nn.quantized.functional.{name}: argument 'padding_mode' must be zeros, reflect, replicate or "
            f"circular, got {padding_mode!r}"
        )
    if dtype not in STORAGE:
        raise ValueError(
            f"nn.quantized.functional.{name}: argument 'dtype' must be torch.quint8 or torch.qint8, "
            f"got {dtype}"
        )
    stride, padding, dilation = (list(as_tuple(v, rank)) for v in (stride, padding, dilation))
    data, point = input.int_repr(), input.q_zero_point()
    if padding_mode != "zeros":
        data = pad(data, [p for side in reversed(padding) for p in (side, side)], padding_mode, point)
        padding = [0] * rank
    op = getattr(ao, name).default
    y = op(
        data, input.q_scale(), point, *_weight(name, weight), bias, float(scale), int(zero_point),
        STORAGE[dtype], stride, padding, dilation, groups,
    )  # fmt: skip
    return QuantizedTensor(y, float(scale), int(zero_point))


def conv1d(
    input: QuantizedTensor, weight: QuantizedTensor, bias: torch.Tensor | None, stride: Any = 1,
    padding: Any = 0, dilation: Any = 1, groups: int = 1, padding_mode: str = "zeros", scale: float = 1.0,
    zero_point: int = 0, dtype: torch.dtype = torch.uint8,
) -> QuantizedTensor:  # fmt: skip
    """Computes y = quantize(conv1d(x, W) + b); arguments as in `conv2d`, input `[N, C, L]`."""
    return _conv(
        1, input, weight, bias, stride, padding, dilation, groups, padding_mode, scale, zero_point, dtype
    )


def conv2d(
    input: QuantizedTensor, weight: QuantizedTensor, bias: torch.Tensor | None, stride: Any = 1,
    padding: Any = 0, dilation: Any = 1, groups: int = 1, padding_mode: str = "zeros", scale: float = 1.0,
    zero_point: int = 0, dtype: torch.dtype = torch.uint8,
) -> QuantizedTensor:  # fmt: skip
    """Computes y = quantize(conv2d(x, W) + b).

    Args:
        input: `[N, C, H, W]`.
        weight: int8 `[O, C / groups, *kernel]`, one scale or one per output channel.
        bias: float32 `[O]` or None.
        stride: see torch.nn.functional.conv2d, as padding, dilation and groups.
        padding: numbers.
        dilation: numbers.
        groups: divides both channel counts.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        scale: of the output, as zero_point and dtype.
        zero_point: integer of real 0.
        dtype: torch.quint8 or torch.qint8.
    """
    return _conv(
        2, input, weight, bias, stride, padding, dilation, groups, padding_mode, scale, zero_point, dtype
    )


def conv3d(
    input: QuantizedTensor, weight: QuantizedTensor, bias: torch.Tensor | None, stride: Any = 1,
    padding: Any = 0, dilation: Any = 1, groups: int = 1, padding_mode: str = "zeros", scale: float = 1.0,
    zero_point: int = 0, dtype: torch.dtype = torch.uint8,
) -> QuantizedTensor:  # fmt: skip
    """Computes y = quantize(conv3d(x, W) + b); arguments as in `conv2d`, input `[N, C, D, H, W]`."""
    return _conv(
        3, input, weight, bias, stride, padding, dilation, groups, padding_mode, scale, zero_point, dtype
    )


def _requantized(
    op: str, input: Any, scale: float, zero_point: int, names: str, numbers: list[float]
) -> QuantizedTensor:
    _check(op, "input", input)
    scale, zero_point = float(scale), int(zero_point)
    output = (scale, zero_point, input.dtype, names, numbers)
    y = ao.requantize.default(input.int_repr(), input.q_scale(), input.q_zero_point(), *output)
    return QuantizedTensor(y, scale, zero_point)


def leaky_relu(
    input: QuantizedTensor, negative_slope: float = 0.01, inplace: bool = False, scale: float | None = None,
    zero_point: int | None = None,
) -> QuantizedTensor:  # fmt: skip
    """max(0, x) + negative_slope * min(0, x).

    Args:
        input: any shape.
        negative_slope: factor below 0.
        inplace: accepted without effect.
        scale: of the output; default that of the input, with its zero point.
        zero_point: of the output.

    Raises:
        ValueError: only one of scale and zero_point.
    """
    _check("leaky_relu", "input", input)
    if (scale is None) != (zero_point is None):
        raise ValueError(
            "nn.quantized.functional.leaky_relu: arguments 'scale' and 'zero_point' must be given together, "
            f"got {scale} and {zero_point}"
        )
    if scale is None or zero_point is None:
        scale, zero_point = input.q_scale(), input.q_zero_point()
    return _requantized("leaky_relu", input, scale, zero_point, "leaky_relu", [float(negative_slope)])


def hardswish(input: QuantizedTensor, scale: float, zero_point: int) -> QuantizedTensor:
    """Computes x * min(max(0, x + 3), 6) / 6 with the scale and zero point given."""
    return _requantized("hardswish", input, scale, zero_point, "hardswish", [])


def _by_table(op: str, input: Any, scale: float, zero_point: int, function: Any) -> QuantizedTensor:
    """A function of one value, computed for each of the 256."""
    _check(op, "input", input)
    low, high = RANGE[input.dtype]
    every = torch.arange(low, high + 1).to(input.dtype)
    y = function(QuantizedTensor(every, input.q_scale(), input.q_zero_point()).dequantize())
    table = quantize_per_tensor(y, float(scale), int(zero_point), input.dtype)
    data = ao.lookup.default(input.int_repr(), table.int_repr())
    return QuantizedTensor(data, table.q_scale(), table.q_zero_point())


def elu(input: QuantizedTensor, scale: float, zero_point: int, alpha: float = 1.0) -> QuantizedTensor:
    """max(0, x) + min(0, alpha (exp(x) - 1)), by a table."""
    return _by_table("elu", input, scale, zero_point, lambda x: F.elu(x, alpha))


def celu(input: QuantizedTensor, scale: float, zero_point: int, alpha: float = 1.0) -> QuantizedTensor:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1)), by a table."""
    return _by_table("celu", input, scale, zero_point, lambda x: F.celu(x, alpha))


def threshold(input: QuantizedTensor, threshold: float, value: float) -> QuantizedTensor:
    """Takes x where x > threshold, else value; the output has the input's qparams.

    Raises:
        ValueError: threshold or value is None.
    """
    if threshold is None or value is None:
        name = "threshold" if threshold is None else "value"
        raise ValueError(f"nn.quantized.functional.threshold: argument '{name}' must be a number, got None")
    _check("threshold", "input", input)
    qparams = (input.q_scale(), input.q_zero_point())
    return _by_table("threshold", input, *qparams, lambda x: F.threshold(x, threshold, value))


def hardsigmoid(input: QuantizedTensor, inplace: bool = False) -> QuantizedTensor:
    """min(max(0, x / 6 + 1 / 2), 1) with scale 1/256; inplace has no effect."""
    return F.hardsigmoid(_check("hardsigmoid", "input", input))


def hardtanh(
    input: QuantizedTensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> QuantizedTensor:
    """min(max(min_val, x), max_val) on the integers."""
    return F.hardtanh(_check("hardtanh", "input", input), min_val, max_val, inplace)


def clamp(input: QuantizedTensor, min_: float, max_: float) -> QuantizedTensor:
    """`min(max(min_, x), max_)` on the integers."""
    return torch.clamp(_check("clamp", "input", input), min_, max_)


def interpolate(
    input: QuantizedTensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None,
) -> QuantizedTensor:  # fmt: skip
    """As torch.nn.functional.interpolate; int8 for "nearest" and "bilinear", float32 between for others."""
    _check("interpolate", "input", input)
    return F.interpolate(input, size, scale_factor, mode, align_corners)


def upsample(
    input: QuantizedTensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None,
) -> QuantizedTensor:  # fmt: skip
    """The older name of `interpolate`."""
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_bilinear(input: QuantizedTensor, size: Any = None, scale_factor: Any = None) -> QuantizedTensor:
    """`interpolate` with mode "bilinear" and aligned corners."""
    return interpolate(input, size, scale_factor, "bilinear", True)


def upsample_nearest(input: QuantizedTensor, size: Any = None, scale_factor: Any = None) -> QuantizedTensor:
    """`interpolate` with mode "nearest"."""
    return interpolate(input, size, scale_factor, "nearest")
