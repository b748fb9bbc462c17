"""FX graph mode: a model and a QConfigMapping in, an int8 graph out.

The graph is torch.export's: what it can capture, prepare_fx can. Parts with Python control flow over
values raise with file, line and torch.export's own explanation.
"""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from torch_ao_ext._lower import lower
from torch_ao_ext.quantization.fuse_modules import fuse_modules
from torch_ao_ext.quantization.fuser_method_mappings import _DEFAULT_OP_LIST_TO_FUSER_METHOD
from torch_ao_ext.quantization.fx._backend import backend_of
from torch_ao_ext.quantization.fx._borders import check_borders, integer_inputs, integer_outputs
from torch_ao_ext.quantization.fx._capture import export_whole, kept_calls
from torch_ao_ext.quantization.fx._equalized import equalized, observe_channels
from torch_ao_ext.quantization.fx._fates import Custom, convert_kept, fates_of, prepare_kept
from torch_ao_ext.quantization.fx._following import follow
from torch_ao_ext.quantization.fx._given import config_of
from torch_ao_ext.quantization.fx._qconfig_quantizer import (
    KEEP_QPARAMS,
    QConfigMappingQuantizer,
)
from torch_ao_ext.quantization.fx._reduced_range import widen_reduced_ranges
from torch_ao_ext.quantization.fx._where import located
from torch_ao_ext.quantization.fx.custom_config import (
    ConvertCustomConfig,
    FuseCustomConfig,
    PrepareCustomConfig,
)
from torch_ao_ext.quantization.fx.graph_module import (
    PRESERVED,
    FusedGraphModule,
    ObservedGraphModule,
    ObservedStandaloneGraphModule,
    as_kind,
)
from torch_ao_ext.quantization.pt2e._graph import check_graph_module
from torch_ao_ext.quantization.qconfig_mapping import QConfigMapping
from torch_ao_ext.quantization.quantize_pt2e import (
    convert_pt2e,
    prepare_graph,
    prepare_qat_graph,
)

__all__ = ["convert_fx", "convert_to_reference_fx", "fuse_fx", "prepare_fx", "prepare_qat_fx"]

# Meta of a prepared one: inputs and outputs that become integers.
_BORDERS = "_torch_ao_ext_borders"


def _check_model(op: str, model: Any, training: bool = False) -> None:
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise ValueError(f"{op}: argument 'model' must be a Python nn.Module, got {type(model).__name__}")
    if model.training != training:
        mode, call = ("training", "train") if training else ("evaluation", "eval")
        raise ValueError(f"{op}: argument 'model' must be in {mode} mode (call model.{call}())")


def _check_none(op: str, name: str, value: Any) -> None:
    if value is not None:
        raise ValueError(f"{op}: argument '{name}' must be None in this version, got {value!r}")


def _config(op: str, name: str, value: Any, kind: type) -> Any:
    """A custom config, given as such, as a dict or not at all."""
    if value is None:
        return kind()
    return config_of(op, name, value, kind)


def prepare_fx(
    model: nn.Module,
    qconfig_mapping: Any,
    example_inputs: tuple[Any, ...],
    prepare_custom_config: Any = None,
    _equalization_config: Any = None,
    backend_config: Any = None,
) -> fx.GraphModule:
    """Captures a model and puts observers where its QConfigs say.

    The first dimension of the inputs stays free where the model allows it; other sizes are those
    of example_inputs. Batch norms are folded into convolutions and linear layers.

    Args:
        model: float model in evaluation mode; left as it is.
        qconfig_mapping: QConfigMapping, or its dict form.
        example_inputs: positional inputs, a tuple; numbers and strings among them become constants: the
            graph takes these values only.
        prepare_custom_config: PrepareCustomConfig or a dict.
        _equalization_config: QConfigMapping of EqualizationQConfigs (`fx._equalize`) or a dict: layers
            whose input channels are scaled to the ranges of their weights.
        backend_config: BackendConfig or a dict: operators outside of its patterns and dtypes stay
            float; None: all that this library runs in int8.

    Returns:
        A graph module to run on example data, then for `convert_fx`.

    Raises:
        ValueError: training mode, no QConfigMapping, nothing to quantize, another config in
            _equalization_config, or a model that torch.export does not take, with file and line.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization import get_default_qconfig_mapping
        >>> from torch_ao_ext.quantization.quantize_fx import convert_fx, prepare_fx
        >>> x, model = torch.randn(2, 8), torch.nn.Linear(8, 4).eval()
        >>> observed = prepare_fx(model, get_default_qconfig_mapping("onednn"), (x,))
        >>> _ = observed(x)
        >>> convert_fx(observed)(torch.randn(5, 8)).shape
        torch.Size([5, 4])
    """
    arguments = (model, qconfig_mapping, example_inputs, prepare_custom_config, backend_config)
    if _equalization_config is None:
        return _prepare("prepare_fx", *arguments)
    equalization = config_of("prepare_fx", "_equalization_config", _equalization_config, QConfigMapping)
    prepared = _prepare("prepare_fx", *arguments)
    observe_channels("prepare_fx", prepared, equalization)
    return prepared


