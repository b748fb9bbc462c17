"""Types of the numeric suite's results."""

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import fx

__all__ = [
    "NSNodeTargetType",
    "NSResultsType",
    "NSSingleResultType",
    "NSSingleResultValuesType",
    "NSSubgraph",
]


class NSSingleResultValuesType(str, enum.Enum):
    """What the values of a result are."""

    WEIGHT = "weight"
    NODE_OUTPUT = "node_output"
    NODE_INPUT = "node_input"


class NSSubgraph(NamedTuple):
    """Nodes that compute one value: first, last, and the one with the operation."""

    start_node: fx.Node
    end_node: fx.Node
    base_op_node: fx.Node


# Keys: values, type, prev_node_name, prev_node_target_type, ref_node_name, ref_node_target_type,
# index_within_arg, index_of_arg, fqn, qconfig_str; a comparison adds its own name.
NSSingleResultType = dict[str, Any]
# layer name -> type of values -> model name -> results
NSResultsType = dict[str, dict[str, dict[str, list[NSSingleResultType]]]]
NSNodeTargetType = Callable[..., Any] | str
