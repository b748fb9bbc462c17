"""Linear layer with batch norm, with a fake-quantized weight."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from torch_ao_ext.nn import intrinsic
from torch_ao_ext.nn.intrinsic.qat.modules._bn import BatchNormInside

__all__ = ["LinearBn1d"]


class LinearBn1d(BatchNormInside, nn.Linear):
    """Linear layer and batch norm of `[N, K]`, with the weight that will be quantized.

    Args:
        in_features: K.
        out_features: N.
        bias: with a bias of the linear layer.
        eps: of the batch norm.
        momentum: of the batch norm; None averages all batches.
        freeze_bn: normalize by running statistics, which stay.
        qconfig: its `weight` makes the fake-quantize module.
    """

    _FLOAT_MODULE = intrinsic.LinearBn1d
    _FLOAT_BASE = nn.Linear
    _ARGUMENTS = ("in_features", "out_features", "bias")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        eps: float = 1e-05,
        momentum: float | None = 0.1,
        freeze_bn: bool = False,
        qconfig: Any = None,
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self._set_norm(nn.BatchNorm1d(out_features, eps, momentum), freeze_bn)
        self._set_qconfig(qconfig)

    def _product(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.linear(x, weight)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`[N, K]` -> `[N, out_features]`, as the float layers of the container."""
        return self._normalized(input)

    def to_float(self) -> nn.Module:
        """The linear layer with the batch norm folded in by running statistics."""
        return self._folded()
