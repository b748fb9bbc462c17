"""Cases of tables, arithmetic, pooling, norms and functions of one value: (args, kwargs)."""

import torch
from fake_values import floats, s8, u8

ops = torch.ops.torch_ao


def tables(rows, dim):
    for bits in (8, 4, 2):
        yield ops.embedding_prepack(floats(rows, dim), bits), bits


def embedding_cases():
    mapping = torch.tensor([2, -1, 0, 5], dtype=torch.int32)
    for table, bits in tables(6, 9):
        yield (table, torch.randint(6, (2, 3)), bits, 9), {}
        yield (table, torch.randint(4, (0,)), bits), {"mapping": mapping, "output_dtype": torch.bfloat16}
        yield (table, torch.tensor(3, dtype=torch.int32), bits), {"embedding_dim": 9}


def bag_cases():
    indices, offsets = torch.randint(6, (7,)), torch.tensor([0, 3, 3, 7])
    for table, bits in tables(6, 9):
        yield (table, indices, offsets, bits, 9), {"per_sample_weights": torch.rand(7)}
        options = {"include_last_offset": True, "padding_idx": -1}
        yield (table, indices, offsets.int(), bits, 9, "mean"), options
        yield (table, torch.randint(6, (3, 2)), None, bits), {"mode": "max", "output_dtype": torch.bfloat16}


def unpack_cases():
    for table, bits in tables(6, 9):
        yield (table, bits), {}
        yield (table, bits, 9, torch.bfloat16), {}


def binary_cases():
    for out in ((0.2, 4, None), (1.0, 0, torch.bfloat16)):
        yield (u8(2, 3, 4, 5), 0.1, 3, s8(2, 3, 4, 5), 0.1, -3, *out), {"post_ops": "relu"}
        yield (u8(4, 1, 3), 0.1, 3, s8(5, 1), 0.1, -3, *out), {}
        nhwc = u8(2, 3, 4, 5).to(memory_format=torch.channels_last)
        yield (nhwc, 0.1, 3, u8(1), 0.1, 3, *out), {}
        yield (s8(0, 4), 0.1, 3, s8(0, 4)[:, :1], 0.1, 3, *out), {}


def pool_cases(rank, kind):
    size = (5, 6, 7)[:rank]
    out = () if kind == "max" else (0.1, 3, 0.2, 4, None)
    real = () if kind == "max" else (0.1, 3, 1.0, 0, torch.bfloat16)
    inputs = (u8(2, 3, *size), s8(1, *size, 17).movedim(-1, 1), u8(0, 3, *size))
    for x in inputs:
        if kind == "adaptive":
            yield (x, *out, [2] * rank), {}
            yield (x, *real, [1] * rank), {}
        else:
            yield (x, *out, [2] * rank), {}
            yield (x, *real, [3] * rank), {"stride": [2] * rank, "padding": [1] * rank, "ceil_mode": True}


def row_norm_cases(name):
    """layer_norm, rms_norm and those with a sum, which has one operand more."""
    for x, point in ((u8(2, 3, 8), 3), (s8(4, 8).t().contiguous().t(), -3), (floats(5, 8), 0), (u8(0, 8), 3)):
        scale = 1.0 if x.is_floating_point() else 0.1
        other = (floats(*x.shape), 1.0, 0) if "add" in name else ()
        tensors = (floats(8),) if name == "rms_norm" else (floats(8), None)
        yield (x, scale, point, *other, *tensors, 0.2, 4, torch.uint8, [8]), {}
        none = (None,) * len(tensors)
        yield (x, scale, point, *other, *none, 1.0, 0, torch.bfloat16, [8], 1e-3), {"post_ops": "relu"}


def channel_norm_cases(name):
    nhwc = u8(2, 4, 5, 6).to(memory_format=torch.channels_last)
    for x in (u8(2, 4, 5, 6), nhwc, s8(2, 4, 9)[:, :, ::2], u8(0, 4, 3)):
        statistics = (floats(4), torch.rand(4)) if name == "batch_norm" else ()
        groups = (2,) if name == "group_norm" else ()
        yield (x, 0.1, 3, *statistics, floats(4), None, 0.2, 4, None, *groups), {}
        yield (x, 0.1, 3, *statistics, None, floats(4), 1.0, 0, torch.bfloat16, *groups, 1e-3), {}
    if name == "batch_norm":
        yield (floats(2, 4, 3), 1.0, 0, *statistics, None, None, 0.2, 4, torch.int8), {"post_ops": "relu"}


def contiguous_cases():
    for x in (u8(2, 4, 5), s8(4, 6).t(), u8(0, 4, 2, 2), s8(), floats(2, 3).bfloat16()):
        yield (x,), {}
    yield (floats(2, 4, 5, 6).to(memory_format=torch.channels_last),), {}


def lookup_cases():
    for x in (u8(2, 4, 5), s8(4, 6).t(), u8(0, 4), s8()):
        yield (x, u8(256)), {}
        yield (x, floats(256).bfloat16()), {}
    yield (u8(2, 4, 5), s8(4, 256)), {}
    yield (s8(2, 3, 4).transpose(1, 2), floats(3, 256)), {"axis": -1}


def interpolate_cases():
    nhwc = u8(2, 4, 5, 6).to(memory_format=torch.channels_last)
    for x in (u8(2, 4, 5, 6), nhwc, s8(0, 4, 3, 3)):
        yield (x, 0.1, 3, 0.2, 4, None, [3, 7], "bilinear"), {"align_corners": True}
        yield (x, 0.1, 3, 1.0, 0, torch.bfloat16, [3, 7]), {"scale_factors": [0.6, 1.2]}
    yield (u8(2, 4, 5), 0.1, 3, 0.1, 3, None, [10]), {}
    yield (s8(1, 2, 3, 4, 5), 0.1, 3, 0.1, 3, None, [3, 8, 2]), {}
