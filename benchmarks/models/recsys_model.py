"""A small DLRM (Naumov et al. 2019): 26 tables of 200 000 x 64, MLPs 512-256-64 and 512-256-1.

Random weights; bags of 20 uniform indices. The tables are 1.3 GB in float32.
"""

import torch
from torch import nn

TABLES, ROWS, DIM, DENSE, POOLING = 26, 200_000, 64, 13, 20


def mlp(*sizes):
    """Linear layers with ReLU between them."""
    layers = []
    for k, n in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(k, n), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Bags(nn.Module):
    """(indices `[26, B * 20]`, offsets `[B]`) -> sums `[B, 26, 64]`."""

    def __init__(self):
        super().__init__()
        self.tables = nn.ModuleList(nn.EmbeddingBag(ROWS, DIM, mode="sum") for _ in range(TABLES))

    def forward(self, indices, offsets):
        sums = [table(i, offsets) for table, i in zip(self.tables, indices.unbind(0), strict=True)]
        return torch.stack(sums, 1)


class Dlrm(nn.Module):
    """(dense `[B, 13]`, indices `[26, B * 20]`, offsets `[B]`) -> scores `[B, 1]`."""

    def __init__(self):
        super().__init__()
        self.bottom = mlp(DENSE, 512, 256, DIM)
        self.bags = Bags()
        pairs = (TABLES + 1) * TABLES // 2
        self.top = mlp(DIM + pairs, 512, 256, 1)
        self.register_buffer("pairs", torch.tril_indices(TABLES + 1, TABLES + 1, -1), persistent=False)

    def forward(self, dense, indices, offsets):
        dense = self.bottom(dense)
        features = torch.cat([dense[:, None], self.bags(indices, offsets)], 1)
        products = features @ features.transpose(1, 2)
        products = products[:, self.pairs[0], self.pairs[1]]
        return self.top(torch.cat([dense, products], 1))


def make():
    """The network in eval mode."""
    torch.manual_seed(0)
    model = Dlrm()
    for table in model.bags.tables:
        nn.init.uniform_(table.weight, -0.05, 0.05)
    return model.eval()


def inputs(batch, seed):
    """(dense, indices, offsets)."""
    g = torch.Generator().manual_seed(seed)
    indices = torch.randint(ROWS, (TABLES, batch * POOLING), generator=g)
    return torch.randn(batch, DENSE, generator=g), indices, torch.arange(0, batch * POOLING, POOLING)
