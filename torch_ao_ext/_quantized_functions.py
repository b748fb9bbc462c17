"""What torch functions do with a QuantizedTensor.

Three families: functions that move values run on the integers; bounds and pooling keep the
qparams of their input, as torch's quantized tensors do; sigmoid, tanh and hardsigmoid have
the qparams of their known range. Anything else raises: its result needs qparams that only a
module has.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from torch.utils._pytree import tree_map

from torch_ao_ext._dimensions import each_dimension
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext._refusal import Refusal, float_fallback, refuse

__all__ = ["RANGE", "dispatch", "quantize_per_tensor"]

ao = torch.ops.torch_ao

# Integers of what a QuantizedTensor stores.
RANGE = {torch.int8: (-128, 127), torch.uint8: (0, 255)}

_MOVES = (
    "chunk", "clone", "contiguous", "detach", "expand", "flatten", "flip", "index_select", "movedim",
    "narrow", "permute", "repeat", "repeat_interleave", "reshape", "roll", "select", "split", "squeeze",
    "swapaxes", "swapdims", "t", "tensor_split", "tile", "transpose", "unbind", "unflatten", "unsqueeze",
    "__getitem__",
)  # fmt: skip
_MOVING_FUNCTIONS = (functional.pixel_shuffle, functional.pixel_unshuffle, functional.channel_shuffle)


def quantize_per_tensor(
    x: torch.Tensor, scale: float, zero_point: int, dtype: torch.dtype
) -> QuantizedTensor:
    """clamp(round(x / scale) + zero_point) over the whole range of dtype."""
    low, high = RANGE[dtype]
    return QuantizedTensor(
        ao.quantize_per_tensor.default(x, scale, zero_point, low, high, dtype), scale, zero_point
    )


def _like(data: Any, x: QuantizedTensor) -> Any:
    """`data` with the qparams of x; a list or tuple of tensors part by part."""
    if isinstance(data, torch.Tensor):
        return QuantizedTensor(data, x.q_scale(), x.q_zero_point())
    return type(data)(_like(part, x) for part in data)


def _move(function: Any) -> Callable[..., Any]:
    def run(x: QuantizedTensor, *args: Any, **kwargs: Any) -> Any:
        return _like(function(x.int_repr(), *args, **kwargs), x)

    return run


def _view(x: QuantizedTensor, *shape: Any) -> QuantizedTensor:
    # Convolutions give channels last, of which torch can view little.
    return _like(x.int_repr().reshape(*shape), x)


def _bounded(x: QuantizedTensor, low: float | None, high: float | None, inplace: bool) -> QuantizedTensor:
    first, last = RANGE[x.dtype]

    def step(value: float | None) -> int | None:
        if value is None:
            return None
        return max(first, min(last, round(max(-1e9, min(1e9, value / x.q_scale()))) + x.q_zero_point()))

    clamp = torch.Tensor.clamp_ if inplace else torch.Tensor.clamp
    return _like(clamp(x.int_repr(), step(low), step(high)), x)


def _relu(x: QuantizedTensor, inplace: bool = False) -> QuantizedTensor:
    return _bounded(x, 0.0, None, inplace)


def _relu6(x: QuantizedTensor, inplace: bool = False) -> QuantizedTensor:
    return _bounded(x, 0.0, 6.0, inplace)


def _hardtanh(
    x: QuantizedTensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> QuantizedTensor:
    return _bounded(x, min_val, max_val, inplace)


def _clamp(x: QuantizedTensor, min: float | None = None, max: float | None = None) -> QuantizedTensor:
    return _bounded(x, min, max, False)


def _post_op(name: str, *, range_of: tuple[float, int] | None = None) -> Callable[..., QuantizedTensor]:
    """One activation; its output has the input's qparams, or (scale, zero point of uint8)."""

    def run(x: QuantizedTensor, inplace: bool = False) -> QuantizedTensor:
        scale, point = x.q_scale(), x.q_zero_point()
        out_scale, out_point = range_of or (scale, point)
        if range_of is not None and x.dtype == torch.int8:
            out_point -= 128
        data = ao.requantize.default(x.int_repr(), scale, point, out_scale, out_point, x.dtype, name)
        return QuantizedTensor(data, out_scale, out_point)

    return run


def _leaky_relu(x: QuantizedTensor, negative_slope: float = 0.01, inplace: bool = False) -> QuantizedTensor:
    scale, point = x.q_scale(), x.q_zero_point()
    arguments = (scale, point, x.dtype, "leaky_relu", [float(negative_slope)])
    return _like(ao.requantize.default(x.int_repr(), scale, point, *arguments), x)


