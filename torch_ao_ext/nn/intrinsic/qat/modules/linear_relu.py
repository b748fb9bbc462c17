"""Linear layer with ReLU, with a fake-quantized weight."""

import torch
import torch.nn.functional as F
from torch import nn

from torch_ao_ext.nn import intrinsic, qat

__all__ = ["LinearReLU"]


class LinearReLU(qat.Linear):
    """Linear layer with a fake-quantized weight, and ReLU; arguments of `nn.qat.Linear`."""

    _FLOAT_MODULE = intrinsic.LinearReLU

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`[*, K]` -> `[*, N]`."""
        return F.relu(super().forward(input))

    def to_float(self) -> nn.Module:
        """The container of float layers."""
        return intrinsic.LinearReLU(self._float_product(), nn.ReLU())
