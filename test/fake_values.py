"""Random tensors of the cases of fake kernels."""

import torch

INPUTS = [(4, 8), (8,), (2, 3, 8), (0, 8), (1, 8)]
LAYOUTS = [(4, 8), (2, 3, 8), (0, 8), (5,)]


def floats(*shape, dtype=torch.float32):
    return torch.randn(*shape).to(dtype)


def u8(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def s8(*shape):
    return torch.randint(-128, 128, shape, dtype=torch.int8)


def weights(n, k, bias=True, zero_point=False, per_tensor=False):
    count = 1 if per_tensor else n
    points = torch.randint(-5, 5, (count,), dtype=torch.int32) if zero_point else None
    return s8(n, k), torch.rand(count) * 0.01 + 0.001, points, torch.randn(n) if bias else None
