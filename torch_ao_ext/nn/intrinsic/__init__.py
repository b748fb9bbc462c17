"""Fused float containers and their quantized counterparts."""

from torch_ao_ext.nn.intrinsic import quantized
from torch_ao_ext.nn.intrinsic.modules import LinearReLU

__all__ = ["LinearReLU", "quantized"]
