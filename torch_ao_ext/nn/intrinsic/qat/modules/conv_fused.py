"""Convolutions with batch norm and ReLU, trained with the weight that will be quantized.

After conversion the batch norm is part of the weight, so training quantizes W g / sqrt(v + eps)
with the running variance v, and divides by the same factor before the batch norm:
y = bn(conv(x, fq(W s) / s) + b), s = g / sqrt(v + eps) (Jacob et al. 2018, section 3.2).
"""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from torch_ao_ext.nn import intrinsic, qat
from torch_ao_ext.nn.intrinsic.qat.modules._bn import BatchNormInside, freeze_bn_stats, update_bn_stats
from torch_ao_ext.nn.qat.modules.conv import CONV_ARGUMENTS

__all__ = [
    "ConvBn1d",
    "ConvBn2d",
    "ConvBn3d",
    "ConvBnReLU1d",
    "ConvBnReLU2d",
    "ConvBnReLU3d",
    "ConvReLU1d",
    "ConvReLU2d",
    "ConvReLU3d",
    "freeze_bn_stats",
    "update_bn_stats",
]


class _ConvBn(BatchNormInside):
    """A subclass derives from torch's conv of its rank."""

    _ARGUMENTS = CONV_ARGUMENTS
    _NORM: ClassVar[type[nn.Module]]
    _RELU = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = False,
        padding_mode: str = "zeros",
        eps: float = 1e-05,
        momentum: float | None = 0.1,
        freeze_bn: bool = False,
        qconfig: Any = None,
    ) -> None:
        sizes = (in_channels, out_channels, kernel_size, stride, padding, dilation)
        super().__init__(*sizes, groups, bool(bias), padding_mode)
        self._set_norm(self._NORM(out_channels, eps, momentum), freeze_bn)
        self._set_qconfig(qconfig)

    def _product(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, weight, None)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As the float layers of the container."""
        y = self._normalized(input)
        return F.relu(y) if self._RELU else y

    def to_float(self) -> nn.Module:
        """The conv (with ReLU: the container) with the batch norm folded in by running statistics."""
        conv = self._folded()
        relu = getattr(intrinsic, f"ConvReLU{len(self.kernel_size)}d")
        return relu(conv, nn.ReLU()).train(self.training) if self._RELU else conv


class ConvBn1d(_ConvBn, nn.Conv1d):
    """1-D conv and batch norm; see `ConvBn2d`."""

    _FLOAT_MODULE = intrinsic.ConvBn1d
    _FLOAT_BASE = nn.Conv1d
    _NORM = nn.BatchNorm1d


class ConvBnReLU1d(ConvBn1d):
    """1-D conv, batch norm and ReLU; see `ConvBn2d`."""

    _FLOAT_MODULE = intrinsic.ConvBnReLU1d
    _RELU = True


class ConvBn2d(_ConvBn, nn.Conv2d):
    """2-D conv and batch norm with a fake-quantized weight.

    Args:
        in_channels: see torch.nn.Conv2d, as all up to padding_mode.
        out_channels: see torch.nn.Conv2d.
        kernel_size: see torch.nn.Conv2d.
        stride: see torch.nn.Conv2d.
        padding: see torch.nn.Conv2d.
        dilation: see torch.nn.Conv2d.
        groups: see torch.nn.Conv2d.
        bias: with a bias of the conv.
        padding_mode: see torch.nn.Conv2d.
        eps: of the batch norm.
        momentum: of the batch norm; None averages all batches.
        freeze_bn: normalize by running statistics, which stay.
        qconfig: its `weight` makes the fake-quantize module.

    Example:
        >>> import torch
        >>> from torch_ao_ext.nn.intrinsic.qat import ConvBn2d
        >>> from torch_ao_ext.quantization import default_qat_qconfig
        >>> ConvBn2d(3, 4, 3, qconfig=default_qat_qconfig)(torch.randn(2, 3, 8, 8)).shape
        torch.Size([2, 4, 6, 6])
    """

    _FLOAT_MODULE = intrinsic.ConvBn2d
    _FLOAT_BASE = nn.Conv2d
    _NORM = nn.BatchNorm2d


class ConvBnReLU2d(ConvBn2d):
    """2-D conv, batch norm and ReLU; see `ConvBn2d`."""

    _FLOAT_MODULE = intrinsic.ConvBnReLU2d
    _RELU = True


class ConvBn3d(_ConvBn, nn.Conv3d):
    """3-D conv and batch norm; see `ConvBn2d`."""

    _FLOAT_MODULE = intrinsic.ConvBn3d
    _FLOAT_BASE = nn.Conv3d
    _NORM = nn.BatchNorm3d


class ConvBnReLU3d(ConvBn3d):
    """3-D conv, batch norm and ReLU; see `ConvBn2d`."""

    _FLOAT_MODULE = intrinsic.ConvBnReLU3d
    _RELU = True


class ConvReLU1d(qat.Conv1d):
    """1-D conv with a fake-quantized weight, and ReLU."""

    _FLOAT_MODULE = intrinsic.ConvReLU1d

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As the float layers of the container."""
        return F.relu(super().forward(input))

    def to_float(self) -> nn.Module:
        """The container of float layers."""
        return intrinsic.ConvReLU1d(self._float_product(), nn.ReLU())


class ConvReLU2d(qat.Conv2d):
    """2-D conv with a fake-quantized weight, and ReLU."""

    _FLOAT_MODULE = intrinsic.ConvReLU2d

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As the float layers of the container."""
        return F.relu(super().forward(input))

    def to_float(self) -> nn.Module:
        """The container of float layers."""
        return intrinsic.ConvReLU2d(self._float_product(), nn.ReLU())


class ConvReLU3d(qat.Conv3d):
    """3-D conv with a fake-quantized weight, and ReLU."""

    _FLOAT_MODULE = intrinsic.ConvReLU3d

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As the float layers of the container."""
        return F.relu(super().forward(input))

    def to_float(self) -> nn.Module:
        """The container of float layers."""
        return intrinsic.ConvReLU3d(self._float_product(), nn.ReLU())
