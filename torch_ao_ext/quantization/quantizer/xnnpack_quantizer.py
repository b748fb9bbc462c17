"""The quantizer of XNNPACK's operator set: int8 activations, symmetric int8 weights."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from torch_ao_ext.quantization.quantizer._config_table import ConfigTable
from torch_ao_ext.quantization.quantizer._default_specs import activation_spec, weight_spec
from torch_ao_ext.quantization.quantizer.quantizer import Quantizer
from torch_ao_ext.quantization.quantizer.utils import OperatorConfig, QuantizationConfig
from torch_ao_ext.quantization.quantizer.xnnpack_quantizer_utils import (
    OP_TO_ANNOTATOR,
    convert_scalars_to_attrs,
    propagate_annotation,
)

__all__ = [
    "XNNPACKQuantizer",
    "get_symmetric_quantization_config",
    "get_symmetric_weight_only_config",
]


@functools.lru_cache
def get_symmetric_quantization_config(
    is_per_channel: bool = False,
    is_qat: bool = False,
    is_dynamic: bool = False,
    act_qmin: int = -128,
    act_qmax: int = 127,
    weight_qmin: int = -127,
    weight_qmax: int = 127,
) -> QuantizationConfig:
    """int8 activations per tensor, int8 weights symmetric, float bias.

    Args:
        is_per_channel: weights per output channel, not per tensor.
        is_qat: fake-quants instead of observers.
        is_dynamic: qparams of the activations are computed at run time; outputs stay float.
        act_qmin: smallest activation.
        act_qmax: largest activation.
        weight_qmin: smallest weight.
        weight_qmax: largest weight.

    Example:
        >>> from torch_ao_ext.quantization.quantizer.xnnpack_quantizer import (
        ...     get_symmetric_quantization_config)
        >>> get_symmetric_quantization_config(is_per_channel=True).weight.qscheme
        torch.per_channel_symmetric
    """
    activation = activation_spec(torch.int8, act_qmin, act_qmax, is_qat, is_dynamic)
    weight = weight_spec(weight_qmin, weight_qmax, is_qat, is_per_channel)
    return QuantizationConfig(activation, None if is_dynamic else activation, weight, None, is_qat)


@functools.lru_cache
def get_symmetric_weight_only_config(
    is_per_channel: bool = True, is_qat: bool = False, weight_qmin: int = -127, weight_qmax: int = 127
) -> QuantizationConfig:
    """int8 weights of linear, symmetric; activations float and not calibrated.

    `lower` gives inputs 16 bits inside the operator (`ops.linear_weight_only`).

    Args:
        is_per_channel: per output channel, not per tensor.
        is_qat: fake-quants instead of observers.
        weight_qmin: smallest weight.
        weight_qmax: largest weight.

    Example:
        >>> from torch_ao_ext.quantization.quantizer import xnnpack_quantizer as xnnpack
        >>> quantizer = xnnpack.XNNPACKQuantizer()
        >>> _ = quantizer.set_global(xnnpack.get_symmetric_quantization_config())
        >>> _ = quantizer.set_module_name("head", xnnpack.get_symmetric_weight_only_config())
    """
    weight = weight_spec(weight_qmin, weight_qmax, is_qat, is_per_channel)
    return QuantizationConfig(None, None, weight, None, is_qat)


def _operators() -> list[OperatorConfig]:
    patterns: list[list[Any]] = []
    for product in (nn.Conv2d, F.conv2d):
        patterns += [[product], [product, nn.ReLU], [product, F.relu]]
    for product in (nn.Linear, F.linear):
        patterns += [[product], [product, nn.ReLU], [product, F.relu]]
    patterns += [[nn.AdaptiveAvgPool2d], [F.adaptive_avg_pool2d]]
    patterns += [[torch.add], [torch.add, nn.ReLU], [torch.add, F.relu]]
    patterns += [[torch.mul], [torch.mul, nn.ReLU], [torch.mul, F.relu], [torch.cat]]
    configs = [
        get_symmetric_quantization_config(),
        get_symmetric_quantization_config(is_qat=True),
        get_symmetric_quantization_config(is_per_channel=True),
        get_symmetric_quantization_config(is_per_channel=True, is_qat=True),
    ]
    return [OperatorConfig(config, [list(p) for p in patterns]) for config in configs]


class XNNPACKQuantizer(Quantizer):
    """Annotates conv, linear, add, mul, cat and pooling with int8 inputs and outputs.

    A config by module name beats one by module class, that one by operator, that one the
    global config.

    Example:
        >>> from torch_ao_ext.quantization.quantizer import xnnpack_quantizer as xnnpack
        >>> quantizer = xnnpack.XNNPACKQuantizer()
        >>> _ = quantizer.set_global(xnnpack.get_symmetric_quantization_config())
    """

    # Fusions come before their parts.
    STATIC_QAT_ONLY_OPS = (
        "conv_bn_relu", "conv_bn", "conv_transpose_bn_relu", "conv_transpose_bn"
    )  # fmt: skip
    STATIC_OPS = (
        "linear_relu_bn", "linear_relu", "linear_smooth", "linear", "conv_relu_bn_max_pool", "conv_relu_bn",
        "conv_relu", "conv_smooth", "conv", "conv_transpose_relu", "conv_transpose",
        "adaptive_avg_pool2d", "add_relu", "add", "mul_relu", "mul", "cat",
    )  # fmt: skip
    DYNAMIC_OPS = ("linear",)
    WEIGHT_ONLY_OPS = ("linear",)

    def __init__(self) -> None:
        super().__init__()
        self._table = ConfigTable()

    @property
    def global_config(self) -> QuantizationConfig | None:
        """The config of every node without another one."""
        return self._table.default

    @classmethod
    def get_supported_operators(cls) -> list[OperatorConfig]:
        """The configs with their operators."""
        return _operators()

    @classmethod
    def get_supported_quantization_configs(cls) -> list[QuantizationConfig]:
        """The configs that annotate is made for."""
        return [config.config for config in _operators()]

    @classmethod
    def get_supported_operator_for_quantization_config(
        cls, quantization_config: QuantizationConfig | None
    ) -> list[list[Any]]:
        """The operator patterns of a config; all of them without one."""
        found = _operators()
        if quantization_config is None:
            return found[0].operators
        return next((c.operators for c in found if c.config == quantization_config), [])

    def set_global(self, quantization_config: QuantizationConfig | None) -> "XNNPACKQuantizer":
        """Sets the config of every node without another one."""
        self._table.default = quantization_config
        return self

    def set_operator_type(
        self, operator_type: Any, quantization_config: QuantizationConfig | None
    ) -> "XNNPACKQuantizer":
        """Sets the config of an ATen overload, e.g. torch.ops.aten.linear.default."""
        self._table.operators[operator_type] = quantization_config
        return self

    def set_module_type(
        self, module_type: Callable[..., Any], quantization_config: QuantizationConfig | None
    ) -> "XNNPACKQuantizer":
        """Sets the config of a module class and everything in its instances."""
        if not (isinstance(module_type, type) and issubclass(module_type, nn.Module)):
            raise TypeError(
                f"XNNPACKQuantizer: argument 'module_type' must be a class of modules, got {module_type!r}"
            )
        self._table.types[module_type] = quantization_config
        return self

    def set_module_name(
        self, module_name: str, quantization_config: QuantizationConfig | None
    ) -> "XNNPACKQuantizer":
        """Sets the config of a module, e.g. "blocks.0", and everything in it; None leaves it float."""
        self._table.names[module_name] = quantization_config
        return self

    def transform_for_annotation(self, model: fx.GraphModule) -> fx.GraphModule:
        """Numbers in add and mul become tensors, so that they can be quantized."""
        return convert_scalars_to_attrs(model)

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Annotates every operator that has a config, then what lies between."""
        for name in self._table.unmatched_names(model):
            warnings.warn(
                f"XNNPACKQuantizer: no node lies in module '{name}' of set_module_name", stacklevel=2
            )
        for config in dict.fromkeys(self._table.configs()):
            spec = config.input_activation
            if spec is None:
                ops: tuple[str, ...] = self.WEIGHT_ONLY_OPS
            elif spec.is_dynamic:
                ops = self.DYNAMIC_OPS
            else:
                ops = (self.STATIC_QAT_ONLY_OPS if config.is_qat else ()) + self.STATIC_OPS
            for op in ops:
                OP_TO_ANNOTATOR[op](model, config, lambda node, c=config: self._table.find(node) == c)
        propagate_annotation(model)
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Every annotated graph can run."""
