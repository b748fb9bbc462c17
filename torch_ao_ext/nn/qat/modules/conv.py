"""Convolutions with a fake-quantized weight."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext.nn.qat.modules._base import QATModule

__all__ = ["CONV_ARGUMENTS", "Conv1d", "Conv2d", "Conv3d"]

CONV_ARGUMENTS = (
    "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "bias",
    "padding_mode",
)  # fmt: skip


class _Conv(QATModule):
    _ARGUMENTS = CONV_ARGUMENTS

    def __init__(self, *args: Any, qconfig: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._set_qconfig(qconfig)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As the float layer."""
        return self._conv_forward(input, self.weight_fake_quant(self.weight), self.bias)


class Conv1d(_Conv, nn.Conv1d):
    """`nn.Conv1d` with a fake-quantized weight; arguments of that, and `qconfig` by name."""

    _FLOAT_MODULE = _FLOAT_BASE = nn.Conv1d


class Conv2d(_Conv, nn.Conv2d):
    """`nn.Conv2d` with a fake-quantized weight; arguments of that, and `qconfig` by name.

    Example:
        >>> import torch
        >>> from torch_ao_ext.nn.qat import Conv2d
        >>> from torch_ao_ext.quantization import default_qat_qconfig
        >>> Conv2d(3, 4, 3, qconfig=default_qat_qconfig)(torch.randn(1, 3, 8, 8)).shape
        torch.Size([1, 4, 6, 6])
    """

    _FLOAT_MODULE = _FLOAT_BASE = nn.Conv2d


class Conv3d(_Conv, nn.Conv3d):
    """`nn.Conv3d` with a fake-quantized weight; arguments of that, and `qconfig` by name."""

    _FLOAT_MODULE = _FLOAT_BASE = nn.Conv3d
