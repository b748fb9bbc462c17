"""Convolutions with a ReLU inside the operator."""

from torch_ao_ext.nn.quantized.modules.conv import Conv1d, Conv2d, Conv3d

__all__ = ["ConvReLU1d", "ConvReLU2d", "ConvReLU3d"]


class ConvReLU1d(Conv1d):
    """y = quantize(max(0, conv1d(x, W) + b)); see `nn.quantized.Conv1d`."""

    _POST_OPS = "relu"


class ConvReLU2d(Conv2d):
    """y = quantize(max(0, conv2d(x, W) + b)); see `nn.quantized.Conv2d`."""

    _POST_OPS = "relu"


class ConvReLU3d(Conv3d):
    """y = quantize(max(0, conv3d(x, W) + b)); see `nn.quantized.Conv3d`."""

    _POST_OPS = "relu"
