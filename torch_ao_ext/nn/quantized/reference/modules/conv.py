"""Convolutions that round their weights; arguments and input of the float classes."""

from torch import nn

from torch_ao_ext.nn.quantized.reference.modules.utils import ReferenceQuantizedModule

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]


class Conv1d(ReferenceQuantizedModule, nn.Conv1d):
    """nn.Conv1d on the rounded weight; see `ReferenceQuantizedModule`."""

    _FLOAT = nn.Conv1d


class Conv2d(ReferenceQuantizedModule, nn.Conv2d):
    """nn.Conv2d on the rounded weight; see `ReferenceQuantizedModule`."""

    _FLOAT = nn.Conv2d


class Conv3d(ReferenceQuantizedModule, nn.Conv3d):
    """nn.Conv3d on the rounded weight; see `ReferenceQuantizedModule`."""

    _FLOAT = nn.Conv3d


class ConvTranspose1d(ReferenceQuantizedModule, nn.ConvTranspose1d):
    """nn.ConvTranspose1d on the rounded weight; see `ReferenceQuantizedModule`."""

    _FLOAT = nn.ConvTranspose1d


class ConvTranspose2d(ReferenceQuantizedModule, nn.ConvTranspose2d):
    """nn.ConvTranspose2d on the rounded weight; see `ReferenceQuantizedModule`."""

    _FLOAT = nn.ConvTranspose2d


class ConvTranspose3d(ReferenceQuantizedModule, nn.ConvTranspose3d):
    """nn.ConvTranspose3d on the rounded weight; see `ReferenceQuantizedModule`."""

    _FLOAT = nn.ConvTranspose3d
