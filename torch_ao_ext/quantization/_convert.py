"""convert: observed modules become modules between int8 tensors."""

import warnings
from collections.abc import Callable
from typing import Any

from torch import nn

from torch_ao_ext._describe import FLOAT_REASON, MODULE_PATH
from torch_ao_ext.nn import quantizable
from torch_ao_ext.nn.quantized._static import saw_data
from torch_ao_ext.nn.quantized._weighted import WeightedModule
from torch_ao_ext.quantization._copy import copied
from torch_ao_ext.quantization._edges import (
    EDGE,
    carry_edge,
    edge_hooks,
    has_edges,
    join_edges,
)
from torch_ao_ext.quantization._hooks import (
    hooks_restored_on_error,
    move_hooks,
    settle_weight_hooks,
)
from torch_ao_ext.quantization._own_types import is_fused, own_type
from torch_ao_ext.quantization._prepare import (
    _observe,
    check_model,
    custom_classes,
    prepare,
    stays_float,
)
from torch_ao_ext.quantization._walk import replaced
from torch_ao_ext.quantization.quantization_mappings import (
    get_default_static_quant_module_mappings,
)

__all__ = ["convert", "place_qat_modules", "quantize", "swap_module"]

_NO_DATA = "it saw no data between prepare and convert"


def _observer_hooks(module: nn.Module) -> set[int]:
    return {key for key, hook in module._forward_hooks.items() if hook is _observe}


def swap_module(
    mod: nn.Module,
    mapping: dict[Any, Any],
    custom_module_class_mapping: dict[Any, Any] | None = None,
    use_precomputed_fake_quant: bool = False,
) -> nn.Module:
    """The quantized counterpart of one observed module, or the module itself when there is none.

    Hooks of the user move to it, and so do their handles.

    Args:
        mod: observed, with a qconfig that is not None.
        mapping: float class -> class with `from_float`.
        custom_module_class_mapping: observed class -> class with `from_observed`.
        use_precomputed_fake_quant: handed to `from_float`.

    Raises:
        ValueError: what `from_float` refuses.
    """
    if getattr(mod, "qconfig", None) is None:
        return mod
    kind = own_type(mod)
    custom = custom_module_class_mapping or {}
    dropped = _observer_hooks(mod)
    if kind in custom:
        new = custom[kind].from_observed(mod)
    elif kind in mapping:
        dropped |= settle_weight_hooks(mod)
        new = mapping[kind].from_float(mod, use_precomputed_fake_quant=use_precomputed_fake_quant)
    else:
        return mod
    carry_edge(mod, new)
    move_hooks(mod, new, dropped=dropped | edge_hooks(mod))
    return new


class _Conversion:
    def __init__(self, mapping: dict[Any, Any], custom: dict[Any, Any], precomputed: bool) -> None:
        self.mapping = mapping
        self.custom = custom
        self.precomputed = precomputed
        self.places: list[tuple[nn.Module, str, nn.Module]] = []
        self.silent: list[str] = []
        self.heard = 0  # observers that saw data
        self.weights: dict[Any, dict[str, Any]] = {}

    def _wanted(self, module: nn.Module, name: str) -> bool:
        kind = own_type(module)
        if getattr(module, "qconfig", None) is None or FLOAT_REASON in module.__dict__:
            return False
        if kind not in self.mapping and kind not in self.custom:
            return False
        result = module.out_proj if isinstance(module, quantizable.MultiheadAttention) else module
        observer = getattr(result, "activation_post_process", None)
        if observer is not None and not isinstance(observer, nn.Identity) and not saw_data(observer):
            if getattr(self.mapping.get(kind), "__name__", "") != "QFunctional":
                self.silent.append(name)
                return False
        elif observer is not None:
            self.heard += 1
        return True

    def _share(self, module: nn.Module, new: nn.Module) -> None:
        """Layers of one float weight have one int8 weight."""
        product = module[0] if isinstance(module, nn.Sequential) else module
        weight = getattr(product, "weight", None)
        if not isinstance(new, WeightedModule) or weight is None:
            return
        key = (id(weight), id(module.qconfig), tuple(new.qweight.shape))
        own = {name: new._buffers[name] for name in ("qweight", "weight_scale", "weight_zero_point")}
        new._buffers.update(self.weights.setdefault(key, own))

    def _convert_one(self, module: nn.Module, name: str) -> nn.Module:
        try:
            new = swap_module(module, self.mapping, self.custom, self.precomputed)
        except (ValueError, TypeError) as error:
            raise ValueError(f"convert: '{name}': {error}") from error
        self._share(module, new)
        return new

    def whole(self, module: nn.Module, name: str) -> bool:
        """Whether the parts of a module are its own affair; so are observers."""
        key = name.rpartition(".")[2]
        if key in ("activation_post_process", EDGE) or FLOAT_REASON in module.__dict__:
            return True
        return is_fused(module) or own_type(module) in self.custom

    def make(self, module: nn.Module, name: str) -> nn.Module:
        """What replaces a module, or itself."""
        return self._convert_one(module, name) if self._wanted(module, name) else module

    def run(self, model: nn.Module) -> nn.Module:
        """The model or what replaces it; places are noted and not yet filled."""
        return replaced(model, self.make, self.whole, lambda *place: self.places.append(place))


