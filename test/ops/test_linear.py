import itertools

import op_reference as reference
import pytest
import torch
from op_cases import ENGINES, EXACT_ENGINES, ROWS, SIZES, random_int, weight_problem

ops = torch.ops.torch_ao
OUTPUTS = (torch.uint8, torch.int8, torch.float32, torch.bfloat16)
CASES = 500


def random_call(rng, post_ops=""):
    """Arguments of torch_ao::linear up to output_dtype."""
    m, n, k = rng.choice(ROWS), rng.choice(SIZES), rng.choice(SIZES)
    dtype = rng.choice([torch.uint8, torch.int8])
    lo, hi = reference.RANGES[dtype]
    x = random_int(dtype, m, k)
    weight, scale, zero_point, bias = weight_problem(rng, n, k)
    output = rng.choice(OUTPUTS)
    output_scale, output_zero_point = 1.0, 0
    if not output.is_floating_point:
        output_scale = rng.uniform(0.01, 0.5) * k**0.5
        output_zero_point = rng.randint(*reference.RANGES[output])
    return (
        x, rng.uniform(0.001, 0.05), rng.randint(lo, hi), weight, scale, zero_point, bias,
        output_scale, output_zero_point, output,
    )  # fmt: skip


@pytest.mark.parametrize("engine", EXACT_ENGINES)
def test_exact(engine, forced, rng):
    forced(engine)
    for case in range(CASES):
        call = random_call(rng)
        y = ops.linear(*call)
        assert torch.equal(y, reference.linear(*call)), (case, [c for c in call[1:3]])


def test_xnnpack_inside_its_bound(forced, rng):
    """Float outputs within 4 ulp of the largest term; integers one step off at a boundary only."""
    forced("xnnpack")
    ran = 0
    for _ in range(CASES):
        call = random_call(rng)
        try:
            y = ops.linear(*call)
        except NotImplementedError as error:
            assert "xnnpack: " in str(error)
            continue
        ran += 1
        x, s_x, zp_x, weight, s_w, zp_w, bias, s_out, zp_out, dtype = call
        r = torch.from_numpy(reference.linear_real(x, s_x, zp_x, weight, s_w, zp_w, bias)).double()
        plain = torch.from_numpy(reference.linear_real(x, s_x, zp_x, weight, s_w, zp_w)).double()
        largest = plain.abs() + (0 if bias is None else bias.abs().double())
        if dtype.is_floating_point:
            eps = 2**-23 if dtype == torch.float32 else 2**-8
            assert ((y.double() - r).abs() <= 4 * eps * largest + 1e-30).all()
            continue
        expected = reference.linear(*call).int()
        off = (y.int() - expected).abs()
        v = r / s_out
        to_boundary = ((v - v.floor()) - 0.5).abs()
        bound = 0.5 * s_x * s_w.double() / s_out + 2**-20 * v.abs()
        assert (off <= 1).all()
        assert ((off == 0) | (to_boundary <= bound)).all()
    assert ran > CASES // 3


EXACT_POST_OPS = [
    ("relu", []),
    ("clamp", [-0.5, 6.0]),
    ("leaky_relu", [0.01]),
    ("add", []),
    ("add,relu", []),
    ("relu,add", []),
    ("clamp,add,leaky_relu,relu", [-1.0, 1.0, 0.3]),
    ("prelu", []),
    ("add,prelu", []),
    ("relu,affine", []),
    ("affine,add,clamp", [-1.0, 1.0]),
]


@pytest.mark.parametrize("engine", EXACT_ENGINES)
@pytest.mark.parametrize(("names", "args"), EXACT_POST_OPS)
def test_post_ops_exact(engine, names, args, forced, rng):
    forced(engine)
    for _ in range(20):
        call = random_call(rng)
        extra = {}
        if "add" in names:
            dtype = rng.choice(OUTPUTS)
            sizes = (call[0].shape[0], call[3].shape[0])
            if dtype.is_floating_point:
                extra = {"other": torch.randn(sizes).to(dtype)}
            else:
                zero_point = rng.randint(*reference.RANGES[dtype])
                extra = {
                    "other": random_int(dtype, *sizes),
                    "other_scale": 0.07,
                    "other_zero_point": zero_point,
                }
        if "prelu" in names:
            extra["slope"] = torch.randn(rng.choice([1, call[3].shape[0]]))
        if "affine" in names:
            extra |= {name: torch.randn(call[3].shape[0]) for name in ("affine_weight", "affine_bias")}
        y = ops.linear(*call, names, args, **extra)
        assert torch.equal(y, reference.linear(*call, names, args, **extra))


