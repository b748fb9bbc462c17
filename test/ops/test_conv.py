"""Convolutions against torch's own in float64, which is exact for these integers."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from op_cases import random_int

ops = torch.ops.torch_ao
F = np.float32
OPS = [(rank, transposed) for transposed in (False, True) for rank in (1, 2, 3)]
CASES = 500  # of each op


def op_name(rank, transposed):
    return f"conv_transpose{rank}d" if transposed else f"conv{rank}d"


def per_output(values, n, rank):
    return values.double().expand(n).reshape(n, *[1] * rank)


def accumulators(rank, transposed, x, zp_x, w, zp_w, groups, **numbers):
    """The exact integer sums: |sum| < 2^53."""
    centred = w.double()
    n = w.shape[1] * groups if transposed else w.shape[0]
    if zp_w is not None:
        if transposed:  # the output channel is dimension 1 inside each group
            zp = zp_w.double().expand(n).reshape(groups, 1, n // groups, *[1] * rank)
            centred = (centred.reshape(groups, -1, *w.shape[1:]) - zp).reshape(w.shape)
        else:
            centred = centred - zp_w.double().expand(n).reshape(n, 1, *[1] * rank)
    x = x.double() - zp_x
    if rank > 1:
        return getattr(functional, op_name(rank, transposed))(x, centred, groups=groups, **numbers)
    # torch is faster in two dimensions
    numbers = {k: [int("padding" not in k), *v] for k, v in numbers.items()}
    op = getattr(functional, op_name(2, transposed))
    return op(x.unsqueeze(2), centred.unsqueeze(2), groups=groups, **numbers).squeeze(2)


def quantized(acc, s_x, s_w, bias, s_y, zp_y, dtype, relu, other=None):
    """design of csrc/engines/linear.h: every step one float32 operation."""
    rank = acc.dim() - 2
    n = acc.shape[1]
    column = (n, *[1] * rank)
    scale = (F(s_x) * np.broadcast_to(s_w.numpy(), (n,))).astype(F).reshape(column)
    r = (acc.numpy().astype(F) * scale).astype(F)
    if bias is not None:
        r = (r + bias.numpy().reshape(column)).astype(F)
    if other is not None:
        data, s_o, zp_o = other
        r = (r + ((data.numpy().astype(np.int64) - zp_o).astype(F) * F(s_o)).astype(F)).astype(F)
    if relu:
        r = np.maximum(r, F(0))
    if dtype == torch.float32:
        return torch.from_numpy(r)
    info = torch.iinfo(dtype)
    q = np.rint((r / F(s_y)).astype(F)).astype(np.float64) + zp_y
    return torch.from_numpy(np.clip(q, info.min, info.max)).to(dtype)


def random_case(rng, rank, transposed):
    groups, ic, oc = rng.choice([
        (1, rng.randint(1, 70), rng.randint(1, 70)),
        (rng.randint(2, 4), rng.randint(1, 9), rng.randint(1, 9)),
        (rng.choice([3, 16, 32, 64, 67, 130]), 1, rng.choice([1, 1, 2])),
    ])  # fmt: skip
    kernel = [rng.choice([1, 2, 3, 3, 5]) for _ in range(rank)]
    numbers = {
        "stride": [rng.choice([1, 1, 2, 3]) for _ in kernel],
        "padding": [rng.randint(0, k) for k in kernel],
        "dilation": [rng.choice([1, 1, 2]) for _ in kernel],
    }
    if transposed:
        numbers["padding"] = [rng.randint(0, k // 2) for k in kernel]
        numbers["output_padding"] = [
            rng.randint(0, max(s, d) - 1) for s, d in zip(numbers["stride"], numbers["dilation"], strict=True)
        ]
    size = [
        max(rng.randint(1, 9), 0 if transposed else (k - 1) * d + 1 - 2 * p)
        for k, d, p in zip(kernel, numbers["dilation"], numbers["padding"], strict=True)
    ]
    if transposed:
        size = [s + 1 for s in size]
    elif rng.random() < 0.2:
        size[-1] += rng.randint(24, 80)  # long lines are read as they lie
        if rank == 2 and rng.random() < 0.3:  # and tall ones
            size.reverse()
            size[1], kernel[1] = 1, 1
            for name, value in (("padding", 0), ("dilation", 1)):
                numbers[name][1] = value
    x = random_int(rng.choice([torch.uint8, torch.int8]), rng.randint(1, 2), groups * ic, *size)
    if rank > 1 and rng.random() < 0.7:
        x = x.contiguous(memory_format=(torch.channels_last, torch.channels_last_3d)[rank - 2])
    shape = (groups * ic, oc) if transposed else (groups * oc, ic)
    return x, random_int(torch.int8, *shape, *kernel), groups, groups * oc, numbers


def run_case(rng, rank, transposed, matches=None):
    """matches: called instead of equality, with what decides about rounding."""
    x, w, groups, n, numbers = random_case(rng, rank, transposed)
    info = torch.iinfo(x.dtype)
    zp_x = rng.choice([info.min, info.max, rng.randint(info.min, info.max)])
    s_w = torch.rand(rng.choice([1, n])) * 0.02 + 1e-4
    zp_w = torch.randint(-128, 128, (rng.choice([1, n]),)) if rng.random() < 0.2 else None
    bias = torch.randn(n) if rng.random() < 0.7 else None
    dtype = rng.choice([torch.uint8, torch.int8, torch.float32])
    s_y, zp_y = (1.0, 0) if dtype == torch.float32 else (rng.choice([0.05, 0.7, 4.0]), rng.randint(0, 100))
    acc = accumulators(rank, transposed, x, zp_x, w, zp_w, groups, **numbers)
    other, residual = None, {}
    if rng.random() < 0.3:
        other = (random_int(torch.uint8, *acc.shape), 0.25, 17)
        residual = dict(zip(("other", "other_scale", "other_zero_point"), other, strict=True))
    relu = rng.random() < 0.5
    names = ",".join(["add"] * (other is not None) + ["relu"] * relu)
    y = getattr(ops, op_name(rank, transposed))(
        x, 0.03, zp_x, w, s_w, zp_w, bias, s_y, zp_y, dtype,
        groups=groups, post_ops=names, **numbers, **residual,
    )  # fmt: skip
    expected = quantized(acc, 0.03, s_w, bias, s_y, zp_y, dtype, relu, other)
    if matches is None:
        right = torch.equal(y, expected)
    else:
        right = matches(y, expected, acc, 0.03, s_w, bias, s_y)
    assert right, (x.shape, x.dtype, w.shape, groups, numbers, names)
    if rank == 2:
        assert y.is_contiguous(memory_format=torch.channels_last)
    elif rank == 3:
        assert y.is_contiguous(memory_format=torch.channels_last_3d)
    else:
        assert y.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize(("rank", "transposed"), OPS)
def test_random_cases_are_exact(rank, transposed):
    torch.manual_seed(rank)
    rng = random.Random(f"{rank} {transposed}")
    for _ in range(CASES):
        run_case(rng, rank, transposed)


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize(("rank", "transposed"), OPS)
def test_each_engine_is_exact(rank, transposed, engine):
    torch.manual_seed(7)
    rng = random.Random(engine)
    ops._set_engine(engine)
    try:
        for _ in range(20):
            run_case(rng, rank, transposed)
    finally:
        ops._set_engine("")


def test_threads_give_the_same_integers(on_threads):
    x, scale = random_int(torch.int8, 2, 64, 20, 20), torch.tensor([0.01])
    dense, depthwise = random_int(torch.int8, 70, 64, 3, 3), random_int(torch.int8, 64, 1, 3, 3)
    on_threads(lambda: ops.conv2d(x, 0.1, 3, dense, scale, None, None, 2.0, 5))
    on_threads(lambda: ops.conv2d(x, 0.1, 3, depthwise, scale, None, None, 2.0, 5, groups=64))


def test_extreme_values_do_not_saturate_inside():
    x = torch.full((1, 64, 5, 5), 255, dtype=torch.uint8)
    w = torch.full((3, 64, 3, 3), -128, dtype=torch.int8)
    y = ops.conv2d(x, 1.0, 0, w, torch.tensor([1.0]), None, None, 1.0, 0, torch.float32)
    assert (y == -255.0 * 128 * 64 * 9).all()
    w = torch.full((64, 1, 3, 3), -128, dtype=torch.int8)
    y = ops.conv2d(x, 1.0, 0, w, torch.tensor([1.0]), None, None, 1.0, 0, torch.float32, groups=64)
    assert (y == -255.0 * 128 * 9).all()


def call(x_shape, w_shape, op="conv2d", **keywords):
    x, w = torch.zeros(x_shape, dtype=torch.uint8), torch.zeros(w_shape, dtype=torch.int8)
    return getattr(ops, op)(x, 0.1, 0, w, torch.tensor([1.0]), None, None, 1.0, 0, **keywords)


@pytest.mark.parametrize(
    ("argument", "x_shape", "w_shape", "keywords"),
    [
        ("stride", (1, 2, 5, 5), (2, 2, 3, 3), {"stride": [0, 1]}),
        ("padding", (1, 2, 5, 5), (2, 2, 3, 3), {"padding": [-1, 0]}),
        ("dilation", (1, 2, 5, 5), (2, 2, 3, 3), {"dilation": [1, 0]}),
        ("dilation", (1, 2, 5, 5), (2, 2, 3, 3), {"dilation": [1, 1, 1]}),
        ("groups", (1, 2, 5, 5), (2, 2, 3, 3), {"groups": 0}),
        ("groups", (1, 4, 5, 5), (3, 2, 3, 3), {"groups": 2}),
        ("weight", (1, 2, 5, 5), (2, 2, 0, 3), {}),
        ("weight", (1, 2, 5, 5), (2, 2, 3), {}),
        ("input", (1, 3, 5, 5), (2, 2, 3, 3), {}),
        ("input", (1, 2, 2, 5), (2, 2, 3, 3), {}),
        ("input", (1, 2, 0, 5), (2, 2, 3, 3), {"padding": [2, 2]}),
        ("input", (2, 5, 5), (2, 2, 3, 3), {}),
    ],
)
def test_where_the_float_op_raises_ours_raises(argument, x_shape, w_shape, keywords):
    with pytest.raises(ValueError, match=f"torch_ao::conv2d: argument '{argument}' must"):
        call(x_shape, w_shape, **keywords)
    with pytest.raises(ValueError, match=f"torch_ao::conv2d: argument '{argument}' must"):
        meta = torch.zeros(x_shape, dtype=torch.uint8, device="meta")
        w = torch.zeros(w_shape, dtype=torch.int8, device="meta")
        s = torch.ones(1, device="meta")
        ops.conv2d(meta, 0.1, 0, w, s, None, None, 1.0, 0, **keywords)


def test_transposed_output_padding_is_checked():
    with pytest.raises(ValueError, match="argument 'output_padding' must"):
        call((1, 2, 5, 5), (2, 2, 3, 3), "conv_transpose2d", stride=[2, 2], output_padding=[2, 0])
    with pytest.raises(ValueError, match="argument 'input' must"):
        call((1, 2, 1, 1), (2, 2, 1, 1), "conv_transpose2d", padding=[1, 1])


DILATED = "'dilation' must give a dilated kernel of at most 2\\^60"
FAR = "'input' must have at most 2\\^60 in each spatial dimension"
FAR_OUTPUT = "'input' must give an output of at most 2\\^60"


@pytest.mark.parametrize(
    ("op", "x_shape", "w_shape", "keywords", "message"),
    [
        # What the kernel reaches would be 2^63, 2^64 (0 in 64 bits) and 2^60.
        ("conv1d", (1, 2, 9), (3, 2, 2**33 + 1), {"dilation": [2**30]}, DILATED),
        ("conv1d", (1, 2, 9), (3, 2, 2**34 + 1), {"dilation": [2**30]}, DILATED),
        ("conv1d", (1, 2, 9), (3, 2, 2**30 + 1), {"dilation": [2**30]}, DILATED),
        ("conv1d", (1, 1, 2**60 + 1), (3, 1, 1), {}, FAR),
        ("conv_transpose1d", (1, 1, 2**60 + 1), (1, 3, 1), {}, FAR),
        ("conv_transpose1d", (1, 1, 2**31), (1, 3, 1), {"stride": [2**30]}, FAR_OUTPUT),
    ],
)
def test_positions_beyond_any_memory(op, x_shape, w_shape, keywords, message):
    x = torch.zeros(1, dtype=torch.uint8).expand(x_shape)
    w = torch.zeros(1, dtype=torch.int8).expand(w_shape)
    with pytest.raises(ValueError, match=f"torch_ao::{op}: argument {message}"):
        getattr(ops, op)(x, 0.1, 0, w, torch.ones(1), None, None, 1.0, 0, **keywords)


@pytest.mark.parametrize("op", ["conv1d", "conv2d", "conv3d"])
def test_published_names_are_the_base_op(op):
    rank = int(op[4])
    x, w = random_int(torch.uint8, 2, 4, *[5] * rank), random_int(torch.int8, 4, 2, *[3] * rank)
    call = (x, 0.1, 7, w, torch.rand(4) * 0.1, None, torch.randn(4), 0.3, 9, torch.int8)
    numbers = {"stride": [2] * rank, "padding": [1] * rank, "groups": 2}
    base = getattr(ops, op)
    y = base(*call, **numbers, post_ops="relu")
    assert torch.equal(getattr(ops, f"{op}_relu")(*call, **numbers), y)
    assert ops._pack_count(w) == 1
    if rank == 2:
        other = {"other": random_int(torch.int8, *y.shape), "other_scale": 0.2, "other_zero_point": -3}
        for post_ops in ("add", "add,relu"):
            y = base(*call, **numbers, **other, post_ops=post_ops)
            fused = getattr(ops, "conv2d_" + post_ops.replace(",", "_"))
            assert torch.equal(fused(*call, **other, **numbers), y)
        assert ops._pack_count(w) == 3
