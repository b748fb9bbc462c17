"""The graph that is made of a frozen program; operators are read by the tables beside this file.

Weights and qparams are constants of a frozen program, and each quantized value's qparams follow
from where it was computed.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

__all__ = ["Handler", "QParams", "Reader"]

ao = torch.ops.torch_ao
QParams = tuple[float, int, torch.dtype]

# Work on the integers; the qparams stay.
_MOVES = {
    "aten::flatten", "aten::view", "aten::reshape", "aten::permute", "aten::transpose", "aten::squeeze",
    "aten::unsqueeze", "aten::slice", "aten::select", "aten::contiguous", "aten::expand", "aten::t",
    "aten::clone", "aten::detach", "aten::alias", "aten::unflatten", "aten::pixel_shuffle", "aten::chunk",
    "aten::split", "aten::split_with_sizes", "aten::unbind",
}  # fmt: skip
_CONSTRUCTED = ("prim::Constant", "prim::ListConstruct", "prim::TupleConstruct")
_QUANTIZED = ("quantized::", "sparse::", "aten::quantize")


class Reader:
    """Builds the graph of one program.

    Args:
        program: frozen.
        handlers: how operators are read, by kind; others run in float.
    """

    def __init__(self, program: torch.jit.ScriptModule, handlers: Mapping[str, "Handler"]) -> None:
        self.graph = fx.Graph()
        self.root = nn.Module()
        self.known: dict[str, Any] = {}
        self.qparams: dict[fx.Node, QParams] = {}
        self.source = program.graph
        self.handlers = handlers
        self.count = 0  # quantized operators

    def fail(self, node: Any, why: str) -> ValueError:
        """The refusal of an operator, with its place in the program."""
        place = node.sourceRange().strip().splitlines()
        return ValueError(
            f"legacy.load_archive: argument 'program' must hold operators that this library has, got "
            f"{node.kind()}: {why}" + (f" ({place[0].strip()})" if place else "")
        )

    def of(self, value: Any) -> Any:
        """The node or constant of a value."""
        name = value.debugName()
        if name in self.known:
            return self.known[name]
        node = value.node()
        if node.kind() == "prim::Constant":
            return value.toIValue()
        if node.kind() in _CONSTRUCTED:
            parts = [self.of(part) for part in node.inputs()]
            return parts if node.kind() == "prim::ListConstruct" else tuple(parts)
        raise self.fail(node, "it has no counterpart")

    def inputs(self, node: Any) -> list[Any]:
        """Nodes and constants of an operator's arguments."""
        return [self.of(value) for value in node.inputs()]

    def call(self, target: Any, *args: Any) -> fx.Node:
        """A new call; tensors become buffers."""
        args = pytree.tree_map_only(torch.Tensor, lambda value: self.constant(value, "constant"), args)
        return self.graph.call_function(target, args)

    def constant(self, value: torch.Tensor | None, kind: str) -> fx.Node | None:
        """A buffer of the graph."""
        if value is None:
            return None
        name = f"{kind}_{len(self.root._buffers)}"
        self.root.register_buffer(name, value.detach())
        return self.graph.get_attr(name)

    def is_quantized(self, value: Any) -> bool:
        """Whether a value has qparams."""
        return isinstance(value, fx.Node) and value in self.qparams

    def quantized(self, node: Any, value: Any) -> QParams:
        """Qparams of an operator's input.

        Raises:
            ValueError: it has none.
        """
        if not self.is_quantized(value):
            raise self.fail(node, "its input is not quantized with constant qparams")
        return self.qparams[value]

    def dequantized(self, value: Any) -> Any:
        """Floats of a quantized value; other values as they are."""
        if isinstance(value, (list, tuple)):
            return type(value)(self.dequantized(part) for part in value)
        if isinstance(value, torch.Tensor) and value.is_quantized:
            return value.dequantize()
        if not self.is_quantized(value):
            return value
        scale, point, _ = self.qparams[value]
        return self.call(ao.dequantize_per_tensor.default, value, scale, point)

    def put(self, node: Any, result: Any, qparams: QParams | None = None) -> None:
        """The result of an operator; with qparams it is quantized."""
        self.known[node.output().debugName()] = result
        if qparams is not None:
            self.qparams[result] = qparams

    def unpack(self, node: Any, result: Any) -> None:
        """The results of an operator, from a tuple or list of them."""
        for i, value in enumerate(node.outputs()):
            part = self.call(operator.getitem, result, i) if isinstance(result, fx.Node) else result[i]
            self.known[value.debugName()] = part
            if self.is_quantized(result):
                self.qparams[part] = self.qparams[result]

    def other(self, node: Any) -> None:
        """An operator of torch: on integers where it only moves them, else on floats."""
        schema = torch._C.parse_schema(node.schema())
        space, _, name = schema.name.partition("::")
        if space != "aten":
            raise self.fail(node, "it has no counterpart")
        target = getattr(getattr(torch.ops.aten, name), schema.overload_name or "default")
        inputs = self.inputs(node)
        moved = bool(inputs) and self.is_quantized(inputs[0]) and schema.name in _MOVES
        values = inputs if moved else [self.dequantized(value) for value in inputs]
        args, kwargs = [], {}
        for argument, value in zip(schema.arguments, values, strict=True):
            if argument.kwarg_only:
                kwargs[argument.name] = value
            else:
                args.append(value)
        result = self.call(target, *args)
        result.kwargs = kwargs
        if moved:
            self.qparams[result] = self.qparams[inputs[0]]
        if node.outputsSize() == 1:
            self.put(node, result)
        else:
            self.unpack(node, result)

    def _structure(self, node: Any) -> None:
        """Operators of TorchScript itself."""
        kind = node.kind()
        if kind == "prim::dtype":
            self.put(node, torch.float32)
        elif kind == "prim::device":
            self.put(node, None)  # this library is for one device, torch's default
        elif kind == "prim::NumToTensor":  # of traces; aten::Int takes it back
            number = self.call(torch.ops.aten.scalar_tensor.default, self.of(next(node.inputs())))
            number.kwargs = {"dtype": torch.int64}
            self.put(node, number)
        elif kind in ("prim::TupleUnpack", "prim::ListUnpack"):
            self.unpack(node, self.of(next(node.inputs())))
        else:
            raise self.fail(node, "control flow that depends on values")

    def _append(self, node: Any) -> None:
        """A list that grows: later uses see it with its new part."""
        parts, part = self.inputs(node)
        if not isinstance(parts, list):
            raise self.fail(node, "to a list that an operator made")
        self.known[next(node.inputs()).debugName()] = parts
        parts.append(part)
        self.put(node, parts)

    def read(self) -> None:
        """All nodes, in order."""
        for value in list(self.source.inputs())[1:]:
            self.known[value.debugName()] = self.graph.placeholder(value.debugName().split(".")[0])
        for node in self.source.nodes():
            kind = node.kind()
            if kind in _CONSTRUCTED:
                continue
            if kind.startswith("prim::"):
                self._structure(node)
            elif kind == "aten::append":
                self._append(node)
            else:
                self.handlers.get(kind, Reader.other)(self, node)
            self.count += kind.startswith(_QUANTIZED)
        results = [self.of(value) for value in self.source.outputs()]
        self.graph.output(self.dequantized(results[0] if len(results) == 1 else tuple(results)))


Handler = Callable[[Reader, Any], None]
