"""What prepare notes of a graph, where torch.ao's programs look for it."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from torch_ao_ext.quantization.fx._capture import KeptModule
from torch_ao_ext.quantization.fx.custom_config import PrepareCustomConfig
from torch_ao_ext.quantization.pt2e._portable import NOTES
from torch_ao_ext.quantization.pt2e._qat import PRODUCT
from torch_ao_ext.quantization.pt2e.prepare import is_observer
from torch_ao_ext.quantization.qconfig_mapping import QConfigMapping
from torch_ao_ext.quantization.quantizer.quantizer import Q_ANNOTATION_KEY, QuantizationAnnotation
from torch_ao_ext.quantization.quantizer.utils import module_names

__all__ = [
    "NOTES", "ObservedGraphModuleAttrs", "classes_of", "note", "note_equalization", "note_standalone",
    "observed_names",
]  # fmt: skip


@dataclass
class ObservedGraphModuleAttrs:
    """What was decided for the nodes of a prepared graph: its `meta["_observed_graph_module_attrs"]`.

    To read: `convert_fx` goes by the observers. Copies share it; a pickle has it unless a class or factory
    in it does not pickle, which warns. Nodes are those of the captured graph, without observers.

    Args:
        node_name_to_qconfig: QConfig of each node; None leaves it float.
        node_name_to_scope: (name, class) of the innermost module that a node lies in; ("", None): the model.
        prepare_custom_config: that of prepare.
        equalization_node_name_to_qconfig: EqualizationQConfig of each node, or None.
        qconfig_mapping: that of prepare.
        is_qat: fake quantization instead of observers.
        observed_node_names: nodes with an observer at an input or at the result, and modules that are
            quantized whole.
        is_observed_standalone_module: the graph is a standalone module of another one.
        standalone_module_input_quantized_idxs: its inputs that become integers.
        standalone_module_output_quantized_idxs: its outputs that become integers.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization import get_default_qconfig_mapping
        >>> from torch_ao_ext.quantization.quantize_fx import prepare_fx
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Softmax(1)).eval()
        >>> observed = prepare_fx(model, get_default_qconfig_mapping("onednn"), (torch.randn(2, 8),))
        >>> attrs = observed.meta["_observed_graph_module_attrs"]
        >>> attrs.node_name_to_scope["linear"]
        ('0', <class 'torch.nn.modules.linear.Linear'>)
    """

    node_name_to_qconfig: dict[str, Any]
    node_name_to_scope: dict[str, tuple[str, Any]]
    prepare_custom_config: PrepareCustomConfig
    equalization_node_name_to_qconfig: dict[str, Any]
    qconfig_mapping: QConfigMapping
    is_qat: bool
    observed_node_names: set[str]
    is_observed_standalone_module: bool = False
    standalone_module_input_quantized_idxs: list[int] | None = None
    standalone_module_output_quantized_idxs: list[int] | None = None


def classes_of(model: nn.Module) -> dict[str, type]:
    """Class of each module of a model, by name; also of those that only the nodes of a graph know."""
    found: dict[str, type] = {name: type(module) for name, module in model.named_modules()}
    for node in model.graph.nodes if isinstance(model, fx.GraphModule) else ():
        stack = node.meta.get("nn_module_stack", {}).values()
        found |= {path: kind for path, kind in stack if isinstance(kind, type)}
    return found


def _scope(node: fx.Node, classes: dict[str, type]) -> tuple[str, Any]:
    names = module_names(node)
    path = names[-1].partition("@")[0] if names else ""  # "name@1" is the second call of a module
    return (path, classes.get(path)) if path else ("", None)


def _copied(config: PrepareCustomConfig) -> PrepareCustomConfig:
    result = PrepareCustomConfig()
    result.__dict__.update({name: copy.copy(value) for name, value in vars(config).items()})
    return result


def _observed(prepared: fx.GraphModule) -> Iterator[tuple[fx.Node, Any, bool]]:
    """Each node that is no observer, its KeptModule or None, and whether something of it is quantized."""
    modules = dict(prepared.named_modules())
    for node in prepared.graph.nodes:
        module = modules.get(node.target) if node.op == "call_module" else None
        if is_observer(module) or node.target == "_guards_fn":
            continue
        if isinstance(module, KeptModule):
            yield node, module, module.fate.quantizes
        else:
            annotation = node.meta.get(Q_ANNOTATION_KEY, QuantizationAnnotation())
            quantized = annotation.input_qspec_map or annotation.output_qspec or PRODUCT in node.meta
            yield node, None, bool(quantized)


def observed_names(prepared: fx.GraphModule) -> set[str]:
    """Nodes with an observer at an input or at the result, and modules that are quantized whole."""
    return {node.name for node, _, quantized in _observed(prepared) if quantized}


def note(
    prepared: fx.GraphModule, classes: dict[str, type], qconfigs: dict[str, Any], custom: PrepareCustomConfig,
    mapping: QConfigMapping, training: bool,
) -> None:  # fmt: skip
    """Sets the notes of a prepared graph.

    Args:
        prepared: gets them.
        classes: from `classes_of` the model.
        qconfigs: name of a node -> QConfig.
        custom: config of prepare.
        mapping: QConfigs of prepare.
        training: fake quantization.
    """
    nodes = {}
    for node, kept, _ in _observed(prepared):
        if kept is not None:
            qconfig = getattr(kept.fate, "qconfig", None)
        else:
            qconfig = qconfigs.get(node.meta.get(PRODUCT, node.name))
        nodes[node.name] = (qconfig, _scope(node, classes))
    prepared.meta[NOTES] = ObservedGraphModuleAttrs(
        node_name_to_qconfig={name: qconfig for name, (qconfig, _) in nodes.items()},
        node_name_to_scope={name: scope for name, (_, scope) in nodes.items()},
        prepare_custom_config=_copied(custom),
        equalization_node_name_to_qconfig=dict.fromkeys(nodes),
        qconfig_mapping=copy.deepcopy(mapping),
        is_qat=training,
        observed_node_names=observed_names(prepared),
    )


def _save_state(
    observed: fx.GraphModule, node_name_to_qconfig: dict[str, Any],
    node_name_to_scope: dict[str, tuple[str, Any]], prepare_custom_config: PrepareCustomConfig,
    equalization_node_name_to_qconfig: dict[str, Any], qconfig_mapping: QConfigMapping, is_qat: bool,
    observed_node_names: set[str],
) -> None:  # fmt: skip
    """Sets the notes of a graph that was prepared step by step; arguments as `ObservedGraphModuleAttrs`."""
    observed.meta[NOTES] = ObservedGraphModuleAttrs(
        node_name_to_qconfig, node_name_to_scope, prepare_custom_config, equalization_node_name_to_qconfig,
        qconfig_mapping, is_qat, observed_node_names,
    )  # fmt: skip


def note_equalization(prepared: fx.GraphModule, qconfigs: dict[str, Any]) -> None:
    """Name of a node -> EqualizationQConfig, of the nodes whose channels are looked at."""
    if NOTES in prepared.meta:
        prepared.meta[NOTES].equalization_node_name_to_qconfig.update(qconfigs)


def note_standalone(prepared: fx.GraphModule) -> fx.GraphModule:
    """The graph, with the notes of a standalone module."""
    notes = prepared.meta[NOTES]
    notes.is_observed_standalone_module = True
    config = notes.prepare_custom_config
    notes.standalone_module_input_quantized_idxs = list(config.input_quantized_indexes)
    notes.standalone_module_output_quantized_idxs = list(config.output_quantized_indexes)
    return prepared
