"""Fused modules for quantization-aware training."""

from torch_ao_ext.nn.intrinsic.qat.modules.conv_fused import *  # noqa: F403
from torch_ao_ext.nn.intrinsic.qat.modules.conv_fused import __all__ as _conv_names
from torch_ao_ext.nn.intrinsic.qat.modules.linear_fused import LinearBn1d
from torch_ao_ext.nn.intrinsic.qat.modules.linear_relu import LinearReLU

__all__ = ["LinearBn1d", "LinearReLU", *_conv_names]
