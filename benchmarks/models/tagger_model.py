"""A sequence tagger: embedding of 256, two LSTM layers of 512, a Linear; random weights."""

import torch
from torch import nn

WORDS, TAGS, STEPS = 10000, 32, 40


class Tagger(nn.Module):
    """Word ids `[B, 40]` -> scores `[B, 40, 32]`."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(WORDS, 256)
        self.lstm = nn.LSTM(256, 512, 2, batch_first=True)
        self.linear = nn.Linear(512, TAGS)

    def forward(self, ids):
        return self.linear(self.lstm(self.embedding(ids))[0])


def inputs(batch, seed):
    """A tuple of random ids."""
    return (torch.randint(WORDS, (batch, STEPS), generator=torch.Generator().manual_seed(seed)),)
