"""Dynamically quantized fused modules."""

from torch_ao_ext.nn.intrinsic.quantized.dynamic.modules.linear_relu import LinearReLU

__all__ = ["LinearReLU"]
