"""Results of 1 MB and more, whose memory is kept for the next ones, are those of their parts.

On 1, 2 and 3 threads; each operator takes the ways of large and of small work.
"""

import functools

import pytest
import torch
from op_cases import random_int

ops = torch.ops.torch_ao
U8, S8 = torch.uint8, torch.int8


def _image(dtype, *sizes):
    return random_int(dtype, *sizes).to(memory_format=torch.channels_last)


def _norm(n):
    return {"weight": torch.rand(n) + 0.5, "bias": torch.randn(n), "output_dtype": None}


def _product(n, *kernel):
    """What follows input, its scale and its zero point; post-ops."""
    constants = (random_int(S8, n, *kernel), torch.rand(n) * 0.01 + 1e-3, None, torch.randn(n))
    vectors = {"affine_weight": torch.randn(n), "affine_bias": torch.randn(n)}
    return constants, {"post_ops": "relu,affine", **vectors}


def _linear(rows, n, k, output):
    constants, post = _product(n, k)
    return (random_int(U8, rows, k),), lambda x: ops.linear(x, 0.02, 3, *constants, *output, **post)


SUM = {"output_scale": 0.4, "output_zero_point": 5, "output_dtype": U8, "post_ops": "add,relu"}
RESIDUAL = {"other_scale": 0.3, "other_zero_point": 4}


def _residual(dtype, rows, n, k):
    constants, _ = _product(n, k)
    return (random_int(U8, rows, k), random_int(dtype, rows, n)), lambda x, other: ops.linear(
        x, 0.02, 3, *constants, **SUM, other=other, **RESIDUAL
    )


def _conv_residual(images, channels, size):
    constants, _ = _product(channels, channels, 3, 3)
    named = {"padding": [1, 1], **SUM, **RESIDUAL}
    sizes = (images, channels, size, size)
    return (_image(U8, *sizes), _image(S8, *sizes)), lambda x, other: ops.conv2d(
        x, 0.02, 3, *constants, other=other, **named
    )


def _multiplier(images, channels, times, size):
    constants, _ = _product(channels * times, 1, 3, 3)
    named = {"output_scale": 0.4, "output_zero_point": 5, "padding": [1, 1], "groups": channels}
    return (_image(U8, images, channels, size, size),), lambda x: ops.conv2d(x, 0.02, 3, *constants, **named)


def _conv(op, images, channels, size):
    constants, post = _product(channels, channels, 3, 3)
    named = {"output_scale": 0.4, "output_zero_point": 5, "padding": [1, 1], **post}
    return (_image(U8, images, channels, size, size),), lambda x: op(x, 0.02, 3, *constants, **named)


def _lookup(rows, columns):
    table = random_int(S8, 256)
    return (random_int(U8, rows, columns),), lambda x: ops.lookup(x, table)


def _group_norm():
    numbers = _norm(80)
    return (_image(U8, 19, 80, 28, 28),), lambda x: ops.group_norm(
        x, 0.05, 130, output_scale=0.03, output_zero_point=120, num_groups=8, **numbers
    )


def _batch_norm():
    numbers = {"running_mean": torch.randn(67), "running_var": torch.rand(67) + 0.1, **_norm(67)}
    return (_image(S8, 23, 67, 30, 30),), lambda x: ops.batch_norm(
        x, 0.05, 3, output_scale=0.03, output_zero_point=-9, **numbers
    )


def _layer_norm(rows, columns, dtype):
    numbers = _norm(columns) | {"output_dtype": dtype}
    scale = 1.0 if dtype is torch.float32 else 0.03
    return (random_int(U8, rows, columns),), lambda x: ops.layer_norm(
        x, 0.05, 130, output_scale=scale, output_zero_point=0, normalized_shape=[columns], **numbers
    )


# (tensors with a common first dimension, their operator)
CALLS = {
    "relu": lambda: ((random_int(U8, 97, 12001),), lambda x: ops.requantize(x, 0.1, 9, 0.1, 9, None, "relu")),
    "relu past the caches": lambda: (
        (random_int(U8, 67, 1 << 19),), lambda x: ops.requantize(x, 0.1, 9, 0.1, 9, None, "relu")
    ),
    "lookup": lambda: _lookup(97, 12001),
    "add": lambda: (
        (random_int(U8, 61, 40000), random_int(S8, 61, 40000)),
        lambda a, b: ops.add(a, 0.1, 9, b, 0.2, -3, 0.25, 7, U8, "relu"),
    ),
    "max_pool2d": lambda: (
        (_image(S8, 17, 65, 73, 73),), lambda x: ops.max_pool2d(x, [3, 3], [2, 2], [1, 1])
    ),
    "layer_norm": lambda: _layer_norm(1501, 768, U8),
    "layer_norm of short rows": lambda: _layer_norm(40001, 33, S8),
    "layer_norm to float": lambda: _layer_norm(601, 768, torch.float32),
    "group_norm": _group_norm,
    "batch_norm": _batch_norm,
    "linear": lambda: _linear(1037, 1030, 70, (0.4, 5, U8)),
    "linear to float": lambda: _linear(4100, 130, 70, (1.0, 0, torch.float32)),
    "8 sums": lambda: _residual(U8, 140001, 8, 7),
    "16 sums": lambda: _residual(S8, 70003, 16, 33),
    "24 sums": lambda: _residual(S8, 50003, 24, 33),
    "24 sums of few products": lambda: _residual(U8, 50003, 24, 3),
    "32 sums": lambda: _residual(U8, 40001, 32, 64),
    "64 sums": lambda: _residual(U8, 20001, 64, 130),
    "64 sums of few products": lambda: _residual(S8, 20001, 64, 9),
    "160 sums": lambda: _residual(U8, 7001, 160, 65),
    "conv2d and 24 sums": lambda: _conv_residual(19, 24, 56),
    "conv2d and 64 sums": lambda: _conv_residual(19, 64, 30),
    "three outputs of each channel": lambda: _multiplier(19, 8, 3, 56),
    "conv2d": lambda: _conv(ops.conv2d, 19, 24, 56),
    "conv_transpose2d": lambda: _conv(ops.conv_transpose2d, 19, 24, 56),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_parts(name, on_threads):
    torch.manual_seed(0)
    tensors, run = CALLS[name]()
    y = on_threads(functools.partial(run, *tensors))
    assert y.nbytes >= 1 << 20
    count = -(-len(y) // (3 * (y.nbytes >> 20) + 1))  # parts of less than 1 MB
    parts = [run(*(t[i : i + count] for t in tensors)) for i in range(0, len(y), count)]
    assert max(p.nbytes for p in parts) < 1 << 20
    assert torch.equal(y, torch.cat(parts))
