"""QConfigMapping: which QConfig each part of a model gets."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from torch_ao_ext.quantization.fake_quantize import (
    FixedQParamsFakeQuantize,
    default_weight_fake_quant,
)
from torch_ao_ext.quantization.observer import (
    default_fixed_qparams_range_0to1_observer,
    default_fixed_qparams_range_neg1to1_observer,
    default_placeholder_observer,
    default_weight_observer,
)
from torch_ao_ext.quantization.qconfig import (
    QConfig,
    QConfigAny,
    default_quint8_weight_qconfig,
    default_reuse_input_qconfig,
    default_symmetric_qnnpack_qat_qconfig,
    default_symmetric_qnnpack_qconfig,
    get_default_qat_qconfig,
    get_default_qconfig,
)

__all__ = [
    "QConfigMapping",
    "get_default_qat_qconfig_mapping",
    "get_default_qconfig_mapping",
]

# Ops whose output range is known: observer -> module, function and method names.
_FIXED_QPARAMS_OPS: tuple[tuple[Any, tuple[Any, ...]], ...] = (
    (
        default_fixed_qparams_range_0to1_observer,
        (
            nn.Hardsigmoid,
            nn.functional.hardsigmoid,
            "hardsigmoid",
            "hardsigmoid_",
            nn.Sigmoid,
            torch.sigmoid,
            "sigmoid",
            "sigmoid_",
            nn.Softmax,
        ),
    ),
    (
        default_fixed_qparams_range_neg1to1_observer,
        (nn.Tanh, torch.tanh, "tanh", "tanh_"),
    ),
)
_FIXED = {op for _, ops in _FIXED_QPARAMS_OPS for op in ops}

_TRANSPOSED = (
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.functional.conv_transpose1d,
    nn.functional.conv_transpose2d,
    nn.functional.conv_transpose3d,
)

# Attributes by increasing priority, and their keys in a dict.
_STYLES = {
    "global_qconfig": "",
    "object_type_qconfigs": "object_type",
    "module_name_regex_qconfigs": "module_name_regex",
    "module_name_qconfigs": "module_name",
    "module_name_object_type_order_qconfigs": "module_name_object_type_order",
}


class QConfigMapping:
    """Rules from parts of a model to QConfigs; the most special rule that fits counts.

    By increasing priority: set_global, set_object_type (module class, function or method name),
    set_module_name_regex (the first that matches), set_module_name,
    set_module_name_object_type_order. A QConfig of None leaves the part in float.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization import QConfigMapping, default_qconfig
        >>> mapping = QConfigMapping().set_global(default_qconfig).set_module_name("head", None)
        >>> dict(mapping.module_name_qconfigs)
        {'head': None}
    """

    def __init__(self) -> None:
        self.global_qconfig: QConfigAny = None
        self.object_type_qconfigs: OrderedDict[Callable[..., Any] | str, QConfigAny] = OrderedDict()
        self.module_name_regex_qconfigs: OrderedDict[str, QConfigAny] = OrderedDict()
        self.module_name_qconfigs: OrderedDict[str, QConfigAny] = OrderedDict()
        self.module_name_object_type_order_qconfigs: OrderedDict[
            tuple[str, Callable[..., Any], int], QConfigAny
        ] = OrderedDict()

    def set_global(self, global_qconfig: QConfigAny) -> "QConfigMapping":
        """The QConfig of whatever no other rule fits."""
        self.global_qconfig = global_qconfig
        return self

    def set_object_type(
        self, object_type: Callable[..., Any] | str, qconfig: QConfigAny
    ) -> "QConfigMapping":
        """The QConfig of a module class, a function or a method name."""
        self.object_type_qconfigs[object_type] = qconfig
        return self

    def set_module_name_regex(self, module_name_regex: str, qconfig: QConfigAny) -> "QConfigMapping":
        """The QConfig of modules whose name matches; the first rule set that matches counts."""
        self.module_name_regex_qconfigs[module_name_regex] = qconfig
        return self

    def set_module_name(self, module_name: str, qconfig: QConfigAny) -> "QConfigMapping":
        """The QConfig of the module of this name and of what is in it."""
        self.module_name_qconfigs[module_name] = qconfig
        return self

    def set_module_name_object_type_order(
        self, module_name: str, object_type: Callable[..., Any], index: int, qconfig: QConfigAny
    ) -> "QConfigMapping":
        """The QConfig of the index-th use of a type inside a module."""
        self.module_name_object_type_order_qconfigs[(module_name, object_type, index)] = qconfig
        return self

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for style in _STYLES:
            rules = getattr(self, style)
            lines.append(f" {style}")
            if isinstance(rules, OrderedDict) and rules:
                lines += [f"  {key}: {qconfig}" for key, qconfig in rules.items()]
            else:
                lines.append(f"  {rules}")
        return "\n".join([*lines, ")"])

    def to_dict(self) -> dict[str, Any]:
        """torch.ao's older form: "" and, for each other style, a list of tuples."""
        result: dict[str, Any] = {"": self.global_qconfig}
        for style, key in list(_STYLES.items())[1:]:
            result[key] = [
                (*(rule if isinstance(rule, tuple) else (rule,)), qconfig)
                for rule, qconfig in getattr(self, style).items()
            ]
        return result

    @classmethod
    def from_dict(cls, qconfig_dict: dict[str, Any]) -> "QConfigMapping":
        """The mapping of a dict as to_dict gives it; every key is optional.

        Raises:
            ValueError: an unknown key.
        """
        unknown = [key for key in qconfig_dict if key not in _STYLES.values()]
        if unknown:
            names = ", ".join(repr(key) for key in _STYLES.values())
            raise ValueError(
                f"QConfigMapping.from_dict: argument 'qconfig_dict' must have keys of {names}, "
                f"got {unknown[0]!r}"
            )
        mapping = cls().set_global(qconfig_dict.get(""))
        for style, key in list(_STYLES.items())[1:]:
            for *rule, qconfig in qconfig_dict.get(key, []):
                getattr(mapping, style)[tuple(rule) if len(rule) > 1 else rule[0]] = qconfig
        return mapping


