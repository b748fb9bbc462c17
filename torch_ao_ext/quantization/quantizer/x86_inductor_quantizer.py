"""The quantizer of x86 CPUs: uint8 activations, int8 weights per channel."""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from torch_ao_ext.quantization.observer import PlaceholderObserver, RowPlaceholderObserver
from torch_ao_ext.quantization.quantizer import _x86_recipes
from torch_ao_ext.quantization.quantizer._attention import decompose_attention
from torch_ao_ext.quantization.quantizer._config_table import ConfigTable
from torch_ao_ext.quantization.quantizer._default_specs import activation_spec, weight_spec
from torch_ao_ext.quantization.quantizer._targets import aten
from torch_ao_ext.quantization.quantizer.quantizer import QuantizationSpec, Quantizer
from torch_ao_ext.quantization.quantizer.utils import QuantizationConfig

__all__ = [
    "X86InductorQuantizer",
    "get_default_x86_inductor_quantization_config",
    "get_x86_inductor_linear_dynamic_fp16_config",
    "get_x86_inductor_row_dynamic_config",
    "get_x86_inductor_weight_only_config",
]

# Operators of int8 in and out: they take over the qparams of their input.
int8_in_int8_out_ops = _x86_recipes.SAME_QPARAMS
propagation_quantizable_ops = int8_in_int8_out_ops
default_quantizable_ops = propagation_quantizable_ops | {
    aten.conv1d.default, aten.conv2d.default, aten.linear.default, aten.mul.Tensor
}  # fmt: skip
quantizable_ops = default_quantizable_ops | {aten.matmul.default}

_MATMUL = {torch.matmul, torch.Tensor.matmul}


@functools.lru_cache
def get_default_x86_inductor_quantization_config(
    is_qat: bool = False, is_dynamic: bool = False, reduce_range: bool = False
) -> QuantizationConfig:
    """uint8 activations per tensor, int8 weights per output channel, float bias.

    Args:
        is_qat: fake-quants instead of observers.
        is_dynamic: qparams of the activations are computed at run time.
        reduce_range: activations in [0, 127]. Not needed here: products are summed
            exactly on every CPU.

    Example:
        >>> from torch_ao_ext.quantization.quantizer.x86_inductor_quantizer import (
        ...     get_default_x86_inductor_quantization_config)
        >>> get_default_x86_inductor_quantization_config().input_activation.dtype
        torch.uint8
    """
    activation = activation_spec(torch.uint8, 0, 127 if reduce_range else 255, is_qat, is_dynamic)
    weight = weight_spec(-128, 127, is_qat, per_channel=True)
    return QuantizationConfig(activation, activation, weight, None, is_qat)


@functools.lru_cache
def get_x86_inductor_linear_dynamic_fp16_config() -> QuantizationConfig:
    """Weights rounded to float16, activations float: only the weight is annotated."""
    weight = QuantizationSpec(
        dtype=torch.float16, observer_or_fake_quant_ctr=PlaceholderObserver.with_args(dtype=torch.float16)
    )
    return QuantizationConfig(None, None, weight, None)


@functools.lru_cache
def get_x86_inductor_weight_only_config(is_qat: bool = False) -> QuantizationConfig:
    """int8 weights of linear per output channel; activations float and not calibrated.

    For layers with few rows, which take as long as reading their weights does, and for layers whose
    inputs 8 bits do not hold: `lower` gives them 16 inside (`ops.linear_weight_only`). May stand
    beside a static or a dynamic config.

    Args:
        is_qat: fake-quants instead of observers.

    Example:
        >>> from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86
        >>> quantizer = x86.X86InductorQuantizer()
        >>> _ = quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
        >>> _ = quantizer.set_module_name_qconfig("head", x86.get_x86_inductor_weight_only_config())
    """
    return QuantizationConfig(None, None, weight_spec(-128, 127, is_qat, per_channel=True), None, is_qat)


@functools.lru_cache
def get_x86_inductor_row_dynamic_config() -> QuantizationConfig:
    """int8 products of linear whose inputs are quantized at run time, each row (token) for itself.

    What `quantize_dynamic` does by default. The config with `is_dynamic=True` is torch.ao's: one scale
    for the tensor, so that a large token costs all others their precision.

    Example:
        >>> from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86
        >>> quantizer = x86.X86InductorQuantizer().set_global(x86.get_x86_inductor_row_dynamic_config())
    """
    activation = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        is_dynamic=True,
        observer_or_fake_quant_ctr=RowPlaceholderObserver,
    )
    return QuantizationConfig(activation, activation, weight_spec(-128, 127, False, per_channel=True), None)


@dataclass(frozen=True)
class _Mode:
    is_qat: bool | None
    is_dynamic: bool | None


