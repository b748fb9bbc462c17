"""Quantize, dequantize, sums, products, joins and activations of a program."""

from typing import Any

import torch

from torch_ao_ext._quantized_functions import RANGE
from torch_ao_ext.nn.quantized._static import STORAGE
from torch_ao_ext.quantization._archive._reader import Handler, QParams, Reader, ao

__all__ = ["HANDLERS", "number", "quantize_to"]

aten = torch.ops.aten

# (scale, zero point) of results with a known range.
_FIXED = {"sigmoid": (1 / 256, 0), "hardsigmoid": (1 / 256, 0), "tanh": (2 / 256, 128)}


def _dtype(value: Any) -> Any:
    """A dtype of TorchScript, which may be its number."""
    names = {12: torch.qint8, 13: torch.quint8, 14: torch.qint32}
    return names.get(value, value) if isinstance(value, int) else value


def number(reader: Reader, node: Any, value: Any) -> float:
    """A constant of the program.

    Raises:
        ValueError: it is computed.
    """
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return float(value)
    if isinstance(value, (int, float)):
        return float(value)
    raise reader.fail(node, "by a number that is computed")


def scalar(reader: Reader, node: Any) -> None:
    """A tensor as a number: scripts keep qparams in tensors."""
    value = reader.of(next(node.inputs()))
    if isinstance(value, torch.Tensor):
        reader.put(node, value.item())
    else:
        reader.other(node)


def quantize_to(reader: Reader, node: Any, x: Any, qparams: QParams) -> None:
    """The result: a float value with these qparams."""
    scale, point, dtype = qparams
    result = reader.call(ao.quantize_per_tensor.default, x, scale, point, *RANGE[dtype], dtype)
    reader.put(node, result, qparams)


def quantize(reader: Reader, node: Any) -> None:
    """aten::quantize_per_tensor."""
    x, scale, point, dtype = reader.inputs(node)
    stored = STORAGE.get(_dtype(dtype))
    if stored is None:
        raise reader.fail(node, f"dtype {_dtype(dtype)}")
    quantize_to(reader, node, x, (float(scale), int(point), stored))


def dequantize(reader: Reader, node: Any) -> None:
    """aten::dequantize."""
    reader.put(node, reader.dequantized(reader.of(next(node.inputs()))))


def binary(reader: Reader, node: Any) -> None:
    """quantized::add, mul, and those with relu."""
    inputs = reader.inputs(node)
    if len(inputs) == 2 and any(reader.is_quantized(value) for value in inputs):
        return (add_scalar if "::add" in node.kind() else mul_scalar)(reader, node)
    if len(inputs) != 4:
        raise reader.fail(node, "it writes into an argument")
    first, second, scale, point = inputs
    target = ao.add.default if "::add" in node.kind() else ao.mul.default
    a, b = reader.quantized(node, first), reader.quantized(node, second)
    out = (float(scale), int(point), a[2])
    post = "relu" if node.kind().endswith("_relu") else ""
    return reader.put(node, reader.call(target, first, *a[:2], second, *b[:2], *out, post, []), out)


def _operand_and_number(reader: Reader, node: Any) -> tuple[Any, float, QParams]:
    x, y = reader.inputs(node)
    x, y = (x, y) if reader.is_quantized(x) else (y, x)
    return x, number(reader, node, y), reader.quantized(node, x)


def _rectified(reader: Reader, node: Any, result: Any, qparams: QParams) -> None:
    if "_relu" in node.kind():
        result = reader.call(aten.clamp_min.default, result, qparams[1])
    reader.put(node, result, qparams)


def add_scalar(reader: Reader, node: Any) -> None:
    """quantized::add_scalar: the zero point moves; see `nn.quantized.QFunctional.add_scalar`."""
    x, y, (scale, point, dtype) = _operand_and_number(reader, node)
    low, high = RANGE[dtype]
    moved = point - round(y / scale)
    if low <= moved <= high:
        return _rectified(reader, node, reader.call(aten.alias.default, x), (scale, moved, dtype))
    bound, end = (low, high) if moved < low else (high, low)
    wider = scale * abs(end - moved) / (high - low)
    real = reader.call(aten.add.Scalar, reader.dequantized(x), (point - moved) * scale)
    data = reader.call(ao.quantize_per_tensor.default, real, wider, bound, low, high, dtype)
    return _rectified(reader, node, data, (wider, bound, dtype))


