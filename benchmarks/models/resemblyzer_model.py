"""Resemblyzer's speaker encoder with its trained weights, from the PyPI package Resemblyzer.

Only the file `pretrained.pt` of the package is read; the network is written here: a 3-layer LSTM
over 40 mel channels, a Linear and a unit norm.
"""

import importlib.metadata
import math

import torch
from torch import nn

PACKAGE = "Resemblyzer"
STEPS = 160  # 1.6 s of 10 ms frames
_RATE, _WINDOW, _HOP, _CHANNELS = 16000, 400, 160, 40


class SpeakerEncoder(nn.Module):
    """Mels `[B, T, 40]` -> embeddings `[B, 256]` of length 1."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(_CHANNELS, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mels):
        hidden = self.lstm(mels)[1][0][-1]
        return nn.functional.normalize(self.linear(hidden).relu(), dim=1)


def load():
    """The trained encoder in eval mode, f32."""
    try:
        path = importlib.metadata.distribution(PACKAGE).locate_file("resemblyzer/pretrained.pt")
    except importlib.metadata.PackageNotFoundError:
        raise ImportError("pip install --no-deps Resemblyzer (no such package found)") from None
    state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    model = SpeakerEncoder().eval()
    wanted = model.state_dict()
    model.load_state_dict({name: value for name, value in state.items() if name in wanted})
    return model


def _mel_filters():
    """[201, 40] triangles on the Slaney mel scale, each of unit area."""

    def to_hz(mel):
        return 200 / 3 * mel if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)

    top = 15 + math.log(_RATE / 2 / 1000) * 27 / math.log(6.4)
    edges = torch.tensor([to_hz(top * i / (_CHANNELS + 1)) for i in range(_CHANNELS + 2)])
    bins = torch.linspace(0, _RATE / 2, _WINDOW // 2 + 1)[:, None]
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rise, fall).clamp(min=0) * 2 / (edges[2:] - edges[:-2])


def inputs(batch, seed=0):
    """Mel power `[batch, 160, 40]` of voices: harmonics of a gliding pitch under formants, and breath."""
    g = torch.Generator().manual_seed(seed)
    count = _HOP * (STEPS - 1) + _WINDOW
    time = torch.arange(count) / _RATE
    waves = []
    for _ in range(batch):
        pitch, glide, syllable, *formants = (torch.rand(6, generator=g)).tolist()
        f0 = 90 + 130 * pitch + 25 * torch.sin(2 * math.pi * (0.5 + glide) * time)
        phase = 2 * math.pi * torch.cumsum(f0, 0) / _RATE
        wave = torch.zeros(count)
        for harmonic in range(1, 40):
            f = harmonic * f0
            gain = sum(
                torch.exp(-(((f - centre * (0.8 + 0.4 * shift)) / width) ** 2))
                for centre, width, shift in zip((600, 1500, 2700), (180, 250, 400), formants, strict=True)
            )
            wave += gain * torch.sin(harmonic * phase)
        envelope = torch.sin(math.pi * (2 + 3 * syllable) * time).square()
        waves.append(wave * envelope + 0.01 * torch.randn(count, generator=g))
    wave = torch.stack(waves)
    wave *= 10 ** (-30 / 20) / wave.square().mean(1, keepdim=True).sqrt()  # the package's loudness
    spectrum = torch.stft(
        wave, _WINDOW, _HOP, window=torch.hann_window(_WINDOW), center=False, return_complex=True
    )
    return (spectrum.abs().square().transpose(1, 2) @ _mel_filters()).contiguous()
