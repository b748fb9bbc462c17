"""ResNet (He et al. 2016, table 1) and MobileNetV2 (Sandler et al. 2018, table 2) in plain modules.

MobileNetV3 is in mobilenetv3_model.py.

Random weights with lively batch norms. No control flow on tensors, so that every flow can take them, FX too.
"""

import torch
from torch import nn

from benchmarks.models import mobilenetv3_model


def conv_bn(inputs, outputs, kernel, stride=1, groups=1, activation=nn.ReLU):
    """Convolution, batch norm and, unless None, an activation."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers = [conv, nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class Block(nn.Module):
    """Basic (two 3x3) or bottleneck (1x1, 3x3, 1x1 to four times the planes), with its shortcut."""

    def __init__(self, inputs, planes, stride, bottleneck):
        super().__init__()
        outputs = planes * 4 if bottleneck else planes
        if bottleneck:
            self.body = nn.Sequential(
                conv_bn(inputs, planes, 1),
                conv_bn(planes, planes, 3, stride),
                conv_bn(planes, outputs, 1, activation=None),
            )
        else:
            self.body = nn.Sequential(
                conv_bn(inputs, planes, 3, stride), conv_bn(planes, planes, 3, activation=None)
            )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv_bn(inputs, outputs, 1, stride, activation=None)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    """Images `[B, 3, 224, 224]` -> logits `[B, 1000]`."""

    def __init__(self, depths, bottleneck):
        super().__init__()
        layers, inputs = [conv_bn(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)], 64
        for stage, depth in enumerate(depths):
            planes = 64 << stage
            for i in range(depth):
                layers.append(Block(inputs, planes, 2 if stage and i == 0 else 1, bottleneck))
                inputs = planes * 4 if bottleneck else planes
        self.layers = nn.Sequential(*layers)
        self.pool, self.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(inputs, 1000)

    def forward(self, x):
        return self.classifier(torch.flatten(self.pool(self.layers(x)), 1))


class Inverted(nn.Module):
    """1x1 up, depthwise 3x3, 1x1 down; a sum where the shape stays."""

    def __init__(self, inputs, outputs, stride, expand):
        super().__init__()
        inside = inputs * expand
        up = [conv_bn(inputs, inside, 1, activation=nn.ReLU6)] if expand > 1 else []
        self.body = nn.Sequential(
            *up,
            conv_bn(inside, inside, 3, stride, groups=inside, activation=nn.ReLU6),
            conv_bn(inside, outputs, 1, activation=None),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.body(x) if self.residual else self.body(x)


class MobileNetV2(nn.Module):
    """Images `[B, 3, 224, 224]` -> logits `[B, 1000]`."""

    STAGES = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(self):
        super().__init__()
        layers, inputs = [conv_bn(3, 32, 3, 2, activation=nn.ReLU6)], 32
        for expand, outputs, depth, stride in self.STAGES:
            for i in range(depth):
                layers.append(Inverted(inputs, outputs, stride if i == 0 else 1, expand))
                inputs = outputs
        self.layers = nn.Sequential(*layers, conv_bn(inputs, 1280, 1, activation=nn.ReLU6))
        self.pool, self.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(1280, 1000)

    def forward(self, x):
        return self.classifier(torch.flatten(self.pool(self.layers(x)), 1))


MAKERS = {
    "resnet18": lambda: ResNet((2, 2, 2, 2), bottleneck=False),
    "resnet50": lambda: ResNet((3, 4, 6, 3), bottleneck=True),
    "mobilenetv2": MobileNetV2,
    "mobilenetv3-small": mobilenetv3_model.small,
    "mobilenetv3-large": mobilenetv3_model.large,
}


def make(name):
    """The network in eval mode."""
    torch.manual_seed(0)
    return with_lively_norms(MAKERS[name]())


def with_lively_norms(model):
    """The model in eval mode, its batch norms with random statistics and weights."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_var.uniform_(0.5, 1.5)
            module.running_mean.normal_(0, 0.1)
    return model.eval()


def images(batch, seed=0):
    """Normal pixels `[batch, 3, 224, 224]`."""
    return torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(seed))
