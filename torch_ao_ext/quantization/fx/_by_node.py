"""prepare's steps on a graph whose nodes have their QConfigs already."""

from typing import Any

import torch
from torch import fx

from torch_ao_ext.quantization.fx._arguments import get_non_observable_arg_indexes_and_types
from torch_ao_ext.quantization.fx._backend import Backend, backend_of
from torch_ao_ext.quantization.fx._capture import KeptModule, examples_of
from torch_ao_ext.quantization.fx._equalized import observe_channels
from torch_ao_ext.quantization.fx._flow import capture, check_model, optional_config, prepare_by_quantizer
from torch_ao_ext.quantization.fx._notes import observed_names
from torch_ao_ext.quantization.fx._qconfig_quantizer import QConfigMappingQuantizer
from torch_ao_ext.quantization.fx.custom_config import PrepareCustomConfig
from torch_ao_ext.quantization.observer import PlaceholderObserver
from torch_ao_ext.quantization.pt2e._graph import check_graph_module, copy_graph_module, take_attributes
from torch_ao_ext.quantization.pt2e._qat import PRODUCT
from torch_ao_ext.quantization.pt2e.export_utils import disallow_train_eval
from torch_ao_ext.quantization.pt2e.prepare import is_observer
from torch_ao_ext.quantization.qconfig_mapping import QConfigMapping

__all__ = ["insert_observers_for_model", "propagate_dtypes_for_known_nodes"]

_OP = "insert_observers_for_model"
_INFO = "target_dtype_info"
_INPUT, _OUTPUT = "input_act_obs_or_fq_ctr", "output_act_obs_or_fq_ctr"
_FLOAT = PlaceholderObserver.with_args(dtype=torch.float32)
# Meta that torch.export carries from a node to the operators that it becomes.
_CUSTOM, _ORIGIN = "custom", "torch_ao_ext_node"

_Matches = dict[str, tuple[fx.Node, Any, Any, Any, Any]]


def propagate_dtypes_for_known_nodes(
    graph: fx.Graph, node_name_to_match_result_with_qconfig: _Matches
) -> None:
    """Marks the nodes that are known to be sizes, dimensions or masks, so that nothing observes them.

    `meta["target_dtype_info"]` of such a node, and of what it only moves, has None for the observers of input
    and output. What is known: arguments in `fx.utils.NON_OBSERVABLE_ARG_DICT`.

    Args:
        graph: of torch.fx.
        node_name_to_match_result_with_qconfig: see `insert_observers_for_model`.

    Example:
        >>> from torch import fx, nn
        >>> from torch_ao_ext.quantization.fx.prepare import propagate_dtypes_for_known_nodes
        >>> class Masked(nn.Module):
        ...     def forward(self, x, mask):
        ...         return x.masked_fill(mask, 0.0)
        >>> graph = fx.symbolic_trace(Masked()).graph
        >>> propagate_dtypes_for_known_nodes(graph, {})
        >>> [node.name for node in graph.nodes if "target_dtype_info" in node.meta]
        ['mask']
    """
    for node in graph.nodes:
        for indexes in get_non_observable_arg_indexes_and_types(node).values():
            for index in indexes(node):
                given = node.args[index]
                for value in given if isinstance(given, (tuple, list)) else (given,):
                    _mark(value, node_name_to_match_result_with_qconfig)


def _mark(value: Any, matches: _Matches) -> None:
    while isinstance(value, fx.Node):
        value.meta[_INFO] = {**value.meta.get(_INFO, {}), _INPUT: None, _OUTPUT: None}
        handler = matches[value.name][3] if value.name in matches else None
        moves = handler is not None and handler.is_general_tensor_value_op()
        value = value.args[0] if moves else None