def _gelu(x: QuantizedTensor, approximate: str = "none") -> QuantizedTensor:
    return _post_op("gelu_tanh" if approximate == "tanh" else "gelu")(x)


def _pooled(x: QuantizedTensor, rank: int, op: Any, *arguments: Any) -> QuantizedTensor:
    """An image without a batch dimension is a batch of one."""
    data = x.int_repr()
    single = data.dim() == rank + 1
    result = op(data.unsqueeze(0) if single else data, *arguments)
    return _like(result.squeeze(0) if single else result, x)


def _max_pool(rank: int) -> Callable[..., QuantizedTensor]:
    op = getattr(ao, f"max_pool{rank}d").default

    def run(
        x: QuantizedTensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False, return_indices: bool = False,
    ) -> QuantizedTensor:  # fmt: skip
        # With indices torch calls another function, which has no int8 form.
        windows = [each_dimension(v, rank) for v in (kernel_size, stride or kernel_size, padding, dilation)]
        return _pooled(x, rank, op, *windows, ceil_mode)

    return run


def _avg_pool(rank: int) -> Callable[..., QuantizedTensor]:
    op = getattr(ao, f"avg_pool{rank}d").default

    def run(
        x: QuantizedTensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> QuantizedTensor:  # fmt: skip
        scale, point = x.q_scale(), x.q_zero_point()
        windows = [each_dimension(v, rank) for v in (kernel_size, stride or kernel_size, padding)]
        rest = (ceil_mode, count_include_pad, divisor_override)
        return _pooled(x, rank, op, scale, point, scale, point, x.dtype, *windows, *rest)

    return run


def _adaptive(rank: int) -> Callable[..., QuantizedTensor]:
    op = getattr(ao, f"adaptive_avg_pool{rank}d").default

    def run(x: QuantizedTensor, output_size: Any) -> QuantizedTensor:
        scale, point = x.q_scale(), x.q_zero_point()
        spatial = x.shape[-rank:]
        size = [
            have if want is None else want
            for want, have in zip(each_dimension(output_size, rank), spatial, strict=True)
        ]
        return _pooled(x, rank, op, scale, point, scale, point, x.dtype, size)

    return run


def _through_float(function: Any) -> Callable[..., QuantizedTensor]:
    """float32 in between, qparams kept: results lie in the range of the input."""

    def run(x: QuantizedTensor, *args: Any, **kwargs: Any) -> QuantizedTensor:
        y = function(x.dequantize(), *args, **kwargs)
        return quantize_per_tensor(y, x.q_scale(), x.q_zero_point(), x.dtype)

    return run


def _pad(x: QuantizedTensor, pad: Any, mode: str = "constant", value: float | None = None) -> QuantizedTensor:
    """Constants are rounded to the qparams of x; the other modes repeat its integers."""
    if mode != "constant":
        return _like(functional.pad(x.int_repr(), pad, mode), x)
    low, high = RANGE[x.dtype]
    steps = round((value or 0.0) / x.q_scale()) + x.q_zero_point()
    return _like(functional.pad(x.int_repr(), pad, value=min(max(steps, low), high)), x)


def _interpolate(
    x: QuantizedTensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> QuantizedTensor:  # fmt: skip
    rank = x.dim() - 2
    known = mode == "nearest" and 1 <= rank <= 3 or mode == "bilinear" and rank == 2
    if not known or antialias or (size is None) == (scale_factor is None):
        rest = (size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)
        return _through_float(functional.interpolate)(x, *rest)
    factors: list[float] = []
    if size is None:
        factors = [float(f) for f in each_dimension(scale_factor, rank)]
        sizes = [int(n * f) for n, f in zip(x.shape[2:], factors, strict=True)]
        factors = [] if recompute_scale_factor else factors
    else:
        sizes = [int(n) for n in each_dimension(size, rank)]
    qparams = (x.q_scale(), x.q_zero_point())
    data = ao.interpolate.default(
        x.int_repr(), *qparams, *qparams, x.dtype, sizes, mode, bool(align_corners), factors
    )
    return _like(data, x)


def _mean(x: QuantizedTensor, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> QuantizedTensor:
    rank = x.dim() - 2
    dims = sorted(d % x.dim() for d in each_dimension(dim, 1)) if dim is not None else []
    if dtype is not None or rank not in (1, 2, 3) or dims != list(range(2, x.dim())):
        return _through_float(torch.mean)(x, dim=dim, keepdim=keepdim, dtype=dtype)
    y = _adaptive(rank)(x, 1)
    return y if keepdim else _like(y.int_repr().flatten(1), y)


def _dropout(x: QuantizedTensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    if training:
        raise TypeError("dropout: training must be False for a QuantizedTensor, got True (call model.eval())")
    return x


def _alpha_dropout(x: QuantizedTensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Any:
    return _dropout(x, p, training, inplace)


def _cat(tensors: Any, dim: int = 0) -> QuantizedTensor:
    qparams = {
        (t.q_scale(), t.q_zero_point(), t.dtype) if isinstance(t, QuantizedTensor) else None for t in tensors
    }
    if len(qparams) != 1 or None in qparams:
        refuse(torch.cat, "QuantizedTensors of different qparams, or with a float among them")
    return _like(torch.cat([t.int_repr() for t in tensors], dim), tensors[0])


def _equal(x: Any, y: Any) -> bool:
    if not isinstance(x, QuantizedTensor) or not isinstance(y, QuantizedTensor):
        refuse(torch.equal, "a QuantizedTensor and a float")
    same = x.q_scale() == y.q_scale() and x.q_zero_point() == y.q_zero_point()
    return same and torch.equal(x.int_repr(), y.int_repr())


def _table() -> dict[Any, Callable[..., Any]]:
    table: dict[Any, Callable[..., Any]] = {}

    def put(run: Callable[..., Any], *functions: Any) -> None:
        table.update(dict.fromkeys(functions, run))

    for name in _MOVES:
        for owner in (torch, torch.Tensor):
            if hasattr(owner, name):
                put(_move(getattr(owner, name)), getattr(owner, name))
    for function in _MOVING_FUNCTIONS:
        put(_move(function), function)
    put(_view, torch.Tensor.view)
    put(_relu, torch.relu, torch.Tensor.relu, functional.relu)
    put(lambda x: _relu(x, True), torch.relu_, torch.Tensor.relu_, functional.relu_)
    put(_relu6, functional.relu6)
    put(_hardtanh, functional.hardtanh)
    put(_clamp, torch.clamp, torch.Tensor.clamp, torch.clip, torch.Tensor.clip)
    put(_post_op("hardswish"), functional.hardswish)
    put(_leaky_relu, functional.leaky_relu)
    put(_gelu, functional.gelu)
    unit, signed = (1.0 / 256, 0), (2.0 / 256, 128)
    put(_post_op("sigmoid", range_of=unit), torch.sigmoid, torch.Tensor.sigmoid, functional.sigmoid)
    put(_post_op("hardsigmoid", range_of=unit), functional.hardsigmoid)
    put(_post_op("tanh", range_of=signed), torch.tanh, torch.Tensor.tanh, functional.tanh)
    for rank, maximum, boxed, average, adaptive in (
        (1, torch.max_pool1d, functional.max_pool1d, torch.avg_pool1d, functional.adaptive_avg_pool1d),
        (2, torch.max_pool2d, functional.max_pool2d, functional.avg_pool2d, functional.adaptive_avg_pool2d),
        (3, torch.max_pool3d, functional.max_pool3d, functional.avg_pool3d, functional.adaptive_avg_pool3d),
    ):
        put(_max_pool(rank), maximum, boxed)
        put(_avg_pool(rank), average)
        put(_adaptive(rank), adaptive)
    put(_mean, torch.mean, torch.Tensor.mean)
    put(_interpolate, functional.interpolate)
    put(_pad, functional.pad)
    put(_dropout, functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d)
    put(_alpha_dropout, functional.alpha_dropout, functional.feature_alpha_dropout)
    put(_cat, torch.cat, torch.concat)
    put(_equal, torch.equal, torch.Tensor.equal)
    put(QuantizedTensor.dequantize, torch.dequantize, torch.Tensor.dequantize)
    put(QuantizedTensor.int_repr, torch.int_repr, torch.Tensor.int_repr)
    return table


_TABLE = _table()


def dispatch(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs a torch function on a QuantizedTensor.

    Raises:
        TypeError: it has no int8 form; names the function, the module and what to do.
    """
    run = _TABLE.get(function)
    if run is None and float_fallback.depth == 0:
        refuse(function, "a QuantizedTensor")
    if run is not None:
        named = {("x" if key == "input" else key): value for key, value in kwargs.items()}
        named.pop("_stacklevel", None)
        try:
            return run(*args, **named)
        except Refusal:
            if float_fallback.depth == 0:
                raise
    args, kwargs = tree_map(_float_of, (args, kwargs))
    return function(*args, **kwargs)


def _float_of(value: Any) -> Any:
    return value.dequantize() if isinstance(value, QuantizedTensor) else value
