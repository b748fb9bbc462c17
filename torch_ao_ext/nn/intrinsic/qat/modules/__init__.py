"""Fused modules for quantization-aware training."""

from torch_ao_ext.nn.intrinsic.qat.modules._bn import freeze_bn_stats, update_bn_stats
from torch_ao_ext.nn.intrinsic.qat.modules.conv_fused import *  # noqa: F403
from torch_ao_ext.nn.intrinsic.qat.modules.conv_fused import __all__ as _conv_names
from torch_ao_ext.nn.intrinsic.qat.modules.linear_fused import LinearBn1d, LinearReLU

__all__ = ["LinearBn1d", "LinearReLU", "freeze_bn_stats", "update_bn_stats", *_conv_names]
