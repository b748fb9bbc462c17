"""prepare: puts observers where a float model will be cut into int8 tensors."""

import warnings
from typing import Any

import torch
from torch import nn

from torch_ao_ext._describe import FLOAT_REASON, type_name
from torch_ao_ext.nn import quantizable, quantized
from torch_ao_ext.nn.quantized._rows import row_observer
from torch_ao_ext.nn.quantized._static import STORAGE
from torch_ao_ext.quantization._copy import copied
from torch_ao_ext.quantization._edges import EDGE, observe_input
from torch_ao_ext.quantization._own_types import is_fused, own_type
from torch_ao_ext.quantization._walk import children
from torch_ao_ext.quantization.fake_quantize import FakeQuantizeBase
from torch_ao_ext.quantization.quantization_mappings import (
    DEFAULT_MODULE_TO_ACT_POST_PROCESS,
    get_default_qconfig_propagation_list,
)
from torch_ao_ext.quantization.stubs import DeQuantStub, QuantStub, QuantWrapper

__all__ = [
    "add_quant_dequant",
    "check_model",
    "get_default_custom_config_dict",
    "observe_output",
    "prepare",
    "propagate_qconfig_",
    "stays_float",
]

_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
# Their forward reads the weights of what is inside them, unless a table has them.
_WHOLE = (nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase, nn.TransformerEncoderLayer)


# They call `activation_post_process` on their result.
_OBSERVE_THEMSELVES = (quantized.FloatFunctional, quantized.QFunctional, quantizable.LSTM)


_NONE = nn.Identity()


def check_model(op: str, model: Any) -> None:
    """Raises unless it is a Python module."""
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise ValueError(f"{op}: argument 'model' must be a Python nn.Module, got {type(model).__name__}")


def get_default_custom_config_dict() -> dict[str, Any]:
    """The tables of observed custom modules that `prepare` and `convert` start from.

    Keys "float_to_observed_custom_module_class" (float class -> class with `from_float`) and
    "observed_to_quantized_custom_module_class" (that class -> class with `from_observed`).
    """
    return {
        "float_to_observed_custom_module_class": {
            nn.LSTM: quantizable.LSTM,
            nn.MultiheadAttention: quantizable.MultiheadAttention,
        },
        "observed_to_quantized_custom_module_class": {
            quantizable.LSTM: quantized.LSTM,
            quantizable.MultiheadAttention: quantized.MultiheadAttention,
        },
    }


def custom_classes(op: str, config: dict[str, Any] | None, key: str) -> dict[Any, Any]:
    """One table of a custom config dict."""
    config = get_default_custom_config_dict() if config is None else config
    unknown = sorted(set(config) - {*get_default_custom_config_dict(), "non_traceable_module_class"})
    if unknown:
        raise ValueError(
            f"{op}: keys of the custom config dict must be among "
            f"{', '.join(get_default_custom_config_dict())}, got {unknown[0]!r}"
        )
    return config.get(key, {})


def _is_qconfig(value: Any) -> bool:
    return value is None or hasattr(value, "activation") and hasattr(value, "weight")


def propagate_qconfig_(
    module: nn.Module,
    qconfig_dict: dict[Any, Any] | None = None,
    prepare_custom_config_dict: dict[str, Any] | None = None,
) -> None:
    """Gives each module without a `qconfig` attribute that of its parent, in place.

    Args:
        module: root.
        qconfig_dict: type or name -> qconfig or None, below what modules have as attribute; "" is
            the root.
        prepare_custom_config_dict: "non_traceable_module_class": types left out.

    Raises:
        ValueError: a value that is no qconfig.
    """
    table = qconfig_dict or {}
    skipped = tuple((prepare_custom_config_dict or {}).get("non_traceable_module_class", ()))
    _propagate(module, "", table, table.get("", None), skipped)


def _propagate(module: nn.Module, name: str, table: Any, inherited: Any, skipped: tuple[type, ...]) -> None:
    found = table.get(own_type(module), inherited)
    found = table.get(name, found) if name else found
    qconfig = getattr(module, "qconfig", found)
    if not _is_qconfig(qconfig):
        raise ValueError(f"prepare: qconfig of '{name}' must be a QConfig or None, got {qconfig!r}")
    module.qconfig = qconfig
    for _, path, child in children(module, name):
        if not isinstance(child, skipped):
            _propagate(child, path, table, qconfig, skipped)


