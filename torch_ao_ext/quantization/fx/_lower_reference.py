"""`lower` for a reference graph some of whose operators stay float."""

from typing import Any

from torch import fx

from torch_ao_ext._lower import lower_nodes
from torch_ao_ext.quantization.fx._left_float import join, set_apart
from torch_ao_ext.quantization.pt2e._graph import check_graph_module, copy_graph_module

__all__ = ["lower_reference"]


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
    nodes = {node.name: node for node in model.graph.nodes}
    for name in qconfig_map or {}:
        if name not in nodes:
            raise ValueError(f"{op}: argument 'qconfig_map' must have names of nodes, got {name!r}")
    none = [name for name, qconfig in (qconfig_map or {}).items() if qconfig is None]
    apart = copy_graph_module(model)
    set_apart(apart, [name for name in none if nodes[name].op == "call_function"])
    return join(lower_nodes(apart))
