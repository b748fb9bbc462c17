"""Cases of quantize, dequantize and choose_qparams: (args, kwargs)."""

import torch
from fake_values import LAYOUTS, floats, s8, u8


def formats(values):
    """(tensor, memory_format)."""
    last = torch.channels_last
    image = values(2, 3, 4, 5)
    others = (values(1, 3, 1, 5), values(0, 3, 4, 5))
    for x in (image, image.to(memory_format=last), image.transpose(0, 3), *others):
        for format in (torch.contiguous_format, torch.preserve_format, last):
            yield x, {"memory_format": format}
    for x in (values(2, 3, 4), values(2, 5, 4).transpose(1, 2), values(2, 3, 4, 5, 6)):
        yield x, {"memory_format": last}
        yield x, {"memory_format": torch.contiguous_format}
    yield values(2, 3, 4, 5, 6), {"memory_format": torch.channels_last_3d}
    yield values(4), {"memory_format": torch.contiguous_format}


def quantize_tensor_cases():
    for shape in LAYOUTS:
        yield (floats(*shape), 0.1, 3, 0, 255, torch.uint8), {}
        x = floats(*shape).bfloat16()
        yield (x.t() if len(shape) == 2 else x, 0.1, 0, -127, 127, torch.int8), {}
    yield (floats(2, 3, 4, 5).to(memory_format=torch.channels_last), 0.1, 3, 0, 255, torch.uint8), {}
    yield (floats(6, 8)[::2, 1:], 0.1, 3, 0, 255, torch.uint8), {}
    for x, named in formats(floats):
        yield (x, 0.1, 3, 0, 255, torch.uint8), named


def qparam_tensors(cases):
    for (x, scale, point, *rest), kwargs in cases:
        yield (x, torch.tensor([scale]), torch.tensor(point), *rest), kwargs


def dequantize_tensor_cases():
    for shape in LAYOUTS:
        yield (u8(*shape), 0.1, 3), {}
        yield (s8(*shape), 0.1, 3, torch.bfloat16), {}
    yield (s8(0, 8).t(), 0.1, 3), {}
    yield (s8(2, 3, 4, 5).to(memory_format=torch.channels_last), 0.1, 3), {}
    for x, named in formats(s8):
        yield (x, 0.1, 3), named


def channel_cases(dequantize=False):
    for axis in (0, 1, -1, -3):
        x = floats(3, 4, 5).transpose(0, 1) if axis == 1 else floats(3, 4, 5)
        count = x.shape[axis]
        scales, points = torch.rand(count) + 0.1, torch.randint(-9, 9, (count,))
        if dequantize:
            yield (s8(*x.shape), scales, None if axis == 0 else points, axis), {}
        else:
            yield (x, scales.double(), points, axis, -128, 127, torch.int8), {}


def token_cases(dequantize=False):
    for shape in LAYOUTS:
        rows = (*shape[:-1], 1)
        scales, points = torch.rand(rows) + 0.1, torch.randint(0, 9, rows)
        if dequantize:
            yield (u8(*shape), scales, points), {"output_dtype": torch.bfloat16}
        else:
            yield (floats(*shape), scales, points, 0, 255, torch.uint8), {}
    x = floats(8, 6).t()
    yield (u8(8, 6).t() if dequantize else x, torch.ones(6, 1), torch.zeros(6, 1, dtype=torch.int32),
           *(() if dequantize else (0, 255, torch.uint8))), {}  # fmt: skip


def choose_cases(per_token=False):
    for shape in [(4, 8), (2, 3, 8), (7,)] + ([(0, 8)] if per_token else []):
        yield (floats(*shape), 0, 255), {}
        yield (floats(*shape).bfloat16(), -127, 127), {"symmetric": True}
