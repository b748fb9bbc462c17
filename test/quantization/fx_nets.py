"""Small networks of FX graph mode: layers, functions, and what a graph calls whole."""

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["Attention", "Net", "Parts", "Recurrent", "Tables"]


class Net(nn.Module):
    """Layers, and functions with and without a weight."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()
        self.fc, self.weight = nn.Linear(8, 4), nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        x = self.relu(self.bn(self.conv(x)))
        x = self.fc(F.max_pool2d(x, 2).mean((2, 3)))
        return torch.cat([F.linear(x, self.weight) + x, x], 1)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(self.lstm(x)[0])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.fc = nn.MultiheadAttention(8, 2), nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.attention(x, x, x, need_weights=False)[0])


class Tables(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.bag, self.fc = nn.Embedding(10, 8), nn.EmbeddingBag(10, 8), nn.Linear(8, 3)

    def forward(self, indices):
        return self.fc(self.words(indices).mean(1) + self.bag(indices))


class Parts(nn.Module):
    """A part to be quantized by itself, and one to stay whole in float."""

    def __init__(self):
        super().__init__()
        self.alone = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        self.whole, self.fc = nn.Sequential(nn.Linear(8, 8)), nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.whole(self.alone(x)))
