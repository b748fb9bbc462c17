"""Operators that write in place become functional ones, through views, too.

Observers, and a dequantize for each reader, would otherwise stand between the write and those
who count on it. A write to a view becomes a new value of each tensor that shares the memory.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch._guards import detect_fake_mode

from torch_ao_ext._graph_ops import arguments_of
from torch_ao_ext.quantization.pt2e._graph import inherit_meta, where
from torch_ao_ext.quantization.pt2e._portable import WRITTEN
from torch_ao_ext.quantization.quantizer._targets import argument, aten

__all__ = ["drop_in_place", "mark_written", "views_to_memory", "writes_in_place"]


def writes_in_place(node: fx.Node) -> bool:
    """Whether an operator writes to its first argument."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    first = node.target._schema.arguments[0] if node.target._schema.arguments else None
    written = first is not None and first.alias_info is not None and first.alias_info.is_write
    return written and bool(node.args) and isinstance(node.args[0], fx.Node)


def _functional(node: fx.Node) -> Any:
    """The operator that computes what an in-place one writes; None when node is no such one."""
    target: Any = node.target
    if not writes_in_place(node) or target.namespace != "aten":
        return None
    name = target._schema.name.removeprefix("aten::")
    if not name.endswith("_"):
        return None
    packet = getattr(aten, name[:-1], None)
    return getattr(packet, target._overloadname, None)


def _asked_for_copy(node: fx.Node) -> bool:
    """Whether `to` was called with copy=True."""
    return bool(arguments_of(node).get("copy", False))


def _copies(node: fx.Node) -> bool:
    """Whether an operator that may return its input's memory has to copy here."""
    value, base = node.meta.get("val"), node.args[0].meta.get("val")
    if not isinstance(value, torch.Tensor) or not isinstance(base, torch.Tensor):
        return False
    if value.dtype != base.dtype or _asked_for_copy(node):
        return True
    if node.target is aten.contiguous.default:
        return not base.is_contiguous()
    if node.target in (aten.reshape.default, aten.reshape_as.default, aten.flatten.using_ints):
        with detect_fake_mode([base]):
            try:
                base.view(value.shape)
            except (RuntimeError, ValueError):
                return True
    return False


def _base(node: fx.Node) -> fx.Node | None:
    """The node whose memory a view shows; None when it has its own."""
    if node.op != "call_function" or not node.args or not isinstance(node.args[0], fx.Node):
        return None
    if node.target is operator.getitem:
        return _base(node.args[0])
    if not isinstance(node.target, torch._ops.OpOverload) or not node.target._schema.arguments:
        return None
    shared = node.target._schema.arguments[0].alias_info
    if shared is None or shared.is_write or _copies(node):
        return None
    return node.args[0]


def _transposed(node: fx.Node) -> tuple[Any, ...]:
    return (aten.transpose.int, *node.args[1:])


def _permuted(node: fx.Node) -> tuple[Any, ...]:
    axes = [a % len(node.args[1]) for a in node.args[1]]
    return aten.permute.default, [axes.index(i) for i in range(len(axes))]


# How to undo a view of all elements: (operator, arguments behind the tensor). The others of
# _RESHAPES take the base's sizes.
_UNDO: dict[Any, Callable[[fx.Node], tuple[Any, ...]]] = {
    aten.t.default: lambda node: (aten.t.default,),
    aten.transpose.int: _transposed,
    aten.permute.default: _permuted,
    aten.alias.default: lambda node: (aten.alias.default,),
    aten.detach.default: lambda node: (aten.alias.default,),
    aten.contiguous.default: lambda node: (aten.alias.default,),
    aten.to.dtype: lambda node: (aten.alias.default,),
    aten.to.dtype_layout: lambda node: (aten.alias.default,),
    aten.to.device: lambda node: (aten.alias.default,),
    aten.lift_fresh.default: lambda node: (aten.alias.default,),
}
_RESHAPES = {
    aten.view.default, aten.reshape.default, aten.view_as.default, aten.reshape_as.default,
    aten.flatten.using_ints, aten.unflatten.int, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims,
    aten.unsqueeze.default, aten._unsafe_view.default,
}  # fmt: skip
_SCATTERS = {
    aten.select.int: aten.select_scatter.default,
    aten.slice.Tensor: aten.slice_scatter.default,
    aten.diagonal.default: aten.diagonal_scatter.default,
}
# Operators that give a list of views -> position of their axis.
_LISTS = {
    aten.split.Tensor: 2, aten.split.sizes: 2, aten.split_with_sizes.default: 2, aten.chunk.default: 2,
    aten.unbind.int: 1,
}  # fmt: skip


