"""Sequences of operators that count as one, from the last back, and whether a node ends one."""

from collections.abc import Callable
from typing import Any

from torch import fx, nn

from torch_ao_ext.ns.fx.ns_types import NSNodeTargetType
from torch_ao_ext.quantization.backend_config import get_native_backend_config
from torch_ao_ext.quantization.backend_config.utils import in_data_order
from torch_ao_ext.quantization.fake_quantize import FakeQuantizeBase
from torch_ao_ext.quantization.observer import ObserverBase
from torch_ao_ext.quantization.quantizer._targets import (
    ADD,
    BATCH_NORM,
    CONV,
    CONV_TRANSPOSE,
    LINEAR,
    MUL,
    RELU,
)
from torch_ao_ext.quantization.utils import getattr_from_fqn

__all__ = [
    "NSFusionElType",
    "NSFusionType",
    "end_node_matches_reversed_fusion",
    "get_reversed_fusions",
    "get_type_a_related_to_b",
]

# A function, a class of modules, a method's name, or (name, first argument) of a method.
NSFusionElType = Callable[..., Any] | str | tuple[str, Any]
NSFusionType = tuple[NSFusionElType, ...]


def get_type_a_related_to_b(
    base_name_to_sets_of_related_ops: dict[str, set[NSNodeTargetType]],
) -> set[tuple[NSNodeTargetType, NSNodeTargetType]]:
    """All pairs of one set, in both orders, each member with itself too.

    Args:
        base_name_to_sets_of_related_ops: as from `mappings.get_base_name_to_sets_of_related_ops`.
    """
    return {(a, b) for ops in base_name_to_sets_of_related_ops.values() for a in ops for b in ops}


def _sequences() -> list[tuple[Any, ...]]:
    """In the order of the data: modules, functions, operators of exported graphs."""
    found = [in_data_order(config) for config in get_native_backend_config().configs]
    for rank in (1, 2, 3):
        layer, norm = getattr(nn, f"Conv{rank}d"), getattr(nn, f"BatchNorm{rank}d")
        found += [(layer, norm), (layer, norm, nn.ReLU)]
    for product in CONV | CONV_TRANSPOSE | LINEAR:
        found += [(product,), *((product, norm) for norm in BATCH_NORM)]
        found += [(product, *norms, relu) for norms in ((), *((n,) for n in BATCH_NORM)) for relu in RELU]
    for function in ADD | MUL:
        found += [(function,), *((function, relu) for relu in RELU)]
    return list(dict.fromkeys(found))


def get_reversed_fusions() -> list[tuple[NSFusionType, int]]:
    """(operators from the last to the first, index of the one that names them), longer ones first.

    The index counts in the order of the data. Each sequence, and each single operator, is there once more
    with an observer and with a fake-quant behind it.
    """
    found: list[tuple[NSFusionType, int]] = []
    for sequence in _sequences():
        back = tuple(reversed(sequence))
        if len(back) > 1:
            found.append((back, 0))
        found += [((kind, *back), 0) for kind in (ObserverBase, FakeQuantizeBase)]
    return sorted(found, key=lambda fusion: -len(fusion[0]))


def _is(node: fx.Node, element: Any, gm: fx.GraphModule) -> bool:
    if node.op == "call_module":
        return isinstance(element, type) and isinstance(getattr_from_fqn(gm, str(node.target)), element)
    if node.op == "call_function":
        return not isinstance(element, (str, type, tuple)) and node.target == element
    if node.op == "call_method" and isinstance(element, tuple):
        return (node.target, *node.args[1:2]) == element
    return node.op == "call_method" and node.target == element


def end_node_matches_reversed_fusion(
    end_node: fx.Node, reversed_fusion: NSFusionType, gm: fx.GraphModule, seen_nodes: set[fx.Node]
) -> bool:
    """Whether a node is the last of a sequence.

    Args:
        end_node: the node.
        reversed_fusion: operators from the last to the first.
        gm: of the node.
        seen_nodes: nodes that belong to others.
    """
    node: Any = end_node
    for element in reversed_fusion:
        known = isinstance(node, fx.Node) and node not in seen_nodes and _is(node, element, gm)
        if not known or not node.args:
            return False
        node = node.args[0]
    return isinstance(node, fx.Node)
