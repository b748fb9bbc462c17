"""Engines and random linear problems for the op tests."""

import torch

ENGINES = ("native", "onednn", "xnnpack", "reference")
EXACT_ENGINES = ("native", "onednn", "reference")


def random_int(dtype, *shape):
    """Full range of int8 or uint8."""
    info = torch.iinfo(dtype)
    return torch.randint(info.min, info.max + 1, shape, dtype=dtype)


def weight_problem(rng, n, k, zero_points=True):
    """weight, weight_scale, weight_zero_point, bias: full range, random forms."""
    weight = random_int(torch.int8, n, k)
    channels = n if rng.random() < 0.7 else 1
    scale = torch.rand(channels) * 0.02 + 1e-4
    zero_point = None
    if zero_points and rng.random() < 0.3:
        dtype = rng.choice([torch.int32, torch.int64])
        zero_point = torch.randint(-128, 128, (rng.choice([1, n]),), dtype=dtype)
    bias = torch.randn(n) * rng.choice([0.1, 10.0]) if rng.random() < 0.7 else None
    return weight, scale, zero_point, bias


# Widths around the register and cache-line sizes of every kernel.
SIZES = (1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96, 127, 128, 130)
ROWS = (1, 2, 3, 5, 8, 16, 17, 33)
