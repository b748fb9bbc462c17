"""Graphs that take or give integers: inputs and outputs without quantize and dequantize."""

from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from torch_ao_ext.quantization import _decomposed
from torch_ao_ext.quantization.pt2e._graph import inherit_meta
from torch_ao_ext.quantization.pt2e.prepare import is_observer

__all__ = ["check_borders", "integer_inputs", "integer_outputs"]

# scale, zero point, smallest and largest integer, dtype
_QParams = tuple[float, int, int, int, torch.dtype]


def _placeholders(graph: fx.GraphModule) -> list[fx.Node]:
    return [node for node in graph.graph.nodes if node.op == "placeholder"]


def _outputs(graph: fx.GraphModule) -> tuple[fx.Node, list[Any], Any]:
    output = next(node for node in graph.graph.nodes if node.op == "output")
    leaves, spec = pytree.tree_flatten(output.args[0])
    return output, leaves, spec


def check_borders(op: str, graph: fx.GraphModule, inputs: list[int], outputs: list[int]) -> None:
    """Raises unless a prepared graph observes the inputs and outputs that are to be integers."""
    modules = dict(graph.named_modules())

    def observes(node: Any) -> bool:
        known = isinstance(node, fx.Node) and node.op == "call_module"
        observer = modules.get(node.target) if known else None
        return is_observer(observer) and not getattr(observer, "is_dynamic", False)

    placeholders, (_, leaves, _) = _placeholders(graph), _outputs(graph)
    for name, indexes, count in (
        ("input_quantized_indexes", inputs, len(placeholders)),
        ("output_quantized_indexes", outputs, len(leaves)),
    ):
        for index in indexes:
            if index >= count:
                raise ValueError(f"{op}: {name} must be less than {count}, got {index}")
    for index in inputs:
        if not any(observes(reader) for reader in placeholders[index].users):
            raise ValueError(
                f"{op}: input_quantized_indexes must name inputs that an int8 operator reads, got {index} "
                f"('{placeholders[index].name}')"
            )
    for index in outputs:
        if not observes(leaves[index]):
            raise ValueError(
                f"{op}: output_quantized_indexes must name outputs that an int8 operator gives, got {index} "
                f"('{leaves[index]}')"
            )


def integer_inputs(graph: fx.GraphModule, indexes: list[int]) -> dict[int, _QParams]:
    """Each of these inputs becomes the integers of its first quantize, in place."""
    ops = _decomposed.operators()
    found: dict[int, _QParams] = {}
    placeholders = _placeholders(graph)
    for index in indexes:
        source = placeholders[index]
        quantize = next(n for n in source.users if n.target is ops.quantize_per_tensor.default)
        qparams = quantize.args[1:]
        with graph.graph.inserting_after(placeholders[-1]):
            value = graph.graph.call_function(ops.dequantize_per_tensor.default, (source, *qparams))
        inherit_meta(value, source)
        same = [n for n in source.users if n.target is quantize.target and n.args[1:] == qparams]
        source.replace_all_uses_with(value, lambda reader, made=value: reader is not made)
        for node in same:
            node.replace_all_uses_with(source)
            graph.graph.erase_node(node)
        if isinstance(source.meta.get("val"), torch.Tensor):
            source.meta["val"] = source.meta["val"].to(qparams[-1])
            source.meta.pop("tensor_meta", None)
        found[index] = qparams
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return found


def integer_outputs(graph: fx.GraphModule, indexes: list[int]) -> dict[int, _QParams]:
    """Each of these outputs becomes the integers behind its dequantize, in place."""
    found: dict[int, _QParams] = {}
    output, leaves, spec = _outputs(graph)
    for index in indexes:
        dequantize = leaves[index]
        leaves[index] = dequantize.args[0]
        found[index] = dequantize.args[1:]
    output.args = (pytree.tree_unflatten(leaves, spec),)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return found