class X86InductorQuantizer(Quantizer):
    """Annotates conv, linear, matmul and the operators between them for int8 on x86.

    A config by module name beats one by module class or function, that one the global
    config. matmul is quantized only when its own config is set, by
    set_function_type_qconfig(torch.matmul, config); scaled_dot_product_attention then as well.

    Example:
        >>> from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86
        >>> quantizer = x86.X86InductorQuantizer()
        >>> _ = quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    """

    module_function_to_aten_operator_type: dict[Any, Any] = {
        nn.Conv1d: aten.conv1d.default, F.conv1d: aten.conv1d.default,
        nn.Conv2d: aten.conv2d.default, F.conv2d: aten.conv2d.default,
        nn.Linear: aten.linear.default, F.linear: aten.linear.default,
        nn.MaxPool2d: aten.max_pool2d.default, F.max_pool2d: aten.max_pool2d.default,
        nn.AvgPool2d: aten.avg_pool2d.default, F.avg_pool2d: aten.avg_pool2d.default,
        nn.AdaptiveAvgPool2d: aten.adaptive_avg_pool2d.default,
        F.adaptive_avg_pool2d: aten.adaptive_avg_pool2d.default,
        nn.Flatten: aten.flatten.using_ints, torch.flatten: aten.flatten.using_ints,
        torch.cat: aten.cat.default, torch.mul: aten.mul.Tensor,
        **dict.fromkeys(_MATMUL, aten.matmul.default),
    }  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self._table = ConfigTable()

    @property
    def global_config(self) -> QuantizationConfig | None:
        """The config of every node without another one."""
        return self._table.default

    @property
    def operator_type_qconfig(self) -> dict[Any, QuantizationConfig | None]:
        """Configs by ATen overload."""
        return self._table.operators

    @property
    def module_name_qconfig(self) -> dict[str, QuantizationConfig | None]:
        """Configs by module name."""
        return self._table.names

    def _mode(self) -> _Mode:
        configs = self._table.configs()
        inputs = [c.input_activation for c in configs if c.input_activation is not None]
        return _Mode(configs[0].is_qat if configs else None, inputs[0].is_dynamic if inputs else None)

    def _fits(self, config: QuantizationConfig | None, what: str) -> bool:
        """Whether a config may stand beside the others; warns when not."""
        if config is None:
            return True
        mode = self._mode()
        spec = config.input_activation
        reason = None
        if mode.is_qat is not None and mode.is_qat != config.is_qat:
            reason = "Mixed QAT and Non-QAT quantization config is not supported."
        elif mode.is_dynamic is not None and spec is not None and spec.is_dynamic != mode.is_dynamic:
            reason = "Mixed dynamic and static quantization config is not supported."
        if reason is not None:
            warnings.warn(f"{reason} Skip the quantization config for {what}.", stacklevel=3)
        return reason is None

    def set_global(self, quantization_config: QuantizationConfig | None) -> "X86InductorQuantizer":
        """Sets the config of every node without another one."""
        if self._fits(quantization_config, "the whole model"):
            self._table.default = quantization_config
        return self

    def get_global_quantization_config(self) -> QuantizationConfig | None:
        """The config of set_global; warns when there is none."""
        if self._table.default is None:
            warnings.warn("X86InductorQuantizer has no global config; use set_global", stacklevel=2)
        return self._table.default

    def set_function_type_qconfig(
        self, function_type: Callable[..., Any], quantization_config: QuantizationConfig | None
    ) -> "X86InductorQuantizer":
        """Sets the config of a torch function, e.g. torch.matmul; None leaves its calls float."""
        return self._set_operator(function_type, quantization_config)

    def set_module_type_qconfig(
        self, module_type: type[nn.Module], quantization_config: QuantizationConfig | None
    ) -> "X86InductorQuantizer":
        """Sets the config of a module class, e.g. nn.Linear; None leaves its nodes float.

        A class with one operator stands for the operator; nodes inside any other class,
        as a user's block, get the config.
        """
        if module_type in self.module_function_to_aten_operator_type:
            return self._set_operator(module_type, quantization_config)
        if not (isinstance(module_type, type) and issubclass(module_type, nn.Module)):
            raise TypeError(
                "X86InductorQuantizer: argument 'module_type' must be a class of modules, "
                f"got {module_type!r}"
            )
        if self._fits(quantization_config, module_type.__qualname__):
            self._table.types[module_type] = quantization_config
        return self

    def set_module_name_qconfig(
        self, module_name: str, quantization_config: QuantizationConfig | None
    ) -> "X86InductorQuantizer":
        """Sets the config of a module, e.g. "blocks.0", and everything in it; None leaves it float."""
        if self._fits(quantization_config, module_name):
            self._table.names[module_name] = quantization_config
        return self

    def _set_operator(self, key: Any, config: QuantizationConfig | None) -> "X86InductorQuantizer":
        name = getattr(key, "__name__", repr(key))
        operator = self.module_function_to_aten_operator_type.get(key)
        if operator is None:
            warnings.warn(
                f"X86InductorQuantizer: unable to customize quantization config for {name}", stacklevel=3
            )
        elif self._fits(config, name):
            self._table.operators[operator] = config
        return self

    def transform_for_annotation(self, model: fx.GraphModule) -> fx.GraphModule:
        """Where matmul has a config, scaled_dot_product_attention becomes matmul, softmax, matmul."""
        matmul = aten.matmul.default
        if self._mode().is_dynamic or self._table.operators.get(matmul) is None:
            return model
        return decompose_attention(model, lambda node: self._table.find(node, matmul) is not None)

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Annotates conv and linear with what they fuse with, then the operators between them."""
        for name in self._table.unmatched_names(model):
            warnings.warn(
                f"X86InductorQuantizer: no node lies in module '{name}' of set_module_name_qconfig",
                stacklevel=2,
            )
        dynamic = self._mode().is_dynamic
        _x86_recipes.annotate_products(model, self._table, linear_only=bool(dynamic))
        if not dynamic:
            _x86_recipes.annotate_matmul(model, self._table)
            _x86_recipes.annotate_mul(model, self._table)
            _x86_recipes.annotate_between(model, self._table)
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Every annotated graph can run."""
