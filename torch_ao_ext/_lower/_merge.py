"""Neighbouring operators of a lowered graph become one operator that runs them all.

A call from Python costs more than many an int8 operator; inside an island the next one
follows in C++. Operators belong to one island when no path between them leaves it.
"""

import functools
import math
import operator
from collections import defaultdict
from typing import Any

import torch
from torch import fx

from torch_ao_ext._float_functions import computes_in_float, why_float
from torch_ao_ext._float_ops import FLOAT_LAYERS
from torch_ao_ext._graph_ops import REASON, arguments_of, owner, product_macs
from torch_ao_ext._island import Island
from torch_ao_ext._lower._script import LoweredModule
from torch_ao_ext.quantization.pt2e._graph import (
    copy_graph_module,
    free_name,
    inherit_meta,
    remove_unused,
    tensor_of,
)
from torch_ao_ext.quantization.pt2e._in_place import views_to_memory, writes_in_place

_FEWEST = 2  # operators that are worth an island
_UNMERGED = "_torch_ao_ext_unmerged"
_DTYPES = {
    torch.uint8, torch.int8, torch.int32, torch.int64, torch.float32, torch.float64, torch.bfloat16,
}  # fmt: skip
# By their numbers.
_FORMATS = (torch.contiguous_format, torch.preserve_format, torch.channels_last, torch.channels_last_3d)


@functools.cache
def _known() -> frozenset[str]:
    return frozenset(torch.ops.torch_ao._island_operators())


class _NotWritten(Exception):  # noqa: N818 - a reason
    """An argument that a program has no form for."""


def _name(node: fx.Node) -> str | None:
    """The operator's name in programs, None where islands do not know it."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return None
    schema = node.target._schema
    name = f"{schema.name}.{schema.overload_name}" if schema.overload_name else schema.name
    return name if name in _known() else None


def _float(value: float) -> str:
    return f"{value!r}" if math.isfinite(value) else ("nan" if math.isnan(value) else f"{value}")


def _list(declared: Any, values: Any) -> str:
    kind = str(declared.type)
    if "Tensor" in kind:
        return "T"
    if any(isinstance(v, (bool, fx.Node)) or not isinstance(v, (int, float)) for v in values):
        raise _NotWritten
    if "float" in kind:
        return "F" + ",".join(_float(float(v)) for v in values)
    if any(not isinstance(v, int) for v in values):
        raise _NotWritten
    return "I" + ",".join(map(str, values))


def _token(declared: Any, value: Any) -> str:
    """A constant argument in the form of csrc/ops/island_program.h."""
    kind = str(declared.type)
    if value is None:
        return "n"
    if "Tensor" in kind and not isinstance(value, (list, tuple)):
        raise _NotWritten  # a number that the dispatcher makes a tensor of
    if isinstance(value, torch.dtype):
        if value not in _DTYPES:
            raise _NotWritten
        return "d" + str(value).removeprefix("torch.")
    if isinstance(value, torch.memory_format):
        return f"i{_FORMATS.index(value)}"
    if isinstance(value, bool):
        return f"b{int(value)}"
    if isinstance(value, (list, tuple)):
        return _list(declared, value)
    if isinstance(value, int) and kind.startswith("List"):  # one number for all dimensions
        return "I" + ",".join([str(value)] * (declared.N or 1))
    if isinstance(value, float) or (isinstance(value, int) and "float" in kind):
        return "f" + _float(float(value))
    if isinstance(value, int):
        return f"i{value}"
    if isinstance(value, str) and " " not in value and "\n" not in value:
        return "s" + value
    raise _NotWritten


def _arguments(node: fx.Node) -> list[tuple[Any, Any]]:
    """(declared argument, value) in schema order, without the defaults at the end."""
    declared = node.target._schema.arguments
    given = arguments_of(node)
    last = max((i for i, a in enumerate(declared) if a.name in given), default=-1)
    return [(a, given.get(a.name, a.default_value)) for a in declared[: last + 1]]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, fx.Node) and (
        value.op == "get_attr" or isinstance(value.meta.get("val"), torch.Tensor) or _name(value) is not None
    )


def _fits(node: fx.Node) -> bool:
    if _name(node) is None:
        return False
    try:
        for declared, value in _arguments(node):
            tensors = value if isinstance(value, (list, tuple)) else [value]
            if any(isinstance(v, fx.Node) for v in tensors):
                if not all(_is_tensor(v) for v in tensors):
                    return False
            else:
                _token(declared, value)
    except _NotWritten:
        return False
    return True


def _levels(graph: fx.Graph) -> dict[fx.Node, tuple[int, bool]]:
    """(level, fits) of each node: one level higher behind every operator outside.

    What depends on no operator that fits has level -1 and comes first. Nothing moves past an
    operator that writes in place, and the views that one writes to are no results of an island.
    """
    written = {n for w in graph.nodes if writes_in_place(w) for n in views_to_memory(w.args[0])}
    levels: dict[fx.Node, tuple[int, bool]] = {}
    barrier: list[tuple[int, bool]] = []
    for node in graph.nodes:
        fits = node not in written and _fits(node)
        before = [levels[n] for n in node.all_input_nodes] + barrier
        if writes_in_place(node):
            before += levels.values()
        if fits:
            level = max([0, *(at + (not inside) for at, inside in before)])
        else:
            level = max([-1, *(at for at, _ in before)])
        levels[node] = (level, fits)
        if writes_in_place(node):
            barrier = [levels[node]]
    return levels


def _sort(graph: fx.Graph, levels: dict[fx.Node, tuple[int, bool]]) -> None:
    """Puts each island's operators one behind the other."""
    output = next(n for n in graph.nodes if n.op == "output")
    inputs = [n for n in graph.nodes if n.op == "placeholder"]
    others = [n for n in graph.nodes if n.op != "placeholder" and n is not output]
    others.sort(key=lambda n: (levels[n][0], not levels[n][1]))
    for node in [*inputs, *others]:
        output.prepend(node)


