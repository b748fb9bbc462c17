"""Operators between quantized values that compute in float32, as the modules of `nn.quantized` do."""

from typing import Any

import torch

from torch_ao_ext.quantization._archive._elementwise import quantize_to
from torch_ao_ext.quantization._archive._reader import Handler, Reader

__all__ = ["HANDLERS"]

aten = torch.ops.aten


def _compute(reader: Reader, node: Any, target: Any, *args: Any) -> Any:
    return reader.call(target, *map(reader.dequantized, args))


def _between(target: Any, arguments: Any) -> Handler:
    """An operator whose last arguments are the scale and zero point of its result.

    Args:
        target: operator of torch on floats.
        arguments: makes its arguments of the others.
    """

    def run(reader: Reader, node: Any) -> None:
        *inputs, scale, point = reader.inputs(node)
        dtype = reader.quantized(node, inputs[0])[2]
        y = _compute(reader, node, target, *arguments(*inputs))
        if node.kind().endswith("_relu"):
            y = reader.call(aten.relu.default, y)
        quantize_to(reader, node, y, (float(scale), int(point), dtype))

    return run


def _leading(target: Any) -> Handler:
    """An operator whose scale and zero point come second: elu, celu."""

    def run(reader: Reader, node: Any) -> None:
        x, scale, point, *numbers = reader.inputs(node)
        dtype = reader.quantized(node, x)[2]
        y = _compute(reader, node, target, x, *numbers)
        quantize_to(reader, node, y, (float(scale), int(point), dtype))

    return run


def _batch_norm(x: Any, weight: Any, bias: Any, mean: Any, var: Any, eps: float) -> tuple[Any, ...]:
    return x, weight, bias, mean, var, False, 0.0, eps, False


def _instance_norm(x: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, ...]:
    return x, weight, bias, None, None, True, 0.0, eps, False


def keep(reader: Reader, node: Any) -> None:
    """An operator of torch whose result has the qparams of its input."""
    x = reader.of(next(node.inputs()))
    if not reader.is_quantized(x):
        return reader.other(node)
    schema = torch._C.parse_schema(node.schema())
    name = schema.name.split("::")[1]
    target = getattr(getattr(aten, name), schema.overload_name or "default")
    y = _compute(reader, node, target, *reader.inputs(node))
    return quantize_to(reader, node, y, reader.qparams[x])


def dropout(reader: Reader, node: Any) -> None:
    """quantized::dropout of a program for inference."""
    x, _, _, _, training = reader.inputs(node)
    qparams = reader.quantized(node, x)
    if training:
        raise reader.fail(node, "in training mode")
    reader.put(node, reader.call(aten.alias.default, x), qparams)


def _all(*args: Any) -> tuple[Any, ...]:
    return args


HANDLERS: dict[str, Handler] = {
    "quantized::layer_norm": _between(aten.layer_norm.default, _all),
    "quantized::group_norm": _between(aten.group_norm.default, _all),
    "quantized::instance_norm": _between(aten.instance_norm.default, _instance_norm),
    **{
        f"quantized::batch_norm{rank}{relu}": _between(aten.batch_norm.default, _batch_norm)
        for rank in ("", "1d", "2d", "3d") for relu in ("", "_relu")
    },
    "quantized::prelu": _between(aten.prelu.default, _all),
    "quantized::softmax": _between(aten.softmax.int, _all),
    "quantized::matmul": _between(aten.matmul.default, _all),
    "quantized::elu": _leading(aten.elu.default),
    "quantized::celu": _leading(aten.celu.default),
    "quantized::dropout": dropout,
    **{f"aten::reflection_pad{rank}d": keep for rank in (1, 2)},
    **{f"aten::upsample_{kind}": keep for kind in ("nearest1d", "nearest2d", "nearest3d", "bilinear2d")},
    "aten::leaky_relu": keep,
    "aten::gelu": keep,
}  # fmt: skip
