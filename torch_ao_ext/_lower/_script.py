"""Lowered and reference graphs for TorchScript: torch.jit.script takes them, with their free sizes."""

from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from torch_ao_ext._island import Island
from torch_ao_ext._lower._inputs import CHECKS_OF_CONSTANTS, InputCheck, check_input, check_inputs
from torch_ao_ext._lower._sizes import sizes_by_method
from torch_ao_ext.quantization.pt2e._graph import copy_graph_module
from torch_ao_ext.quantization.pt2e._portable import PortableGraphModule

__all__ = ["LoweredModule", "ReferenceModule"]


class LoweredModule(PortableGraphModule):
    """The graph that `lower` makes."""

    def __prepare_scriptable__(self) -> fx.GraphModule:
        return _scriptable(_of_operators(self))


class ReferenceModule(PortableGraphModule):
    """The graph that `lower` takes."""

    def __prepare_scriptable__(self) -> fx.GraphModule:
        return _scriptable(_checked(_of_operators(self)))


def _checked(model: fx.GraphModule) -> LoweredModule:
    """A copy with checks that TorchScript has in the place of torch.export's."""
    result = copy_graph_module(model, LoweredModule)
    check_inputs(result, sizes_by_method(result))
    return result


def _of_operators(model: fx.GraphModule) -> fx.GraphModule:
    """Itself, or a graph with the operators of the modules that it calls whole.

    Raises:
        RuntimeError: torch.export does not take one of these modules.
    """
    from torch_ao_ext.quantization.fx._capture import examples_of, export_whole, kept_calls

    kept = list(kept_calls(model))
    if not kept:
        return model
    op = "torch.jit.script"
    try:
        with torch.no_grad():
            return _checked(export_whole(op, model, examples_of(op, model), []))
    except ValueError as error:
        raise RuntimeError(
            f"{op}: modules that are called whole ({', '.join(kept)}) must be what torch.export "
            f"captures; trace the model instead: {error}"
        ) from error


class _Scriptable(fx.GraphModule):
    """TorchScript reads the source of __init__ and complains of what it finds in that of fx."""

    def __init__(self, root: Any, graph: fx.Graph) -> None:
        super().__init__(root, graph)


def _checks(graph: fx.Graph, node: fx.Node, check: InputCheck) -> None:
    """The checks of inputs as calls of a function that TorchScript compiles."""
    with graph.inserting_before(node):
        for value, known in zip(node.args, check.expected, strict=True):
            if known is not None:
                name, sizes, dtype = known
                free = [-1 if size is None else size for size in sizes]
                graph.call_function(check_input, (value, name, free, dtype))
        for index, name, want in check.values:
            node.args[index].type = type(want)  # an input without one is a tensor
            graph.call_function(CHECKS_OF_CONSTANTS[type(want)], (node.args[index], name, want))
    graph.erase_node(node)


def _island_call(result: fx.GraphModule, node: fx.Node, module: Island) -> None:
    """The operator in the place of its module; a plain one keeps the constants."""
    graph, names = result.graph, [*module._parameters, *module._buffers]
    keeper = torch.nn.Module()
    keeper._parameters.update(module._parameters)
    keeper._buffers.update(module._buffers)
    result.add_module(str(node.target), keeper)
    with graph.inserting_before(node):
        constants = [graph.get_attr(f"{node.target}.{name}") for name in names]
        call = graph.call_function(torch.ops.torch_ao.island, (list(node.args), constants, module.program))
    node.replace_all_uses_with(call)
    graph.erase_node(node)


def _scriptable(model: fx.GraphModule) -> fx.GraphModule:
    """A copy in the Python subset that TorchScript reads."""
    result = copy_graph_module(model, _Scriptable)
    graph = result.graph
    spec = getattr(graph._codegen, "pytree_info", None)
    graph._codegen = fx.graph.CodeGen()  # torch.export's flattens its inputs by Python code
    for node in list(graph.nodes):
        if node.op == "call_module":
            module = result.get_submodule(node.target)
            if isinstance(module, Island):
                _island_call(result, node, module)
                continue
            if not isinstance(module, InputCheck):
                raise RuntimeError(
                    f"torch.jit.script: module '{node.target}' must be traced: it is called whole"
                )
            _checks(graph, node, module)
        elif node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            node.target = node.target.overloadpacket
    output = next(node for node in reversed(graph.nodes) if node.op == "output")
    if spec is not None and spec.out_spec is not None:
        leaves = pytree.tree_leaves(output.args[0])
        output.args = (pytree.tree_unflatten(leaves, spec.out_spec),)
    result.delete_all_unused_submodules()
    result.recompile()
    return result
