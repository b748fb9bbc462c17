"""TorchScript programs with torch.ao's `quantized::` operators, as graphs of this library's.

The program is frozen: weights and qparams are constants then, and each quantized value's qparams
follow from where it was computed.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from torch_ao_ext._lower._script import LoweredModule
from torch_ao_ext._quantized_functions import RANGE
from torch_ao_ext.nn.quantized._static import STORAGE
from torch_ao_ext.nn.quantized._weighted import weight_of_tensor

__all__ = ["load_archive"]

ao = torch.ops.torch_ao
_QParams = tuple[float, int, torch.dtype]

# (scale, zero point) of results with a known range.
_FIXED = {"sigmoid": (1 / 256, 0), "hardsigmoid": (1 / 256, 0), "tanh": (2 / 256, 128)}

# Work on the integers; the qparams stay.
_MOVES = {
    "aten::flatten", "aten::view", "aten::reshape", "aten::permute", "aten::transpose", "aten::squeeze",
    "aten::unsqueeze", "aten::slice", "aten::select", "aten::contiguous", "aten::expand", "aten::t",
    "aten::clone", "aten::detach", "aten::alias", "aten::unflatten", "aten::pixel_shuffle",
}  # fmt: skip


class _Reader:
    """Builds the graph of one frozen program.

    Args:
        program: frozen.
    """

    def __init__(self, program: torch.jit.ScriptModule) -> None:
        self.graph = fx.Graph()
        self.root = nn.Module()
        self.known: dict[str, Any] = {}
        self.qparams: dict[fx.Node, _QParams] = {}
        self.source = program.graph
        self.count = 0

    def _fail(self, node: Any, why: str) -> ValueError:
        place = node.sourceRange().strip().splitlines()
        return ValueError(
            f"legacy.load_archive: argument 'program' must hold operators that this library has, got "
            f"{node.kind()}: {why}" + (f" ({place[0].strip()})" if place else "")
        )

    def _of(self, value: Any) -> Any:
        """The node or constant of a value."""
        name = value.debugName()
        if name in self.known:
            return self.known[name]
        node = value.node()
        if node.kind() == "prim::Constant":
            return value.toIValue()
        if node.kind() in ("prim::ListConstruct", "prim::TupleConstruct"):
            parts = [self._of(part) for part in node.inputs()]
            return parts if node.kind() == "prim::ListConstruct" else tuple(parts)
        raise self._fail(node, "it has no counterpart")

    def _call(self, target: Any, *args: Any) -> fx.Node:
        return self.graph.call_function(target, args)

    def _constant(self, value: torch.Tensor | None, kind: str) -> fx.Node | None:
        if value is None:
            return None
        name = f"{kind}_{len(self.root._buffers)}"
        self.root.register_buffer(name, value.detach())
        return self.graph.get_attr(name)

    def _quantized(self, node: Any, value: Any) -> _QParams:
        if value not in self.qparams:
            raise self._fail(node, "its input is not quantized with constant qparams")
        return self.qparams[value]

    def _dequantized(self, value: Any) -> Any:
        """Floats of a quantized value; other values as they are."""
        if isinstance(value, (list, tuple)):
            return type(value)(self._dequantized(part) for part in value)
        if not isinstance(value, fx.Node) or value not in self.qparams:
            return value
        scale, point, _ = self.qparams[value]
        return self._call(ao.dequantize_per_tensor.default, value, scale, point)

    def _put(self, node: Any, result: fx.Node, qparams: _QParams | None = None) -> None:
        self.known[node.output().debugName()] = result
        if qparams is not None:
            self.qparams[result] = qparams
            self.count += 1

    # One method for each kind of operator.

    def quantize(self, node: Any) -> None:
        """aten::quantize_per_tensor."""
        x, scale, point, dtype = (self._of(value) for value in node.inputs())
        scale, point, stored = float(scale), int(point), STORAGE.get(_dtype(dtype))
        if stored is None:
            raise self._fail(node, f"dtype {_dtype(dtype)}")
        result = self._call(ao.quantize_per_tensor.default, x, scale, point, *RANGE[stored], stored)
        self._put(node, result, (scale, point, stored))

    def dequantize(self, node: Any) -> None:
        """aten::dequantize."""
        self._put(node, self._dequantized(self._of(next(node.inputs()))))

    def _weight(self, node: Any, weight: torch.Tensor, axis: int) -> tuple[Any, Any, Any]:
        if weight.dtype != torch.qint8:
            raise self._fail(node, f"weights in {weight.dtype}")
        found = weight_of_tensor(weight, axis)
        parts = (found.data, found.scale, found.zero_point)
        names = ("qweight", "weight_scale", "weight_zero_point")
        return tuple(self._constant(v, n) for v, n in zip(parts, names, strict=True))  # type: ignore[return-value]

    def linear(self, node: Any) -> None:
        """quantized::linear and linear_relu."""
        x, packed, scale, point = (self._of(value) for value in node.inputs())
        weight, bias = torch.ops.quantized.linear_unpack(packed)
        in_scale, in_point, dtype = self._quantized(node, x)
        out = (float(scale), int(point), dtype)
        post = "relu" if node.kind().endswith("_relu") else ""
        result = self._call(
            ao.linear.default, x, in_scale, in_point, *self._weight(node, weight, 0),
            self._constant(bias, "qbias"), *out, post, [], None, 1.0, 0,
        )  # fmt: skip
        self._put(node, result, out)

    def linear_dynamic(self, node: Any) -> None:
        """quantized::linear_dynamic and linear_relu_dynamic."""
        x, packed, reduce_range = (self._of(value) for value in node.inputs())
        weight, bias = torch.ops.quantized.linear_unpack(packed)
        post = "relu" if "_relu" in node.kind() else ""
        result = self._call(
            ao.linear_dynamic.default, x, *self._weight(node, weight, 0), self._constant(bias, "qbias"),
            False, False, bool(reduce_range), None, post, [], None,
        )  # fmt: skip
        self._put(node, result)
        self.count += 1

    def conv(self, node: Any) -> None:
        """quantized::conv1d to conv3d, conv_transpose1d to 3d, and those with relu."""
        inputs = [self._of(value) for value in node.inputs()]
        x, packed, (scale, point) = inputs[0], inputs[1], inputs[-2:]
        kind = node.kind().removeprefix("quantized::")
        post = "relu" if kind.endswith("_relu") else ""
        kind = kind.removesuffix("_relu")
        rank, transposed = int(kind[-2]), "transpose" in kind
        quantized = torch.ops.quantized
        weight, bias = getattr(quantized, f"{kind}_unpack")(packed)
        wide = f"{'conv_transpose' if transposed else 'conv'}{max(rank, 2)}d"

        def geometry(name: str) -> list[int]:
            return list(getattr(quantized, f"{wide}_{name}")(packed))[-rank:]

        stride, padding, dilation = (geometry(name) for name in ("stride", "padding", "dilation"))
        groups = int(getattr(quantized, f"{wide}_groups")(packed))
        if transposed:
            numbers = [stride, padding, geometry("output_padding"), groups, dilation]
        else:
            numbers = [stride, padding, dilation, groups]
        in_scale, in_point, dtype = self._quantized(node, x)
        out = (float(scale), int(point), dtype)
        result = self._call(
            getattr(ao, kind).default, x, in_scale, in_point,
            *self._weight(node, weight, 1 if transposed else 0), self._constant(bias, "bias"), *out, *numbers,
            post, [], None, 1.0, 0,
        )  # fmt: skip
        self._put(node, result, out)

    def binary(self, node: Any) -> None:
        """quantized::add, mul, and those with relu."""
        first, second, scale, point = (self._of(value) for value in node.inputs())
        target = ao.add.default if "::add" in node.kind() else ao.mul.default
        a, b = self._quantized(node, first), self._quantized(node, second)
        out = (float(scale), int(point), a[2])
        post = "relu" if node.kind().endswith("_relu") else ""
        self._put(node, self._call(target, first, *a[:2], second, *b[:2], *out, post, []), out)

    def cat(self, node: Any) -> None:
        """quantized::cat; aten::cat takes the qparams of its first part."""
        inputs = [self._of(value) for value in node.inputs()]
        parts, dim = inputs[:2]
        first = self._quantized(node, parts[0])
        given = len(inputs) == 4 and inputs[2] is not None
        out = (float(inputs[2]), int(inputs[3]), first[2]) if given else first
        same = []
        for part in parts:
            qparams = self._quantized(node, part)
            if qparams != out:
                part = self._call(ao.requantize.default, part, *qparams[:2], *out, "", [])
            same.append(part)
        self._put(node, self._call(torch.ops.aten.cat.default, same, dim), out)

    def plain_cat(self, node: Any) -> None:
        """aten::cat, of quantized values or of floats."""
        parts = self._of(next(node.inputs()))
        integers = all(isinstance(part, fx.Node) and part in self.qparams for part in parts)
        (self.cat if integers else self.other)(node)

    def activation(self, node: Any) -> None:
        """Activations with output qparams."""
        inputs = [self._of(value) for value in node.inputs()]
        name = node.kind().removeprefix("quantized::")
        numbers = [float(inputs[1])] if name == "leaky_relu" else []
        scale, point = inputs[-2:]
        qparams = self._quantized(node, inputs[0])
        out = (float(scale), int(point), qparams[2])
        self._put(node, self._call(ao.requantize.default, inputs[0], *qparams[:2], *out, name, numbers), out)

    def relu(self, node: Any) -> None:
        """aten::relu of integers is a bound at the zero point."""
        x = self._of(next(node.inputs()))
        if x not in self.qparams:
            return self.other(node)
        qparams = self.qparams[x]
        return self._put(node, self._call(torch.ops.aten.clamp_min.default, x, qparams[1]), qparams)

    def fixed(self, node: Any) -> None:
        """Activations whose results have a known range."""
        x, name = self._of(next(node.inputs())), node.kind().split("::")[1]
        if x not in self.qparams:
            return self.other(node)
        out = (*_FIXED[name], torch.uint8)
        qparams = self.qparams[x]
        return self._put(node, self._call(ao.requantize.default, x, *qparams[:2], *out, name, []), out)

    def bounded(self, node: Any) -> None:
        """hardtanh, clamp and relu6 of integers."""
        x, *bounds = [self._of(value) for value in node.inputs()]
        if x not in self.qparams:
            return self.other(node)
        scale, point, dtype = self.qparams[x]
        values = (0.0, 6.0) if node.kind().endswith("relu6") else bounds[:2]
        whole = RANGE[dtype]
        cut = [
            end if v is None else min(max(round(v / scale) + point, whole[0]), whole[1])
            for v, end in zip(values, whole, strict=True)
        ]
        result = self._call(torch.ops.aten.clamp.default, x, *cut)
        return self._put(node, result, self.qparams[x])

    def pool(self, node: Any) -> None:
        """Pooling keeps the qparams."""
        inputs = [self._of(value) for value in node.inputs()]
        x, kind = inputs[0], node.kind().split("::")[1]
        if x not in self.qparams:
            return self.other(node)
        qparams, target = self.qparams[x], getattr(ao, kind).default
        if kind.startswith("max_pool"):
            stride = inputs[2] or None
            return self._put(node, self._call(target, x, inputs[1], stride, *inputs[3:]), qparams)
        rest = inputs[1:] if kind.startswith("adaptive") else [inputs[1], inputs[2] or None, *inputs[3:]]
        return self._put(node, self._call(target, x, *qparams[:2], *qparams, *rest), qparams)

    def mean(self, node: Any) -> None:
        """Mean over all places of an image is adaptive pooling."""
        x, dims, keep = [self._of(value) for value in node.inputs()][:3]
        if x not in self.qparams:
            return self.other(node)
        rank = len(dims or ())
        if sorted(d % (rank + 2) for d in dims or ()) != list(range(2, rank + 2)) or rank not in (1, 2, 3):
            raise self._fail(node, f"of quantized values over dimensions {dims}")
        qparams = self.qparams[x]
        target = getattr(ao, f"adaptive_avg_pool{rank}d").default
        result = self._call(target, x, *qparams[:2], *qparams, [1] * rank)
        self.qparams[result] = qparams
        if not keep:
            result = self._call(torch.ops.aten.flatten.using_ints, result, 1)
        return self._put(node, result, qparams)

    def size(self, node: Any) -> None:
        """aten::size of one dimension."""
        x, *dim = (self._of(value) for value in node.inputs())
        self._put(node, self.graph.call_method("size", (x, *dim)))

    def other(self, node: Any) -> None:
        """An operator of torch: on integers where it only moves them, else on floats."""
        schema = torch._C.parse_schema(node.schema())
        space, _, name = schema.name.partition("::")
        if space != "aten":
            raise self._fail(node, "it has no counterpart")
        target = getattr(getattr(torch.ops.aten, name), schema.overload_name or "default")
        inputs = [self._of(value) for value in node.inputs()]
        moved = isinstance(inputs[0], fx.Node) and inputs[0] in self.qparams and schema.name in _MOVES
        values = inputs if moved else [self._dequantized(value) for value in inputs]
        if node.outputsSize() != 1:
            raise self._fail(node, f"it has {node.outputsSize()} results")
        args, kwargs = [], {}
        for argument, value in zip(schema.arguments, values, strict=True):
            value = self._constant(value, "constant") if isinstance(value, torch.Tensor) else value
            if argument.kwarg_only:
                kwargs[argument.name] = value
            else:
                args.append(value)
        result = self.graph.call_function(target, tuple(args), kwargs)
        self._put(node, result, self.qparams[inputs[0]] if moved else None)

    def read(self) -> None:
        """All nodes, in order."""
        for value in list(self.source.inputs())[1:]:
            self.known[value.debugName()] = self.graph.placeholder(value.debugName().split(".")[0])
        for node in self.source.nodes():
            kind = node.kind()
            if kind in ("prim::Constant", "prim::ListConstruct", "prim::TupleConstruct"):
                continue
            if kind == "prim::dtype":
                self.known[node.output().debugName()] = torch.float32
                continue
            if kind.startswith("prim::"):
                raise self._fail(node, "control flow that depends on values")
            _HANDLERS.get(kind, _Reader.other)(self, node)
        results = [self._of(value) for value in self.source.outputs()]
        output = self._dequantized(results[0] if len(results) == 1 else tuple(results))
        self.graph.output(output)


def _dtype(value: Any) -> Any:
    """A dtype of TorchScript, which may be its number."""
    names = {12: torch.qint8, 13: torch.quint8, 14: torch.qint32}
    return names.get(value, value) if isinstance(value, int) else value


_HANDLERS: dict[str, Callable[[_Reader, Any], None]] = {
    "aten::quantize_per_tensor": _Reader.quantize,
    "aten::dequantize": _Reader.dequantize,
    "aten::relu": _Reader.relu,
    "aten::relu_": _Reader.relu,
    "aten::mean": _Reader.mean,
    **{f"aten::{op}": _Reader.fixed for op in ("sigmoid", "hardsigmoid", "tanh")},
    **{f"aten::{op}": _Reader.bounded for op in ("hardtanh", "hardtanh_", "clamp", "relu6")},
    "quantized::relu6": _Reader.bounded,
    "aten::size": _Reader.size,
    "aten::cat": _Reader.plain_cat,
    "quantized::cat": _Reader.cat,
    "quantized::linear_dynamic": _Reader.linear_dynamic,
    "quantized::linear_relu_dynamic": _Reader.linear_dynamic,
    **{f"quantized::linear{relu}": _Reader.linear for relu in ("", "_relu")},
    **{f"quantized::{op}{relu}": _Reader.binary for op in ("add", "mul") for relu in ("", "_relu")},
    **{f"quantized::{op}": _Reader.activation for op in ("hardswish", "leaky_relu", "sigmoid")},
    **{
        f"quantized::conv{part}{rank}d{relu}": _Reader.conv
        for part in ("", "_transpose") for rank in (1, 2, 3) for relu in ("", "_relu")
    },
    **{
        f"aten::{op}{rank}d": _Reader.pool
        for op in ("max_pool", "avg_pool", "adaptive_avg_pool") for rank in (1, 2, 3)
    },
}  # fmt: skip


def load_archive(program: Any) -> fx.GraphModule:
    """See `legacy.load_archive`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about the dtypes that it will delete
        if not isinstance(program, torch.jit.ScriptModule):
            program = torch.jit.load(program)
        if not program._c._has_method("forward"):
            raise ValueError(
                "legacy.load_archive: argument 'program' must have a method forward, got none (script a "
                "module that calls it)"
            )
        frozen = torch.jit.freeze(program.eval())
        for node in list(frozen.graph.nodes()):
            if node.kind() == "prim::If" and node.outputsSize() == 0:
                node.destroy()  # checks of sizes; the operators check their own
        torch._C._jit_pass_dce(frozen.graph)
        reader = _Reader(frozen)
        reader.read()
    if not reader.count:
        raise ValueError(
            "legacy.load_archive: argument 'program' must hold quantized:: operators, got none"
        )
    result = LoweredModule(reader.root, reader.graph)
    result.graph.eliminate_dead_code()
    result.graph.lint()
    result.recompile()
    return result

