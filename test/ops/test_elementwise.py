"""requantize, add, mul and pooling against exact formulas of numpy and torch in float64."""

import random

import pytest
import torch
from int8_samples import INT8_FORMULAS, int8_samples
from op_cases import random_int

ops = torch.ops.torch_ao
U8, S8 = torch.uint8, torch.int8


@pytest.mark.parametrize("name", sorted(INT8_FORMULAS))
def test_samples(name):
    for args in int8_samples()[name]:
        expected = INT8_FORMULAS[name](args)
        if expected is not None:
            actual = getattr(ops, name)(*args)
            assert actual.dtype == expected.dtype
            assert torch.equal(actual, expected), args[1:]


def _numbers(rng, scales=(0.004, 0.1, 3.0)):
    return rng.choice(scales), rng.choice([-128, 0, 127, rng.randint(-128, 127)])


def _shifted(dtype, scale, zero_point):
    return scale, zero_point + (128 if dtype == U8 else 0)


@pytest.mark.parametrize("name", ["requantize", "add", "mul"])
def test_random_cases(name):
    rng = random.Random(1)
    torch.manual_seed(1)
    for case in range(500):
        count = rng.choice([1, 15, 16, 63, 64, 65, rng.randint(1, 700)])
        a_dtype, b_dtype, y_dtype = (rng.choice([U8, S8]) for _ in range(3))
        call = [random_int(a_dtype, count), *_shifted(a_dtype, *_numbers(rng))]
        if name != "requantize":
            call += [random_int(b_dtype, count), *_shifted(b_dtype, *_numbers(rng))]
        post = rng.choice([("", []), ("relu", []), ("clamp", [-0.5, 6.0]), ("leaky_relu", [0.2])])
        call += [*_shifted(y_dtype, *_numbers(rng)), y_dtype, *post]
        actual = getattr(ops, name)(*call)
        assert torch.equal(actual, INT8_FORMULAS[name](call)), (case, call[1:])


@pytest.mark.parametrize("name", ["add", "mul"])
def test_equals_the_separate_operators(name):
    a, b = random_int(U8, 3, 700), random_int(S8, 3, 700)
    x = ops.dequantize_per_tensor(a, 0.03, 11)
    y = ops.dequantize_per_tensor(b, 0.07, -5)
    z = torch.relu(getattr(torch, name)(x, y))
    expected = ops.quantize_per_tensor(z, 0.05, 3, 0, 255, U8)
    assert torch.equal(getattr(ops, name)(a, 0.03, 11, b, 0.07, -5, 0.05, 3, None, "relu"), expected)


def test_a_table_gives_what_the_kernel_gives():
    every = torch.arange(256, dtype=U8)  # too few for a table
    for post in ("sigmoid", "tanh", "silu", "gelu", "gelu_tanh"):
        few = ops.requantize(every, 0.05, 128, 0.01, 5, S8, post)
        many = ops.requantize(every.repeat(100), 0.05, 128, 0.01, 5, S8, post)
        assert torch.equal(many, few.repeat(100)), post
        real = getattr(torch.nn.functional, post.removesuffix("_tanh"))
        x = (every.double() - 128) * 0.05
        exact = (real(x, approximate="tanh") if post == "gelu_tanh" else real(x)) / 0.01 + 5
        assert (few.double() - exact.clamp(-128, 127)).abs().max() <= 0.5 + 1e-3, post


def test_bounds_of_equal_qparams():
    """Many values: clamped as integers, or looked up."""
    for dtype, point in ((U8, 100), (S8, -5), (U8, 0), (S8, 127)):
        every = torch.arange(256).sub(0 if dtype == U8 else 128).to(dtype)
        x = every.repeat(40)
        posts = [("clamp", [-1.0, 1.5]), ("clamp", [0.3, 0.3]), ("relu", []), ("leaky_relu", [0.5]), ("", [])]
        for post in posts:
            for scale in (0.05, 0.06):
                y = ops.requantize(x, 0.05, point, scale, point, dtype, *post)
                call = (every, 0.05, point, scale, point, dtype, *post)
                assert torch.equal(y, INT8_FORMULAS["requantize"](call).repeat(40)), call[1:]


