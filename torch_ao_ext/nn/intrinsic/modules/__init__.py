"""Fused float containers."""

from torch_ao_ext.nn.intrinsic.modules.fused import *  # noqa: F403
from torch_ao_ext.nn.intrinsic.modules.fused import __all__ as _names

__all__ = [*_names]
