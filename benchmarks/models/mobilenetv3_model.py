"""MobileNetV3 small and large (Howard et al. 2019, tables 1 and 2) in plain modules, random weights."""

import torch
from torch import nn

RELU, HARDSWISH = nn.ReLU, nn.Hardswish
# Kernel, channels inside, channels out, squeeze and excite, activation, stride.
LARGE = (
    (3, 16, 16, False, RELU, 1),
    (3, 64, 24, False, RELU, 2),
    (3, 72, 24, False, RELU, 1),
    (5, 72, 40, True, RELU, 2),
    (5, 120, 40, True, RELU, 1),
    (5, 120, 40, True, RELU, 1),
    (3, 240, 80, False, HARDSWISH, 2),
    (3, 200, 80, False, HARDSWISH, 1),
    (3, 184, 80, False, HARDSWISH, 1),
    (3, 184, 80, False, HARDSWISH, 1),
    (3, 480, 112, True, HARDSWISH, 1),
    (3, 672, 112, True, HARDSWISH, 1),
    (5, 672, 160, True, HARDSWISH, 2),
    (5, 960, 160, True, HARDSWISH, 1),
    (5, 960, 160, True, HARDSWISH, 1),
)
SMALL = (
    (3, 16, 16, True, RELU, 2),
    (3, 72, 24, False, RELU, 2),
    (3, 88, 24, False, RELU, 1),
    (5, 96, 40, True, HARDSWISH, 2),
    (5, 240, 40, True, HARDSWISH, 1),
    (5, 240, 40, True, HARDSWISH, 1),
    (5, 120, 48, True, HARDSWISH, 1),
    (5, 144, 48, True, HARDSWISH, 1),
    (5, 288, 96, True, HARDSWISH, 2),
    (5, 576, 96, True, HARDSWISH, 1),
    (5, 576, 96, True, HARDSWISH, 1),
)


def conv_bn(inputs, outputs, kernel=1, stride=1, groups=1, activation=None):
    """Convolution, batch norm and, unless None, an activation."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=1e-3), *([activation()] if activation else []))


class SqueezeExcite(nn.Module):
    """x times a gate of each channel, from the means of all."""

    def __init__(self, channels):
        super().__init__()
        quarter = channels // 4
        inside = (quarter + 4) // 8 * 8
        inside += 8 if inside < 0.9 * quarter else 0
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, inside, 1), nn.ReLU(), nn.Conv2d(inside, channels, 1), nn.Hardsigmoid(),
        )  # fmt: skip

    def forward(self, x):
        return x * self.gate(x)


class Bottleneck(nn.Module):
    """1x1 up, depthwise, a gate in some, 1x1 down; a sum where the shape stays."""

    def __init__(self, inputs, kernel, inside, outputs, gated, activation, stride):
        super().__init__()
        up = [conv_bn(inputs, inside, activation=activation)] if inside != inputs else []
        self.body = nn.Sequential(
            *up,
            conv_bn(inside, inside, kernel, stride, inside, activation),
            *([SqueezeExcite(inside)] if gated else []),
            conv_bn(inside, outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.body(x) if self.residual else self.body(x)


class MobileNetV3(nn.Module):
    """Images `[B, 3, 224, 224]` -> logits `[B, 1000]`."""

    def __init__(self, rows, last, wide):
        super().__init__()
        layers, inputs = [conv_bn(3, 16, 3, 2, activation=HARDSWISH)], 16
        for kernel, inside, outputs, *rest in rows:
            layers.append(Bottleneck(inputs, kernel, inside, outputs, *rest))
            inputs = outputs
        self.layers = nn.Sequential(*layers, conv_bn(inputs, last, activation=HARDSWISH))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(last, wide), HARDSWISH(), nn.Linear(wide, 1000))

    def forward(self, x):
        return self.classifier(torch.flatten(self.pool(self.layers(x)), 1))


def small():
    return MobileNetV3(SMALL, 576, 1024)


def large():
    return MobileNetV3(LARGE, 960, 1280)
