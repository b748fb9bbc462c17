"""Batch norms between quantized tensors, computed in float32 by running statistics.

Arguments: those of the torch.nn class of the same name, then `scale`, `zero_point` and `dtype`
of the output.
"""

from torch import nn

from torch_ao_ext.nn.quantized._between import ByFeatures

__all__ = ["BatchNorm2d", "BatchNorm3d"]


class BatchNorm2d(ByFeatures, nn.BatchNorm2d):
    """Batch normalization of `[N, C, H, W]` by running statistics; qparams of the output."""


class BatchNorm3d(ByFeatures, nn.BatchNorm3d):
    """Batch normalization of `[N, C, D, H, W]` by running statistics; qparams of the output."""
