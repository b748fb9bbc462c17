"""Quantized modules."""

from torch_ao_ext.nn.quantized import dynamic, functional, reference
from torch_ao_ext.nn.quantized.modules import *  # noqa: F403
from torch_ao_ext.nn.quantized.modules import __all__ as _names

__all__ = ["dynamic", "functional", "reference", *_names]