def prepare_qat_fx(
    model: nn.Module,
    qconfig_mapping: Any,
    example_inputs: tuple[Any, ...],
    prepare_custom_config: Any = None,
    backend_config: Any = None,
) -> fx.GraphModule:
    """As `prepare_fx` for training: fake quantization instead of observers, batch norms kept.

    The parameters of the graph are those of the model: training changes both. Before `convert_fx` or an
    evaluation, `pt2e.move_exported_model_to_eval(graph)` (model.eval() does not reach into graphs).

    Args:
        model: float model in training mode; its code is left as it is.
        qconfig_mapping: with fake quantization, as `get_default_qat_qconfig_mapping("onednn")`.
        example_inputs: see `prepare_fx`, as the arguments that follow.
        prepare_custom_config: see `prepare_fx`.
        backend_config: see `prepare_fx`.

    Raises:
        ValueError: evaluation mode, observers in the qconfigs, or as `prepare_fx`.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization import get_default_qat_qconfig_mapping
        >>> from torch_ao_ext.quantization.quantize_fx import convert_fx, prepare_qat_fx
        >>> x, model = torch.randn(2, 8), torch.nn.Linear(8, 4).train()
        >>> graph = prepare_qat_fx(model, get_default_qat_qconfig_mapping("onednn"), (x,))
        >>> graph(x).sum().backward()
        >>> convert_fx(graph)(torch.randn(5, 8)).shape
        torch.Size([5, 4])
    """
    arguments = (model, qconfig_mapping, example_inputs, prepare_custom_config, backend_config)
    return _prepare("prepare_qat_fx", *arguments, training=True)


def _prepare(
    op: str, model: Any, qconfig_mapping: Any, example_inputs: Any, prepare_custom_config: Any,
    backend_config: Any, training: bool = False,
) -> fx.GraphModule:  # fmt: skip
    _check_model(op, model, training)
    backend = backend_of(op, backend_config)
    qconfig_mapping = config_of(op, "qconfig_mapping", qconfig_mapping, QConfigMapping)
    if not isinstance(example_inputs, (tuple, list)):
        raise ValueError(
            f"{op}: argument 'example_inputs' must be a tuple of inputs, got {type(example_inputs).__name__}"
        )
    custom = _config(op, "prepare_custom_config", prepare_custom_config, PrepareCustomConfig)
    kept = _attributes(op, model, custom.preserved_attributes)
    inputs = tuple(example_inputs)

    def standalone(module: nn.Module, mapping: Any, inputs: Any, config: Any, backend: Any) -> Any:
        backend = backend_config if backend is None else backend
        prepared = _prepare(op, module, mapping, inputs, config, backend, training)
        return as_kind(prepared, ObservedStandaloneGraphModule)

    fates = fates_of(op, model, qconfig_mapping, custom, inputs, standalone)
    if training and any(isinstance(fate, Custom) for fate in fates.values()):
        raise ValueError(f"{op}: float_to_observed_mapping must be empty in training")
    with torch.no_grad():
        graph = export_whole(op, model, inputs, list(fates))
    prepare_kept(graph, model, fates)
    required = not any(fate.quantizes for fate in fates.values())
    prepared = prepare_by_mapping(op, graph, qconfig_mapping, training, required, backend)
    prepared = as_kind(prepared, ObservedGraphModule)
    borders = (custom.input_quantized_indexes, custom.output_quantized_indexes)
    check_borders(op, prepared, *borders)
    prepared.meta[_BORDERS] = borders
    return _keep(prepared, kept)


