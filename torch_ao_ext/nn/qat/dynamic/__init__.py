"""Modules trained for dynamic quantization."""

from torch_ao_ext.nn.qat.dynamic.modules import Linear

__all__ = ["Linear"]
