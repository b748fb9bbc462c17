"""Annotation for Intel GPUs: the x86 recipes with int8 activations and without pooling."""

import functools

import torch
from torch import fx

from torch_ao_ext.quantization.quantizer import _x86_recipes
from torch_ao_ext.quantization.quantizer._default_specs import activation_spec, weight_spec
from torch_ao_ext.quantization.quantizer.utils import QuantizationConfig
from torch_ao_ext.quantization.quantizer.x86_inductor_quantizer import X86InductorQuantizer

__all__ = ["XPUInductorQuantizer", "get_default_xpu_inductor_quantization_config"]


@functools.lru_cache
def get_default_xpu_inductor_quantization_config() -> QuantizationConfig:
    """int8 activations per tensor, int8 weights per output channel, float bias."""
    activation = activation_spec(torch.int8, -128, 127, is_qat=False, is_dynamic=False)
    weight = weight_spec(-128, 127, is_qat=False, per_channel=True)
    return QuantizationConfig(activation, activation, weight, None)


class XPUInductorQuantizer(X86InductorQuantizer):
    """Annotates conv, linear and matmul; this library has no kernels for such GPUs."""

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Annotates products only: pooling and cat stay float.

        Raises:
            ValueError: a config for QAT.
        """
        if self._mode().is_qat:
            raise ValueError("XPUInductorQuantizer: the configs must not be for QAT, got is_qat=True")
        _x86_recipes.annotate_products(model, self._table, bool(self._mode().is_dynamic))
        _x86_recipes.annotate_matmul(model, self._table)
        return model
