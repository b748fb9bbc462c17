"""Finds chains of modules and functions in an fx graph."""

from typing import Any

from torch import nn
from torch.fx import Node
from torch.nn.utils.parametrize import type_before_parametrizations

__all__ = ["MatchAllNode", "apply_match"]


class MatchAllNode:
    """Pattern element that matches every node."""


def _match(modules: dict[str, nn.Module], node: Any, current: Any) -> bool:
    """Whether one node is what the pattern element names.

    An element is a module class (its instances), a function, or a node's target as text.
    """
    if isinstance(current, type) and issubclass(current, MatchAllNode):
        return True
    if not isinstance(node, Node):
        return False
    if isinstance(current, type) and issubclass(current, nn.Module):
        return node.op == "call_module" and type_before_parametrizations(modules[node.target]) is current
    if isinstance(current, str):
        return node.target == current
    return callable(current) and node.op == "call_function" and node.target is current


def apply_match(
    modules: dict[str, nn.Module], pattern: Any, node: Node, matched_node_pattern: list[Node]
) -> list[Node] | None:
    """The nodes of the first chain from `node` through users that fits the pattern.

    Args:
        modules: Modules of the graph by name.
        pattern: One element or a tuple of elements.
        node: Where the chain begins.
        matched_node_pattern: Nodes to put in front of the answer.

    Returns:
        The nodes, or None when no chain fits.
    """
    first, *rest = pattern if isinstance(pattern, tuple) else (pattern,)
    if not _match(modules, node, first):
        return None
    chain = [*matched_node_pattern, node]
    if not rest:
        return chain
    for user in node.users:
        found = apply_match(modules, tuple(rest), user, chain)
        if found is not None:
            return found
    return None
