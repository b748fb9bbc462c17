"""Facts about qconfigs, observers, dtypes and models."""

import inspect
from typing import Any

import torch
from torch import nn

from torch_ao_ext.nn.quantized._observed import qparams_found
from torch_ao_ext.nn.quantized._static import STORAGE
from torch_ao_ext.quantization._own_types import own_type
from torch_ao_ext.quantization._pass_through import check_node
from torch_ao_ext.quantization._ranges import (
    calculate_qmin_qmax,
    check_min_max_valid,
    determine_qparams,
    validate_qmin_qmax,
)
from torch_ao_ext.quantization.quant_type import QuantType

__all__ = [
    "DEPRECATION_WARNING",
    "MatchAllNode",
    "NodePattern",
    "Pattern",
    "activation_dtype",
    "activation_is_dynamically_quantized",
    "activation_is_int32_quantized",
    "activation_is_int8_quantized",
    "activation_is_statically_quantized",
    "calculate_qmin_qmax",
    "check_node",
    "check_min_max_valid",
    "determine_qparams",
    "get_combined_dict",
    "get_fqn_to_example_inputs",
    "get_qconfig_dtypes",
    "get_qparam_dict",
    "get_quant_type",
    "get_swapped_custom_module_class",
    "getattr_from_fqn",
    "has_no_children_ignoring_parametrizations",
    "is_per_channel",
    "is_per_tensor",
    "op_is_int8_dynamically_quantized",
    "to_underlying_dtype",
    "validate_qmin_qmax",
    "weight_dtype",
    "weight_is_quantized",
    "weight_is_statically_quantized",
]

# For messages of programs that move here; nothing in this library is deprecated.
DEPRECATION_WARNING = (
    "torch.ao.quantization is deprecated in torch. In its place:\n"
    "1. eager mode: torch_ao_ext.quantization.quantize, .quantize_dynamic, .quantize_qat\n"
    "2. FX graph mode: torch_ao_ext.quantization.quantize_fx.prepare_fx, .prepare_qat_fx, .convert_fx\n"
    "3. exported graphs: torch_ao_ext.quantization.quantize_pt2e.prepare_pt2e, .prepare_qat_pt2e, "
    ".convert_pt2e, then torch_ao_ext.lower\n"
    "Programs are rewritten by python -m torch_ao_ext.codemod."
)

# A torch function, module class or method name, or nested tuples of them.
NodePattern = Any
Pattern = Any
QuantizerCls = Any  # a class of fx.quantize_handler


class MatchAllNode:
    """Stands for any node in a pattern."""


_QINT32 = getattr(torch, "qint32", torch.int32)
_WIDE = {torch.int32, _QINT32}
_QUINT4 = getattr(torch, "quint4x2", None)
_FLOAT8 = {getattr(torch, name) for name in ("float8_e5m2", "float8_e4m3fn") if hasattr(torch, name)}
_UNDERLYING: dict[torch.dtype, torch.dtype] = {
    **STORAGE, torch.int16: torch.int16, torch.uint16: torch.uint16, **dict.fromkeys(_WIDE, torch.int32),
    **{dtype: dtype for dtype in _FLOAT8},
    **{getattr(torch, n): torch.uint8 for n in ("quint4x2", "quint2x4") if hasattr(torch, n)},
}  # fmt: skip
# What a tensor can be quantized to ahead of time.
_STATIC = {*STORAGE, torch.int16, *_WIDE, *_FLOAT8}


def is_per_tensor(qscheme: Any) -> bool:
    """Whether one scale is for the whole tensor."""
    return qscheme in (torch.per_tensor_affine, torch.per_tensor_symmetric)


def is_per_channel(qscheme: Any) -> bool:
    """Whether each channel has its scale."""
    return qscheme in (
        torch.per_channel_affine, torch.per_channel_affine_float_qparams, torch.per_channel_symmetric,
    )  # fmt: skip


def to_underlying_dtype(qdtype: torch.dtype) -> torch.dtype:
    """The plain dtype of a quantized one: torch.uint8 of torch.quint8.

    Raises:
        ValueError: no dtype that quantization uses.
    """
    if qdtype not in _UNDERLYING:
        raise ValueError(f"to_underlying_dtype: argument 'qdtype' must be a quantized dtype, got {qdtype}")
    return _UNDERLYING[qdtype]


def get_combined_dict(default_dict: dict[Any, Any], additional_dict: dict[Any, Any]) -> dict[Any, Any]:
    """Both dicts in one; the second wins.

    Example:
        >>> from torch_ao_ext.quantization.utils import get_combined_dict
        >>> get_combined_dict({"a": 1, "b": 1}, {"b": 2})
        {'a': 1, 'b': 2}
    """
    return {**default_dict, **additional_dict}


def getattr_from_fqn(obj: Any, fqn: str) -> Any:
    """The attribute at a dotted name."""
    for name in fqn.split("."):
        obj = getattr(obj, name)
    return obj


def has_no_children_ignoring_parametrizations(module: nn.Module) -> bool:
    """Whether a module is a leaf, parametrized or not."""
    return set(module._modules) <= {"parametrizations"}


