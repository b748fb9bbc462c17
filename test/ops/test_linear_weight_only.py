"""Weight-only linear layers against an independent formula, bit by bit."""

import random

import pytest
import torch
from op_cases import ROWS, SIZES, random_int
from op_reference import linear_weight_only

op = torch.ops.torch_ao.linear_weight_only
F32, BF16 = torch.float32, torch.bfloat16


def problem(rng, n, k, group):
    bias = torch.randn(n) if rng.random() < 0.7 else None
    if group:
        scale = torch.rand(n, -(-k // group)) * 0.02 + 1e-3
        if rng.random() < 0.3:
            scale = scale.to(BF16)
        return random_int(torch.uint8, n, (k + 1) // 2), scale, bias, group
    return random_int(torch.int8, n, k), torch.rand(rng.choice([1, n])) * 0.02 + 1e-3, bias, 0


def with_outliers(x, rng):
    """Some rows with values that take a second plane, one row all 0."""
    for row in x[:: rng.choice([1, 2, 5])]:
        for _ in range(rng.choice([0, 1, 3])):
            row[rng.randrange(len(row))] *= 50
    x[rng.randrange(len(x))] = 0
    return x


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize("group", [0, 32, 64, 128])
def test_random_problems(group, engine, forced, rng):
    forced(engine)
    for _ in range(60):
        n, k, m = rng.choice(SIZES), rng.choice([*SIZES, 257, 1100]), rng.choice([*ROWS, 40])
        weight, scale, bias, _ = problem(rng, n, k, group)
        x = with_outliers(torch.randn(m, k), rng).to(rng.choice([F32, BF16]))
        bits = rng.choice([8, 16])
        args = x, weight, scale, bias, group, bits
        assert torch.equal(op(*args), linear_weight_only(*args)), (m, k, n, bits, x.dtype)


@pytest.mark.parametrize("group", [0, 32, 64, 128])
def test_rows_do_not_see_the_batch(group, rng):
    """One row, any batch, any number of threads, any strides: the same bits."""
    args = (*problem(rng, 200, 520, group), 8)
    x = with_outliers(torch.randn(150, 520), rng)
    whole = op(x, *args)
    for rows in (1, 2, 3, 17, 64):
        assert torch.equal(torch.cat([op(part, *args) for part in x.split(rows)]), whole)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert torch.equal(op(x, *args), whole)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(op(torch.nn.functional.pad(x, (0, 80))[:, :520], *args), whole)
    assert torch.equal(op(x.t().contiguous().t(), *args), whole)
    assert torch.equal(op(x.view(5, 30, 520), *args), whole.view(5, 30, 200))


@pytest.mark.parametrize("group", [0, 128])
@pytest.mark.parametrize("m", [1, 4])
def test_extreme_values_are_exact(m, group):
    k = 4096
    x = torch.full((m, k), -1.0)
    x[:, ::2] = 1.0
    if group:
        weight, scale = torch.full((70, k // 2), 0x0F, dtype=torch.uint8), torch.ones(70, k // group)
        total = (7 + 8) * k // 2
    else:
        weight, scale = torch.full((70, k), 127, dtype=torch.int8), torch.ones(70)
        weight[:, 1::2] = -128
        total = (127 + 128) * k // 2
    got = op(x, weight, scale, None, group, 8)
    torch.testing.assert_close(got, torch.full((m, 70), float(total)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("group", [0, 32])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_bad_row_is_nan_and_alone(bad, group, rng):
    args = (*problem(rng, 9, 40, group), 8)
    for m in (1, 5):
        x = torch.randn(m, 40)
        clean = op(x, *args)
        x[m - 1, 7] = bad
        got = op(x, *args)
        assert bool(got[m - 1].isnan().all()) and torch.equal(got[: m - 1], clean[: m - 1])


@pytest.mark.parametrize("group", [0, 32])
@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-38, 3.4e38])
def test_ranges_at_the_ends_of_float(value, group, rng):
    weight, scale, bias, _ = problem(rng, 9, 40, group)
    x = torch.full((2, 40), value)
    x[1, ::3] = -value
    args = weight, scale * 1e-6, bias, group
    assert torch.equal(op(x, *args, 8), linear_weight_only(x, *args, 8))


@pytest.mark.parametrize("group", [0, 32])
@pytest.mark.parametrize("size", [(0, 5, 4), (3, 0, 4), (3, 5, 0), (0, 0, 0), (2, 0, 0)], ids=str)
def test_empty(size, group):
    m, k, n = size
    sizes, dtype = (n, (k + 1) // 2 if group else k), torch.uint8 if group else torch.int8
    weight = torch.zeros(sizes, dtype=dtype)
    scale = torch.ones(n, -(-k // group)) if group else torch.ones(n)
    bias = torch.arange(n, dtype=F32)
    got = op(torch.randn(m, k), weight, scale, bias, group)
    assert got.shape == (m, n)
    if k == 0:
        assert torch.equal(got, bias.expand(m, n))


def real_weight(weight, scale, group):
    if not group:
        return weight.double() * scale.double()[:, None]
    w = torch.stack((weight & 15, weight >> 4), 2).view(len(weight), -1).double() - 8
    return w * scale.double().repeat_interleave(group, 1)


def sqnr_db(want, got):
    return float(10 * torch.log10(want.square().sum() / (got.double() - want).square().sum()))


@pytest.mark.parametrize(
    "group, bits, outliers, db",
    # 8 bits of 64, 32 and 128 values: 44.5, 45.4 and 43.7 dB with normal values. With outliers 8-bit
    # weights have a second plane of those groups; 4-bit weights, themselves at 20 dB, have none.
    [
        *((group, 16, outliers, 80) for group in (0, 32, 128) for outliers in (False, True)),
        (0, 8, False, 43),
        (32, 8, False, 44),
        (128, 8, False, 42),
        (0, 8, True, 46),
        (32, 8, True, 36),
        (128, 8, True, 31),
    ],
)
def test_error_against_float_inputs(group, bits, outliers, db):
    x, (weight, scale, _, _) = torch.randn(8, 4096), problem(random.Random(1), 64, 4096, group)
    if outliers:
        for row in x:
            row[torch.randperm(4096)[:4]] *= 50
    want = x.double() @ real_weight(weight, scale, group).t()
    assert sqnr_db(want, op(x, weight, scale, None, group, bits)) > db


def test_any_group_of_a_row_has_40_db():
    """Values of every kind, with 8-bit weights: the rule for the second plane bounds the error."""
    weight = random_int(torch.int8, 64, 4096)
    for power in (0.25, 0.5, 1, 1.5, 2, 3, 5):
        x = torch.randn(8, 4096)
        x = x.sign() * x.abs() ** power
        want = x.double() @ weight.double().t()
        assert sqnr_db(want, op(x, weight, torch.ones(1), None, 0, 8)) > 40


def test_sums_of_many_k():
    k = 70000
    x, weight = torch.ones(1, k), torch.full((1, k), -128, dtype=torch.int8)
    assert float(op(x, weight, torch.ones(1))) == pytest.approx(-128.0 * k, rel=1e-5)


@pytest.mark.parametrize("name", ["onednn", "xnnpack"])
def test_engines_without_it_say_so(name, forced):
    forced(name)
    with pytest.raises(NotImplementedError, match=f"{name}: has no linear layers with float inputs"):
        op(torch.randn(2, 4), torch.ones(3, 4, dtype=torch.int8), torch.ones(3))


@pytest.mark.parametrize("group", [0, 64])
def test_prepack_is_found_by_the_call(group, rng):
    weight, scale, bias, _ = problem(rng, 8, 130, group)
    torch.ops.torch_ao._prepack_linear_weight_only(weight, scale, bias, 130, group)
    count = torch.ops.torch_ao._pack_count()
    first = op(torch.ones(2, 130), weight, scale, bias, group)
    assert torch.ops.torch_ao._pack_count() == count
    weight.zero_()
    assert not torch.equal(op(torch.ones(2, 130), weight, scale, bias, group), first)
    assert torch.ops.torch_ao._pack_count() == count + 1


def call(**changed):
    args = {
        "input": torch.randn(2, 70),
        "weight": random_int(torch.uint8, 5, 35),
        "weight_scale": torch.ones(5, 3),
        "bias": torch.zeros(5),
        "group_size": 32,
        "input_bits": 8,
    }
    return op(**{**args, **changed})


SIZE1 = "'weight' must have size(1) equal to 36 for input.size(-1) 71, got 35"
FLOATS = "must have dtype float32 or bfloat16"


@pytest.mark.parametrize(
    "changed, error, text",
    [
        ({"input": torch.ones(2, 70).double()}, TypeError, f"'input' {FLOATS}, got float64"),
        ({"input": torch.tensor(1.0)}, ValueError, "'input' must have at least 1 dimension"),
        ({"input": torch.ones(2, 71)}, ValueError, SIZE1),
        ({"weight": torch.ones(5, 35).char()}, TypeError, "'weight' must have dtype uint8, got int8"),
        ({"weight": torch.ones(35).byte()}, ValueError, "'weight' must have 2 dimensions"),
        ({"weight_scale": torch.ones(5, 4)}, ValueError, "'weight_scale' must have size(1) equal to the"),
        ({"weight_scale": torch.ones(4, 3)}, ValueError, "'weight_scale' must have size(0) equal to weight."),
        ({"weight_scale": torch.zeros(5, 3)}, ValueError, "'weight_scale' must"),
        ({"weight_scale": torch.zeros(5, 3).to(BF16)}, ValueError, "'weight_scale' must"),
        ({"weight_scale": torch.ones(5, 3).double()}, TypeError, f"'weight_scale' {FLOATS}"),
        ({"bias": torch.ones(4)}, ValueError, "'bias' must have size(0) equal to weight.size(0) (5), got 4"),
        ({"bias": torch.full((5,), float("nan"))}, ValueError, "'bias' must"),
        ({"group_size": 16}, ValueError, "'group_size' must be 0, 32, 64 or 128, got 16"),
        ({"group_size": 0}, TypeError, "'weight' must have dtype int8, got uint8"),
        ({"input_bits": 4}, ValueError, "'input_bits' must be 8 or 16, got 4"),
    ],
)
def test_errors(changed, error, text):
    assert call().shape == (2, 5)
    with pytest.raises(error) as raised:
        call(**changed)
    assert f"torch_ao::linear_weight_only: argument {text}" in str(raised.value)
