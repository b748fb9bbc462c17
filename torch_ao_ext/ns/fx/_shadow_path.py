"""The int8 path beside the float path of an exported graph: how errors add up from layer to layer."""

from typing import Any

from torch import fx

from torch_ao_ext.ns.fx._shadows import (
    comparison_logger,
    create_n_transformed_and_logged_copies_of_subgraph,
    create_one_transformed_and_logged_copy_of_subgraph,
)
from torch_ao_ext.quantization.qconfig_mapping import QConfigMapping
from torch_ao_ext.quantization.quantizer._targets import float_value
from torch_ao_ext.quantization.quantizer.utils import innermost_module

__all__ = ["create_add_loggers_graph"]


def create_add_loggers_graph(
    model: fx.GraphModule, subgraphs_dedup: dict[str, list[fx.Node]], qconfig_mapping: QConfigMapping,
    node_name_to_qconfig: dict[str, Any],
) -> None:  # fmt: skip
    """A second path through a graph: layers quantized, each reading what the second path gives.

    Results stay those of the float path. The second path has the prepared layers, for
    `convert_n_shadows_model`, and copies of the other operators; loggers compare both behind each.

    Args:
        model: exported graph without in-place operators; changed.
        subgraphs_dedup: name -> nodes of a layer, first to last.
        qconfig_mapping: of the second path.
        node_name_to_qconfig: name of a first node -> its QConfig; None, or no entry: a copy.

    Raises:
        ValueError: as `create_n_transformed_and_logged_copies_of_subgraph`.
    """
    layer_of = {node: nodes for nodes in subgraphs_dedup.values() for node in nodes}
    second: dict[fx.Node, fx.Node] = {}  # node of the float path -> that of the second path
    index = 0
    for node in [n for n in model.graph.nodes if n.op == "call_function"]:
        nodes = layer_of.get(node, [node])
        first, last = nodes[0], nodes[-1]
        if node is not last:
            continue
        qconfig = node_name_to_qconfig.get(first.name) if node in layer_of else None
        if qconfig is not None:
            create_n_transformed_and_logged_copies_of_subgraph(
                model, index, first.name, nodes, [qconfig_mapping], [{first.name: qconfig}]
            )
            name = f"subgraph_{index}_1"
            shadow = next(n for n in model.graph.nodes if n.op == "call_module" and n.target == name)
            shadow.update_arg(0, second.get(first.args[0], first.args[0]))
            second[last] = shadow
        elif "val" in node.meta:
            _copy(model, index, nodes, second)
        index += 1
    model.recompile()


def _copy(model: fx.GraphModule, index: int, nodes: list[fx.Node], second: dict[fx.Node, fx.Node]) -> None:
    """Copies of the nodes on the second path, a comparison of the last where it is a float tensor."""
    first, last = nodes[0], nodes[-1]
    behind = last
    for node in nodes:
        with model.graph.inserting_after(behind):
            behind = second[node] = model.graph.node_copy(node, lambda n: second.get(n, n))
    if float_value(last):
        fqn = innermost_module(first)
        added: list[fx.Node | None] = [None]
        create_one_transformed_and_logged_copy_of_subgraph(model, index, 0, first, last, fqn, [], (), added)
        comparison_logger(model, f"subgraph_{index}_1", first, (behind, last), fqn, "", behind)
