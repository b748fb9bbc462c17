"""Parts of two graphs that compute the same."""

import enum
from collections.abc import Iterator
from typing import Any

from torch import fx

from torch_ao_ext._graph_ops import FUSED
from torch_ao_ext.ns.fx._match import GraphMatchingException, check_graph, matches
from torch_ao_ext.ns.fx.mappings import (
    get_base_name_for_op,
    get_base_name_to_sets_of_related_ops,
    get_unmatchable_types_map,
)
from torch_ao_ext.ns.fx.ns_types import NSNodeTargetType, NSSubgraph
from torch_ao_ext.ns.fx.pattern_utils import (
    end_node_matches_reversed_fusion,
    get_reversed_fusions,
    get_type_a_related_to_b,
)
from torch_ao_ext.quantization.pt2e.prepare import is_observer
from torch_ao_ext.quantization.utils import getattr_from_fqn

__all__ = ["GraphMatchingException", "SubgraphTypeRelationship", "get_matching_subgraph_pairs"]

_OP = "get_matching_subgraph_pairs"


class SubgraphTypeRelationship(enum.Enum):
    """How the operators of two parts are related."""

    EQUAL = enum.auto()
    EQUAL_BUT_UKNOWN = enum.auto()  # the same, in no table
    RELATED_BUT_NOT_EQUAL = enum.auto()
    NOT_RELATED = enum.auto()


def _kind(gm: fx.GraphModule, node: fx.Node) -> Any:
    """The function or operator of a node, a method's name, or the class of a module."""
    return type(getattr_from_fqn(gm, str(node.target))) if node.op == "call_module" else node.target


def _matchable(gm: fx.GraphModule, node: fx.Node, unmatchable: dict[str, set[NSNodeTargetType]]) -> bool:
    if node.op == "call_module":
        module = getattr_from_fqn(gm, str(node.target))
        return not isinstance(module, tuple(unmatchable["mods_unmatchable"]))  # type: ignore[arg-type]
    if node.op in ("call_function", "call_method"):
        key = "funs_unmatchable" if node.op == "call_function" else "meths_unmatchable"
        return node.target not in unmatchable[key]
    return False


def _parts(gm: fx.GraphModule, unmatchable: dict[str, set[NSNodeTargetType]]) -> Iterator[NSSubgraph]:
    """From the results back; an observer alone is none."""
    fusions = get_reversed_fusions()
    seen: set[fx.Node] = set()
    stack = [node for node in gm.graph.nodes if node.op == "output"]
    while stack:
        end = stack.pop()
        if end in seen:
            continue
        nodes, base = [end], 0
        for fusion, index in fusions:
            if end_node_matches_reversed_fusion(end, fusion, gm, seen):
                while len(nodes) < len(fusion):
                    nodes.append(nodes[-1].args[0])  # type: ignore[arg-type]
                base = index
                break
        seen.update(nodes)
        start, middle = nodes[-1], nodes[len(nodes) - 1 - base]
        stack += start.all_input_nodes
        alone = end is start and end.op == "call_module"
        if alone and is_observer(getattr_from_fqn(gm, str(end.target))):
            continue
        if _matchable(gm, middle, unmatchable):
            yield NSSubgraph(start, end, middle)


def _relationship(a: NSSubgraph, b: NSSubgraph, kinds: tuple[Any, Any], related: Any) -> Any:
    modules = [part.base_op_node.op == "call_module" for part in (a, b)]
    if modules[0] != modules[1]:
        return SubgraphTypeRelationship.NOT_RELATED
    if kinds not in related:
        same = kinds[0] == kinds[1]
        return SubgraphTypeRelationship.EQUAL_BUT_UKNOWN if same else SubgraphTypeRelationship.NOT_RELATED
    alike = [part.base_op_node is part.start_node for part in (a, b)]
    if kinds[0] == kinds[1] and alike[0] == alike[1]:
        return SubgraphTypeRelationship.EQUAL
    return SubgraphTypeRelationship.RELATED_BUT_NOT_EQUAL


