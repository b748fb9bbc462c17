"""Candidates of one layer of an n-shadows model: prepared copies beside it, with loggers."""

from collections.abc import Callable
from typing import Any

from torch import fx, nn

from torch_ao_ext.ns.fx._loggers import copy_float_nodes
from torch_ao_ext.ns.fx._match import target_name
from torch_ao_ext.ns.fx.loggers import OutputComparisonLogger, OutputLogger
from torch_ao_ext.ns.fx.ns_types import NSSingleResultValuesType
from torch_ao_ext.quantization.fx._qconfig_quantizer import QConfigMappingQuantizer
from torch_ao_ext.quantization.qconfig_mapping import QConfigMapping
from torch_ao_ext.quantization.quantize_pt2e import prepare_graph
from torch_ao_ext.quantization.quantizer.utils import innermost_module

__all__ = [
    "chain",
    "comparison_logger",
    "create_n_transformed_and_logged_copies_of_subgraph",
    "create_one_transformed_and_logged_copy_of_subgraph",
]

_OUTPUT = NSSingleResultValuesType.NODE_OUTPUT.value
_GIVEN = ("example_inputs", "prepare_custom_config", "qconfig_mapping")


def chain(op: str, first_node: fx.Node, last_node: fx.Node) -> list[fx.Node]:
    """The nodes from first to last, each the first argument of the next.

    Raises:
        ValueError: no such way from last to first.
    """
    nodes = [last_node]
    while nodes[-1] is not first_node:
        before = nodes[-1].args[0] if nodes[-1].args else None
        if not isinstance(before, fx.Node):
            raise ValueError(
                f"{op}: argument 'first_node' must lead to last_node by first arguments, got {first_node} "
                f"and {last_node}"
            )
        nodes.append(before)
    return nodes[::-1]


def _alone(model: fx.GraphModule, nodes: list[fx.Node]) -> fx.GraphModule:
    """A graph of the nodes only; its input is that of the first."""
    result = fx.GraphModule(nn.Module(), fx.Graph())
    source = nodes[0].args[0]
    x = result.graph.placeholder("x")
    x.meta = dict(source.meta)
    output = result.graph.output(x)
    output.args = (copy_float_nodes(model, tuple(nodes), {source: x}, result, output),)
    result.recompile()
    return result.eval()


def comparison_logger(
    model: fx.GraphModule, name: str, first: fx.Node, values: tuple[fx.Node, ...], fqn: str | None,
    qconfig: str, behind: fx.Node,
) -> fx.Node:  # fmt: skip
    """Logs the value of a layer, or compares that of a candidate with it.

    Args:
        model: gets the logger.
        name: subgraph_I_J of the results.
        first: first node of the layer.
        values: that of the layer, or the candidate's before it.
        fqn: the layer's module.
        qconfig: the candidate's.
        behind: where the call goes.
    """
    last = values[-1]
    logger = (OutputLogger if len(values) == 1 else OutputComparisonLogger)(
        first.name, last.name, name, "model", target_name(last), target_name(first), _OUTPUT, 0, 0, fqn,
        qconfig,
    )  # fmt: skip
    model.add_module(f"{name}_logger", logger)
    with model.graph.inserting_after(behind):
        return model.graph.call_module(f"{name}_logger", values)