@pytest.mark.parametrize("engine", EXACT_ENGINES)
@pytest.mark.parametrize("scale", [1e-9, 0.07, 1e6, 1e12, 1e30])
def test_sums_of_8_bit_tensors_exact(engine, scale, forced, rng):
    """From scales that vanish to those whose quotients leave int32."""
    forced(engine)
    for names, args in (("add", []), ("add,relu", []), ("add,clamp", [-0.5, 6.0])):
        for inner, outer in itertools.product((torch.uint8, torch.int8), repeat=2):
            x, w = random_int(torch.uint8, 37, 64), random_int(torch.int8, 150, 64)
            points = [rng.randint(*reference.RANGES[dtype]) for dtype in (inner, outer)]
            scales = torch.rand(150) * 0.01 + 1e-3
            call = (x, 0.02, 121, w, scales, None, torch.randn(150), 0.31, points[1], outer)
            extra = {"other": random_int(inner, 37, 150), "other_scale": scale, "other_zero_point": points[0]}
            y = ops.linear(*call, names, args, **extra)
            assert torch.equal(y, reference.linear(*call, names, args, **extra)), (names, inner, outer)


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_tanh", "hardswish", "hardsigmoid", "sigmoid", "tanh"])
def test_smooth_post_ops_close_and_equal_in_all_engines(name, forced, rng):
    for _ in range(20):
        call = random_call(rng)
        expected = reference.linear(*call, name)
        results = []
        for engine in EXACT_ENGINES:
            forced(engine)
            results.append(ops.linear(*call, name))
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[0], results[2])
        if call[9].is_floating_point:
            tolerance = 2**-20 if call[9] == torch.float32 else 2**-7
            torch.testing.assert_close(results[0].double(), expected.double(), rtol=tolerance, atol=2**-21)
        else:
            assert (results[0].int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("name", ["relu", "tanh", "leaky_relu", "add", "add_relu"])
def test_published_names_are_the_base_op(name, rng):
    for _ in range(5):
        call = random_call(rng)
        fused = getattr(ops, f"linear_{name}")
        other = random_int(torch.uint8, call[0].shape[0], call[3].shape[0])
        if name == "leaky_relu":
            a, b = fused(*call, 0.2), ops.linear(*call, "leaky_relu", [0.2])
        elif name.startswith("add"):
            post_ops = name.replace("_", ",")
            a = fused(*call, other, 0.1, 3)
            b = ops.linear(*call, post_ops, other=other, other_scale=0.1, other_zero_point=3)
        else:
            a, b = fused(*call), ops.linear(*call, name)
        assert torch.equal(a, b)
        assert ops._pack_count(call[3]) == 1


def test_tensor_overload_equals_scalars(rng):
    call = list(random_call(rng))
    expected = ops.linear(*call)
    for i, dtype in ((1, torch.float32), (2, torch.int64), (7, torch.float64), (8, torch.int32)):
        call[i] = torch.tensor([call[i]], dtype=dtype)
    call[1] = call[1].double()
    assert (ops.linear.tensor(*call).double() - expected.double()).abs().max() <= 1
    call[1] = torch.tensor(0.25)
    scalars = [c.item() if i in (1, 2, 7, 8) else c for i, c in enumerate(call)]
    assert torch.equal(ops.linear.tensor(*call), ops.linear(*scalars))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("batch", "n", "k"),
    [((0,), 4, 8), ((3,), 0, 8), ((3,), 4, 0), ((0,), 0, 0), ((2, 0, 3), 4, 8), ((), 4, 8), ((), 4, 0)],
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_zero_sizes(engine, batch, n, k, dtype, forced):
    forced(engine)
    x = random_int(torch.uint8, *batch, k)
    weight = random_int(torch.int8, n, k)
    bias = torch.randn(n)
    scale = torch.rand(1) + 0.1
    out = (0.3, 7) if dtype == torch.uint8 else (1.0, 0)
    args = (x, 0.1, 3, weight, scale, None, bias, *out, dtype)
    if k == 0 and n > 0 and 0 not in batch and engine not in ("reference", "native"):
        # K = 0 is the bias alone; an engine may refuse it, with its own reason.
        try:
            y = ops.linear(*args)
        except NotImplementedError as error:
            assert f"{engine}: " in str(error)
            return
    else:
        y = ops.linear(*args)
    assert y.shape == (*batch, n)
    if y.numel():
        tolerance = 1e-6 if engine == "xnnpack" else 0
        torch.testing.assert_close(y, reference.linear(*args), rtol=tolerance, atol=0)


def layouts(t):
    """The same values as views of other memory."""
    yield t
    yield t.t().contiguous().t()
    yield torch.stack([t, t], 1)[:, 1]
    yield torch.stack([t, t], 2)[..., 0]
    padded = torch.nn.functional.pad(t, (3, 2))
    yield padded[:, 3:-2]
    buffer = torch.empty(t.numel() + 1, dtype=t.dtype)
    buffer[1:] = t.reshape(-1)
    yield buffer[1:].view(t.shape)


@pytest.mark.parametrize("engine", EXACT_ENGINES)
def test_layouts(engine, forced):
    forced(engine)
    x = random_int(torch.uint8, 5, 33)
    weight = random_int(torch.int8, 17, 33)
    scale = torch.rand(17) * 0.01 + 1e-3
    other = random_int(torch.int8, 5, 17)
    rest = (0.4, 11, torch.uint8, "add", [])
    expected = reference.linear(x, 0.1, 9, weight, scale, None, None, *rest, other, 0.2, -5)
    for xv in layouts(x):
        for wv in layouts(weight):
            before = (xv._version, wv._version)
            y = ops.linear(xv, 0.1, 9, wv, scale, None, None, *rest, other, 0.2, -5)
            assert torch.equal(y, expected)
            assert y.is_contiguous()
            assert (xv._version, wv._version) == before
    for ov in layouts(other):
        y = ops.linear(x, 0.1, 9, weight, scale, None, None, *rest, ov, 0.2, -5)
        assert torch.equal(y, expected)
    strided_scale = torch.stack([scale, scale], 1)[:, 0]
    y = ops.linear(x, 0.1, 9, weight, strided_scale, None, None, *rest, other, 0.2, -5)
    assert torch.equal(y, expected)


def test_batch_dimensions_expand_and_merge():
    x = random_int(torch.uint8, 1, 33).expand(4, 33)
    weight, scale = random_int(torch.int8, 9, 33), torch.rand(9) + 0.1
    y = ops.linear(x, 0.1, 9, weight, scale, None, None, 1.0, 0, torch.float32)
    assert torch.equal(y, reference.linear(x, 0.1, 9, weight, scale, None, None, 1.0, 0, torch.float32))
    cube = random_int(torch.uint8, 3, 5, 7, 40)[:, :4, ::2, :33]
    y = ops.linear(cube, 0.1, 9, weight, scale, None, None, 1.0, 0, torch.float32)
    assert y.shape == (3, 4, 4, 9)
    assert torch.equal(
        y, ops.linear(cube.contiguous(), 0.1, 9, weight, scale, None, None, 1.0, 0, torch.float32)
    )


@pytest.mark.parametrize("engine", EXACT_ENGINES)
def test_saturation_and_extreme_k(engine, forced):
    """Full-scale products at the int32 bound of the accumulator and beyond it."""
    forced(engine)
    for k in (255, 4096, 65792, 65793, 65794, 70000):
        for value in (127, -128):
            x = torch.full((2, k), 255, dtype=torch.uint8)
            weight = torch.full((3, k), value, dtype=torch.int8)
            args = (x, 1e-3, 0, weight, torch.tensor([1e-3]), None, None, 1.0, 0, torch.float32)
            try:
                y = ops.linear(*args)
            except NotImplementedError as error:
                assert k > 65793, str(error)
                assert f"{engine}: " in str(error)
                continue
            assert torch.equal(y, reference.linear(*args)), k
