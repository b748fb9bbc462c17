"""Looks QConfigs up: of a name, a class, a node of a graph of torch.fx."""

import re
from collections import Counter
from typing import Any

from torch import fx, nn

from torch_ao_ext.quantization.pt2e.prepare import is_observer
from torch_ao_ext.quantization.qconfig_mapping import QConfigMapping

__all__: list[str] = []


def _get_object_type_qconfig(qconfig_mapping: QConfigMapping, object_type: Any, fallback_qconfig: Any) -> Any:
    """The rule of a class, function or method; else the fallback."""
    return qconfig_mapping.object_type_qconfigs.get(object_type, fallback_qconfig)


def _get_module_name_regex_qconfig(
    qconfig_mapping: QConfigMapping, module_name: str, fallback_qconfig: Any
) -> Any:
    """The first rule whose pattern fits a name from its start; else the fallback."""
    for pattern, qconfig in qconfig_mapping.module_name_regex_qconfigs.items():
        if re.match(pattern, module_name):
            return qconfig
    return fallback_qconfig


def _get_module_name_qconfig(qconfig_mapping: QConfigMapping, module_name: str, fallback_qconfig: Any) -> Any:
    """The rule of a name, or of the nearest module around it; else the fallback."""
    while module_name:
        if module_name in qconfig_mapping.module_name_qconfigs:
            return qconfig_mapping.module_name_qconfigs[module_name]
        module_name = module_name.rpartition(".")[0]
    return fallback_qconfig


def _maybe_adjust_qconfig_for_module_type_or_name(
    qconfig_mapping: QConfigMapping, module_type: Any, module_name: str, global_qconfig: Any
) -> Any:
    """The most special of the rules of a module: its name, a pattern, its class; else the global one."""
    by_type = _get_object_type_qconfig(qconfig_mapping, module_type, global_qconfig)
    by_pattern = _get_module_name_regex_qconfig(qconfig_mapping, module_name, by_type)
    return _get_module_name_qconfig(qconfig_mapping, module_name, by_pattern)


def _maybe_adjust_qconfig_for_module_name_object_type_order(
    qconfig_mapping: QConfigMapping, cur_module_path: str, cur_object_type: Any, cur_object_type_idx: int,
    fallback_qconfig: Any,
) -> Any:  # fmt: skip
    """The rule of the n-th use of a class or function in a module; else the fallback."""
    key = (cur_module_path, cur_object_type, cur_object_type_idx)
    return qconfig_mapping.module_name_object_type_order_qconfigs.get(key, fallback_qconfig)


def _get_flattened_qconfig_dict(qconfig_mapping: QConfigMapping) -> dict[Any, Any]:
    """The global rule under "", those of classes, functions and names under themselves."""
    return {
        "": qconfig_mapping.global_qconfig,
        **qconfig_mapping.object_type_qconfigs,
        **qconfig_mapping.module_name_qconfigs,
    }


def _generate_node_name_to_qconfig(
    root: nn.Module, modules: dict[str, nn.Module], input_graph: fx.Graph, qconfig_mapping: QConfigMapping,
    node_name_to_scope: dict[str, tuple[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """Name of each node -> its QConfig; None for inputs and results.

    Args:
        root: of the graph.
        modules: of the graph, by name; those that it calls get their QConfig as an attribute.
        input_graph: of torch.fx; calls of observers are left out.
        qconfig_mapping: rules.
        node_name_to_scope: what a tracer notes: name of a node -> (name, class) of the module it lies in.
    """
    found: dict[str, Any] = {}
    uses: Counter[tuple[str, Any]] = Counter()
    for node in input_graph.nodes:
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if is_observer(module):
            continue
        path, kind = node_name_to_scope[node.name]
        qconfig, target, place = qconfig_mapping.global_qconfig, node.target, path
        if module is not None:
            target, place = type(module), path.rpartition(".")[0]
            name = str(node.target)
            qconfig = _maybe_adjust_qconfig_for_module_type_or_name(qconfig_mapping, target, name, qconfig)
        elif node.op in ("call_function", "call_method", "get_attr"):
            if node.op == "get_attr":  # its module may be in the graph's root without its class
                path = str(target).rpartition(".")[0]
                kind = type(modules[path])
            qconfig = _get_object_type_qconfig(qconfig_mapping, target, qconfig)
            qconfig = _maybe_adjust_qconfig_for_module_type_or_name(qconfig_mapping, kind, path, qconfig)
        else:
            qconfig = None
        if node.op in ("call_function", "call_module"):
            qconfig = _maybe_adjust_qconfig_for_module_name_object_type_order(
                qconfig_mapping, place, target, uses[(place, target)], qconfig
            )
            uses[(place, target)] += 1
        if module is not None:
            module.qconfig = qconfig
        found[node.name] = qconfig
    return found
