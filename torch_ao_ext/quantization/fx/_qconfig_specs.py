"""What a QConfig says, as the specs of a quantizer."""

from collections.abc import Callable
from typing import Any

import torch

from torch_ao_ext.nn.quantized._static import STORAGE
from torch_ao_ext.nn.quantized.dynamic.modules.linear import dynamic_quant_of
from torch_ao_ext.quantization.observer import (
    FixedQParamsObserver,
    PlaceholderObserver,
    ReuseInputObserver,
)
from torch_ao_ext.quantization.observer._base import _PER_CHANNEL
from torch_ao_ext.quantization.quantizer.quantizer import QuantizationSpec
from torch_ao_ext.quantization.quantizer.utils import QuantizationConfig

__all__ = ["config_of", "core_of", "spec_of", "weight_factory"]


def core_of(observer: Any) -> Any:
    """The observer in a fake-quantize module, or itself."""
    return getattr(observer, "activation_post_process", observer)


def _exact(factory: Callable[[], Any]) -> Callable[[], Any]:
    """The observer as the qconfig makes it, whatever the spec repeats."""
    return lambda: factory()


def _run_time(qconfig: Any) -> Callable[[], Any]:
    """The observer of inputs that are quantized at run time, with the range that eager mode gives them."""

    def make() -> Any:
        observer = qconfig.activation()
        plain = type(observer) is PlaceholderObserver and STORAGE.get(observer.dtype) == torch.uint8
        affine = getattr(observer, "qscheme", None) == torch.per_tensor_affine
        if plain and affine and dynamic_quant_of(qconfig).reduce_range:
            observer.quant_min, observer.quant_max = 0, 127
        return observer

    return make


def weight_factory(factory: Callable[[], Any]) -> Callable[..., Any]:
    """The observer of a weight, with its channels on the axis that a product asks for."""

    def make(ch_axis: int | None = None) -> Any:
        observer = factory()
        for part in (observer, core_of(observer)):
            if ch_axis is not None and hasattr(part, "ch_axis"):
                part.ch_axis = ch_axis
        return observer

    return make


def spec_of(observer: Any, dtype: torch.dtype, factory: Any, is_weight: bool) -> QuantizationSpec:
    """What an observer asks for, under another dtype and factory."""
    return QuantizationSpec(
        dtype=dtype,
        observer_or_fake_quant_ctr=factory,
        quant_min=observer.quant_min,
        quant_max=observer.quant_max,
        qscheme=observer.qscheme,
        ch_axis=getattr(observer, "ch_axis", None)
        if is_weight and observer.qscheme in _PER_CHANNEL
        else None,
        is_dynamic=getattr(observer, "is_dynamic", False),
    )


def config_of(qconfig: Any) -> QuantizationConfig | None:
    """The specs of a qconfig; None when its activations are not 8 bit.

    Raises:
        ValueError: an observer instead of a factory, a weight that is not 8 bit.
    """
    if qconfig.activation is None or qconfig.weight is None:
        return None
    activation, weight = qconfig.activation(), qconfig.weight()
    stored = STORAGE.get(getattr(activation, "dtype", None))
    if stored is None or isinstance(core_of(activation), (ReuseInputObserver, FixedQParamsObserver)):
        return None
    weight_dtype = STORAGE.get(getattr(weight, "dtype", None))
    weights = None
    if weight_dtype == torch.int8:
        weights = spec_of(weight, torch.int8, weight_factory(qconfig.weight), True)
    if getattr(activation, "is_dynamic", False):
        activation, factory = _run_time(qconfig)(), _run_time(qconfig)
    else:
        factory = _exact(qconfig.activation)
    spec = spec_of(activation, stored, factory, False)
    return QuantizationConfig(spec, None if spec.is_dynamic else spec, weights, None)