class _ByNode(QConfigMappingQuantizer):
    """QConfigs by the name of the node that an operator comes from.

    Args:
        qconfigs: name of a node -> QConfig; others stay float.
        origins: name of a captured operator -> name of its node.
        backend: a `fx._backend.Backend`, None for all that this library has.
    """

    def __init__(self, qconfigs: dict[str, Any], origins: dict[str, str], backend: Backend | None) -> None:
        super().__init__(QConfigMapping(), backend)
        self._qconfigs, self._origins = qconfigs, origins

    def qconfig_of(self, node: fx.Node) -> Any:
        """The qconfig of a node; None leaves it float."""
        name = node.meta.get(PRODUCT, node.name)
        qconfig = self._qconfigs.get(self._origins.get(name, name))
        return qconfig if self._backend_takes(node, qconfig) else None


def insert_observers_for_model(
    model: fx.GraphModule, node_name_to_match_result_with_qconfig: _Matches,
    node_name_to_qconfig: dict[str, Any], prepare_custom_config: PrepareCustomConfig,
    equalization_config_map: dict[str, Any], backend_config: Any, observed_node_names: set[str],
    is_qat: bool,
) -> fx.Node | None:  # fmt: skip
    """Puts observers around the nodes that have a QConfig, in place: `prepare` behind its look-ups.

    The graph becomes the one that `prepare` gives: torch.export captures it once more, so its inputs have to
    say what they are, by `meta["val"]`, a tensor, or `meta["tensor_meta"]` (`torch.fx.passes.shape_prop`). A
    graph that torch.export has made is taken as it is. The model is then an observed one, for `convert`; a
    new GraphModule of it needs its `meta`, too, where inputs or outputs become integers.

    Args:
        model: of torch.fx, in training mode with is_qat, else in evaluation mode.
        node_name_to_match_result_with_qconfig: name of a node -> (last node, nodes, pattern, handler,
            QConfig): entries of `match_utils._find_matches`, each with the QConfig of its node behind.
            Nodes without an entry, or with None, stay float.
        node_name_to_qconfig: torch.ao's argument; the QConfigs of the matches count.
        prepare_custom_config: modules that stay whole, inputs and outputs that become integers.
        equalization_config_map: name of a node -> EqualizationQConfig or None; not with is_qat.
        backend_config: BackendConfig or a dict; None: all that this library has.
        observed_node_names: gets the names of observed nodes of the new graph.
        is_qat: fake quantization instead of observers.

    Returns:
        The node of the model's results.

    Raises:
        TypeError: not a graph module.
        ValueError: an input that does not say what it is, or as `quantize_fx.prepare_fx`.

    Example:
        >>> import torch
        >>> from torch import fx
        >>> from torch.fx.passes.shape_prop import ShapeProp
        >>> from torch_ao_ext.quantization import get_default_qconfig
        >>> from torch_ao_ext.quantization.fx.custom_config import PrepareCustomConfig
        >>> from torch_ao_ext.quantization.fx.prepare import insert_observers_for_model
        >>> from torch_ao_ext.quantization.fx.tracer import QuantizationTracer
        >>> x, layer = torch.randn(3, 8), torch.nn.Linear(8, 4)
        >>> tracer = QuantizationTracer([], [])
        >>> graph = tracer.trace(torch.nn.Sequential(layer).eval())
        >>> model = fx.GraphModule(tracer.root, graph)
        >>> _ = ShapeProp(model).propagate(x)
        >>> call, qconfig, observed = list(graph.nodes)[1], get_default_qconfig("onednn"), set()
        >>> matches = {call.name: (call, call, torch.nn.Linear, None, qconfig)}
        >>> config = PrepareCustomConfig()
        >>> _ = insert_observers_for_model(model, matches, {}, config, {}, None, observed, False)
        >>> observed
        {'linear'}
    """
    check_graph_module(_OP, model)
    modules = dict(model.named_modules())
    if any(n.op == "call_module" and is_observer(modules[str(n.target)]) for n in model.graph.nodes):
        raise ValueError(f"{_OP}: argument 'model' must not be prepared yet, got a model with observers")
    if not _is_exported(model):  # whose mode its operators say
        check_model(_OP, model, is_qat)
    backend = backend_of(_OP, backend_config)
    custom = optional_config(_OP, "prepare_custom_config", prepare_custom_config, PrepareCustomConfig)
    equalization = {name: q for name, q in (equalization_config_map or {}).items() if q is not None}
    if is_qat and equalization:
        raise ValueError(f"{_OP}: argument 'equalization_config_map' must be empty with is_qat, got one")
    del node_name_to_qconfig
    matches = node_name_to_match_result_with_qconfig
    for name, match in matches.items():
        if not isinstance(match, tuple) or len(match) != 5:
            raise ValueError(
                f"{_OP}: argument 'node_name_to_match_result_with_qconfig' must hold (last node, nodes, "
                f"pattern, handler, QConfig), got {match!r} for '{name}'"
            )
    qconfigs = _qconfigs(model.graph, matches)
    if not qconfigs:
        raise ValueError(
            f"{_OP}: argument 'node_name_to_match_result_with_qconfig' must hold a QConfig, got none"
        )
    graph, origins = _captured(model, qconfigs, custom, backend_config, is_qat)
    prepared = prepare_by_quantizer(_OP, graph, _ByNode(qconfigs, origins, backend), custom, is_qat)
    if equalization:
        observe_channels(_OP, prepared, _ByNode(equalization, origins, None).qconfig_of)
    observed_node_names |= observed_names(prepared)
    return _replace(model, prepared)


