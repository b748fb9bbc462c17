"""Quantized fused modules."""

from torch_ao_ext.nn.intrinsic.quantized import dynamic
from torch_ao_ext.nn.intrinsic.quantized.modules import *  # noqa: F403
from torch_ao_ext.nn.intrinsic.quantized.modules import __all__ as _names

__all__ = ["dynamic", *_names]
