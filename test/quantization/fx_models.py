"""Models for FX graph mode with modules that stay whole."""

import copy

import torch
from torch import nn

import torch_ao_ext
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.quantization import (
    get_default_qconfig_mapping,
)
from torch_ao_ext.quantization.quantize_fx import (
    prepare_fx,
)

STATIC = get_default_qconfig_mapping("onednn")


def sqnr(want, have):
    """Signal to noise in dB."""
    want, have = want.detach(), have.detach()
    return float(10 * torch.log10(want.pow(2).sum() / (want - have).pow(2).sum()))


def calibrated(model, mapping, *batches, **options):
    """Prepared, and run on all batches."""
    observed = prepare_fx(model, mapping, batches[0], **options)
    with torch.no_grad():
        for batch in batches:
            observed(*batch)
    return observed


class Gate(nn.Module):
    """Python looks at values: torch.export cannot."""

    def forward(self, x):
        return x * 2 if x.detach().sum().item() > 0 else -x


class Block(nn.Module):
    """Two layers."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


class Model(nn.Module):
    """A part of each kind between int8 layers."""

    def __init__(self, middle):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.last = nn.Linear(8, 8), middle, nn.Linear(8, 4)

    def forward(self, x):
        return self.last(self.middle(torch.relu(self.first(x))))


class Recurrent(nn.Module):
    """A layer of torch.nn with states between linear layers."""

    def __init__(self, kind=nn.LSTM, **options):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.last = nn.Linear(8, 8), nn.Linear(16, 4)
        self.rnn = kind(8, 16, batch_first=True, **options)

    def forward(self, x):
        y, state = self.rnn(self.first(x))
        return self.last(y), state


def batches(*shape, count=4):
    """Random inputs, each in a tuple."""
    torch.manual_seed(2)
    return [(torch.randn(*shape),) for _ in range(count)]


def int8(model):
    """Names of the int8 operators."""
    return [(r.fqn, r.op) for r in torch_ao_ext.report(model).rows if r.status == "int8" and r.macs]


class Scaled(nn.Module):
    """A layer of the user: y = 2 W x."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        return self.linear(x) * 2


class ObservedScaled(Scaled):
    """Its observed class."""

    @classmethod
    def from_float(cls, mod):
        new = cls(mod.linear)
        new.qconfig = mod.qconfig
        return new


class QuantizedScaled(nn.Module):
    """Its int8 class."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        return self.linear(x)

    @classmethod
    def from_observed(cls, mod):
        linear = copy.deepcopy(mod.linear)
        with torch.no_grad():
            linear.weight *= 2
            linear.bias *= 2
        linear.qconfig, linear.activation_post_process = mod.qconfig, mod.activation_post_process
        return cls(nnq.Linear.from_float(linear))
