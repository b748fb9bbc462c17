"""What `convert_fx` leaves float of a prepared graph: where its QConfigMapping says None."""

from typing import Any

import torch
from torch import fx

from torch_ao_ext.quantization.fx._capture import KeptModule, kept_calls
from torch_ao_ext.quantization.fx._fates import Dynamic, Fate
from torch_ao_ext.quantization.fx._following import FollowingObserver
from torch_ao_ext.quantization.fx._qconfig_quantizer import _FUNCTIONS, QConfigMappingQuantizer
from torch_ao_ext.quantization.fx.qconfig_mapping_utils import (
    _maybe_adjust_qconfig_for_module_type_or_name,
)
from torch_ao_ext.quantization.observer import FixedQParamsObserver
from torch_ao_ext.quantization.pt2e.prepare import is_observer
from torch_ao_ext.quantization.qconfig_mapping import QConfigMapping
from torch_ao_ext.quantization.quantizer.utils import innermost_module

__all__ = ["join", "leave_float", "set_apart"]

_alias = torch.ops.aten.alias.default
# Their qparams are not those of a QConfig.
_GIVEN = (FollowingObserver, FixedQParamsObserver)


def leave_float(op: str, model: fx.GraphModule, mapping: QConfigMapping) -> list[str]:
    """Takes observers away, in place, whose neighbours all have None; weights of an operator are its own.

    Args:
        op: for messages.
        model: a copy of a prepared graph, without batch norms that are trained.
        mapping: the one of prepare, with None for what is to stay float.

    Returns:
        Names of the nodes that stay float.

    Raises:
        ValueError: a QConfig of other observers, or a module with its own way to quantize.
    """
    quantizer = QConfigMappingQuantizer(mapping)
    modules = dict(model.named_modules(remove_duplicate=False))
    calls = [node for node in model.graph.nodes if node.op == "call_function"]
    qconfigs = {node: quantizer.qconfig_of(node) for node in calls}
    kept = kept_calls(model)
    for node in model.graph.nodes:
        if node.op == "call_module" and node.target in kept:
            rule = (mapping, type(kept[node.target].module), node.target, mapping.global_qconfig)
            qconfigs[node] = _maybe_adjust_qconfig_for_module_type_or_name(*rule)
            if qconfigs[node] is None:
                _keep_float(op, model, node.target, kept[node.target])
    for node in list(model.graph.nodes):
        observer = modules.get(node.target) if node.op == "call_module" else None
        if not is_observer(observer):
            continue
        source, readers = node.args[0], list(node.users)
        if any(qconfigs.get(n) is not None for n in (source, *readers)):
            _check(op, source, readers, observer, qconfigs)
            continue
        node.replace_all_uses_with(source)
        model.graph.erase_node(node)
    model.recompile()
    return [node.name for node in calls if qconfigs[node] is None]


def _keep_float(op: str, model: fx.GraphModule, name: str, call: KeptModule) -> None:
    if not isinstance(call.fate, Dynamic) and call.fate.quantizes:
        raise ValueError(
            f"{op}: argument 'qconfig_mapping' must have a QConfig for '{name}', which is prepared by "
            "itself, got None"
        )
    owner, _, leaf = name.rpartition(".")
    own = KeptModule(call.module, call.leaves, call.spec)  # the prepared graph has the other one
    own.fate = Fate()
    model.get_submodule(owner)._modules[leaf] = own


def _check(
    op: str, source: fx.Node, readers: list[fx.Node], observer: Any, qconfigs: dict[fx.Node, Any]
) -> None:  # fmt: skip
    """Raises where the QConfig of an operator makes observers of another kind than the graph has."""
    weight = source.op == "get_attr"
    owner = readers[0] if weight and readers else source
    qconfig = qconfigs.get(owner) if owner.target in _FUNCTIONS else None
    factory = getattr(qconfig, "weight" if weight else "activation", None)
    core = getattr(observer, "activation_post_process", observer)
    if factory is None or isinstance(core, _GIVEN):
        return
    said, found = _facts(factory()), _facts(observer)
    if said != found:
        raise ValueError(
            f"{op}: argument 'qconfig_mapping' must have the QConfigs of prepare or None, got {said} for "
            f"'{innermost_module(owner)}', which has {found}"
        )


def _facts(observer: Any) -> tuple[Any, ...]:
    return type(observer).__name__, getattr(observer, "dtype", None), getattr(observer, "qscheme", None)


def set_apart(model: fx.GraphModule, names: list[str]) -> None:
    """Puts nodes around operators that `lower` does not look through, in place; `join` takes them away.

    Args:
        model: a copy.
        names: of the operators.
    """
    for node in [node for node in model.graph.nodes if node.name in names]:
        for source in node.all_input_nodes:
            with model.graph.inserting_before(node):
                before = model.graph.call_function(_alias, (source,))
            before.meta = {**source.meta, _alias: True}
            node.replace_input_with(source, before)
        with model.graph.inserting_after(node):
            behind = model.graph.call_function(_alias, (node,))
        behind.meta = {**node.meta, _alias: True}
        node.replace_all_uses_with(behind, delete_user_cb=lambda user, behind=behind: user is not behind)


def join(model: fx.GraphModule) -> fx.GraphModule:
    """The model without what `set_apart` has put into it, in place."""
    for node in list(model.graph.nodes):
        if node.target is _alias and node.meta.get(_alias):
            node.replace_all_uses_with(node.args[0])
            model.graph.erase_node(node)
    model.recompile()
    return model