def _part(view: fx.Node) -> tuple[Any, ...] | None:
    """(scatter, axis, where) of one view of a list, or of narrow; None for sizes that are not known."""
    if view.target is aten.narrow.default:
        _, axis, start, length = view.args
        known = isinstance(start, int) and isinstance(length, int) and start >= 0
        return (aten.slice_scatter.default, axis, start, start + length) if known else None
    parts, index = view.args
    axis = argument(parts, _LISTS[parts.target], 0)
    if parts.target is aten.unbind.int:
        return aten.select_scatter.default, axis, index
    sizes = [value.shape[axis] for value in parts.meta["val"]]
    if not all(isinstance(size, int) for size in sizes):
        return None
    return aten.slice_scatter.default, axis, sum(sizes[:index]), sum(sizes[: index + 1])


def views_to_memory(node: fx.Node) -> list[fx.Node]:
    """node, what it is a view of, ... the node with the memory."""
    chain = [node]
    while (base := _base(chain[-1])) is not None:
        chain.append(base)
    return chain


def mark_written(model: fx.GraphModule) -> None:
    """Notes at the get_attr nodes of buffers that the graph writes to that they are no constants."""
    written = {
        views_to_memory(node.args[0])[-1].target for node in model.graph.nodes if writes_in_place(node)
    }
    for node in model.graph.nodes:
        if node.op == "get_attr" and node.target in written:
            node.meta[WRITTEN] = True


class _Writes:
    """Replaces in-place operators, front to back.

    Args:
        graph: changed in place.
    """

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        # Inputs, and the values that they got -> the input.
        self.inputs = {n: n for n in graph.nodes if n.op == "placeholder"}

    def call(self, like: fx.Node, target: Any, *arguments: Any, **keywords: Any) -> fx.Node:
        """A new node behind the last one made, with the place and values of another."""
        with self.graph.inserting_after(self.last):
            self.last = self.graph.call_function(target, arguments, keywords)
        inherit_meta(self.last, like)
        return self.last

    def written_base(self, view: fx.Node, value: fx.Node) -> fx.Node:
        """The base's new value after value was written to its view."""
        of_list = view.target is operator.getitem
        base = view.args[0].args[0] if of_list else view.args[0]
        if view.target in _RESHAPES:
            return self.call(base, aten.reshape_as.default, value, base)
        if view.target in _UNDO:
            target, *rest = _UNDO[view.target](view)
            return self.call(base, target, value, *rest)
        if view.target in _SCATTERS:
            return self.call(base, _SCATTERS[view.target], base, value, *view.args[1:], **view.kwargs)
        by_size = view.args[0].target in _LISTS if of_list else view.target is aten.narrow.default
        part = _part(view) if by_size else None
        if part is not None:
            return self.call(base, part[0], base, value, *part[1:])
        raise ValueError(
            "prepare: argument 'model' must not write in place to a view that has no form as a new value, "
            f"{where(view)}; write to a copy, got {view.format_node()}"
        )

    def replace(self, node: fx.Node, functional: Any) -> None:
        """One in-place operator; those that write to buffers stay, inputs get the new value."""
        source = node.args[0]
        chain = views_to_memory(source)
        memory = chain[-1]
        written = next((n for n in chain if n in self.inputs), None)
        order = {n: i for i, n in enumerate(self.graph.nodes)}
        views = self._views(memory, order, node)
        if not any(order[u] > order[node] for n in {*chain, *views} - {source} for u in n.users):
            views, chain = [], [source] if written is None else chain
        self.last = node
        now = {source: node}
        if memory.op != "get_attr":
            node.target = functional
            for view, base in zip(chain, chain[1:], strict=False):
                now[base] = self.written_base(view, now[view])
        elif len(chain) > 1:
            now[memory] = self.call(memory, aten.alias.default, memory)  # its values from here on
        for view in views:
            if view not in now:
                now[view] = self.call(view, view.target, now[view.args[0]], *view.args[1:], **view.kwargs)
        made = {*now.values()}
        if written is not None:
            caller = self.inputs[now[written]] = self.inputs[written]
            made.add(self.call(caller, aten.copy_.default, caller, now[written]))
        for old, new in now.items():
            for reader in list(old.users):
                if reader not in made and order.get(reader, -1) > order[node]:
                    reader.replace_input_with(old, new)

    def _views(self, memory: fx.Node, order: dict[fx.Node, int], node: fx.Node) -> list[fx.Node]:
        """What shows this memory before a node, bases first."""
        found, new = [], [memory]
        while new:
            users = [u for n in new for u in n.users]
            new = [u for u in users if order[u] < order[node] and _base(u) is not None and u.args[0] in new]
            found += new
        return sorted(dict.fromkeys(found), key=order.__getitem__)


def drop_in_place(model: fx.GraphModule) -> None:
    """In-place operators become functional; in place.

    Writes to buffers of the graph stay, through views, too; inputs that are written to get their
    new values by a copy.

    Raises:
        ValueError: a write to a view that has no form as a new value, by node and line.
    """
    writes = _Writes(model.graph)
    for node in list(model.graph.nodes):
        functional = _functional(node)
        if functional is not None:
            writes.replace(node, functional)
    mark_written(model)
