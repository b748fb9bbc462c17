"""Which arguments of a node are weights, biases, or no values at all."""

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

__all__ = [
    "EMPTY_ARG_DICT",
    "NON_OBSERVABLE_ARG_DICT",
    "NON_QUANTIZABLE_WEIGHT_OPS",
    "NodeInfo",
    "all_node_args_except_first",
    "get_non_observable_arg_indexes_and_types",
    "node_arg_is_bias",
    "node_arg_is_weight",
    "return_arg_list",
]

# Functions whose weights are factors of a norm and stay float.
NON_QUANTIZABLE_WEIGHT_OPS = {F.layer_norm, F.group_norm, F.instance_norm}
# Function -> places of weight and bias.
_PRODUCTS = (
    F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
    torch.conv1d, torch.conv2d, torch.conv3d, torch.conv_transpose1d, torch.conv_transpose2d,
    torch.conv_transpose3d,
)  # fmt: skip
_PLACES: dict[Any, tuple[int, int | None]] = {
    **dict.fromkeys(_PRODUCTS, (1, 2)), F.layer_norm: (2, 3), F.group_norm: (2, 3), F.instance_norm: (3, 4),
    F.batch_norm: (3, 4), F.embedding: (1, None), F.embedding_bag: (1, None), F.prelu: (1, None),
}  # fmt: skip


def _place(node: fx.Node, name: str) -> int | None:
    """Index of the argument of this name."""
    schema = getattr(node.target, "_schema", None)  # of an ATen operator
    if schema is not None:
        names = [argument.name for argument in schema.arguments]
        return names.index(name) if name in names else None
    places = _PLACES.get(node.target) if node.op == "call_function" else None
    return None if places is None else places[name == "bias"]


def _is_argument(node: fx.Node, arg: Any, name: str) -> bool:
    place = _place(node, name)
    given = node.args[place] if place is not None and place < len(node.args) else node.kwargs.get(name)
    return arg is not None and given is arg


def node_arg_is_weight(node: fx.Node, arg: Any) -> bool:
    """Whether an argument is the weight of a function, or of an ATen operator.

    Args:
        node: the call.
        arg: node among its arguments.
    """
    return _is_argument(node, arg, "weight")


def node_arg_is_bias(node: fx.Node, arg: Any) -> bool:
    """Whether an argument is the bias of a function, or of an ATen operator.

    Args:
        node: the call.
        arg: node among its arguments.
    """
    return _is_argument(node, arg, "bias")


def return_arg_list(arg_indices: list[int]) -> Callable[[fx.Node], list[int]]:
    """A function that gives those of the indices that a node has arguments at."""
    return lambda node: [index for index in arg_indices if index < len(node.args)]


def all_node_args_except_first(node: fx.Node) -> list[int]:
    """Indices of the arguments behind the first."""
    return list(range(1, len(node.args)))


NodeInfo = namedtuple("NodeInfo", "op target")  # noqa: PYI024

_Indices = dict[Any, Callable[[fx.Node], list[int]]]
EMPTY_ARG_DICT: _Indices = {}
# Sizes, dimensions and masks among the arguments of methods, by their type.
NON_OBSERVABLE_ARG_DICT: dict[NodeInfo, _Indices] = {
    NodeInfo("call_method", name): types
    for names, types in (
        (("masked_fill",), {torch.bool: return_arg_list([1]), float: return_arg_list([2])}),
        (("permute", "repeat", "reshape", "transpose", "view"), {int: all_node_args_except_first}),
        (("size", "unsqueeze", "unsqueeze_"), {int: return_arg_list([1])}),
    )
    for name in names
} | {
    NodeInfo("call_function", torch.transpose): {int: all_node_args_except_first},
    NodeInfo("call_function", torch.unsqueeze): {int: return_arg_list([1])},
}


def get_non_observable_arg_indexes_and_types(node: fx.Node) -> _Indices:
    """Type -> function that gives the indices of the arguments of a node that are of it, and no values.

    Args:
        node: a call of a method or function; of others nothing is known.
    """
    return NON_OBSERVABLE_ARG_DICT.get(NodeInfo(node.op, node.target), EMPTY_ARG_DICT)
