import itertools

import op_reference as reference
import pytest
import torch
from op_cases import ENGINES, EXACT_ENGINES, ROWS, SIZES, weight_problem

ops = torch.ops.torch_ao
CASES = 500


def random_call(rng):
    """input, weight, weight_scale, weight_zero_point, bias, per_row, symmetric, reduce_range, dtype."""
    m, n, k = rng.choice(ROWS), rng.choice(SIZES), rng.choice(SIZES)
    x = torch.randn(m, k) * rng.choice([1e-3, 1.0, 100.0]) + rng.choice([0.0, 1.0])
    if rng.random() < 0.1:
        x[0] = 0
    x = x.to(rng.choice([torch.float32, torch.bfloat16]))
    flags = [rng.random() < 0.5 for _ in range(3)]
    output = rng.choice([None, torch.float32, torch.bfloat16])
    return (x, *weight_problem(rng, n, k), *flags, output)


@pytest.mark.parametrize("engine", EXACT_ENGINES)
def test_exact(engine, forced, rng):
    forced(engine)
    for case in range(CASES):
        call = random_call(rng)
        assert torch.equal(ops.linear_dynamic(*call), reference.linear_dynamic(*call)), (
            case, call[0].shape, call[1].shape, call[5:],
        )  # fmt: skip


def test_xnnpack_close(forced, rng):
    forced("xnnpack")
    ran = 0
    for _ in range(CASES):
        call = random_call(rng)
        try:
            y = ops.linear_dynamic(*call)
        except NotImplementedError as error:
            assert "xnnpack: " in str(error)
            continue
        ran += 1
        expected = reference.linear_dynamic(*call).double()
        product = reference.linear_dynamic(*call[:4], None, *call[5:]).double()
        largest = product.abs() + (0 if call[4] is None else call[4].abs().double())
        eps = 2**-23 if y.dtype == torch.float32 else 2**-8
        assert ((y.double() - expected).abs() <= 4 * eps * largest + 1e-30).all()
    assert ran > CASES // 10


@pytest.mark.parametrize("engine", EXACT_ENGINES)
@pytest.mark.parametrize(
    ("names", "args"),
    [("relu", []), ("clamp", [-1.0, 2.0]), ("leaky_relu", [0.1]), ("add", []), ("add,relu", [])],
)
def test_post_ops_exact(engine, names, args, forced, rng):
    forced(engine)
    for dtype in (torch.float32, torch.bfloat16):
        call = random_call(rng)
        other = None
        if "add" in names:
            other = torch.randn(call[0].shape[0], call[1].shape[0]).to(dtype)
        y = ops.linear_dynamic(*call, names, args, other)
        assert torch.equal(y, reference.linear_dynamic(*call, names, args, other))


def test_relu_name_is_the_base_op(rng):
    call = random_call(rng)
    assert torch.equal(ops.linear_relu_dynamic(*call), ops.linear_dynamic(*call, "relu"))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bad_row_stays_in_its_row(engine, bad, dtype, forced):
    forced(engine)
    x = torch.randn(8, 70).to(dtype)
    weight = torch.randint(-128, 128, (33, 70), dtype=torch.int8)
    scale, bias = torch.rand(33) * 0.01 + 1e-3, torch.randn(33)
    clean = ops.linear_dynamic(x, weight, scale, None, bias)
    x[3, 69] = bad
    y = ops.linear_dynamic(x, weight, scale, None, bias)
    assert y[3].isnan().all()
    keep = [0, 1, 2, 4, 5, 6, 7]
    assert torch.equal(y[keep], clean[keep])
    assert ops.linear_dynamic(x, weight, scale, None, bias, per_row=False).isnan().all()


@pytest.mark.parametrize("engine", EXACT_ENGINES)
@pytest.mark.parametrize("row", ["zero", "one value", "denormal", "huge", "negative"])
def test_odd_rows(engine, row, forced):
    forced(engine)
    value = {"zero": 0.0, "one value": 2.5, "denormal": 1e-42, "huge": 1.6e38, "negative": -7.0}[row]
    x = torch.full((3, 65), value)
    x[1, 5] = -value
    weight = torch.randint(-128, 128, (9, 65), dtype=torch.int8)
    scale = torch.full((9,), 1e-5)
    for symmetric in (False, True):
        y = ops.linear_dynamic(x, weight, scale, symmetric=symmetric)
        expected = reference.linear_dynamic(x, weight, scale, symmetric=symmetric)
        assert torch.equal(y, expected)
        assert y.isfinite().all()


@pytest.mark.parametrize(
    ("batch", "n", "k"), [((0,), 4, 8), ((3,), 0, 8), ((3,), 4, 0), ((2, 0), 4, 8), ((), 4, 8)]
)
def test_zero_sizes(batch, n, k):
    x, weight, bias = torch.randn(*batch, k), torch.ones(n, k, dtype=torch.int8), torch.randn(n)
    for per_row in (True, False):
        y = ops.linear_dynamic(x, weight, torch.ones(1), None, bias, per_row)
        fp32 = torch.nn.functional.linear(x, weight.float(), bias)
        assert y.shape == fp32.shape
        if k == 0:
            assert torch.equal(y, fp32)


@pytest.mark.parametrize("engine", EXACT_ENGINES)
def test_layouts(engine, forced):
    forced(engine)
    weight = torch.randint(-128, 128, (17, 33), dtype=torch.int8)
    scale = torch.rand(17) * 0.01 + 1e-3
    x = torch.randn(2, 5, 33)
    expected = reference.linear_dynamic(x, weight, scale)
    views = [
        x,
        x.transpose(0, 1).contiguous().transpose(0, 1),
        x.permute(2, 0, 1).contiguous().permute(1, 2, 0),
        torch.nn.functional.pad(x, (1, 1, 1, 0))[:, 1:, 1:-1],
        torch.stack([x, x], -1)[..., 1],
    ]
    for v, per_row in itertools.product(views, (True, False)):
        want = expected if per_row else reference.linear_dynamic(x, weight, scale, per_row=False)
        assert torch.equal(ops.linear_dynamic(v, weight, scale, per_row=per_row), want)


def test_a_row_alone_equals_the_row_in_a_batch():
    x = torch.randn(37, 96)
    weight, scale = torch.randint(-128, 128, (50, 96), dtype=torch.int8), torch.rand(50) + 0.01
    y = ops.linear_dynamic(x, weight, scale)
    for i in range(37):
        assert torch.equal(ops.linear_dynamic(x[i], weight, scale), y[i])


@pytest.mark.parametrize("kwargs", [{}, {"per_row": False}, {"symmetric": True, "reduce_range": True}])
def test_prepack_packs_for_the_first_call(kwargs):
    weight, scale = torch.randint(-128, 128, (50, 96), dtype=torch.int8), torch.rand(50) + 0.01
    ops._prepack_linear_dynamic(weight, scale, **kwargs)
    assert ops._pack_count(weight) == 1
    ops.linear_dynamic(torch.randn(3, 96), weight, scale, **kwargs)
    assert ops._pack_count(weight) == 1