def _by_notes(a: fx.GraphModule, b: fx.GraphModule) -> list[tuple[NSSubgraph, NSSubgraph]]:
    """Of a lowered graph, from the results back; first the notes that `lower` left."""
    return [
        (NSSubgraph(match.nodes[0], match.nodes[-1], match.nodes[0]),
         NSSubgraph(match.node, match.node, match.node))
        for match in reversed(matches(_OP, a, b))
    ]  # fmt: skip


def _by_kinds(
    a: fx.GraphModule, b: fx.GraphModule, sets: dict[str, set[NSNodeTargetType]],
    unmatchable: dict[str, set[NSNodeTargetType]],
) -> list[tuple[NSSubgraph, NSSubgraph]]:  # fmt: skip
    related = get_type_a_related_to_b(sets)
    first, second = list(_parts(a, unmatchable)), list(_parts(b, unmatchable))
    found = []
    for left, right in zip(first, second, strict=False):
        kinds = _kind(a, left.base_op_node), _kind(b, right.base_op_node)
        relationship = _relationship(left, right, kinds, related)
        if relationship == SubgraphTypeRelationship.NOT_RELATED:
            raise GraphMatchingException(
                f"{_OP}: the graphs must have related operators in the same order, got {left.base_op_node} "
                f"({kinds[0]}) and {right.base_op_node} ({kinds[1]})"
            )
        if relationship != SubgraphTypeRelationship.EQUAL_BUT_UKNOWN:
            found.append((left, right))
    if len(first) != len(second):
        raise GraphMatchingException(
            f"{_OP}: the graphs must have the same number of operators, got {len(first)} and {len(second)}"
        )
    return found


def get_matching_subgraph_pairs(
    gm_a: fx.GraphModule, gm_b: fx.GraphModule,
    base_name_to_sets_of_related_ops: dict[str, set[NSNodeTargetType]] | None = None,
    unmatchable_types_map: dict[str, set[NSNodeTargetType]] | None = None,
) -> dict[str, tuple[NSSubgraph, NSSubgraph]]:  # fmt: skip
    """Pairs of an operator, or a sequence that counts as one, in two graphs.

    Operators of a graph that `lower` or `convert_fx` made are found by what it noted of their origin, where
    gm_a is the prepared or exported graph; a lowered gm_b is seen with a node for each operator. Other
    graphs are walked from their results back: both must have related operators in the same order.

    Args:
        gm_a: the float, observed or traced graph.
        gm_b: the other.
        base_name_to_sets_of_related_ops: default: `mappings.get_base_name_to_sets_of_related_ops`.
        unmatchable_types_map: what is passed over; default: `mappings.get_unmatchable_types_map`.

    Returns:
        "base_op_NAME_I" -> part of gm_a, part of gm_b, those of the results last; I counts from them.

    Raises:
        ValueError: not two graphs.
        GraphMatchingException: no operator in common, another number of operators, unrelated ones.

    Example:
        >>> import torch
        >>> from torch_ao_ext.ns.fx.graph_matcher import get_matching_subgraph_pairs
        >>> net = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()))
        >>> {name: a.end_node.name for name, (a, b) in get_matching_subgraph_pairs(net, net).items()}
        {'base_op_linear_0': '_1'}
    """
    first, second = check_graph(_OP, "gm_a", gm_a), check_graph(_OP, "gm_b", gm_b)
    sets = base_name_to_sets_of_related_ops
    sets = get_base_name_to_sets_of_related_ops() if sets is None else sets
    if any(FUSED in node.meta for node in second.graph.nodes):
        pairs = _by_notes(first, second)
    else:
        unmatchable = unmatchable_types_map
        pairs = _by_kinds(
            first, second, sets, get_unmatchable_types_map() if unmatchable is None else unmatchable
        )
    counts: dict[str, int] = {}
    found = {}
    for pair in pairs:
        kind = _kind(first, pair[0].base_op_node)
        name = get_base_name_for_op(sets, kind) or getattr(kind, "__name__", str(kind))
        found[f"base_op_{name}_{counts.get(name, 0)}"] = pair
        counts[name] = counts.get(name, 0) + 1
    return dict(reversed(found.items()))
