"""The flow of FX graph mode: capture, observe, convert.

The graph is torch.export's: what it can capture can be prepared. Parts with Python control flow over
values raise with file, line and torch.export's own explanation.
"""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from torch_ao_ext.quantization.fx._backend import backend_of
from torch_ao_ext.quantization.fx._borders import check_borders, integer_inputs, integer_outputs
from torch_ao_ext.quantization.fx._capture import export_whole, kept_calls
from torch_ao_ext.quantization.fx._equalized import equalized
from torch_ao_ext.quantization.fx._fates import Custom
from torch_ao_ext.quantization.fx._following import follow
from torch_ao_ext.quantization.fx._given import config_of
from torch_ao_ext.quantization.fx._kept_modules import convert_kept, fates_of, prepare_kept
from torch_ao_ext.quantization.fx._left_float import join, leave_float, set_apart
from torch_ao_ext.quantization.fx._notes import NOTES, classes_of, note, note_standalone
from torch_ao_ext.quantization.fx._originals import original_weights
from torch_ao_ext.quantization.fx._qconfig_quantizer import KEEP_QPARAMS, QConfigMappingQuantizer
from torch_ao_ext.quantization.fx._reduced_range import widen_reduced_ranges
from torch_ao_ext.quantization.fx.custom_config import ConvertCustomConfig, PrepareCustomConfig
from torch_ao_ext.quantization.fx.graph_module import (
    PRESERVED,
    ObservedGraphModule,
    ObservedStandaloneGraphModule,
    as_kind,
)
from torch_ao_ext.quantization.pt2e._graph import check_graph_module, copy_graph_module
from torch_ao_ext.quantization.pt2e._qat import fold_trained
from torch_ao_ext.quantization.qconfig_mapping import QConfigMapping
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_graph, prepare_qat_graph

__all__ = [
    "attributes_of",
    "capture",
    "check_model",
    "convert_prepared",
    "keep",
    "optional_config",
    "prepare_by_mapping",
    "prepare_by_quantizer",
    "prepare_captured",
]

# Attribute of torch.ao's name.
ORIGINALS = "original_weights_lookup"
# Meta of a prepared one: inputs and outputs that become integers.
_BORDERS = "_torch_ao_ext_borders"


def check_model(op: str, model: Any, training: bool = False) -> None:
    """Refuses what is no Python module, or in the other mode.

    Raises:
        ValueError: see above.
    """
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise ValueError(f"{op}: argument 'model' must be a Python nn.Module, got {type(model).__name__}")
    if model.training != training:
        mode, call = ("training", "train") if training else ("evaluation", "eval")
        raise ValueError(f"{op}: argument 'model' must be in {mode} mode (call model.{call}())")


def optional_config(op: str, name: str, value: Any, kind: type) -> Any:
    """A custom config, given as such, as a dict or not at all; arguments as `config_of`."""
    if value is None:
        return kind()
    return config_of(op, name, value, kind)


def prepare_captured(
    op: str, model: Any, qconfig_mapping: Any, example_inputs: Any, prepare_custom_config: Any,
    backend_config: Any, training: bool = False,
) -> fx.GraphModule:  # fmt: skip
    """As `prepare_fx` and `prepare_qat_fx`.

    Args:
        op: for messages.
        model: see `prepare_fx`, as the arguments that follow.
        qconfig_mapping: see there.
        example_inputs: see there.
        prepare_custom_config: see there.
        backend_config: see there.
        training: fake quantization.
    """
    check_model(op, model, training)
    backend = backend_of(op, backend_config)
    qconfig_mapping = config_of(op, "qconfig_mapping", qconfig_mapping, QConfigMapping)
    if not isinstance(example_inputs, (tuple, list)):
        raise ValueError(
            f"{op}: argument 'example_inputs' must be a tuple of inputs, got {type(example_inputs).__name__}"
        )
    custom = optional_config(op, "prepare_custom_config", prepare_custom_config, PrepareCustomConfig)
    kept = attributes_of(op, model, custom.preserved_attributes)
    inputs = tuple(example_inputs)

    graph = capture(op, model, qconfig_mapping, custom, inputs, backend_config, training)
    quantizer = QConfigMappingQuantizer(qconfig_mapping, backend)
    prepared = prepare_by_quantizer(op, graph, quantizer, custom, training)
    note(prepared, classes_of(model), quantizer.qconfigs(), custom, qconfig_mapping, training)
    return keep(prepared, kept)


def capture(
    op: str, model: nn.Module, qconfig_mapping: QConfigMapping, custom: PrepareCustomConfig,
    inputs: tuple[Any, ...], backend_config: Any, training: bool,
) -> fx.GraphModule:  # fmt: skip
    """The graph of a model, in which the modules that it keeps whole are prepared.

    Args:
        op: for messages.
        model: left as it is.
        qconfig_mapping: QConfigs of modules.
        custom: names the modules that stay whole.
        inputs: of the model.
        backend_config: of standalone modules.
        training: fake quantization.
    """

    def standalone(module: nn.Module, mapping: Any, inputs: Any, config: Any, backend: Any) -> Any:
        backend = backend_config if backend is None else backend
        prepared = prepare_captured(op, module, mapping, inputs, config, backend, training)
        return note_standalone(as_kind(prepared, ObservedStandaloneGraphModule))

    fates = fates_of(op, model, qconfig_mapping, custom, inputs, standalone)
    if training and any(isinstance(fate, Custom) for fate in fates.values()):
        raise ValueError(f"{op}: float_to_observed_mapping must be empty in training")
    with torch.no_grad():
        graph = export_whole(op, model, inputs, list(fates))
    prepare_kept(graph, model, fates)
    return graph