def stays_float(module: nn.Module) -> str | None:
    """Why a module that has a qconfig is not observed, or None."""
    if getattr(module, "qconfig", None) is None:
        return None
    if isinstance(module, _WHOLE) and not isinstance(module, quantizable.LSTM):
        return f"no static int8 module for {type_name(module)}; quantize_dynamic has one"
    if isinstance(module, _EMBEDDINGS):
        try:
            row_observer(module.qconfig)
        except ValueError as error:
            return str(error)
    return None


def _observe(module: nn.Module, args: Any, output: Any) -> Any:
    """The forward hook that `convert` takes away again."""
    return module.activation_post_process(output)


def observe_output(module: nn.Module, observer: nn.Module) -> None:
    """Puts an observer behind a module: before the hooks of users, as part of its value."""
    module.add_module("activation_post_process", observer)
    module.register_forward_hook(_observe, prepend=True)


class _Preparation:
    def __init__(
        self, allowed: set[Any], non_leaf: tuple[Any, ...], custom: dict[Any, Any], edges: bool
    ) -> None:
        self.edges = edges
        self.allowed = allowed
        self.non_leaf = non_leaf
        self.custom = custom
        self.observed: dict[int, nn.Module] = {}
        self.seen: set[int] = set()

    def _make_observer(self, module: nn.Module, name: str) -> nn.Module:
        factory = module.qconfig.activation
        observer = factory() if factory is not None else None
        special = DEFAULT_MODULE_TO_ACT_POST_PROCESS.get(own_type(module))
        if special is not None:
            training = isinstance(observer, FakeQuantizeBase)
            observer = special() if training else special().activation_post_process
        dtype = getattr(observer, "dtype", None)
        if dtype not in STORAGE or getattr(observer, "is_dynamic", False):
            got = f"one for {'dynamic ' if dtype in STORAGE else ''}{dtype}"
            raise ValueError(
                f"prepare: '{name}': qconfig.activation must be a static observer for quint8 or qint8, got "
                f"{'none' if observer is None else got} (quantize_dynamic is for dynamic qconfigs)"
            )
        return observer

    def check(self, model: nn.Module) -> None:
        """Raises what `visit` would, before anything is changed."""
        known: set[tuple[int, Any]] = set()
        for name, module in model.named_modules():
            qconfig, kind = getattr(module, "qconfig", None), own_type(module)
            if qconfig is None or (id(qconfig), kind) in known or isinstance(module, _EMBEDDINGS):
                continue
            known.add((id(qconfig), kind))
            wanted = kind in self.allowed or is_fused(module) or issubclass(kind, _OBSERVE_THEMSELVES)
            leaf = is_fused(module) or set(module._modules) <= {"parametrizations", "activation_post_process"}
            idle = kind in (nn.Sequential, nn.Dropout) or issubclass(kind, DeQuantStub)
            if wanted and leaf and not idle and stays_float(module) is None:
                self._make_observer(module, name)

    def _insert(self, module: nn.Module, name: str) -> None:
        if isinstance(module, _EMBEDDINGS) or hasattr(module, "activation_post_process"):
            return  # rows need no activation; a module under two names has one observer
        observe_output(module, self._make_observer(module, name))
        if self.edges and not isinstance(module, QuantStub):
            observe_input(module, module.qconfig.activation())

    def _replace(self, module: nn.Module, name: str, parent: nn.Module, key: str) -> None:
        """Puts a custom module in the place of a float one."""
        observed = self.custom[own_type(module)].from_float(module)
        self.observed[id(module)] = parent._modules[key] = observed
        observed.qconfig = module.qconfig
        if isinstance(observed, (quantizable.LSTM, quantizable.MultiheadAttention)):
            _propagate(observed, name, {}, module.qconfig, ())
            self.visit(observed, name, None, "")
        else:
            self._insert(observed, name)

    def visit(self, module: nn.Module, name: str, parent: nn.Module | None, key: str) -> None:
        if id(module) in self.seen:
            if parent is not None and id(module) in self.observed:
                parent._modules[key] = self.observed[id(module)]
            return
        self.seen.add(id(module))
        module.__dict__.pop(FLOAT_REASON, None)  # of an earlier attempt
        kind, asked = own_type(module), getattr(module, "qconfig", None) is not None
        if asked and parent is not None and kind in self.custom:
            self._replace(module, name, parent, key)
            return
        reason = stays_float(module)
        if reason is not None:
            module.__dict__[FLOAT_REASON] = reason
            return
        if kind is nn.Dropout or issubclass(kind, DeQuantStub):
            return
        if issubclass(kind, _OBSERVE_THEMSELVES):
            if asked and isinstance(module._modules.get("activation_post_process", _NONE), nn.Identity):
                module.activation_post_process = self._make_observer(module, name)
                if kind is quantizable.LSTM:
                    self._insert(module.quant_hidden, name)
                if self.edges and kind is quantizable.LSTM:
                    observe_input(module, module.qconfig.activation())
                elif self.edges:
                    module.add_module(EDGE, module.qconfig.activation())
            return
        if asked and (is_fused(module) or isinstance(module, self.non_leaf)):
            self._insert(module, name)
        if is_fused(module):
            return
        for child_key, path, child in children(module, name):
            if child_key != "parametrizations":
                self.visit(child, path, module, child_key)
        leaf = set(module._modules) <= {"parametrizations", "activation_post_process", EDGE}
        if asked and leaf and kind is not nn.Sequential and kind in self.allowed:
            self._insert(module, name)


