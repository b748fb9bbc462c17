"""Convolutions that quantize their input: ranges by op_reference.py, sums in float64, which is exact."""

import random

import numpy as np
import op_reference as reference
import pytest
import torch
from test_conv import OPS, accumulators, op_name, random_case
from test_conv_engines import LACKS

ops = torch.ops.torch_ao
F = np.float32
CASES = 500  # of each op


def name_of(rank, transposed):
    return f"{op_name(rank, transposed)}_dynamic"


def formula(rank, transposed, x, w, s_w, zp_w, bias, rule, dtype, groups, relu, other, numbers):
    """csrc/engines/linear.h with an image in the place of a row; every step one float32 operation."""
    per_sample, symmetric, reduce_range = rule
    lo, hi = reference.dynamic_range(symmetric, reduce_range)
    choose = reference.row_qparams if per_sample else reference.tensor_qparams
    values = reference.to_numpy(x)
    parts = []
    for image in values[:, None] if per_sample else [values]:
        scale, zero_point = choose(image.min(), image.max(), symmetric, lo, hi)
        q = torch.from_numpy(reference.quantize(image, F(1) / scale, zero_point, lo, hi))
        acc = accumulators(rank, transposed, q, zero_point, w, zp_w, groups, **numbers).numpy()
        column = (1, acc.shape[1], *[1] * rank)
        scales = (scale * np.broadcast_to(s_w.numpy(), acc.shape[1:2])).astype(F).reshape(column)
        parts.append((acc.astype(F) * scales).astype(F))
    r = np.concatenate(parts)
    if bias is not None:
        r = (r + bias.numpy().reshape(column)).astype(F)
    if other is not None:
        r = (r + reference.to_numpy(other)).astype(F)
    return torch.from_numpy(np.maximum(r, F(0)) if relu else r).to(dtype)


def run_case(rng, rank, transposed):
    x, w, groups, n, numbers = random_case(rng, rank, transposed)
    x = torch.empty_like(x, dtype=torch.float32).copy_((x.float() + rng.choice([-128, 0, 40])) * 0.03)
    x += torch.rand_like(x) * 0.03
    x[-1] *= rng.choice([1.0, 0.01, 30.0])
    x = x.to(rng.choice([torch.float32, torch.float32, torch.bfloat16]))
    rule = (rng.random() < 0.6, rng.random() < 0.4, rng.random() < 0.3)
    s_w = torch.rand(rng.choice([1, n])) * 0.02 + 1e-4
    zp_w = torch.randint(-128, 128, (rng.choice([1, n]),)) if rng.random() < 0.2 else None
    bias = torch.randn(n) if rng.random() < 0.7 else None
    dtype, relu = rng.choice([None, torch.float32, torch.bfloat16]), rng.random() < 0.5
    name, other = name_of(rank, transposed), None
    if rng.random() < 0.3:
        shape = getattr(ops, name)(x, w, s_w, groups=groups, **numbers).shape
        other = torch.randn(shape).to(rng.choice([torch.float32, torch.bfloat16]))
    post_ops = ",".join(["add"] * (other is not None) + ["relu"] * relu)
    y = getattr(ops, name)(
        x, w, s_w, zp_w, bias, *rule, dtype, groups=groups, post_ops=post_ops, other=other, **numbers
    )
    expected = formula(
        rank, transposed, x, w, s_w, zp_w, bias, rule, dtype or x.dtype, groups, relu, other, numbers
    )
    assert torch.equal(y, expected), (x.shape, x.dtype, w.shape, groups, numbers, rule, post_ops)
    assert y.movedim(1, -1).is_contiguous()


@pytest.mark.parametrize(("rank", "transposed"), OPS)
def test_random_cases_are_exact(rank, transposed):
    torch.manual_seed(rank)
    rng = random.Random(f"{rank} {transposed} dynamic")
    for _ in range(CASES):
        run_case(rng, rank, transposed)


@pytest.mark.parametrize("engine", ["native", "onednn", "reference"])
@pytest.mark.parametrize(("rank", "transposed"), OPS)
def test_each_engine_is_exact(rank, transposed, engine, forced):
    torch.manual_seed(7)
    rng = random.Random(engine)
    done, cases = 0, 50 if engine == "onednn" else 20
    forced(engine)
    for _ in range(8 * cases):
        try:
            run_case(rng, rank, transposed)
            done += 1
        except NotImplementedError as error:
            reason = str(error).splitlines()[-1].strip()
            if not any(reason.startswith(f"{engine}: {lack}") for lack in LACKS.get(engine, ())):
                raise
        if done == cases:
            return
    pytest.fail(f"{engine} took {done} of {8 * cases} cases")


