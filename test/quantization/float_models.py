"""Small float models, and what became of them."""

from torch import nn

import torch_ao_ext
from torch_ao_ext.nn.quantized.dynamic import Linear


class Block(nn.Module):
    def __init__(self, k=12, n=8):
        super().__init__()
        self.fc1 = nn.Linear(k, n)
        self.act = nn.ReLU()
        self.fc2 = nn.Linear(n, k)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(Block(), Block())
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.encoder(x))


def kinds(model):
    """fqn -> True for the layers that are int8."""
    layers = (nn.Linear, Linear)
    return {n: isinstance(m, Linear) for n, m in model.named_modules() if isinstance(m, layers)}


ALL = {"encoder.0.fc1", "encoder.0.fc2", "encoder.1.fc1", "encoder.1.fc2", "head"}


def reason_of(model, name):
    return {row.fqn: row.reason for row in torch_ao_ext.report(model).rows}[name]