def prepare_by_mapping(
    op: str, graph: fx.GraphModule, mapping: QConfigMapping, training: bool = False, required: bool = True,
    backend: Any = None,
) -> fx.GraphModule:  # fmt: skip
    """Puts observers into an exported graph where the QConfigs of a mapping say.

    Args:
        op: for messages.
        graph: left as it is.
        mapping: QConfigs.
        training: fake quantization.
        required: whether something must be quantized.
        backend: a Backend that limits what is quantized, or None.
    """
    quantizer = QConfigMappingQuantizer(mapping, backend)
    prepared = (prepare_qat_graph if training else prepare_graph)(op, graph, quantizer, required)
    follow(prepared, KEEP_QPARAMS)
    return prepared


def _keep(graph: fx.GraphModule, attributes: dict[str, Any]) -> fx.GraphModule:
    """Sets attributes that copies of the graph have as well."""
    graph.meta[PRESERVED] = {**graph.meta.get(PRESERVED, {}), **attributes}
    for name, value in graph.meta[PRESERVED].items():
        setattr(graph, name, value)
    return graph


def _attributes(op: str, model: nn.Module, names: list[str]) -> dict[str, Any]:
    missing = [name for name in names if not hasattr(model, name)]
    if missing:
        raise ValueError(f"{op}: preserved_attributes must name attributes of the model, got {missing[0]!r}")
    return {name: copy.deepcopy(getattr(model, name)) for name in names}


def convert_fx(
    graph_module: fx.GraphModule,
    convert_custom_config: Any = None,
    _remove_qconfig: bool = True,
    qconfig_mapping: Any = None,
    backend_config: Any = None,
) -> fx.GraphModule:
    """Makes the int8 graph of a calibrated one: `torch_ao` operators on plain tensors.

    Args:
        graph_module: from `prepare_fx`, run on example data, or from `prepare_qat_fx`, trained; left
            as it is.
        convert_custom_config: ConvertCustomConfig or a dict.
        _remove_qconfig: torch.ao's flag; graphs have no qconfigs.
        qconfig_mapping: must be None: what is quantized was said to `prepare_fx`.
        backend_config: checked only: what is quantized was said to `prepare_fx`.

    Raises:
        TypeError: not a graph module.
        ValueError: an observer without data, an argument that is not available.
    """
    arguments = (graph_module, convert_custom_config, qconfig_mapping, backend_config)
    return _convert("convert_fx", *arguments, make=lower)


def convert_to_reference_fx(
    graph_module: fx.GraphModule,
    convert_custom_config: Any = None,
    _remove_qconfig: bool = True,
    qconfig_mapping: Any = None,
    backend_config: Any = None,
) -> fx.GraphModule:
    """Makes the graph that says what the int8 model computes, for other backends.

    Float operators between quantize and dequantize operators, int8 weights as constants. It runs
    (slower than the float model) and exports; `lower` makes the graph of `convert_fx` of it.

    Args:
        graph_module: see `convert_fx`, as the arguments that follow.
        convert_custom_config: see `convert_fx`.
        _remove_qconfig: see `convert_fx`.
        qconfig_mapping: see `convert_fx`.
        backend_config: see `convert_fx`.

    Raises:
        TypeError: not a graph module.
        ValueError: as `convert_fx`.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization import get_default_qconfig_mapping
        >>> from torch_ao_ext.quantization.quantize_fx import convert_to_reference_fx, prepare_fx
        >>> x, model = torch.randn(2, 8), torch.nn.Linear(8, 4).eval()
        >>> observed = prepare_fx(model, get_default_qconfig_mapping("onednn"), (x,))
        >>> _ = observed(x)
        >>> graph = convert_to_reference_fx(observed)
        >>> [n.target.overloadpacket._qualified_op_name for n in graph.graph.nodes if "linear" in n.name]
        ['aten::linear']
    """
    arguments = (graph_module, convert_custom_config, qconfig_mapping, backend_config)
    return _convert("convert_to_reference_fx", *arguments, make=lambda graph: graph)


