"""Fused modules for quantization-aware training."""

from torch_ao_ext.nn.intrinsic.qat.modules import *  # noqa: F403
from torch_ao_ext.nn.intrinsic.qat.modules import __all__ as _names

__all__ = [*_names]
