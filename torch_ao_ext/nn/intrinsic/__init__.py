"""Fused float containers and their quantized counterparts."""

from torch_ao_ext.nn.intrinsic import quantized
from torch_ao_ext.nn.intrinsic.modules import *  # noqa: F403
from torch_ao_ext.nn.intrinsic.modules import __all__ as _names

__all__ = ["quantized", *_names]