def test_xnnpack_refuses_by_name(forced):
    forced("xnnpack")
    with pytest.raises(NotImplementedError, match="xnnpack: has no convolutions of float inputs"):
        ops.conv2d_dynamic(torch.ones(1, 2, 3, 3), torch.ones(1, 2, 1, 1, dtype=torch.int8), torch.ones(1))


@pytest.mark.parametrize("per_sample", [True, False])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_give_nan_in_their_sample(bad, per_sample):
    """The samples are smaller than a block of the range search, and larger."""
    for size in (5, 150):
        x = torch.randn(3, 2, size, size)
        w, s = torch.randint(-128, 128, (4, 2, 3, 3), dtype=torch.int8), torch.rand(4) * 0.01
        clean = ops.conv2d_dynamic(x, w, s, per_sample=per_sample)
        x[1, 1, -1, 2] = bad
        y = ops.conv2d_dynamic(x, w, s, per_sample=per_sample, post_ops="relu")
        hit = y.isnan().flatten(1)
        if per_sample:
            assert hit[1].all() and not hit[0].any() and not hit[2].any()
            assert torch.equal(y[::2], clean[::2].relu())
        else:
            assert hit.all()


def test_a_sample_does_not_depend_on_its_batch_or_layout():
    x = torch.randn(4, 6, 20, 40) * torch.tensor([0.01, 1.0, 100.0, 3.0]).reshape(4, 1, 1, 1)
    w, s = torch.randint(-128, 128, (8, 6, 3, 3), dtype=torch.int8), torch.rand(8) * 0.01 + 0.001
    y = ops.conv2d_dynamic(x, w, s, padding=1)
    for i in range(4):
        assert torch.equal(y[i : i + 1], ops.conv2d_dynamic(x[i : i + 1], w, s, padding=1))
    channels_last = x.contiguous(memory_format=torch.channels_last)
    strided = torch.randn(4, 6, 40, 40)[..., ::2].copy_(x.transpose(2, 3)).transpose(2, 3)
    for same in (channels_last, strided, x.transpose(0, 1).contiguous().transpose(0, 1)):
        assert torch.equal(ops.conv2d_dynamic(same, w, s, padding=1), y)


def test_threads_give_the_same_bits(on_threads):
    x, s = torch.randn(3, 64, 30, 30), torch.tensor([0.01])
    w = torch.randint(-128, 128, (70, 64, 3, 3), dtype=torch.int8)
    on_threads(lambda: ops.conv2d_dynamic(x, w, s, per_sample=True))
    on_threads(lambda: ops.conv2d_dynamic(x, w, s, per_sample=False))


def test_packed_once_for_all_ranges():
    w, s = torch.randint(-128, 128, (8, 6, 3, 3), dtype=torch.int8), torch.rand(8) * 0.01 + 0.001
    for factor in (0.01, 1.0, 100.0):
        for rule in ((True, False, False), (False, True, False), (True, False, True)):
            ops.conv2d_dynamic(torch.randn(2, 6, 9, 9) * factor, w, s, None, None, *rule)
            ops.conv2d_dynamic(torch.randn(1, 6, 5, 30).bfloat16(), w, s, None, None, *rule, torch.float32)
    assert ops._pack_count(w) == 1


@pytest.mark.parametrize(
    ("argument", "error", "change"),
    [
        ("input", TypeError, {"input": torch.ones(1, 2, 5, 5, dtype=torch.uint8)}),
        ("input", ValueError, {"input": torch.ones(2, 5, 5)}),
        ("input", ValueError, {"input": torch.ones(1, 3, 5, 5)}),
        ("input", ValueError, {"input": torch.ones(1, 2, 2, 5)}),
        ("weight", TypeError, {"weight": torch.ones(4, 2, 3, 3)}),
        ("weight_scale", ValueError, {"weight_scale": torch.tensor([0.0])}),
        ("output_dtype", TypeError, {"output_dtype": torch.int8}),
        ("stride", ValueError, {"stride": [0, 1]}),
        ("groups", ValueError, {"groups": 3}),
        ("post_ops", ValueError, {"post_ops": "softmax"}),
        ("other", ValueError, {"post_ops": "add"}),
        ("other", TypeError, {"post_ops": "add", "other": torch.ones(1, 4, 3, 3, dtype=torch.int8)}),
    ],
)
def test_messages(argument, error, change):
    call = {
        "input": torch.ones(1, 2, 5, 5),
        "weight": torch.ones(4, 2, 3, 3, dtype=torch.int8),
        "weight_scale": torch.tensor([0.1]),
        **change,
    }
    with pytest.raises(error, match=f"torch_ao::conv2d_dynamic: argument '{argument}' must"):
        ops.conv2d_dynamic(**call)
    if argument != "weight_scale":  # a value
        meta = {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in call.items()}
        with pytest.raises(error, match=f"torch_ao::conv2d_dynamic: argument '{argument}' must"):
            ops.conv2d_dynamic(**meta)
