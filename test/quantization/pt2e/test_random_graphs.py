"""Random networks: what lower makes of them computes what the converted graph does."""

import random

import pytest
import torch
import torch.nn.functional as functional
from flow_models import export, quantizer
from torch import nn

import torch_ao_ext
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e

ACTIVATIONS = [
    torch.relu, functional.relu6, functional.silu, functional.hardswish, functional.gelu, torch.tanh,
    lambda x: functional.leaky_relu(x, 0.1), lambda x: x.clamp(-1, 2), lambda x: functional.relu(x, True),
]  # fmt: skip


class Random(nn.Module):
    """Steps drawn from a seed: each maps an image [N, C, H, W] to another one."""

    def __init__(self, seed):
        super().__init__()
        rng = random.Random(seed)
        torch.manual_seed(seed)
        self.layers = nn.ModuleList()
        self.steps = []
        channels = 6
        for _ in range(rng.randint(3, 7)):
            channels = self._add_step(rng, channels)
        self.head = nn.Linear(channels, 5)

    def _conv(self, rng, inside, outside):
        groups = rng.choice([1, 1, inside if outside % inside == 0 else 1])
        kernel = rng.choice([1, 3, 3, 5])
        padding = rng.choice([kernel // 2, "same"])
        conv = nn.Conv2d(inside, outside, kernel, 1, padding, groups=groups, bias=rng.random() < 0.7)
        norm = nn.BatchNorm2d(outside)
        nn.init.normal_(norm.weight, 1, 0.5)
        norm.running_mean.normal_(0, 0.2)
        block = nn.Sequential(conv, norm) if rng.random() < 0.5 else nn.Sequential(conv)
        self.layers.append(block)
        return block

    def _add_step(self, rng, channels):
        kind = rng.choice(["conv", "conv", "residual", "pool", "cat", "gate", "pad", "permute", "float"])
        act = rng.choice(ACTIVATIONS)
        if kind == "conv":
            width = rng.choice([channels, 2 * channels if channels < 30 else channels, 8])
            conv = self._conv(rng, channels, width)
            self.steps.append(lambda x: act(conv(x)))
            return width
        if kind == "residual":
            conv = self._conv(rng, channels, channels)
            self.steps.append(lambda x: act(conv(x) + x))
        elif kind == "pool":
            pool = rng.choice([
                lambda x: functional.max_pool2d(x, 3, 1, 1), lambda x: functional.avg_pool2d(x, 3, 1, 1),
                lambda x: functional.adaptive_avg_pool2d(x, 6),
            ])  # fmt: skip
            self.steps.append(pool)
        elif kind == "cat":
            left, right = self._conv(rng, channels, 4), self._conv(rng, channels, 4)
            self.steps.append(lambda x: torch.cat([act(left(x)), right(x)], 1))
            return 8
        elif kind == "gate":
            conv = self._conv(rng, channels, channels)
            self.steps.append(lambda x: x * torch.sigmoid(conv(x.mean((2, 3), keepdim=True))))
        elif kind == "pad":
            self.steps.append(lambda x: functional.pad(x, (1, 1, 0, 2)))
        elif kind == "permute":
            self.steps.append(lambda x: x.permute(0, 1, 3, 2))
        else:
            self.steps.append(lambda x: torch.sin(x) + 0.5 * x)
        return channels

    def forward(self, x):
        for step in self.steps:
            x = step(x)
        return self.head(x.mean((2, 3))), x.contiguous().view(x.shape[0], -1)


@pytest.mark.parametrize("how", ["x86", "xnnpack"])
@pytest.mark.parametrize("seed", range(12))
def test_random_network(seed, how, sqnr):
    model, x = Random(seed).eval(), torch.randn(2, 6, 9, 11)
    with torch.no_grad():
        ready = prepare_pt2e(export(model, (x,)), quantizer(how))
        for _ in range(2):
            ready(torch.randn(2, 6, 9, 11))
        ready(x)
        quantized = convert_pt2e(ready)
        lowered = torch_ao_ext.lower(quantized)
        merged = torch_ao_ext.lower(quantized, islands=True)
        for _ in range(2):  # noting memory, then by plan
            for expected, actual in zip(lowered(x), merged(x), strict=True):
                assert torch.equal(actual, expected) and actual.stride() == expected.stride()
        for expected, reference, actual in zip(model(x), quantized(x), lowered(x), strict=True):
            assert actual.shape == reference.shape and actual.is_contiguous()
            # The first quantized value next to a boundary that differs sets off others.
            assert sqnr(reference, actual) > 30
            assert sqnr(expected, actual) > min(40, sqnr(expected, reference) - 3)