def prepare_by_quantizer(
    op: str, graph: fx.GraphModule, quantizer: QConfigMappingQuantizer, custom: PrepareCustomConfig,
    training: bool,
) -> fx.GraphModule:  # fmt: skip
    """Puts observers, or fake quantization, into a captured graph whose kept modules are prepared.

    Args:
        op: for messages.
        graph: left as it is.
        quantizer: QConfigs of its nodes.
        custom: inputs and outputs that become integers.
        training: fake quantization.
    """
    required = not any(call.fate.quantizes for call in kept_calls(graph).values())
    prepared = as_kind(_prepare(op, graph, quantizer, training, required), ObservedGraphModule)
    borders = (custom.input_quantized_indexes, custom.output_quantized_indexes)
    check_borders(op, prepared, *borders)
    prepared.meta[_BORDERS] = borders
    return prepared


def prepare_by_mapping(op: str, graph: fx.GraphModule, mapping: QConfigMapping) -> fx.GraphModule:
    """Puts observers into an exported graph where the QConfigs of a mapping say.

    Args:
        op: for messages.
        graph: left as it is.
        mapping: QConfigs.
    """
    return _prepare(op, graph, QConfigMappingQuantizer(mapping))


def _prepare(
    op: str, graph: fx.GraphModule, quantizer: QConfigMappingQuantizer, training: bool = False,
    required: bool = True,
) -> fx.GraphModule:  # fmt: skip
    """Observers, or fake quantization in training; `required`: something must be quantized."""
    prepared = (prepare_qat_graph if training else prepare_graph)(op, graph, quantizer, required)
    follow(prepared, KEEP_QPARAMS)
    return prepared


def keep(graph: fx.GraphModule, attributes: dict[str, Any]) -> fx.GraphModule:
    """Sets attributes that copies of the graph have as well."""
    graph.meta[PRESERVED] = {**graph.meta.get(PRESERVED, {}), **attributes}
    for name, value in graph.meta[PRESERVED].items():
        setattr(graph, name, value)
    return graph


def attributes_of(op: str, model: nn.Module, names: list[str]) -> dict[str, Any]:
    """Copies of attributes to preserve, by name.

    Raises:
        ValueError: a name that the model does not have.
    """
    missing = [name for name in names if not hasattr(model, name)]
    if missing:
        raise ValueError(f"{op}: preserved_attributes must name attributes of the model, got {missing[0]!r}")
    return {name: copy.deepcopy(getattr(model, name)) for name in names}


def convert_prepared(
    op: str, graph_module: Any, convert_custom_config: Any, qconfig_mapping: Any, backend_config: Any,
    make: Callable[[fx.GraphModule], fx.GraphModule], keep_weights: bool = False,
) -> fx.GraphModule:  # fmt: skip
    """As `convert_fx`.

    Args:
        op: for messages.
        graph_module: see `convert_fx`, as the arguments that follow.
        convert_custom_config: see there.
        qconfig_mapping: see there.
        backend_config: see there.
        make: makes the result of the reference graph.
        keep_weights: the result has `original_weights_lookup`.
    """
    mapping = None
    if qconfig_mapping is not None:
        mapping = config_of(op, "qconfig_mapping", qconfig_mapping, QConfigMapping)
    backend_of(op, backend_config)
    custom = optional_config(op, "convert_custom_config", convert_custom_config, ConvertCustomConfig)
    check_graph_module(op, graph_module)
    kept = attributes_of(op, graph_module, custom.preserved_attributes)

    def convert(model: fx.GraphModule, mapping: QConfigMapping | None = None) -> fx.GraphModule:
        inputs, outputs = model.meta.get(_BORDERS, ([], []))
        graph, apart = equalized(model, inputs), []
        if mapping is not None:
            graph = copy_graph_module(graph)
            fold_trained(graph)
            apart = leave_float(op, graph, mapping)
        observed, graph = graph, convert_pt2e(graph)
        graph.meta.pop(NOTES, None)  # of nodes that are gone
        widen_reduced_ranges(graph)
        borders = {
            "input_qparams": integer_inputs(graph, inputs),
            "output_qparams": integer_outputs(graph, outputs),
        }
        convert_kept(graph, custom, convert)
        set_apart(graph, apart)
        result = keep(join(make(graph)), borders)
        return keep(result, {ORIGINALS: original_weights(result, observed)}) if keep_weights else result

    with warnings.catch_warnings():
        if any(call.fate.quantizes for call in kept_calls(graph_module).values()):
            # What is quantized may be in them alone.
            warnings.filterwarnings("ignore", message=".*must hold (observers|an operator) of")
        return keep(convert(graph_module, mapping), kept)
