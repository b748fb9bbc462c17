"""Fuses the layers of a graph of torch.fx by the patterns of a backend."""

import copy
from typing import Any

from torch import fx, nn

from torch_ao_ext.quantization._copy import copied
from torch_ao_ext.quantization.backend_config import BackendConfig, get_native_backend_config
from torch_ao_ext.quantization.backend_config.utils import get_fuser_method_mapping, nested_patterns
from torch_ao_ext.quantization.fx._given import config_of
from torch_ao_ext.quantization.fx.custom_config import FuseCustomConfig
from torch_ao_ext.quantization.fx.fuse_handler import FuseHandler, _get_fusion_pattern_to_fuse_handler_cls
from torch_ao_ext.quantization.fx.graph_module import FusedGraphModule
from torch_ao_ext.quantization.fx.match_utils import _matched, _own_nodes
from torch_ao_ext.quantization.fx.pattern_utils import _sorted_patterns_dict
from torch_ao_ext.quantization.fx.quantize_handler import first_node

__all__ = ["FuseHandler", "fuse"]


def fuse(
    model: fx.GraphModule,
    is_qat: bool,
    fuse_custom_config: Any = None,
    backend_config: Any = None,
) -> fx.GraphModule:
    """Puts one module where a graph has the layers of a pattern, each read by the next one only.

    A relu may be a layer, a function or a method, and be used several times; other layers that are called
    twice stay.

    Args:
        model: of torch.fx, with calls of layers (`fx.tracer.QuantizationTracer`); left as it is.
        is_qat: batch norms stay, in containers for training.
        fuse_custom_config: FuseCustomConfig or a dict.
        backend_config: BackendConfig or a dict, whose fuser methods count; None: this library's table.

    Raises:
        TypeError: not a graph module.
        ValueError: another type of config, or what a fuser method refuses.

    Example:
        >>> from torch import fx, nn
        >>> from torch_ao_ext.quantization.fx.fuse import fuse
        >>> model = fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()))
        >>> type(getattr(fuse(model, is_qat=False), "0")).__name__
        'ConvReLU2d'
    """
    if not isinstance(model, fx.GraphModule):
        raise TypeError(f"fuse: argument 'model' must be a GraphModule, got {type(model).__name__}")
    custom = FuseCustomConfig() if fuse_custom_config is None else fuse_custom_config
    custom = config_of("fuse", "fuse_custom_config", custom, FuseCustomConfig)
    backend = get_native_backend_config() if backend_config is None else backend_config
    backend = config_of("fuse", "backend_config", backend, BackendConfig)
    names = custom.preserved_attributes
    kept = {name: copy.deepcopy(getattr(model, name)) for name in names if hasattr(model, name)}
    model = copied("fuse", model)
    for name, value in kept.items():
        setattr(model, name, value)  # copies of graph modules lose them
    return FusedGraphModule(model, _fused(model, is_qat, custom, backend), names)


def _fused(
    model: fx.GraphModule, is_qat: bool, custom: FuseCustomConfig, backend: BackendConfig
) -> fx.Graph:  # fmt: skip
    """The graph of a model, whose modules fuse in place."""
    modules = dict(model.named_modules(remove_duplicate=False))
    configs, methods = nested_patterns(backend), get_fuser_method_mapping(backend)
    matches = _matches(model.graph, modules, _get_fusion_pattern_to_fuse_handler_cls(backend))
    inside = {node for pattern, nodes, _ in matches.values() for node in _own_nodes(pattern, nodes)}
    graph, made = fx.Graph(), {}

    def load(value: Any) -> Any:
        return fx.map_arg(value, lambda node: made[node])

    for node in model.graph.nodes:
        if node in matches:
            pattern, nodes, handler = matches[node]
            config = configs[pattern]
            root = (config._root_node_getter or first_node)(nodes)
            extra = config._extra_inputs_getter(nodes) if config._extra_inputs_getter else []
            arguments = (load, modules, graph, root, extra, nodes, custom, methods, is_qat)
            made[node] = handler(node).fuse(*arguments)
        elif node not in inside:
            made[node] = graph.node_copy(node, load)
    return graph


def _matches(
    graph: fx.Graph, modules: dict[str, nn.Module], handlers: dict[Any, type[FuseHandler]]
) -> dict[fx.Node, tuple[Any, Any, type[FuseHandler]]]:
    """Last node -> (pattern, nodes, handler); no node is in two."""
    calls: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls[node.target] = calls.get(node.target, 0) + 1
    found: dict[fx.Node, tuple[Any, Any, type[FuseHandler]]] = {}
    taken: set[fx.Node] = set()
    patterns = _sorted_patterns_dict(handlers)
    for node in reversed(graph.nodes):
        for pattern, handler in patterns.items() if node not in taken else ():
            nodes = _matched(modules, node, pattern)
            own = set() if nodes is None else set(_own_nodes(pattern, nodes))
            twice = [
                n for n in own
                if n.op == "call_module" and calls[n.target] > 1 and type(modules[n.target]) is not nn.ReLU
            ]  # fmt: skip
            if own and not twice and not own & taken:
                found[node] = (pattern, nodes, handler)
                taken |= own
                break
    return found