def _convert(
    op: str, graph_module: Any, convert_custom_config: Any, qconfig_mapping: Any, backend_config: Any,
    make: Callable[[fx.GraphModule], fx.GraphModule],
) -> fx.GraphModule:  # fmt: skip
    _check_none(op, "qconfig_mapping", qconfig_mapping)
    backend_of(op, backend_config)
    custom = _config(op, "convert_custom_config", convert_custom_config, ConvertCustomConfig)
    check_graph_module(op, graph_module)
    kept = _attributes(op, graph_module, custom.preserved_attributes)
    return _keep(_converted(graph_module, custom, make), kept)


def _converted(
    graph_module: fx.GraphModule,
    custom: ConvertCustomConfig,
    make: Callable[[fx.GraphModule], fx.GraphModule],
) -> fx.GraphModule:
    with warnings.catch_warnings():
        if any(call.fate.quantizes for call in kept_calls(graph_module).values()):
            # What is quantized may be in them alone.
            warnings.filterwarnings("ignore", message=".*must hold (observers|an operator) of")
        inputs, outputs = graph_module.meta.get(_BORDERS, ([], []))
        graph = convert_pt2e(equalized(graph_module, inputs))
        widen_reduced_ranges(graph)
        borders = {
            "input_qparams": integer_inputs(graph, inputs),
            "output_qparams": integer_outputs(graph, outputs),
        }
        convert_kept(graph, custom, lambda child: _converted(child, custom, make))
        return _keep(make(graph), borders)


def fuse_fx(model: nn.Module, fuse_custom_config: Any = None, backend_config: Any = None) -> fx.GraphModule:
    """Finds layers that fuse, and fuses them (`fuse_modules` with the names that it finds).

    Args:
        model: float model in evaluation mode that torch.fx traces; left as it is.
        fuse_custom_config: FuseCustomConfig or a dict.
        backend_config: checked only.

    Returns:
        A graph module of the fused model.

    Raises:
        ValueError: training mode, a dict with an unknown key, or a model that torch.fx does not trace, with
            file and line.

    Example:
        >>> from torch import nn
        >>> from torch_ao_ext.quantization.quantize_fx import fuse_fx
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU()).eval()
        >>> type(getattr(fuse_fx(model), "0")).__name__
        'ConvReLU2d'
    """
    _check_model("fuse_fx", model)
    backend_of("fuse_fx", backend_config)
    custom = _config("fuse_fx", "fuse_custom_config", fuse_custom_config, FuseCustomConfig)
    kept = _attributes("fuse_fx", model, custom.preserved_attributes)
    with located("fuse_fx", "what torch.fx traces", "name the layers to fuse_modules instead"):
        graph = fx.Tracer().trace(model)
    groups = _groups(model, graph)
    fused = fuse_modules(model, groups) if groups else copy.deepcopy(model)
    return _keep(FusedGraphModule(fused, graph), kept)


def _groups(model: nn.Module, graph: fx.Graph) -> list[list[str]]:
    """Names of layers in a row, each read by the next one only and called once."""
    calls: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls[node.target] = calls.get(node.target, 0) + 1
    groups, used = [], set()
    longest = max(len(types) for types in _DEFAULT_OP_LIST_TO_FUSER_METHOD)
    for node in graph.nodes:
        chain = [node]
        while len(chain) < longest and len(chain[-1].users) == 1:
            after = next(iter(chain[-1].users))
            if after.op != "call_module" or after.args != (chain[-1],) or after.kwargs:
                break
            chain.append(after)
        while len(chain) > 1:
            names = [n.target for n in chain]
            plain = all(n.op == "call_module" and calls[n.target] == 1 for n in chain)
            if plain and not used & set(names):
                types = tuple(type(model.get_submodule(name)) for name in names)
                if types in _DEFAULT_OP_LIST_TO_FUSER_METHOD:
                    groups.append(names)
                    used |= set(names)
                    break
            chain.pop()
    return groups