def test_floats_are_quantized_behind_their_post_ops():
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(3, 700).to(dtype)
        for post, real in (("gelu", torch.nn.functional.gelu), ("silu", torch.nn.functional.silu)):
            y = ops.requantize(x, 1.0, 0, 0.02, -30, S8, post)
            exact = real(x.double()) / 0.02 - 30
            assert (y.double() - exact.clamp(-128, 127)).abs().max() <= 0.5 + 1e-3
    special = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e30])
    assert ops.requantize(special, 1.0, 0, 0.1, 5, U8).tolist() == [0, 255, 0, 255]


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_random_sizes(mode):
    rng = random.Random(5)
    torch.manual_seed(5)
    for case in range(150):
        rank = 2 if mode == "bilinear" else rng.randint(1, 3)
        dtype, size = rng.choice([U8, S8]), [rng.randint(1, 9) for _ in range(rank)]
        x = random_int(dtype, rng.randint(1, 2), *size, rng.choice([1, 3, 16, 65])).movedim(-1, 1)
        factors = [rng.choice([0.5, 1.0, 1.7, 2.0, 3.0]) for _ in size] if rng.random() < 0.4 else []
        wanted = [max(1, int(n * f)) for n, f in zip(size, factors, strict=True)] if factors else [
            rng.randint(1, 17) for _ in size
        ]  # fmt: skip
        align = mode == "bilinear" and rng.random() < 0.5
        qparams = _shifted(dtype, *_numbers(rng))
        out = (*qparams, None) if rng.random() < 0.3 else (*_shifted(dtype, *_numbers(rng)), dtype)
        call = (x, *qparams, *out, wanted, mode, align, factors)
        y = ops.interpolate(*call)
        assert torch.equal(y, INT8_FORMULAS["interpolate"](call)), (case, call[1:])
        if not factors or all(int(n * f) >= 1 for n, f in zip(size, factors, strict=True)):
            value = (x.double() - qparams[1]) * qparams[0]
            where = {"scale_factor": factors} if factors else {"size": wanted}
            corners = {"align_corners": align} if mode == "bilinear" else {}
            real = torch.nn.functional.interpolate(value, **where, mode=mode, **corners)
            info = torch.iinfo(dtype)
            exact = ((real / out[0]).round() + out[1]).clamp(info.min, info.max)
            if mode == "bilinear":
                assert (y.double() - exact).abs().max() <= 1, (case, call[1:])
            else:
                assert (y.double() != exact).double().mean() < 0.2  # float64 positions at boundaries


@pytest.mark.parametrize("dtype", [U8, S8])
def test_images_of_twice_the_size(dtype):
    """Equal qparams: sixteenths of a step, ties to an even number of steps from the zero point."""
    for case, channels in enumerate((1, 63, 64, 65, 200)):
        for zero_point in (3, 4):
            height, width = 1 + case % 3, 1 + case
            x = random_int(dtype, 2, height, width, channels).movedim(-1, 1)
            qparams = _shifted(dtype, 0.05, zero_point)
            for factors in ([], [2.0, 2.0]):
                call = (x, *qparams, *qparams, None, [2 * height, 2 * width], "bilinear", False, factors)
                y = ops.interpolate(*call)
                steps = torch.nn.functional.interpolate(
                    x.double() - qparams[1], scale_factor=2, mode="bilinear", align_corners=False
                )
                assert torch.equal(y, (steps.round() + qparams[1]).to(dtype)), call[1:]
                assert torch.equal(y, INT8_FORMULAS["interpolate"](call)), call[1:]


