"""matmul of two activations against an exact formula, on every engine."""

import itertools
import random

import pytest
import torch
from attention_samples import matmul as formula
from attention_samples import matmul_calls
from op_cases import SIZES, random_int

import torch_ao_ext

ops = torch.ops.torch_ao
U8, S8, F32 = torch.uint8, torch.int8, torch.float32


@pytest.fixture(params=["native", "reference"])
def engine(request):
    torch_ao_ext.set_engine(request.param)
    yield request.param
    torch_ao_ext.set_engine("")


def test_samples(engine):
    for args in matmul_calls():
        expected = formula(args)
        if expected is not None:
            actual = ops.matmul(*args)
            assert actual.is_contiguous() and torch.equal(actual, expected), args[1:]


def _matrix(rng, dtype, batch, rows, columns):
    """Full range, in one of the orders that attention gives."""
    kind = rng.randint(0, 3)
    if kind == 0:
        return random_int(dtype, *batch, rows, columns)
    if kind == 1:
        return random_int(dtype, *batch, columns, rows).transpose(-1, -2)
    if kind == 2:  # part of wider rows
        return random_int(dtype, *batch, rows, columns + 5)[..., 3 : 3 + columns]
    return random_int(dtype, *batch[:-1], rows, *batch[-1:], columns).movedim(-2, -3) if batch else (
        random_int(dtype, 2 * rows, columns)[::2]
    )  # fmt: skip


def test_random_cases(engine):
    rng = random.Random(3)
    torch.manual_seed(3)
    native = engine == "native"
    for case in range(300 if native else 60):
        m, n, k = (rng.choice(SIZES if native else SIZES[:11]) for _ in range(3))
        if native and case % 20 == 0:
            k = rng.choice([1030, 4100])
        batch = rng.choice([(), (3,), (2, 3)])
        other_batch = rng.choice([batch, batch[1:], (1,) * len(batch), ()])
        dtypes = [rng.choice([U8, S8]) for _ in range(3)]
        points = [rng.choice([-128, 0, 127, rng.randint(-128, 127)]) + 128 * (d == U8) for d in dtypes]
        a, b = _matrix(rng, dtypes[0], batch, m, k), _matrix(rng, dtypes[1], other_batch, k, n)
        if rng.random() < 0.3:  # ends of the ranges: the largest sums
            a, b = a.fill_(torch.iinfo(dtypes[0]).max), b.fill_(torch.iinfo(dtypes[1]).min)
        post = rng.choice([("", []), ("relu", []), ("clamp", [-0.5, 6.0])])
        out = rng.choice([(1.0, 0, F32), (rng.choice([0.004, 0.1, 30.0]), points[2], dtypes[2])])
        call = (a, 0.1, points[0], b, 0.03, points[1], *out, *post)
        assert torch.equal(ops.matmul(*call), formula(call)), (case, a.shape, b.shape, call[4:])


def test_longest_sum_is_exact():
    k = 33025
    for a, b in itertools.product((0, 255), repeat=2):
        x, y = torch.full((2, k), a, dtype=U8), torch.full((k, 3), b, dtype=U8)
        call = (x, 1.0, 255 - a, y, 1.0, 255 - b, 1.0, 0, F32, "", [])
        expected = float(torch.tensor(k * (2 * a - 255) * (2 * b - 255)))
        assert ops.matmul(*call).eq(expected).all()
    with pytest.raises(ValueError, match=r"size\(-1\) of at most 33025"):
        ops.matmul(random_int(U8, 1, k + 1), 1.0, 0, random_int(U8, k + 1, 1), 1.0, 0)


def test_a_view_is_not_copied_and_not_written():
    q = random_int(U8, 2, 7, 3, 16)
    before = q.clone()
    heads = q.transpose(1, 2)
    call = (heads, 0.1, 3, heads.transpose(-1, -2), 0.1, 3, 1.0, 0, F32, "", [])
    assert torch.equal(ops.matmul(*call), formula(call))
    assert torch.equal(q, before)


def test_many_threads_give_the_same():
    a, b = random_int(U8, 3, 300, 70), random_int(S8, 3, 70, 130)
    call = (a, 0.1, 3, b, 0.1, 3, 0.5, 3, U8, "", [])
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 4, 7):
        torch.set_num_threads(count)
        results.append(ops.matmul(*call))
    torch.set_num_threads(threads)
    assert all(torch.equal(r, formula(call)) for r in results)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ops.matmul(x, 0.1, 0, x, 0.1, 0), r"'other' must have size\(0\) equal to input"),
        (lambda x: ops.matmul(x[0], 0.1, 0, x, 0.1, 0), "'input' must have at least 2 dimensions"),
        (lambda x: ops.matmul(x, 0.1, 0, x[0], 0.1, 0), "'other' must have at least 2 dimensions"),
        (lambda x: ops.matmul(x.expand(2, 3, 5), 0.1, 0, x.t().expand(3, 5, 3), 0.1, 0),
         r"'other' must have batch sizes that broadcast with input's sizes \[2, 3, 5\]"),
        (lambda x: ops.matmul(x, 0.1, 300, x.t(), 0.1, 0), "'input_zero_point' must"),
        (lambda x: ops.matmul(x, 0.1, 0, x.t(), 0.0, 0), "'other_scale' must"),
        (lambda x: ops.matmul(x, 0.1, 0, x.t(), 0.1, 0, post_ops="add"), "must not contain 'add'"),
        (lambda x: ops.matmul(x, 0.1, 0, x.t().float(), 0.1, 0), "'other' must have dtype"),
    ],
)  # fmt: skip
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(random_int(U8, 3, 5))


@pytest.mark.parametrize("engine", ["onednn", "xnnpack"])
def test_an_engine_without_it_says_so(engine):
    torch_ao_ext.set_engine(engine)
    try:
        with pytest.raises(NotImplementedError, match=f"{engine}: has no products of two activations"):
            ops.matmul(random_int(U8, 3, 5), 0.1, 0, random_int(U8, 5, 3), 0.1, 0)
    finally:
        torch_ao_ext.set_engine("")