def create_one_transformed_and_logged_copy_of_subgraph(
    mt: fx.GraphModule, subgraph_idx: int, subgraph_candidate_idx: int, first_node: fx.Node,
    last_node: fx.Node, fqn: str | None, list_of_node_name_to_qconfig: list[dict[str, Any]],
    example_inputs: Any, last_added_shadow_node_list: list[fx.Node | None],
    custom_prepare_fn: Callable[..., Any] | None = None,
    custom_prepare_kwargs: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Adds a logger behind a float layer, or a candidate of it: a prepared copy and its logger.

    The candidate is the module `subgraph_I_J`, the logger `subgraph_I_J_logger`.

    Args:
        mt: exported graph; changed, and to be recompiled.
        subgraph_idx: I, of the layer.
        subgraph_candidate_idx: J; 0: the float layer, which is not copied.
        first_node: of the layer.
        last_node: of the layer, reached by first arguments.
        fqn: name of the layer's module, for the results.
        list_of_node_name_to_qconfig: item J - 1: name of a node -> its qconfig; None: no candidate.
        example_inputs: of the layer, for custom_prepare_fn.
        last_added_shadow_node_list: one item, the node behind which calls are added; the added one behind it.
        custom_prepare_fn: prepares the copy, as `prepare_fx` does; None: as `prepare_pt2e`.
        custom_prepare_kwargs: its further keyword arguments.

    Raises:
        ValueError: first_node does not lead to last_node, names that are taken, keyword arguments that
            custom_prepare_fn gets anyway, or a qconfig that quantizes nothing in the layer.
    """
    op = "create_one_transformed_and_logged_copy_of_subgraph"
    nodes = chain(op, first_node, last_node)
    name = f"subgraph_{subgraph_idx}_{subgraph_candidate_idx}"
    taken = [n for n in (name, f"{name}_logger") if hasattr(mt, n)]
    if taken:
        raise ValueError(f"{op}: argument 'mt' must not have the candidate yet, got {taken[0]!r}")
    qconfig = None
    behind = last_added_shadow_node_list[0] or last_node
    arguments: tuple[fx.Node, ...] = (last_node,)
    if subgraph_candidate_idx > 0:
        qconfig = list_of_node_name_to_qconfig[subgraph_candidate_idx - 1][first_node.name]
        if qconfig is None:
            return
        mapping = QConfigMapping().set_global(qconfig)
        more = custom_prepare_kwargs or {}
        wrong = [key for key in _GIVEN if key in more]
        if wrong:
            raise ValueError(
                f"{op}: argument 'custom_prepare_kwargs' must not have {wrong[0]!r}, got {sorted(more)}"
            )
        shadow = _alone(mt, nodes)
        if custom_prepare_fn is None:
            shadow = prepare_graph(op, shadow, QConfigMappingQuantizer(mapping))
        else:
            shadow = custom_prepare_fn(shadow, example_inputs=example_inputs, qconfig_mapping=mapping, **more)
        mt.add_module(name, shadow)
        with mt.graph.inserting_after(behind):
            behind = mt.graph.call_module(name, (first_node.args[0],))
        arguments = (behind, last_node)
    last_added_shadow_node_list[0] = comparison_logger(
        mt, name, first_node, arguments, fqn, "" if qconfig is None else str(qconfig), behind
    )


def create_n_transformed_and_logged_copies_of_subgraph(
    mt: fx.GraphModule, subgraph_idx: int, match_name: str, nodes_in_this_subgraph: list[Any],
    qconfig_mappings: list[QConfigMapping], list_of_node_name_to_qconfig: list[dict[str, Any]],
    custom_prepare_fn: Callable[..., Any] | None = None,
    custom_prepare_kwargs: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """A logger behind a float layer, and behind it a candidate for each QConfig that is not None.

    Nothing where all are None, as in layers that are not of single nodes.

    Args:
        mt: exported graph; changed, and to be recompiled.
        subgraph_idx: of the layer.
        match_name: torch.ao's name of the layer; results have subgraph_idx.
        nodes_in_this_subgraph: first to last.
        qconfig_mappings: one for each candidate.
        list_of_node_name_to_qconfig: what each of them has for each node, by name.
        custom_prepare_fn: see `create_one_transformed_and_logged_copy_of_subgraph`; its example inputs are
            what `OutputProp` has noted.
        custom_prepare_kwargs: see there.

    Raises:
        ValueError: as there, or custom_prepare_fn without noted example inputs.
    """
    nodes = nodes_in_this_subgraph
    if not all(isinstance(node, fx.Node) for node in nodes):
        return
    first, last = nodes[0], nodes[-1]
    tables = list_of_node_name_to_qconfig[: len(qconfig_mappings)]
    if all(table[first.name] is None for table in tables):
        return
    inputs: tuple[Any, ...] = ()
    if custom_prepare_fn is not None:
        if not hasattr(first.args[0], "traced_result"):
            raise ValueError(
                "create_n_transformed_and_logged_copies_of_subgraph: argument 'mt' must have example inputs "
                f"(OutputProp(mt).propagate(...)) for custom_prepare_fn, got none for '{first.name}'"
            )
        inputs = (first.args[0].traced_result,)
    added: list[fx.Node | None] = [None]
    for candidate in range(len(tables) + 1):
        create_one_transformed_and_logged_copy_of_subgraph(
            mt, subgraph_idx, candidate, first, last, innermost_module(first), tables, inputs, added,
            custom_prepare_fn, custom_prepare_kwargs,
        )  # fmt: skip