def get_swapped_custom_module_class(
    custom_module: nn.Module, custom_module_class_mapping: dict[Any, Any], qconfig: Any
) -> Any:
    """The class that a table has for a module.

    Args:
        custom_module: the module.
        custom_module_class_mapping: class -> class, or QuantType -> such a table.
        qconfig: says which QuantType.

    Raises:
        ValueError: no entry.
    """
    nested = custom_module_class_mapping.get(get_quant_type(qconfig))
    table = custom_module_class_mapping if nested is None else nested
    kind = own_type(custom_module)
    if kind not in table:
        raise ValueError(
            "get_swapped_custom_module_class: argument 'custom_module_class_mapping' must have "
            f"{kind.__name__}, got {', '.join(getattr(k, '__name__', str(k)) for k in table) or 'no entries'}"
        )
    return table[kind]


def _made(qconfig: Any, part: str, who: str) -> Any:
    factory = getattr(qconfig, part, None)
    if factory is None:
        raise ValueError(f"{who}: argument 'qconfig' must have {part}, got {qconfig}")
    return factory()


def activation_dtype(qconfig: Any) -> torch.dtype | None:
    """Dtype that the activations are observed for; None for what is no observer.

    Raises:
        ValueError: no qconfig.
    """
    return getattr(_made(qconfig, "activation", "activation_dtype"), "dtype", None)


def weight_dtype(qconfig: Any) -> torch.dtype | None:
    """Dtype that the weight is observed for; None for what is no observer.

    Raises:
        ValueError: no qconfig.
    """
    return getattr(_made(qconfig, "weight", "weight_dtype"), "dtype", None)


def get_qconfig_dtypes(qconfig: Any) -> tuple[torch.dtype | None, torch.dtype | None, bool]:
    """Activation dtype, weight dtype, and whether activations are quantized at run time."""
    activation = _made(qconfig, "activation", "get_qconfig_dtypes")
    dtype = getattr(activation, "dtype", None)
    return dtype, weight_dtype(qconfig), bool(getattr(activation, "is_dynamic", False))


def activation_is_dynamically_quantized(qconfig: Any) -> bool:
    """Whether activations are quantized at run time."""
    return get_qconfig_dtypes(qconfig)[2]


def activation_is_statically_quantized(qconfig: Any) -> bool:
    """Whether activations are quantized (or float16) with qparams known before."""
    known = activation_dtype(qconfig) in {*_STATIC, torch.float16}
    return known and not activation_is_dynamically_quantized(qconfig)


def activation_is_int8_quantized(qconfig: Any) -> bool:
    """Whether activations have 8-bit integers."""
    return activation_dtype(qconfig) in STORAGE


def activation_is_int32_quantized(qconfig: Any) -> bool:
    """Whether activations have 32-bit integers."""
    return activation_dtype(qconfig) in _WIDE


def weight_is_quantized(qconfig: Any) -> bool:
    """Whether the weight is stored in fewer bits than float32."""
    kinds = {*STORAGE, torch.int16, torch.int32, torch.float16, _QUINT4, *_FLOAT8}
    return weight_dtype(qconfig) in kinds


def weight_is_statically_quantized(qconfig: Any) -> bool:
    """Whether the weight has 8-bit integers."""
    return weight_dtype(qconfig) in STORAGE


def op_is_int8_dynamically_quantized(qconfig: Any) -> bool:
    """Whether int8 weights meet inputs that are quantized to uint8 at run time."""
    activation, weight, is_dynamic = get_qconfig_dtypes(qconfig)
    return is_dynamic and STORAGE.get(activation) == torch.uint8 and STORAGE.get(weight) == torch.int8


def get_quant_type(qconfig: Any) -> QuantType:
    """DYNAMIC, STATIC or WEIGHT_ONLY.

    Raises:
        ValueError: none of them.
    """
    activation, weight, is_dynamic = get_qconfig_dtypes(qconfig)
    if weight in {*_STATIC, _QUINT4}:
        if is_dynamic:
            return QuantType.DYNAMIC
        return QuantType.STATIC if activation in {*_STATIC, _QUINT4} else QuantType.WEIGHT_ONLY
    if weight == torch.float16 and (is_dynamic or activation == torch.float16):
        return QuantType.DYNAMIC if is_dynamic else QuantType.STATIC
    raise ValueError(
        f"get_quant_type: argument 'qconfig' must have a known pair of dtypes, got {activation} and {weight}"
    )


def get_qparam_dict(observer_or_fake_quant: Any) -> dict[str, Any]:
    """What an observer found, by name.

    Returns:
        qscheme (affine for symmetric ones too), dtype, and unless qscheme is None scale, zero_point,
        axis of a per-channel scheme, quant_min, quant_max.
    """
    return qparams_found(observer_or_fake_quant)


def get_fqn_to_example_inputs(
    model: nn.Module, example_inputs: tuple[Any, ...]
) -> dict[str, tuple[Any, ...]]:
    """Runs a model once and notes the inputs of each module, as positional ones with defaults filled in.

    Args:
        model: any module; "" is its own name in the result.
        example_inputs: its positional inputs.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization.utils import get_fqn_to_example_inputs
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU())
        >>> found = get_fqn_to_example_inputs(model, (torch.zeros(1, 3),))
        >>> {name: value[0].shape[1] for name, value in found.items()}
        {'': 3, '0': 3, '1': 2}
    """
    found: dict[str, tuple[Any, ...]] = {}
    handles = []

    def note(name: str, module: nn.Module) -> None:
        signature = inspect.signature(module.forward)

        def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            found[name] = tuple(bound.arguments.values())

        handles.append(module.register_forward_pre_hook(hook, prepend=True, with_kwargs=True))

    for name, module in model.named_modules():
        note(name, module)
    try:
        model(*example_inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found
