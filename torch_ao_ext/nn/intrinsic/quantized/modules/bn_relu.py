"""Batch norm and ReLU between quantized tensors, one int8 operator."""

import torch
from torch.nn import functional

from torch_ao_ext.nn.quantized.modules.batchnorm import BatchNorm2d, BatchNorm3d

__all__ = ["BNReLU2d", "BNReLU3d"]


class BNReLU2d(BatchNorm2d):
    """max(0, batch_norm(x)); see `nn.quantized.BatchNorm2d`."""

    _POST_OPS = "relu"

    def _float(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(super()._float(x))


class BNReLU3d(BatchNorm3d):
    """max(0, batch_norm(x)); see `nn.quantized.BatchNorm3d`."""

    _POST_OPS = "relu"

    def _float(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(super()._float(x))
