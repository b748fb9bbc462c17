"""`lower` for a reference graph some of whose operators stay float."""

from typing import Any

import torch
from torch import fx

from torch_ao_ext._lower import lower
from torch_ao_ext.quantization.pt2e._graph import check_graph_module, copy_graph_module

__all__ = ["lower_reference"]

_alias = torch.ops.aten.alias.default


def lower_reference(op: str, model: fx.GraphModule, qconfig_map: dict[str, Any]) -> fx.GraphModule:
    """The int8 graph of a reference graph.

    Args:
        op: for messages.
        model: from `convert_to_reference_fx`; left as it is.
        qconfig_map: name of a node -> QConfig; None there keeps the node float.

    Raises:
        TypeError: not a graph module.
        ValueError: a name that no node has.
    """
    check_graph_module(op, model)
    model = copy_graph_module(model)
    nodes = {node.name: node for node in model.graph.nodes}
    for name in qconfig_map or {}:
        if name not in nodes:
            raise ValueError(f"{op}: argument 'qconfig_map' must have names of nodes, got {name!r}")
    for name, qconfig in (qconfig_map or {}).items():
        if qconfig is None and nodes[name].op == "call_function":
            _set_apart(model.graph, nodes[name])
    result = lower(model)
    for node in list(result.graph.nodes):
        if node.target is _alias and node.meta.get(_alias):
            node.replace_all_uses_with(node.args[0])
            result.graph.erase_node(node)
    result.recompile()
    return result


def _set_apart(graph: fx.Graph, node: fx.Node) -> None:
    """Puts nodes between an operator and its neighbours that `lower` does not look through."""
    for source in node.all_input_nodes:
        with graph.inserting_before(node):
            _mark(graph.call_function(_alias, (source,)), source, node)
    with graph.inserting_after(node):
        behind = graph.call_function(_alias, (node,))
    behind.meta = {**node.meta, _alias: True}
    node.replace_all_uses_with(behind, delete_user_cb=lambda user: user is not behind)


def _mark(made: fx.Node, source: fx.Node, reader: fx.Node) -> None:
    made.meta = {**source.meta, _alias: True}
    reader.replace_input_with(source, made)
