"""The same call at other sizes: shapes for every op from its samples alone.

A size that occurs in several tensors of a call (K of input and weight, N of weight and
bias) is replaced in all of them. Sizes 0 and 1 have a meaning of their own and stay.
"""

import math

import torch
from op_samples import SIZED

MOST_ELEMENTS = 1 << 24  # of a tensor that is read as a whole
EDGES = (1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 130)


def is_tensor(value):
    return isinstance(value, torch.Tensor)


def readable(t):
    """Small and readable: not meta, not sparse, not shrunken, not a repetition beyond memory."""
    return (
        t.layout is torch.strided and t.device.type == "cpu" and not t.is_nested and not t.is_quantized
        and t.numel() < MOST_ELEMENTS and extent(t) <= t.untyped_storage().nbytes()
    )  # fmt: skip


def extent(t):
    if t.numel() == 0:
        return 0
    last = t.storage_offset() + sum((s - 1) * st for s, st in zip(t.shape, t.stride(), strict=True))
    return (last + 1) * t.element_size()


def with_sizes(t, sizes):
    """A contiguous tensor of these sizes with the values of t, repeated."""
    count = math.prod(sizes)
    flat = t.detach().reshape(-1)
    if flat.numel() == 0:
        return t.new_zeros(sizes)
    return flat.repeat(-(-count // flat.numel()))[:count].reshape(sizes)


def resized(call, rng, choices=EDGES):
    """The call with its sizes replaced; it may be an invalid call when sizes depend on each other."""
    if not all(readable(t) for t in call if is_tensor(t)):
        return call
    distinct = {d for t in call if is_tensor(t) for d in t.shape if d > 1}
    if rng.random() < 0.3:  # keeps every ratio: K and the K/2 bytes of packed nibbles
        factor = rng.choice((1, 2, 3, 5, 11))
        new = {d: d * factor for d in distinct}
    else:
        new = {d: rng.choice(choices) if rng.random() < 0.8 else d for d in distinct}
    sizes = [[new.get(d, d) for d in a.shape] for a in call if is_tensor(a)]
    # Several spatial dimensions: the work is the product of the tensors' sizes.
    spatial = any(len(s) >= 4 for s in sizes)
    counts = sorted(math.prod(s) for s in sizes)
    if counts and counts[-1] > 1 << (14 if spatial else 20):
        return call
    if spatial and math.prod(counts[-2:]) > 1 << 20:
        return call
    return tuple(with_sizes(a, [new.get(d, d) for d in a.shape]) if is_tensor(a) else a for a in call)


def another_size(name, given, rng, choices=EDGES):
    """A call of the op at other sizes than its samples `given`."""
    if name in SIZED:
        return rng.choice(SIZED[name](rng.choice(choices), rng.choice(choices)))
    return resized(rng.choice(given), rng, choices)
