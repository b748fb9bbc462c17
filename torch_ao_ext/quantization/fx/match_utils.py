"""Finds patterns in graphs of torch.fx, whose layers are calls of modules.

A pattern is read from its last operator back: `(nn.ReLU, (nn.BatchNorm2d, nn.Conv2d))`, an operator of two
values `(torch.add, left, right)`. Parts are module classes, functions, names of methods, or MatchAllNode.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any

from torch import fx, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from torch_ao_ext.quantization.fx.graph_module import ObservedStandaloneGraphModule
from torch_ao_ext.quantization.fx.quantize_handler import (
    CustomModuleQuantizeHandler,
    StandaloneModuleQuantizeHandler,
)
from torch_ao_ext.quantization.utils import MatchAllNode

__all__: list[str] = []


def _calls(modules: dict[str, nn.Module], node: fx.Node, part: Any) -> bool:
    """Whether a node is the operator that one part of a pattern names."""
    if isinstance(part, type) and issubclass(part, nn.Module):
        return node.op == "call_module" and type_before_parametrizations(modules[str(node.target)]) is part
    kind = "call_method" if isinstance(part, str) else "call_function"
    return node.op == kind and (node.target == part if isinstance(part, str) else node.target is part)


def _matched(modules: dict[str, nn.Module], node: Any, pattern: Any, max_uses: int = sys.maxsize) -> Any:
    """The nodes of a match, nested as the pattern is; None where it does not fit.

    Args:
        modules: of the graph, by name.
        node: the last one.
        pattern: see the top of the file.
        max_uses: readers that the node may have; operators before it have one.
    """
    part, *inputs = pattern if isinstance(pattern, tuple) else (pattern,)
    if part is MatchAllNode:
        return node
    if not isinstance(node, fx.Node) or len(node.users) > max_uses or not _calls(modules, node, part):
        return None
    if part is getattr:
        return node if len(inputs) == 1 and node.args[1] == inputs[0] else None
    if not inputs:
        return node
    if len(inputs) != len(node.args):
        return None
    before = [_matched(modules, arg, one, 1) for arg, one in zip(node.args, inputs, strict=True)]
    return None if any(found is None for found in before) else (node, *before)


def _is_match(modules: dict[str, nn.Module], node: Any, pattern: Any, max_uses: int = sys.maxsize) -> bool:
    """Whether a pattern ends at a node; arguments as `_matched`."""
    return _matched(modules, node, pattern, max_uses) is not None


def _own_nodes(pattern: Any, found: Any) -> Iterator[fx.Node]:
    """The nodes of a match, without those at MatchAllNode."""
    if isinstance(found, tuple):
        for part, node in zip(pattern, found, strict=True):
            yield from _own_nodes(part, node)
    elif pattern is not MatchAllNode:
        yield found


def _find_matches(
    graph: fx.Graph,
    modules: dict[str, nn.Module],
    patterns: dict[Any, Any],
    root_node_getter_mapping: dict[Any, Callable[..., Any]],
    standalone_module_names: list[str] | None = None,
    standalone_module_classes: list[type] | None = None,
    custom_module_classes: list[Any] | None = None,
) -> dict[str, tuple[fx.Node, Any, Any, Any]]:
    """Name of each node in a match -> (last node, nodes, pattern, handler).

    The first pattern that ends at a node counts, later nodes before earlier ones. Modules that stay whole
    have handlers of their own and no pattern.

    Args:
        graph: of torch.fx.
        modules: of the graph, by name.
        patterns: pattern -> class of handlers (`fx.quantize_handler`).
        root_node_getter_mapping: pattern -> what finds its root among the nodes.
        standalone_module_names: modules that are quantized by themselves.
        standalone_module_classes: the same by class.
        custom_module_classes: classes of the user's own way to quantize.
    """
    found: dict[str, tuple[fx.Node, Any, Any, Any]] = {}
    for node in reversed(graph.nodes):
        for pattern, handler in patterns.items() if node.name not in found else ():
            nodes = _matched(modules, node, pattern)
            own = [] if nodes is None else list(_own_nodes(pattern, nodes))
            if own and not any(n.name in found for n in own):
                match = (node, nodes, pattern, handler(nodes, modules, root_node_getter_mapping.get(pattern)))
                found.update(dict.fromkeys((n.name for n in own), match))
                break
    for node in graph.nodes:
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if module is None:
            continue
        alone = (
            node.target in (standalone_module_names or ())
            or type(module) in (standalone_module_classes or ())
            or isinstance(module, ObservedStandaloneGraphModule)
        )
        if alone or type(module) in (custom_module_classes or ()):
            kind = StandaloneModuleQuantizeHandler if alone else CustomModuleQuantizeHandler
            found[node.name] = (node, node, None, kind(node, modules))
    return found
