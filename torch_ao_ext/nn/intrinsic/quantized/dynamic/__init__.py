"""Dynamically quantized fused modules."""

from torch_ao_ext.nn.intrinsic.quantized.dynamic.modules import LinearReLU

__all__ = ["LinearReLU"]
