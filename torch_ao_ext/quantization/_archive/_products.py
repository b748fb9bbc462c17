"""Linear layers and convolutions of a program: static, dynamic and sparse."""

from typing import Any

from torch_ao_ext.nn.quantized._observed import QuantizedWeight
from torch_ao_ext.ops.sparse_linear import BLOCKS, to_block_sparse
from torch_ao_ext.quantization import _packed
from torch_ao_ext.quantization._archive._reader import Handler, Reader, ao

__all__ = ["HANDLERS"]


def _unpacked(reader: Reader, node: Any, unpack: Any, *args: Any) -> Any:
    try:
        return unpack(*args)
    except ValueError as error:
        raise reader.fail(node, f"its weight {error}") from error


def _weight(reader: Reader, found: QuantizedWeight) -> tuple[Any, ...]:
    parts = (found.data, found.scale, found.zero_point)
    return tuple(map(reader.constant, parts, ("qweight", "weight_scale", "weight_zero_point")))


def _post_op(kind: str) -> str:
    for end in ("leaky_relu", "relu", "tanh"):
        if kind.removesuffix("_dynamic").endswith("_" + end):
            return end
    return ""


def linear(reader: Reader, node: Any) -> None:
    """quantized::linear and those with relu, leaky_relu, tanh."""
    x, packed, scale, point, *numbers = reader.inputs(node)
    weight, bias = _unpacked(reader, node, _packed.linear_of, packed)
    in_scale, in_point, dtype = reader.quantized(node, x)
    out = (float(scale), int(point), dtype)
    result = reader.call(
        ao.linear.default, x, in_scale, in_point, *_weight(reader, weight), reader.constant(bias, "qbias"),
        *out, _post_op(node.kind()), [float(v) for v in numbers], None, 1.0, 0,
    )  # fmt: skip
    reader.put(node, result, out)


def linear_dynamic(reader: Reader, node: Any) -> None:
    """quantized::linear_dynamic and linear_relu_dynamic."""
    x, packed, reduce_range = reader.inputs(node)
    weight, bias = _unpacked(reader, node, _packed.linear_of, packed)
    result = reader.call(
        ao.linear_dynamic.default, x, *_weight(reader, weight), reader.constant(bias, "qbias"),
        False, False, bool(reduce_range), None, _post_op(node.kind()), [], None,
    )  # fmt: skip
    reader.put(node, result)


def half_weights(reader: Reader, node: Any) -> None:
    """quantized::linear_dynamic_fp16: refused."""
    raise reader.fail(node, "its weights are float16, those of this library int8")


def _sparse(reader: Reader, node: Any, packed: Any) -> tuple[Any, ...]:
    found, bias, block = _unpacked(reader, node, _packed.sparse_of, packed)
    if block not in BLOCKS:
        raise reader.fail(
            node, f"its blocks are {block}, those of this library {' or '.join(map(str, BLOCKS))}"
        )
    names = ("qweight", "row_offsets", "column_indices")
    *parts, size = to_block_sparse(found.data, block)
    scale = reader.constant(found.scale, "weight_scale")
    return *map(reader.constant, parts, names), size, scale, reader.constant(bias, "qbias")


def sparse_linear(reader: Reader, node: Any) -> None:
    """sparse::qlinear and qlinear_relu."""
    x, packed, scale, point = reader.inputs(node)
    in_scale, in_point, dtype = reader.quantized(node, x)
    out = (float(scale), int(point), dtype)
    weight = _sparse(reader, node, packed)
    target = ao.sparse_linear.default
    reader.put(node, reader.call(target, x, in_scale, in_point, *weight, *out, _post_op(node.kind())), out)


def sparse_linear_dynamic(reader: Reader, node: Any) -> None:
    """sparse::qlinear_dynamic and qlinear_relu_dynamic; they quantize the whole input to 0..255."""
    x, packed = reader.inputs(node)
    rule = (False, False, False, None, _post_op(node.kind()))
    reader.put(node, reader.call(ao.sparse_linear_dynamic.default, x, *_sparse(reader, node, packed), *rule))


def _conv(reader: Reader, node: Any, packed: Any) -> tuple[Any, _packed.Convolution]:
    """Operator and parts of a convolution."""
    name = node.kind().removeprefix("quantized::").removesuffix("_relu").removesuffix("_add")
    kind = name.removesuffix("_dynamic")
    return getattr(ao, name).default, _unpacked(reader, node, _packed.conv_of, kind, packed)


def conv(reader: Reader, node: Any) -> None:
    """quantized::conv1d to conv3d, conv_transpose1d to 3d, those with add and relu."""
    inputs = reader.inputs(node)
    added = "_add" in node.kind()
    x, packed, (scale, point) = inputs[0], inputs[2 if added else 1], inputs[-2:]
    target, found = _conv(reader, node, packed)
    in_scale, in_point, dtype = reader.quantized(node, x)
    out = (float(scale), int(point), dtype)
    posts = [name for name, has in (("add", added), ("relu", node.kind().endswith("_relu"))) if has]
    other = (inputs[1], *reader.quantized(node, inputs[1])[:2]) if added else (None, 1.0, 0)
    result = reader.call(
        target, x, in_scale, in_point, *_weight(reader, found.weight), reader.constant(found.bias, "bias"),
        *out, *found.numbers, ",".join(posts), [], *other,
    )  # fmt: skip
    reader.put(node, result, out)


def conv_dynamic(reader: Reader, node: Any) -> None:
    """quantized::conv1d_dynamic to conv_transpose3d_dynamic, as `nn.quantized.dynamic.Conv2d`."""
    x, packed, _ = reader.inputs(node)
    target, found = _conv(reader, node, packed)
    y = reader.call(
        target, x, *_weight(reader, found.weight), reader.constant(found.bias, "bias"), True, False, False,
        None, *found.numbers,
    )  # fmt: skip
    reader.put(node, y)


HANDLERS: dict[str, Handler] = {
    **{f"quantized::linear{post}": linear for post in ("", "_relu", "_leaky_relu", "_tanh")},
    **{f"quantized::linear{relu}_dynamic": linear_dynamic for relu in ("", "_relu")},
    **{f"quantized::linear{relu}_dynamic_fp16": half_weights for relu in ("", "_relu")},
    **{f"sparse::qlinear{relu}": sparse_linear for relu in ("", "_relu")},
    **{f"sparse::qlinear{relu}_dynamic": sparse_linear_dynamic for relu in ("", "_relu")},
    **{f"quantized::conv2d_add{relu}": conv for relu in ("", "_relu")},
    **{
        f"quantized::conv{part}{rank}d{relu}": conv
        for part in ("", "_transpose") for rank in (1, 2, 3) for relu in ("", "_relu")
    },
    **{
        f"quantized::conv{part}{rank}d_dynamic": conv_dynamic
        for part in ("", "_transpose") for rank in (1, 2, 3)
    },
}  # fmt: skip
