"""Quantized fused modules."""

from torch_ao_ext.nn.intrinsic.quantized import dynamic

__all__ = ["dynamic"]
