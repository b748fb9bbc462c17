"""FX graph mode: a model and a QConfigMapping in, an int8 graph out.

The graph is torch.export's: what it can capture, prepare_fx can. Parts with Python control flow over
values raise with file, line and torch.export's own explanation.
"""

from typing import Any

from torch import fx, nn
from torch.fx.proxy import Scope  # noqa: F401  (torch.ao's file has it, as those below)

from torch_ao_ext._flags import check_flags
from torch_ao_ext._lower import lower_nodes
from torch_ao_ext.quantization.fx._backend import backend_of
from torch_ao_ext.quantization.fx._equalized import observe_channels
from torch_ao_ext.quantization.fx._flow import (
    attributes_of,
    check_model,
    convert_prepared,
    keep,
    optional_config,
    prepare_captured,
)
from torch_ao_ext.quantization.fx._given import config_of
from torch_ao_ext.quantization.fx._qconfig_quantizer import QConfigMappingQuantizer
from torch_ao_ext.quantization.fx._where import located
from torch_ao_ext.quantization.fx.custom_config import FuseCustomConfig
from torch_ao_ext.quantization.fx.fuse import fuse
from torch_ao_ext.quantization.fx.graph_module import ObservedGraphModule, as_reference  # noqa: F401
from torch_ao_ext.quantization.fx.tracer import QuantizationTracer, ScopeContextManager  # noqa: F401
from torch_ao_ext.quantization.pt2e._graph import check_graph_module
from torch_ao_ext.quantization.qconfig_mapping import QConfigMapping

__all__ = [
    "attach_preserved_attrs_to_model",
    "convert_fx",
    "convert_to_reference_fx",
    "fuse_fx",
    "prepare_fx",
    "prepare_qat_fx",
]


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
        return prepare_captured("prepare_fx", *arguments)
    equalization = config_of("prepare_fx", "_equalization_config", _equalization_config, QConfigMapping)
    prepared = prepare_captured("prepare_fx", *arguments)
    observe_channels("prepare_fx", prepared, QConfigMappingQuantizer(equalization).qconfig_of)
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
    return prepare_captured("prepare_qat_fx", *arguments, training=True)


def convert_fx(
    graph_module: fx.GraphModule,
    convert_custom_config: Any = None,
    _remove_qconfig: bool = True,
    qconfig_mapping: Any = None,
    backend_config: Any = None,
    keep_original_weights: bool = False,
) -> fx.GraphModule:
    """Makes the int8 graph of a calibrated one: `torch_ao` operators on plain tensors.

    Args:
        graph_module: from `prepare_fx`, run on example data, or from `prepare_qat_fx`, trained; left
            as it is.
        convert_custom_config: ConvertCustomConfig or a dict.
        _remove_qconfig: torch.ao's flag; graphs have no qconfigs.
        qconfig_mapping: that of `prepare_fx`, or its dict form, with None for what is to stay float after
            all; None: nothing is.
        backend_config: checked only: what is quantized was said to `prepare_fx`.
        keep_original_weights: the result has a dict `original_weights_lookup`: name of an int8 weight ->
            [float weight with its batch norm, bias or None]; its copies and pickles have it, too.

    Raises:
        TypeError: not a graph module; keep_original_weights is no bool.
        ValueError: an observer without data, another QConfig than that of `prepare_fx`.
    """
    check_flags("convert_fx", keep_original_weights=keep_original_weights)
    arguments = (graph_module, convert_custom_config, qconfig_mapping, backend_config)
    return convert_prepared("convert_fx", *arguments, lower_nodes, keep_original_weights)


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
    return convert_prepared("convert_to_reference_fx", *arguments, make=as_reference)


def _convert_to_reference_decomposed_fx(
    graph_module: fx.GraphModule, convert_custom_config: Any = None, qconfig_mapping: Any = None,
    backend_config: Any = None,
) -> fx.GraphModule:  # fmt: skip
    """`convert_to_reference_fx`, whose operators are always those of `quantized_decomposed`."""
    arguments = (graph_module, convert_custom_config, qconfig_mapping, backend_config)
    return convert_prepared("_convert_to_reference_decomposed_fx", *arguments, make=as_reference)


def fuse_fx(model: nn.Module, fuse_custom_config: Any = None, backend_config: Any = None) -> fx.GraphModule:
    """Finds layers that fuse, and fuses them (`fx.fuse.fuse` of its torch.fx graph).

    Args:
        model: float model in evaluation mode that torch.fx traces; left as it is.
        fuse_custom_config: FuseCustomConfig or a dict.
        backend_config: BackendConfig or a dict, whose fuser methods count; None: all that this library fuses.

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
    check_model("fuse_fx", model)
    backend_of("fuse_fx", backend_config)
    custom = optional_config("fuse_fx", "fuse_custom_config", fuse_custom_config, FuseCustomConfig)
    kept = attributes_of("fuse_fx", model, custom.preserved_attributes)
    with located("fuse_fx", "what torch.fx traces", "name the layers to fuse_modules instead"):
        graph = fx.Tracer().trace(model)
    return keep(fuse(fx.GraphModule(model, graph), False, None, backend_config), kept)


def attach_preserved_attrs_to_model(model: fx.GraphModule, preserved_attrs: dict[str, Any]) -> None:
    """Sets attributes that copies and pickles of a graph have as well.

    Args:
        model: prepared or converted graph; changed in place.
        preserved_attrs: name -> value.

    Raises:
        TypeError: not a graph module.
    """
    check_graph_module("attach_preserved_attrs_to_model", model)
    keep(model, preserved_attrs)
