"""Random calls of the quantize and dequantize ops over the full range of every argument."""

import torch
from op_cases import random_int

U8, S8 = torch.uint8, torch.int8
SPECIAL = (float("nan"), float("inf"), -float("inf"), 3.4e38, -3.4e38, 1e-45, -0.0, 0.5, 1.5, -2.5)


def random_layout(rng, t):
    """The same values as a view of other memory: dense in another order, or with holes."""
    kind = rng.choice(["plain", "plain", "permuted", "strided", "offset"])
    if kind == "permuted":
        order = rng.sample(range(t.dim()), t.dim())
        inverse = sorted(range(t.dim()), key=order.__getitem__)
        return t.permute(order).contiguous().permute(inverse)
    if kind == "strided" and t.dim() > 0:
        return torch.stack([t, t], -1)[..., 1]
    if kind == "offset":
        buffer = torch.empty(t.numel() + 1, dtype=t.dtype)
        buffer[1:] = t.reshape(-1)
        return buffer[1:].view(t.shape)
    return t


def random_shape(rng, least_rank):
    rank = rng.randint(least_rank, 4)
    shape = [rng.choice([1, 2, 3, 4, 5, 7, 8]) for _ in range(rank)]
    if rank:
        shape[rng.randrange(rank)] = rng.choice([1, 2, 7, 15, 16, 17, 31, 33, 64, 65, 130])
    return shape


def random_floats(rng, shape, spread):
    """Values around `spread`, some of any bit pattern, in float32 or bfloat16."""
    x = torch.randn(shape) * spread
    bits = torch.randint(-(2**31), 2**31, shape).to(torch.int32).view(torch.float32)
    x = torch.where(torch.rand(shape) < rng.choice([0.0, 0.1, 1.0]), bits, x)
    if x.numel() and rng.random() < 0.3:
        x.view(-1)[rng.randrange(x.numel())] = rng.choice(SPECIAL)
    return random_layout(rng, x.to(rng.choice([torch.float32, torch.bfloat16])))


def random_bounds(rng, info):
    if rng.random() < 0.6:
        return info.min, info.max
    return sorted((rng.randint(info.min, info.max), rng.randint(info.min, info.max)))


def random_scales(rng, shape):
    """Normal float32 numbers, and the spread of values that they are good for."""
    exponent = rng.uniform(-37, 36) if rng.random() < 0.5 else rng.uniform(-3, 1)
    scales = (torch.rand(shape) * 2 + 0.5) * 10**exponent
    return scales, min(10 ** (exponent + rng.uniform(0, 2.5)), 1e38)


def zero_points(rng, info, shape):
    return torch.randint(info.min, info.max + 1, shape, dtype=rng.choice([torch.int32, torch.int64]))


def axis_of(rng, shape):
    axis = rng.randrange(len(shape))
    return axis, axis - rng.choice([0, len(shape)])


def qparams(rng, name, info, shape):
    """Scale and zero point arguments (and the axis) of an op, and the spread."""
    if "per_channel" in name:
        axis, spelled = axis_of(rng, shape)
        scales, spread = random_scales(rng, (shape[axis],))
        points = zero_points(rng, info, (shape[axis],))
        return (scales.to(rng.choice([torch.float32, torch.float64])), points, spelled), spread
    if "per_token" in name:
        rows = (*shape[:-1], 1)
        scales, spread = random_scales(rng, rows)
        return (scales, zero_points(rng, info, rows)), spread
    scales, spread = random_scales(rng, (1,))
    point = zero_points(rng, info, (1,))
    if name.endswith(".tensor"):
        return (scales, point), spread
    # A Python float is a double: also one that is no float32.
    scale = scales.item() * rng.choice([1.0, 1.0000000001])
    return (scale, point.item()), spread


def quantize_call(rng, name):
    dtype = rng.choice([U8, S8])
    info = torch.iinfo(dtype)
    shape = random_shape(rng, 0 if "per_tensor" in name else 1)
    params, spread = qparams(rng, name, info, shape)
    return (random_floats(rng, shape, spread), *params, *random_bounds(rng, info), dtype)


def dequantize_call(rng, name):
    dtype = rng.choice([U8, S8])
    shape = random_shape(rng, 0 if "per_tensor" in name else 1)
    params, _ = qparams(rng, name, torch.iinfo(dtype), shape)
    if "per_channel" in name and rng.random() < 0.2:
        params = (params[0], None, params[2])
    q = random_layout(rng, random_int(dtype, *shape))
    return (q, *params, rng.choice([None, torch.float32, torch.bfloat16]))


def quantize_or_dequantize_call(rng, name):
    return (dequantize_call if name.startswith("de") else quantize_call)(rng, name)


def choose_call(rng, symmetric):
    """A finite input whose range is a float32, and the integer range."""
    lo, hi = rng.choice([(-127, 127), (-128, 127), (-7, 7), (-8, 7)] if symmetric else
                        [(0, 255), (-128, 127), (0, 127), (0, 15), (-5, 200)])  # fmt: skip
    shape = random_shape(rng, 1)
    x = torch.randn(shape) * 10 ** rng.uniform(-44, 37)
    if rng.random() < 0.4:
        x = x + rng.choice([-1, 1]) * 10 ** rng.uniform(-6, 6)
    if rng.random() < 0.1:
        x = torch.zeros(shape)
    if rng.random() < 0.2:
        x = x.abs() * rng.choice([-1, 1])
    x = x.clamp(-1.6e38, 1.6e38).to(rng.choice([torch.float32, torch.bfloat16]))
    return random_layout(rng, x), lo, hi, symmetric
