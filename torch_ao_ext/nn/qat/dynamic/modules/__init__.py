"""Modules trained for dynamic quantization."""

from torch_ao_ext.nn.qat.dynamic.modules.linear import Linear

__all__ = ["Linear"]