def _default_mapping(is_qat: bool, backend: str, qconfig: QConfig) -> QConfigMapping:
    weight = default_weight_fake_quant if is_qat else default_weight_observer
    activation = qconfig.activation
    mapping = QConfigMapping().set_global(qconfig)
    mapping.set_object_type("reshape", default_reuse_input_qconfig)
    per_tensor = backend in ("x86", "fbgemm")  # torch.ao's kernels; ours take both
    for op in _TRANSPOSED:
        mapping.set_object_type(op, QConfig(activation, weight) if per_tensor else qconfig)
    for op in (nn.functional.layer_norm, nn.LayerNorm):  # their weights stay in float
        mapping.set_object_type(op, QConfig(activation, default_placeholder_observer))
    mapping.set_object_type(nn.PReLU, default_quint8_weight_qconfig)
    for observer, ops in _FIXED_QPARAMS_OPS:
        made = FixedQParamsFakeQuantize.with_args(observer=observer) if is_qat else observer
        fixed = QConfig(activation=made, weight=weight)
        for op in ops:
            mapping.set_object_type(op, fixed)
    return mapping


def get_default_qconfig_mapping(backend: str = "x86", version: int = 0) -> QConfigMapping:
    """The mapping of get_default_qconfig, with the exceptions that torch.ao makes.

    Reshapes reuse their input's qparams; transposed convolutions have one weight scale on x86
    and fbgemm; layer norms keep float weights; sigmoid, softmax and tanh have fixed qparams.

    Args:
        backend: x86, fbgemm, onednn or qnnpack.
        version: 0.
    """
    return _default_mapping(False, backend, get_default_qconfig(backend, version))


def get_default_qat_qconfig_mapping(backend: str = "x86", version: int = 1) -> QConfigMapping:
    """get_default_qconfig_mapping for training; arguments as get_default_qat_qconfig."""
    return _default_mapping(True, backend, get_default_qat_qconfig(backend, version))


def _symmetric_mapping(mapping: QConfigMapping, qconfig: QConfig) -> QConfigMapping:
    mapping.set_global(qconfig)
    for op in mapping.object_type_qconfigs:
        if op not in _FIXED:
            mapping.set_object_type(op, qconfig)
    return mapping


def _get_symmetric_qnnpack_qconfig_mapping() -> QConfigMapping:
    return _symmetric_mapping(
        get_default_qconfig_mapping("qnnpack"), default_symmetric_qnnpack_qconfig
    )


def _get_symmetric_qnnpack_qat_qconfig_mapping() -> QConfigMapping:
    return _symmetric_mapping(
        get_default_qat_qconfig_mapping("qnnpack"), default_symmetric_qnnpack_qat_qconfig
    )