def place_qat_modules(model: nn.Module, table: dict[Any, Any]) -> nn.Module:
    """Replaces float modules that have a qconfig by those of `table`, in place; returns the root."""

    def make(module: nn.Module, name: str) -> nn.Module:
        try:
            return swap_module(module, table)
        except ValueError as error:
            raise ValueError(f"prepare_qat: '{name}': {error}") from error

    def whole(module: nn.Module, name: str) -> bool:
        return is_fused(module) or stays_float(module) is not None

    return replaced(model, make, whole, lambda parent, key, new: parent._modules.update({key: new}))


def _clean(model: nn.Module, remove_qconfig: bool) -> None:
    """Takes observers and qconfigs away from what stayed float; notes names for errors."""
    for name, module in model.named_modules():
        module.__dict__[MODULE_PATH] = name
    for module in model.modules():
        hooks = _observer_hooks(module)
        for key in hooks:
            del module._forward_hooks[key]
        if hooks:
            del module._modules["activation_post_process"]
        for key in edge_hooks(module):
            del module._forward_pre_hooks[key]
        module._modules.pop(EDGE, None)
        if remove_qconfig:
            module.__dict__.pop("qconfig", None)


def convert(
    module: nn.Module,
    mapping: dict[Any, Any] | None = None,
    inplace: bool = False,
    remove_qconfig: bool = True,
    is_reference: bool = False,
    convert_custom_config_dict: dict[str, Any] | None = None,
    use_precomputed_fake_quant: bool = False,
) -> nn.Module:
    """Replaces the observed modules of a model by quantized ones.

    Between QuantStub and DeQuantStub values are of `QuantizedTensor`; a float that comes to a
    quantized module, or the reverse, raises and names the module and the missing stub (unless
    the model was prepared with auto_edges).
    A layer that saw no data stays float, with a warning.

    Args:
        module: model of `prepare`, run on calibration data.
        mapping: float class -> class with `from_float`; default
            `get_default_static_quant_module_mappings()`.
        inplace: change `module` instead of a copy. On an error it stays as it was. A root that
            is itself a layer cannot be replaced in place: use the return value.
        remove_qconfig: delete the `qconfig` attributes.
        is_reference: not available.
        convert_custom_config_dict: see `get_default_custom_config_dict`.
        use_precomputed_fake_quant: take the ranges of trained weights as they are.

    Raises:
        ValueError: not a Python module, no observer saw data, a layer that cannot be converted
            (named).

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization import QuantWrapper, convert, default_qconfig, prepare
        >>> model = QuantWrapper(torch.nn.Linear(4, 2)).eval()
        >>> model.qconfig = default_qconfig
        >>> observed = prepare(model)
        >>> _ = observed(torch.randn(16, 4))
        >>> int8 = convert(observed)
        >>> type(int8.module).__name__, int8(torch.randn(3, 4)).dtype
        ('Linear', torch.float32)
    """
    check_model("convert", module)
    if is_reference:
        raise ValueError(
            "convert: argument 'is_reference' must be False, got True; "
            "quantize_fx.convert_to_reference_fx and convert_pt2e give graphs of float operators"
        )
    key = "observed_to_quantized_custom_module_class"
    custom = custom_classes("convert", convert_custom_config_dict, key)
    table = get_default_static_quant_module_mappings() if mapping is None else mapping
    for key, value in table.items():
        if not hasattr(value, "from_float"):
            raise ValueError(
                f"convert: argument 'mapping' must have values with from_float, got {value!r} for {key!r}"
            )
    model = module if inplace else copied("convert", module)
    conversion = _Conversion(table, custom, use_precomputed_fake_quant)
    edges = has_edges(model)
    with hooks_restored_on_error(list(model.modules())):
        result = conversion.run(model)
        names = ", ".join(repr(name) for name in conversion.silent[:10])
        if conversion.silent and conversion.heard == 0:
            raise ValueError(f"convert: no observer saw data; run batches after prepare (modules {names})")
    if conversion.silent:
        warnings.warn(f"convert: stay float, no data came to them: {names}", UserWarning, stacklevel=2)
    for parent, key, new in conversion.places:
        parent._modules[key] = new
    for name in conversion.silent:
        model.get_submodule(name).__dict__[FLOAT_REASON] = _NO_DATA
    _clean(result, remove_qconfig)
    if edges:
        join_edges(result)
    return result


def quantize(
    model: nn.Module,
    run_fn: Callable[..., Any],
    run_args: Any,
    mapping: dict[Any, Any] | None = None,
    inplace: bool = False,
    *,
    auto_edges: bool = False,
) -> nn.Module:
    """prepare, `run_fn(model, *run_args)` on calibration data, convert.

    Args:
        model: float model with qconfigs, set to evaluation mode.
        run_fn: called with the observed model.
        run_args: further arguments of run_fn.
        mapping: see `convert`.
        inplace: change `model` instead of a copy.
        auto_edges: see `prepare`.

    Raises:
        ValueError: as `prepare` and `convert`.
    """
    check_model("quantize", model)
    model = model if inplace else copied("quantize", model)
    model.eval()
    prepare(model, inplace=True, auto_edges=auto_edges)
    run_fn(model, *run_args)
    return convert(model, mapping, inplace=True)
