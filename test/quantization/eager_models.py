"""Models with stubs for eager mode, made with our classes or with torch.ao's."""

import torch
from torch import nn

from torch_ao_ext.quantization import QuantWrapper, default_qconfig


class Block(nn.Module):
    """A residual block."""

    def __init__(self, functional, planes, stride=1, inputs=None):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs or planes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.down = None
        if inputs is not None:
            self.down = nn.Sequential(
                nn.Conv2d(inputs, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
            )
        self.add = functional()

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.add.add_relu(y, x if self.down is None else self.down(x))


class ResNet(nn.Module):
    """Stem, two blocks, a linear layer; stubs at both ends."""

    def __init__(self, stubs, functional):
        super().__init__()
        self.quant, self.dequant = stubs.QuantStub(), stubs.DeQuantStub()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.l1, self.l2 = Block(functional, 16), Block(functional, 32, 2, 16)
        self.avg, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(32, 10)

    def forward(self, x):
        x = self.pool(self.relu(self.bn(self.conv(self.quant(x)))))
        x = self.l2(self.l1(x))
        return self.dequant(self.fc(torch.flatten(self.avg(x), 1)))


RESNET_GROUPS = [
    ["conv", "bn", "relu"],
    *[[f"{b}.conv1", f"{b}.bn1", f"{b}.relu1"] for b in ("l1", "l2")],
    *[[f"{b}.conv2", f"{b}.bn2"] for b in ("l1", "l2")],
    ["l2.down.0", "l2.down.1"],
]


def images(count=4, seed=1):
    """Batches `[8, 3, 32, 32]`."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(8, 3, 32, 32, generator=generator) for _ in range(count)]


def resnet(stubs, functional, source=None):
    """In evaluation mode, with batch-norm statistics of some data, or those of source."""
    torch.manual_seed(0)
    model = ResNet(stubs, functional)
    if source is not None:
        model.load_state_dict(source.state_dict())
        return model.eval()
    for batch in images(3, seed=5):
        model(batch)
    return model.eval()


def calibrated(q, model, groups, qconfig):
    """Fused and prepared by q (this library's quantization or torch.ao's), and run on images."""
    model = q.fuse_modules(model, groups)
    model.qconfig = qconfig
    observed = q.prepare(model)
    for batch in images():
        observed(batch)
    return observed


def sqnr(want, have):
    """Signal to noise in dB."""
    want, have = want.detach(), have.detach()
    return float(10 * torch.log10(want.pow(2).sum() / (want - have).pow(2).sum()))


def small(*layers):
    """Layers between stubs, with the default qconfig."""
    model = QuantWrapper(nn.Sequential(*layers)).eval()
    model.qconfig = default_qconfig
    return model
