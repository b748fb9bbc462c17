"""Which modules FX graph mode keeps whole, and what becomes of each."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from torch_ao_ext.nn.quantized._static import STORAGE
from torch_ao_ext.quantization._own_types import own_type
from torch_ao_ext.quantization._walk import children
from torch_ao_ext.quantization.fx._capture import KeptModule, kept_calls, unchanged
from torch_ao_ext.quantization.fx._fates import Custom, Dynamic, Fate, Standalone
from torch_ao_ext.quantization.fx.custom_config import (
    ConvertCustomConfig,
    PrepareCustomConfig,
    StandaloneModuleConfigEntry,
)
from torch_ao_ext.quantization.qconfig_mapping import QConfigMapping
from torch_ao_ext.quantization.quant_type import QuantType

__all__ = ["convert_kept", "fates_of", "prepare_kept", "qconfig_of_module"]

_RECURRENT = (nn.RNNBase, nn.RNNCellBase)


def qconfig_of_module(mapping: QConfigMapping, model: nn.Module, name: str) -> Any:
    """The QConfig of a module as a whole; None leaves it float."""
    parts = name.split(".")
    names = [".".join(parts[: i + 1]) for i in range(len(parts))]
    for prefix in reversed(names):
        if prefix in mapping.module_name_qconfigs:
            return mapping.module_name_qconfigs[prefix]
    for pattern, qconfig in mapping.module_name_regex_qconfigs.items():
        if any(re.match(pattern, prefix) for prefix in names):
            return qconfig
    for prefix in reversed(names):
        kind = own_type(model.get_submodule(prefix))
        if kind in mapping.object_type_qconfigs:
            return mapping.object_type_qconfigs[kind]
    return mapping.global_qconfig


@dataclass
class _Context:
    op: str
    model: nn.Module
    mapping: QConfigMapping
    config: PrepareCustomConfig
    inputs: tuple[Any, ...]
    prepare: Callable[..., fx.GraphModule]


def _inputs_of(context: _Context, module: nn.Module, name: str) -> tuple[Any, ...]:
    """What the module gets at its first call when the model runs its example."""
    seen: list[tuple[Any, ...]] = []
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args))
    try:
        with unchanged(context.model):
            context.model(*context.inputs)
    finally:
        handle.remove()
    if not seen:
        raise ValueError(
            f"{context.op}: standalone module '{name}' must be called for example_inputs, got no call"
        )
    return seen[0]


def _standalone(context: _Context, name: str, entry: StandaloneModuleConfigEntry) -> Standalone:
    qconfig = qconfig_of_module(context.mapping, context.model, name)
    mapping = entry.qconfig_mapping or QConfigMapping().set_global(qconfig)

    def prepare(module: nn.Module) -> fx.GraphModule:
        inputs = entry.example_inputs or _inputs_of(context, module, name)
        try:
            return context.prepare(module, mapping, inputs, entry.prepare_custom_config, entry.backend_config)
        except ValueError as error:
            raise ValueError(f"{context.op}: standalone module '{name}': {error}") from error

    return Standalone(prepare)


def _is_dynamic(qconfig: Any) -> bool:
    activation = qconfig.activation() if qconfig is not None and qconfig.activation is not None else None
    return getattr(activation, "is_dynamic", False) and getattr(activation, "dtype", None) in STORAGE


def _is_kept_table(module: nn.Module, qconfig: Any) -> bool:
    """Whether a table is for `quantize_dynamic`: the graph itself has rows of 8 bits in nn.Embedding."""
    if type(module) not in (nn.Embedding, nn.EmbeddingBag) or qconfig is None or qconfig.weight is None:
        return False
    observer = qconfig.weight()
    rows = getattr(observer, "qscheme", None) == torch.per_channel_affine_float_qparams
    return rows and (isinstance(module, nn.EmbeddingBag) or STORAGE.get(observer.dtype) != torch.uint8)


def _fate(context: _Context, name: str, module: nn.Module) -> Fate | None:
    config, kind = context.config, type(module)
    entry = config.standalone_module_names.get(name, config.standalone_module_classes.get(kind))
    if entry is not None:
        return _standalone(context, name, entry)
    qconfig = qconfig_of_module(context.mapping, context.model, name)
    observed = config.float_to_observed_mapping.get(QuantType.STATIC, {}).get(kind)
    if observed is not None and qconfig is not None:
        return Custom(qconfig, observed)
    if name in config.non_traceable_module_names or kind in config.non_traceable_module_classes:
        return Fate()
    if isinstance(module, _RECURRENT) and _is_dynamic(qconfig):
        return Dynamic(qconfig)
    if _is_kept_table(module, qconfig):
        return Dynamic(qconfig)
    return None


def fates_of(
    op: str, model: nn.Module, mapping: QConfigMapping, config: PrepareCustomConfig,
    inputs: tuple[Any, ...], prepare: Callable[..., fx.GraphModule],
) -> dict[str, Fate]:  # fmt: skip
    """Name of each module that is kept whole -> what becomes of it; nothing inside of them.

    Args:
        op: for messages.
        model: float model.
        mapping: QConfigs of the modules.
        config: the user's names and classes.
        inputs: of the model.
        prepare: prepares a standalone module.

    Raises:
        ValueError: a name that no module has.
    """
    context = _Context(op, model, mapping, config, inputs, prepare)
    known = dict(model.named_modules(remove_duplicate=False))
    for name in (*config.standalone_module_names, *config.non_traceable_module_names):
        if not name or name not in known:
            raise ValueError(f"{op}: module names must be those of modules in the model, got {name!r}")
    found: dict[str, Fate] = {}
    seen: set[int] = set()

    def visit(module: nn.Module, name: str) -> None:
        for _, path, child in children(module, name):
            if id(child) in seen:
                continue
            seen.add(id(child))
            fate = _fate(context, path, child)
            if fate is None:
                visit(child, path)
            else:
                found[path] = fate

    visit(model, "")
    return found


def prepare_kept(graph: fx.GraphModule, model: nn.Module, fates: dict[str, Fate]) -> None:
    """Prepares the kept modules of a captured graph, in place."""
    by_module = {id(model.get_submodule(name)): fate for name, fate in fates.items()}
    made: dict[int, nn.Module] = {}
    for call in kept_calls(graph).values():
        key = id(call.module)
        call.fate = by_module[key]
        if key not in made:
            made[key] = call.fate.prepared(call.module, call)
        call.module = made[key]


def convert_kept(
    graph: fx.GraphModule, config: ConvertCustomConfig, make: Callable[[fx.GraphModule], fx.GraphModule]
) -> None:
    """Replaces the kept modules of a graph by converted ones, in place.

    Args:
        graph: a copy; the modules it shares with the original stay as they are.
        config: quantized classes.
        make: converts the graph of a standalone module.
    """
    made: dict[int, nn.Module] = {}
    for name, call in kept_calls(graph).items():
        key = id(call.module)
        if key not in made:
            made[key] = call.fate.converted(call.module, config, make)
        owner, _, leaf = name.rpartition(".")
        graph.get_submodule(owner)._modules[leaf] = KeptModule(made[key], call.leaves, call.spec)