class _Writer:
    """Writes the program of one island.

    Args:
        model: holds the constants.
        members: the operators, in order.
    """

    def __init__(self, model: fx.GraphModule, members: list[fx.Node]) -> None:
        inside = set(members)
        sources = dict.fromkeys(n for m in members for n in m.all_input_nodes if n not in inside)
        known = [(n, tensor_of(model, n)) for n in sources]
        self.inputs = [n for n, value in known if value is None]
        constants = [(n, value) for n, value in known if value is not None]
        constants.sort(key=lambda pair: not isinstance(pair[1], torch.nn.Parameter))
        self.constants = [(str(n.target).replace(".", "_"), value) for n, value in constants]
        self.results = [m for m in members if any(user not in inside for user in m.users)]
        self.numbers = {n: f"%{i}" for i, n in enumerate([*self.inputs, *members])}
        self.numbers |= {n: f"@{i}" for i, (n, _) in enumerate(constants)}
        head = f"torch_ao.island 1 inputs={len(self.inputs)} constants={len(constants)}"
        returned = " ".join(self.numbers[r] for r in self.results)
        self.text = "\n".join([head, *map(self._line, members), f"return {returned}"])

    def _token(self, declared: Any, value: Any) -> str:
        if isinstance(value, fx.Node):
            return self.numbers[value]
        if isinstance(value, (list, tuple)) and any(isinstance(v, fx.Node) for v in value):
            return "T" + ",".join(self.numbers[v] for v in value)
        return _token(declared, value)

    def _line(self, node: fx.Node) -> str:
        tokens = [self._token(declared, value) for declared, value in _arguments(node)]
        line = " ".join([str(_name(node)), *tokens]) + f" # {owner(node)}"
        if macs := product_macs(node):
            line += f" macs={macs}"
        if computes_in_float(node):
            line += f" float={node.meta[REASON]}"
        return line


def _merge(model: fx.GraphModule, members: list[fx.Node]) -> None:
    graph, writer = model.graph, _Writer(model, members)
    name = free_name(model, "island")
    model.add_module(name, Island(writer.constants, writer.text))
    with graph.inserting_before(members[0]):
        call = graph.call_module(name, tuple(writer.inputs))
        results = [graph.call_function(operator.getitem, (call, i)) for i in range(len(writer.results))]
    for old, new in zip(writer.results, results, strict=True):
        inherit_meta(new, old)
        old.replace_all_uses_with(new)
    for node in reversed(members):
        graph.erase_node(node)


def unmerged(model: fx.GraphModule) -> fx.GraphModule:
    """The graph with a node for each operator that islands were made of; the tensors are shared."""
    return model.__dict__.get(_UNMERGED, model)


def merge_islands(model: fx.GraphModule) -> None:
    """Merges the operators of a lowered graph, in place; their constants move into the islands.

    The graph as it was stays beside it for `unmerged`.
    """
    before = copy_graph_module(model, LoweredModule)
    for node in model.graph.nodes:  # now, while each sees its neighbours
        if computes_in_float(node) and node.target not in FLOAT_LAYERS:
            node.meta[REASON] = why_float(node)
    levels = _levels(model.graph)
    _sort(model.graph, levels)
    islands = defaultdict(list)
    for node in model.graph.nodes:
        level, fits = levels[node]
        if fits:
            islands[level].append(node)
    for members in islands.values():
        if len(members) >= _FEWEST:
            _merge(model, members)
            model.__dict__[_UNMERGED] = before  # no child: its tensors are those of the islands
    remove_unused(model)
