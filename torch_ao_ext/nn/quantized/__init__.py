"""Quantized modules."""

from torch_ao_ext.nn.quantized import dynamic

__all__ = ["dynamic"]