@pytest.mark.parametrize("dtype", [U8, S8])
@pytest.mark.parametrize("count", [4096, 4097, 5119, 5121, 70001, 131135])
def test_long_runs_of_bytes(dtype, count):
    least = 0 if dtype == U8 else -128
    x = random_int(dtype, count + 3)[3:]  # not at the start of a line
    relu = ops.requantize(x, 0.05, least + 120, 0.05, least + 120, None, "relu")
    assert torch.equal(relu, x.clamp(min=least + 120))
    table = random_int(dtype, 256)
    assert torch.equal(ops.lookup(x, table), table[x.long() - least])


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["max_pool", "avg_pool", "adaptive_avg_pool"])
def test_random_windows(kind, rank):
    rng = random.Random(rank)
    torch.manual_seed(rank)
    for case in range(500 // rank):
        dtype = rng.choice([U8, S8])
        size = [rng.randint(1, 9) for _ in range(rank)]
        x = random_int(dtype, rng.randint(1, 2), *size, rng.choice([1, 3, 16, 65])).movedim(-1, 1)
        if rng.random() < 0.3:
            x = x.contiguous()
        kernel = [rng.randint(1, s) for s in size]
        stride = rng.choice([None, [rng.randint(1, 3) for _ in size]])
        padding = [rng.randint(0, k // 2) for k in kernel]
        out = (*_shifted(dtype, *_numbers(rng)), dtype)
        qparams = _shifted(dtype, *_numbers(rng))
        if kind == "max_pool":
            dilation = [
                1 if k > (s + 1) // 2 else rng.randint(1, 2) for k, s in zip(kernel, size, strict=True)
            ]
            call = (x, kernel, stride, padding, dilation, rng.random() < 0.5)
        elif kind == "avg_pool":
            call = (x, *qparams, *out, kernel, stride, padding, rng.random() < 0.5, rng.random() < 0.5,
                    rng.choice([None, None, 3]))  # fmt: skip
        else:
            call = (x, *qparams, *out, [rng.randint(1, 6) for _ in size])
        name = f"{kind}{rank}d"
        expected = INT8_FORMULAS[name](call)
        if expected is None:
            continue
        actual = getattr(ops, name)(*call)
        assert torch.equal(actual, expected), (case, x.shape, call[1:])
        assert actual.movedim(1, -1).is_contiguous()


def test_window_in_the_padding_only():
    x = torch.full((1, 2, 1), 9, dtype=U8)
    expected = torch.nn.functional.max_pool1d(x.float(), 2, 1, 1, 2)
    assert expected.isinf().all()  # torch gives -inf
    assert ops.max_pool1d(x, [2], [1], [1], [2]).eq(0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ops.add(x, 0.1, 0, x[:, :2], 0.1, 0, 0.1, 0), "'other' must have sizes that broadcast"),
        (lambda x: ops.add(x, 0.1, 0, x, 0.1, 300, 0.1, 0), "'other_zero_point' must"),
        (lambda x: ops.mul(x, 0.1, 0, x, 0.0, 0, 0.1, 0), "'other_scale' must"),
        (lambda x: ops.mul(x, 0.1, 0, x, 0.1, 0, 0.1, 0, None, "add"), "'post_ops' must not contain 'add'"),
        (lambda x: ops.requantize(x, 0.1, 0, 0.5, 0, torch.float32), "'output_scale' must be 1.0"),
        (lambda x: ops.max_pool2d(x[None, None], [2, 2], None, [2, 0]), "'padding' must be at most half"),
        (lambda x: ops.max_pool2d(x[None, None], [9, 2]), "'kernel_size' must with dilation fit"),
        (lambda x: ops.max_pool2d(x, [2, 2]), "'input' must have 4 dimensions"),
        (lambda x: ops.avg_pool1d(x[None], 0.1, 0, 0.1, 0, None, [2], divisor_override=0),
         "'divisor_override' must be a number other than 0"),
        (lambda x: ops.adaptive_avg_pool1d(x[None], 0.1, 0, 0.1, 0, None, [0]), "'output_size' must hold"),
    ],
)  # fmt: skip
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(random_int(U8, 3, 5))
