"""What puts one fused module in the place of several: found by `fx.fuse.fuse`."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from torch_ao_ext.quantization.backend_config import BackendConfig
from torch_ao_ext.quantization.backend_config.utils import nested_patterns
from torch_ao_ext.quantization.fuse_modules import fuse_known_modules
from torch_ao_ext.quantization.fuser_method_mappings import get_fuser_method_new
from torch_ao_ext.quantization.fx.custom_config import FuseCustomConfig
from torch_ao_ext.quantization.utils import MatchAllNode

__all__ = ["DefaultFuseHandler", "FuseHandler"]

_RELU = (F.relu, torch.relu, "relu", "relu_")


class FuseHandler(ABC):
    """Fuses the nodes of one match.

    Args:
        node: the last one.
    """

    @abstractmethod
    def __init__(self, node: fx.Node) -> None:
        pass

    @abstractmethod
    def fuse(
        self, load_arg: Callable[..., Any], named_modules: dict[str, nn.Module], fused_graph: fx.Graph,
        root_node: fx.Node, extra_inputs: list[Any], matched_node_pattern: Any,
        fuse_custom_config: FuseCustomConfig, fuser_method_mapping: dict[Any, Callable[..., Any]],
        is_qat: bool,
    ) -> fx.Node:  # fmt: skip
        """Adds a call of the fused module to a graph.

        Args:
            load_arg: node of the old graph, or what holds some -> the same of the new one.
            named_modules: of the old graph; the fused module takes the place of the root.
            fused_graph: the new one.
            root_node: calls the layer with the weight.
            extra_inputs: further inputs of the fused module.
            matched_node_pattern: nodes, nested as the pattern is.
            fuse_custom_config: the user's.
            fuser_method_mapping: pattern -> fuser method.
            is_qat: batch norms stay.
        """


class DefaultFuseHandler(FuseHandler):
    """By the fuser method of the pattern: in the order of the data, or for branches as it is nested."""

    def __init__(self, node: fx.Node) -> None:
        self.node = node

    def fuse(
        self, load_arg: Callable[..., Any], named_modules: dict[str, nn.Module], fused_graph: fx.Graph,
        root_node: fx.Node, extra_inputs: list[Any], matched_node_pattern: Any,
        fuse_custom_config: FuseCustomConfig, fuser_method_mapping: dict[Any, Callable[..., Any]],
        is_qat: bool,
    ) -> fx.Node:  # fmt: skip
        """Adds a call of the fused module to a graph; arguments as FuseHandler.

        Raises:
            ValueError: no fuser method has these types, or it refuses the modules.
        """
        training = named_modules[str(root_node.target)].training
        parts = _modules_of(matched_node_pattern, named_modules, training)
        chain, types = _chain(parts), _chain(_types_of(matched_node_pattern, named_modules))
        methods = [fuser_method_mapping.get(key) for key in (_types(chain), types) if chain and types]
        method = next((m for m in methods if m is not None), None)
        if method is not None:
            fused = fuse_known_modules(chain, is_qat, {_types(chain): method})[0]
        else:
            fused = get_fuser_method_new(_types(parts), fuser_method_mapping)(is_qat, *parts)
        owner, _, name = str(root_node.target).rpartition(".")
        setattr(named_modules[owner], name, fused)
        call = fused_graph.node_copy(root_node, load_arg)
        call.args = (*call.args, *(load_arg(value) for value in extra_inputs))
        return call


def _modules_of(nodes: Any, modules: dict[str, nn.Module], training: bool) -> Any:
    """Modules in the place of nodes; functions are themselves, but a relu is a module of its own."""
    if isinstance(nodes, tuple):
        return tuple(_modules_of(node, modules, training) for node in nodes)
    if nodes.op == "call_module":
        module = modules[str(nodes.target)]
        shared = sum(node.target == nodes.target for node in nodes.graph.nodes if node.op == "call_module")
        return nn.ReLU().train(training) if type(module) is nn.ReLU and shared > 1 else module
    if nodes.op in ("call_function", "call_method"):
        return nn.ReLU().train(training) if nodes.target in _RELU else nodes.target
    return MatchAllNode


def _types_of(nodes: Any, modules: dict[str, nn.Module]) -> Any:
    """What a pattern names in the place of nodes."""
    if isinstance(nodes, tuple):
        return tuple(_types_of(node, modules) for node in nodes)
    return type_before_parametrizations(modules[nodes.target]) if nodes.op == "call_module" else nodes.target


def _chain(nested: Any) -> tuple[Any, ...]:
    """The parts in the order of the data; none where the pattern has branches."""
    found: list[Any] = []
    while isinstance(nested, tuple):
        if len(nested) != 2:
            return ()
        found.append(nested[0])
        nested = nested[1]
    return (nested, *reversed(found))


def _types(parts: Any) -> Any:
    """Classes in the place of modules."""
    if isinstance(parts, tuple):
        return tuple(_types(part) for part in parts)
    return type_before_parametrizations(parts) if isinstance(parts, nn.Module) else parts


def _get_fusion_pattern_to_fuse_handler_cls(backend_config: BackendConfig) -> dict[Any, type[FuseHandler]]:
    """Nested pattern -> handler, for what a backend has a fuser method for."""
    pairs = nested_patterns(backend_config).items()
    return {pattern: DefaultFuseHandler for pattern, config in pairs if config.fuser_method is not None}
