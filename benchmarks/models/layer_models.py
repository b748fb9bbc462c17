"""Single layers of the shape files and a block with a residual as models: whole engines are peers of them."""

import torch
from torch import nn

from benchmarks.harness import shapes
from benchmarks.models import convnet_models

# Which layers of shapes/conv.csv and (M, K, N) of shapes/linear.csv, with the speed-up that is wanted.
CONVOLUTIONS = {
    "resnet50 3x3 at 56": 1.1, "resnet50 3x3 at 28": 1.1, "resnet50 3x3 at 14": 1.1, "resnet50 3x3 at 7": 1.1,
    "resnet50 1x1 at 56 reduce": 1.1, "resnet50 1x1 at 28": 1.1, "resnet50 1x1 at 14 reduce": 1.1,
    "resnet stem": 1.15, "mobilenetv2 depthwise 112 stride 2": 1.2, "mobilenetv2 depthwise 56": 1.2,
    "mobilenetv2 depthwise 14": 1.2, "mobilenetv2 depthwise 7": 1.2,
}  # fmt: skip
LINEARS = {
    (1, 768, 768): 1.3, (1, 768, 3072): 1.1, (1, 3072, 768): 1.1,
    (16, 768, 768): 1.15, (16, 768, 3072): 1.15, (16, 3072, 768): 1.15,
    (128, 768, 768): 1.05, (128, 768, 3072): 1.05, (128, 3072, 768): 1.05,
    (512, 768, 768): 1.05, (512, 768, 3072): 1.05, (512, 3072, 768): 1.05,
    (16, 4096, 4096): 1.2, (128, 4096, 4096): 1.2,  # DA8W8 of a decoder
}  # fmt: skip
BOTTLENECKS = ((64, 56), (128, 28), (256, 14))  # planes, pixels: ResNet-50's blocks that keep their shape
BOTTLENECK_TARGET = 1.1
LSTM = "LSTM 512->1024 T50"  # of shapes/rnn.csv


def convolutions():
    """(shape, target) of CONVOLUTIONS."""
    return [(s, CONVOLUTIONS[s.layer]) for s in shapes.read_conv("conv") if s.layer in CONVOLUTIONS]


def linears():
    """(shape, target) of LINEARS."""
    found = [(s, (s.m, s.k, s.n)) for s in shapes.read_linear("linear")]
    return [(s, LINEARS[key]) for s, key in found if key in LINEARS]


def convolution(shape):
    """Convolution and ReLU."""
    torch.manual_seed(0)
    conv = nn.Conv2d(
        shape.channels, shape.out, shape.kernel, shape.stride, shape.padding, shape.dilation, shape.groups
    )
    return nn.Sequential(conv, nn.ReLU())


def bottleneck(planes):
    """1x1, 3x3 and 1x1 with batch norms, the sum with the input and ReLU."""
    torch.manual_seed(0)
    return convnet_models.with_lively_norms(convnet_models.Block(4 * planes, planes, 1, bottleneck=True))


def block_pixels(planes, size, seed):
    """Input of a bottleneck: what a block before it gives, no value below zero."""
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(1, 4 * planes, size, size, generator=g).relu(),)


def linear(shape):
    """A linear layer with bias."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(shape.k, shape.n))


def pixels(shape, seed):
    """Input of a convolution."""
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(shape.batch, shape.channels, *shape.size, generator=g),)


def rows(shape, seed):
    """Input of a linear layer."""
    return (torch.randn(shape.m, shape.k, generator=torch.Generator().manual_seed(seed)),)


class Sequence(nn.Module):
    """One LSTM: `[T, B, K]` -> its outputs `[T, B, H]`."""

    def __init__(self, shape):
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(shape.input, shape.hidden, shape.layers, bidirectional=shape.bidirectional)

    def forward(self, x):
        return self.lstm(x)[0]


def lstms():
    """The shapes of LSTM."""
    return [s for s in shapes.read_rnn("rnn") if s.layer == LSTM]


def steps(shape, seed):
    """Input of an LSTM."""
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(shape.steps, shape.batch, shape.input, generator=g),)
