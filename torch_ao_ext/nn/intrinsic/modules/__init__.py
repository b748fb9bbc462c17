"""Fused float containers."""

from torch_ao_ext.nn.intrinsic.modules.fused import LinearReLU

__all__ = ["LinearReLU"]