def _qconfigs(graph: fx.Graph, matches: _Matches) -> dict[str, Any]:
    """Name of each node that is to be quantized -> its QConfig."""
    for node in graph.nodes:
        qconfig = matches[node.name][4] if node.name in matches else None
        activation = _FLOAT if qconfig is None else qconfig.activation
        node.meta[_INFO] = {_INPUT: activation, _OUTPUT: activation}
    propagate_dtypes_for_known_nodes(graph, matches)
    wanted = {node.name for node in graph.nodes if node.meta.pop(_INFO)[_OUTPUT] is not None}
    return {
        name: match[4] for name, match in matches.items()
        if match[4] is not None and (name in wanted or match[4].activation is None)
    }  # fmt: skip


def _is_exported(model: fx.GraphModule) -> bool:
    """Whether the graph has nothing but operators and modules that stay whole."""
    modules = dict(model.named_modules())
    calls = [node for node in model.graph.nodes if node.op.startswith("call_")]
    return all(
        isinstance(node.target, torch._ops.OpOverload)
        or node.target == "_guards_fn"
        or isinstance(modules.get(str(node.target)), KeptModule)
        for node in calls
    ) and any(node.op == "call_function" for node in calls)


def _captured(
    model: fx.GraphModule, qconfigs: dict[str, Any], custom: PrepareCustomConfig, backend_config: Any,
    training: bool,
) -> tuple[fx.GraphModule, dict[str, str]]:  # fmt: skip
    """The graph of operators, and the name of each -> the name of the node that it comes from."""
    if _is_exported(model):
        return model, {}
    marked = copy_graph_module(model)
    for node in marked.graph.nodes:
        node.meta[_CUSTOM] = {**node.meta.get(_CUSTOM, {}), _ORIGIN: node.name}
    mapping = QConfigMapping()
    for node in model.graph.nodes:
        if node.op == "call_module":  # as a whole
            mapping.set_module_name(str(node.target), qconfigs.get(node.name))
    graph = capture(_OP, marked, mapping, custom, examples_of(_OP, model), backend_config, training)
    origins = {}
    for node in graph.graph.nodes:
        own = dict(node.meta.pop(_CUSTOM, None) or {})
        name = own.pop(_ORIGIN, None)
        if name is not None:
            origins[node.name] = name
        if own:
            node.meta[_CUSTOM] = own
    return graph, origins


def _replace(model: fx.GraphModule, prepared: fx.GraphModule) -> fx.Node:
    """The model becomes the prepared graph."""
    for name in ("_parameters", "_buffers", "_modules"):
        own = getattr(model, name)
        own.clear()
        own.update(getattr(prepared, name))
    take_attributes(model, prepared)
    model.meta.update(prepared.meta)
    model.graph = prepared.graph
    disallow_train_eval(model)
    return next(node for node in reversed(model.graph.nodes) if node.op == "output")