def mul_scalar(reader: Reader, node: Any) -> None:
    """quantized::mul_scalar: the scale is multiplied, a negative number mirrors the integers."""
    x, y, (scale, point, dtype) = _operand_and_number(reader, node)
    low, high = RANGE[dtype]
    if y > 0:
        return _rectified(reader, node, reader.call(aten.alias.default, x), (scale * y, point, dtype))
    if y == 0:
        return _rectified(reader, node, reader.call(aten.full_like.default, x, point), (scale, point, dtype))
    # low + high is 255 or -1: what turns all bits.
    mirrored = reader.call(aten.bitwise_not.default, x)
    return _rectified(reader, node, mirrored, (scale * -y, low + high - point, dtype))


def cat(reader: Reader, node: Any) -> None:
    """quantized::cat; aten::cat takes the qparams of its first part."""
    inputs = reader.inputs(node)
    parts, dim = inputs[:2]
    first = reader.quantized(node, parts[0])
    given = len(inputs) == 4 and inputs[2] is not None
    out = (float(inputs[2]), int(inputs[3]), first[2]) if given else first
    same = []
    for part in parts:
        qparams = reader.quantized(node, part)
        if qparams != out:
            part = reader.call(ao.requantize.default, part, *qparams[:2], *out, "", [])
        same.append(part)
    _rectified(reader, node, reader.call(aten.cat.default, same, dim), out)


def plain_cat(reader: Reader, node: Any) -> None:
    """aten::cat, of quantized values or of floats."""
    parts = reader.of(next(node.inputs()))
    integers = isinstance(parts, list) and all(reader.is_quantized(part) for part in parts)
    (cat if integers else Reader.other)(reader, node)


def activation(reader: Reader, node: Any) -> None:
    """Activations with output qparams."""
    inputs = reader.inputs(node)
    name = node.kind().removeprefix("quantized::")
    numbers = [float(inputs[1])] if name == "leaky_relu" else []
    scale, point = inputs[-2:]
    qparams = reader.quantized(node, inputs[0])
    out = (float(scale), int(point), qparams[2])
    reader.put(node, reader.call(ao.requantize.default, inputs[0], *qparams[:2], *out, name, numbers), out)


def relu(reader: Reader, node: Any) -> None:
    """aten::relu of integers is a bound at the zero point."""
    x = reader.of(next(node.inputs()))
    if not reader.is_quantized(x):
        return reader.other(node)
    qparams = reader.qparams[x]
    return reader.put(node, reader.call(aten.clamp_min.default, x, qparams[1]), qparams)


def fixed(reader: Reader, node: Any) -> None:
    """Activations whose results have a known range."""
    x, name = reader.of(next(node.inputs())), node.kind().split("::")[1]
    if not reader.is_quantized(x):
        return reader.other(node)
    out = (*_FIXED[name], torch.uint8)
    qparams = reader.qparams[x]
    return reader.put(node, reader.call(ao.requantize.default, x, *qparams[:2], *out, name, []), out)


def bounded(reader: Reader, node: Any) -> None:
    """hardtanh, clamp and relu6 of integers."""
    x, *bounds = reader.inputs(node)
    if not reader.is_quantized(x):
        return reader.other(node)
    scale, point, dtype = reader.qparams[x]
    values = (0.0, 6.0) if node.kind().endswith("relu6") else bounds[:2]
    whole = RANGE[dtype]
    cut = [
        end if v is None else min(max(round(v / scale) + point, whole[0]), whole[1])
        for v, end in zip(values, whole, strict=True)
    ]
    return reader.put(node, reader.call(aten.clamp.default, x, *cut), reader.qparams[x])


HANDLERS: dict[str, Handler] = {
    "aten::quantize_per_tensor": quantize,
    "aten::dequantize": dequantize,
    **{f"aten::{op}": scalar for op in ("Float", "FloatImplicit", "Int", "IntImplicit", "item")},
    "aten::relu": relu,
    "aten::relu_": relu,
    **{f"aten::{op}": fixed for op in _FIXED},
    **{f"aten::{op}": bounded for op in ("hardtanh", "hardtanh_", "clamp", "relu6")},
    **{f"quantized::{op}": bounded for op in ("relu6", "clamp")},
    "aten::cat": plain_cat,
    **{f"quantized::cat{relu}": cat for relu in ("", "_relu")},
    **{f"quantized::{op}{relu}": binary for op in ("add", "mul") for relu in ("", "_relu")},
    **{f"quantized::add_scalar{relu}": add_scalar for relu in ("", "_relu")},
    **{f"quantized::mul_scalar{relu}": mul_scalar for relu in ("", "_relu")},
    **{f"quantized::{op}": activation for op in ("hardswish", "leaky_relu", "sigmoid")},
}
