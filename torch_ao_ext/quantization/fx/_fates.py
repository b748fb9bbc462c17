"""What becomes of modules that FX graph mode keeps whole."""

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized._static import STORAGE
from torch_ao_ext.quantization._convert import convert
from torch_ao_ext.quantization._own_types import own_type
from torch_ao_ext.quantization._prepare import get_default_custom_config_dict, prepare
from torch_ao_ext.quantization._quantize_dynamic import quantize_dynamic
from torch_ao_ext.quantization._walk import children
from torch_ao_ext.quantization.fx._capture import KeptModule, kept_calls, unchanged
from torch_ao_ext.quantization.fx.custom_config import (
    ConvertCustomConfig,
    PrepareCustomConfig,
    StandaloneModuleConfigEntry,
)
from torch_ao_ext.quantization.qconfig_mapping import QConfigMapping
from torch_ao_ext.quantization.quant_type import QuantType
from torch_ao_ext.quantization.stubs import QuantStub

__all__ = ["Fate", "convert_kept", "fates_of", "prepare_kept", "qconfig_of_module"]

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


class Fate:
    """A module that stays float: torch.export does not look inside."""

    quantizes = False

    def prepared(self, module: nn.Module, call: KeptModule) -> nn.Module:
        """The module that the prepared graph calls."""
        return module

    def converted(self, module: nn.Module, config: ConvertCustomConfig, make: Any) -> nn.Module:
        """The module that the converted graph calls, of the one that the prepared graph calls."""
        return module


class Standalone(Fate):
    """Prepared and converted by itself, as a model.

    Args:
        prepare: makes the prepared graph of the module.
    """

    quantizes = True

    def __init__(self, prepare: Callable[[nn.Module], fx.GraphModule]) -> None:
        self._prepare: Any = prepare

    def prepared(self, module: nn.Module, call: KeptModule) -> nn.Module:
        """Its own prepared graph."""
        prepare, self._prepare = self._prepare, None  # it holds the model
        return prepare(module)

    def converted(self, module: nn.Module, config: ConvertCustomConfig, make: Any) -> nn.Module:
        """Its own converted graph."""
        return IntegerBorders(make(module))


class IntegerBorders(nn.Module):
    """A converted graph, with floats where it has integers at its borders.

    Args:
        graph: from `convert_fx`.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        self.graph_module = graph

    def forward(self, *args: Any) -> Any:
        """As the graph."""
        inputs, outputs = self.graph_module.input_qparams, self.graph_module.output_qparams
        given = list(args)
        for index, (scale, zero_point, low, high, dtype) in inputs.items():
            given[index] = torch.ops.torch_ao.quantize_per_tensor(
                given[index], scale, zero_point, low, high, dtype
            )
        result = self.graph_module(*given)
        leaves, spec = pytree.tree_flatten(result)
        for index, (scale, zero_point, *_) in outputs.items():
            leaves[index] = torch.ops.torch_ao.dequantize_per_tensor(leaves[index], scale, zero_point)
        return pytree.tree_unflatten(leaves, spec)


class Region(nn.Module):
    """A module of eager mode between stubs; takes and gives floats.

    Args:
        module: takes QuantizedTensors once it is converted.
        arguments: how many positional arguments it has.
    """

    def __init__(self, module: nn.Module, arguments: int) -> None:
        super().__init__()
        self.quants = nn.ModuleList(QuantStub() for _ in range(arguments))
        self.custom = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Quantizes what is a float tensor among args."""
        given = [
            quant(x) if isinstance(x, torch.Tensor) and x.is_floating_point() else x
            for quant, x in zip(self.quants, args, strict=True)
        ]
        result = self.custom(*given, **kwargs)
        return pytree.tree_map_only(QuantizedTensor, lambda q: q.dequantize(), result)


class Custom(Fate):
    """Replaced by classes of the user: float -> observed -> quantized, as in eager mode."""

    quantizes = True

    def __init__(self, qconfig: Any, observed: type) -> None:
        self.qconfig = qconfig
        self.observed = observed

    def prepared(self, module: nn.Module, call: KeptModule) -> nn.Module:
        """The observed class, its inputs observed as well."""
        args, _ = pytree.tree_unflatten(call.leaves, call.spec)
        region = Region(copy.copy(module), len(args))
        region.qconfig = self.qconfig
        table = {type(module): self.observed}
        return prepare(region, prepare_custom_config_dict={"float_to_observed_custom_module_class": table})

    def converted(self, module: nn.Module, config: ConvertCustomConfig, make: Any) -> nn.Module:
        """The quantized class."""
        key = "observed_to_quantized_custom_module_class"
        table = dict(get_default_custom_config_dict()[key])
        for classes in config.observed_to_quantized_mapping.values():
            table |= classes
        if self.observed not in table:
            raise ValueError(
                "convert_fx: argument 'convert_custom_config' must name the quantized class of "
                f"{self.observed.__name__} (set_observed_to_quantized_mapping), got {config!r}"
            )
        return convert(module, convert_custom_config_dict={key: table})


class Dynamic(Fate):
    """A recurrent layer whose inputs are quantized at run time, or a table: `quantize_dynamic` of it."""

    quantizes = True

    def __init__(self, qconfig: Any) -> None:
        self.qconfig = qconfig

    def converted(self, module: nn.Module, config: ConvertCustomConfig, make: Any) -> nn.Module:
        """The module of nn.quantized.dynamic or nn.quantized."""
        holder = nn.ModuleDict({"layer": module})
        return quantize_dynamic(holder, {type(module): self.qconfig}, strict=True)["layer"]


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