def prepare(
    model: nn.Module,
    inplace: bool = False,
    allow_list: Any = None,
    observer_non_leaf_module_list: Any = None,
    prepare_custom_config_dict: dict[str, Any] | None = None,
    *,
    auto_edges: bool = False,
) -> nn.Module:
    """Puts observers into a float model whose modules (or root) have a `qconfig`.

    Then run the model on some batches of real data, and `convert` it. Observed are the results
    of QuantStub, FloatFunctional, fused containers and the layers of `allow_list`.

    Args:
        model: float model in evaluation mode, layers fused by `fuse_modules`.
        inplace: change `model` instead of a copy.
        allow_list: float classes to observe; default `get_default_qconfig_propagation_list()`.
        observer_non_leaf_module_list: classes with children whose result is observed, too.
        prepare_custom_config_dict: see `get_default_custom_config_dict`.
        auto_edges: for models without stubs: layers are observed before and behind; after
            `convert` they quantize floats that come to them, and functions and modules
            without an int8 form get floats.

    Returns:
        The observed model; its results are those of the float model.

    Raises:
        ValueError: not a Python module; a qconfig that is none, or whose activation observer is
            not static and 8 bit.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization import QuantWrapper, default_qconfig, prepare
        >>> model = QuantWrapper(torch.nn.Linear(4, 2)).eval()
        >>> model.qconfig = default_qconfig
        >>> type(prepare(model).module.activation_post_process).__name__
        'MinMaxObserver'
    """
    check_model("prepare", model)
    custom = custom_classes("prepare", prepare_custom_config_dict, "float_to_observed_custom_module_class")
    allowed = get_default_qconfig_propagation_list() if allow_list is None else set(allow_list)
    model = model if inplace else copied("prepare", model)
    propagate_qconfig_(model, None, prepare_custom_config_dict)
    if all(getattr(module, "qconfig", None) is None for module in model.modules()):
        warnings.warn(
            "prepare: no module has a qconfig, nothing will be quantized (set model.qconfig)",
            UserWarning,
            stacklevel=2,
        )
    non_leaf = tuple(observer_non_leaf_module_list or ())
    preparation = _Preparation(allowed, non_leaf, custom, auto_edges)
    preparation.check(model)
    preparation.visit(model, "", None, "")
    return model


def add_quant_dequant(module: nn.Module) -> nn.Module:
    """Puts each leaf module that has a qconfig between two stubs, in place.

    Returns:
        The module; a QuantWrapper when it is such a leaf itself.
    """
    if not module._modules and getattr(module, "qconfig", None):
        return QuantWrapper(module)
    for name, child in module.named_children():
        module._modules[name] = add_quant_dequant(child)
    return module


