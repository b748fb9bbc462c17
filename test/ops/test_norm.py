"""Normalizations against exact formulas, against float64 within one step, and torch's own."""

import random

import pytest
import torch
import torch.nn.functional as functional
from norm_samples import NORM_FORMULAS, norm_samples
from op_cases import random_int

ops = torch.ops.torch_ao
U8, S8, F32, BF16 = torch.uint8, torch.int8, torch.float32, torch.bfloat16


def _tuple(result):
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("name", sorted(NORM_FORMULAS))
def test_samples(name):
    checked = 0
    for args in norm_samples()[name]:
        expected = NORM_FORMULAS[name](args)
        if expected is None:  # an inexact post-op
            continue
        checked += 1
        for y, wanted in zip(_tuple(getattr(ops, name)(*args)), _tuple(expected), strict=True):
            assert y.dtype == wanted.dtype
            assert torch.equal(y, wanted), args[1:]
    assert checked >= 4


def _qparams(rng, dtype):
    return rng.choice([0.004, 0.03, 0.5]), rng.choice([0, 255, rng.randint(0, 255)]) - (dtype == S8) * 128


def _input(rng, *shape):
    """(input, scale, zero point, float64 values)."""
    dtype = rng.choice([U8, S8, F32, BF16])
    if dtype in (U8, S8):
        x = random_int(dtype, *shape) // rng.choice([1, 1, 60]) + (dtype == U8) * rng.choice([0, 100])
        x = x.to(dtype)
        scale, point = _qparams(rng, dtype)
        return x, scale, point, (x.double() - point) * scale
    x = (torch.randn(shape) * rng.choice([0.01, 1.0, 30.0]) + rng.choice([0.0, 3.0, -500.0])).to(dtype)
    return x, 1.0, 0, x.double()


def _steps(y, real, scale, point):
    info = torch.iinfo(y.dtype)
    exact = (real / scale).round() + point
    return (y.double() - exact.clamp(info.min, info.max)).abs().max()


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm", "add_layer_norm"])
def test_rows_are_within_a_step_of_float64(name):
    rng = random.Random(1)
    torch.manual_seed(1)
    for case in range(300):
        rows, count = rng.randint(1, 5), rng.choice([2, 15, 64, 65, 768, rng.randint(2, 900)])
        x, scale, point, value = _input(rng, rows, count)
        weight = torch.randn(count) if rng.random() < 0.7 else None
        bias = torch.randn(count) if rng.random() < 0.7 else None
        dtype = rng.choice([U8, S8])
        out = (*_qparams(rng, dtype), dtype)
        parameters = [None if t is None else t.double() for t in (weight, bias)]
        if name == "rms_norm":
            y = ops.rms_norm(x, scale, point, weight, *out, [count], 1e-5)
            real = functional.rms_norm(value, [count], parameters[0], 1e-5)
        elif name == "layer_norm":
            y = ops.layer_norm(x, scale, point, weight, bias, *out, [count], 1e-5)
            real = functional.layer_norm(value, [count], *parameters, 1e-5)
        else:
            other, s_o, z_o, added = _input(rng, rows, count)
            y, total = ops.add_layer_norm_sum(x, scale, point, other, s_o, z_o, weight, bias, *out, [count])
            assert torch.equal(
                y, ops.add_layer_norm(x, scale, point, other, s_o, z_o, weight, bias, *out, [count])
            )
            value = value + added
            assert torch.allclose(total.double(), value, rtol=1e-6, atol=1e-4)
            real = functional.layer_norm(total.double(), [count], *parameters, 1e-5)
        assert _steps(y, real, *out[:2]) <= 1, (case, x.dtype, scale, point)


@pytest.mark.parametrize("name", ["group_norm", "instance_norm", "batch_norm"])
def test_channels_are_within_a_step_of_float64(name):
    rng = random.Random(2)
    torch.manual_seed(2)
    for case in range(200):
        groups, rank = rng.randint(1, 5), rng.randint(1, 3)
        channels = groups * rng.choice([1, 3, 16, 22])
        size = [rng.randint(2, 9) for _ in range(rank)]
        dtype, to = rng.choice([U8, S8]), rng.choice([U8, S8])
        x = random_int(dtype, rng.randint(1, 3), *size, channels).movedim(-1, 1)
        if rng.random() < 0.5:
            x = x.contiguous()
        scale, point = _qparams(rng, dtype)
        out = (*_qparams(rng, to), to)
        weight, bias = torch.randn(channels), torch.randn(channels)
        value = (x.double() - point) * scale
        if name == "group_norm":
            y = ops.group_norm(x, scale, point, weight, bias, *out, groups, 1e-5)
            real = functional.group_norm(value, groups, weight.double(), bias.double(), 1e-5)
        elif name == "instance_norm":
            y = ops.instance_norm(x, scale, point, weight, bias, *out)
            real = functional.instance_norm(value, None, None, weight.double(), bias.double(), eps=1e-5)
        else:
            mean, var = torch.randn(channels), torch.rand(channels) + 0.1
            y = ops.batch_norm(x, scale, point, mean, var, weight, bias, *out, 1e-5, "relu")
            numbers = [t.double() for t in (mean, var, weight, bias)]
            real = functional.batch_norm(value, *numbers, eps=1e-5).relu()
        assert _steps(y, real, *out[:2]) <= 1, (case, x.shape)
        assert y.stride() == x.stride() or x.is_contiguous()
        assert torch.equal(y, getattr(ops, name)(x.contiguous(), *_call(name, locals())))


def _call(name, v):
    """The arguments behind input of the call above."""
    head = (v["scale"], v["point"])
    if name == "batch_norm":
        return (*head, v["mean"], v["var"], v["weight"], v["bias"], *v["out"], 1e-5, "relu")
    return (*head, v["weight"], v["bias"], *v["out"], *([v["groups"], 1e-5] if name == "group_norm" else []))


NAN, INF = float("nan"), float("inf")


def _hostile(rng, count):
    """A parameter with some values far from the others."""
    t = torch.randn(count) * rng.choice([0.1, 1.0, 1.0, 20.0])
    for _ in range(rng.choice([0, 0, 1, count // 3])):
        t[rng.randrange(count)] = rng.choice([0.0, -1.0, 1e-30, 40.0, -3000.0, 1e30, INF, -INF, NAN])
    return t


def _spread(rng, dtype, *shape):
    """Bytes, in some rows with hardly any spread or none."""
    x = random_int(dtype, *shape)
    for row in x:
        row.div_(rng.choice([1, 1, 8, 40, 300]), rounding_mode="trunc")
    return x + rng.choice([0, 50])


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm", "group_norm", "batch_norm"])
def test_words_and_floats(name):
    # The integers of norm.h where they hold the numbers, floats elsewhere, in one call: exact by the
    # formulas, and a step from float64 where float32 holds the slope and the offset to a part of a step.
    rng = random.Random(3)
    torch.manual_seed(3)
    for case in range(150):
        dtype, to = rng.choice([U8, S8]), rng.choice([U8, S8])
        scale, point = _qparams(rng, dtype)
        out = (*_qparams(rng, to), to)
        eps, post = rng.choice([0.0, 1e-5, 1e-5, 1e-5, 30.0, 1e9]), rng.choice(["", "relu"])
        if name in ("layer_norm", "rms_norm"):
            count = rng.choice([2, 64, 768, 1022, 1023, rng.randint(2, 200)])
            x, size = _spread(rng, dtype, rng.randint(1, 20), count), [count]
        else:
            count = 6 * rng.choice([1, 4, 22])
            x, size = _spread(rng, dtype, rng.randint(1, 4), 5, count).movedim(-1, 1), 6
        weight, bias = _hostile(rng, count), _hostile(rng, count) * rng.choice([0.0, 1.0])
        value, w64, b64 = (x.double() - point) * scale, weight.double(), bias.double()
        slope = w64.abs()
        if name == "layer_norm":
            args = (x, scale, point, weight, bias, *out, size, eps, post)
            real = functional.layer_norm(value, size, w64, b64, eps)
        elif name == "rms_norm":
            args = (x, scale, point, weight, *out, size, eps, post)
            real = functional.rms_norm(value, size, w64, eps)
        elif name == "group_norm":
            args = (x, scale, point, weight, bias, *out, size, eps, post)
            real = functional.group_norm(value, size, w64, b64, eps)
        else:
            mean, var = torch.randn(count), torch.rand(count) * rng.choice([0.0, 1e-9, 1.0])
            args = (x, scale, point, mean, var, weight, bias, *out, eps, post)
            real = functional.batch_norm(value, mean.double(), var.double(), w64, b64, eps=eps)
            slope = slope / (var.double() + eps).sqrt()
        y = getattr(ops, name)(*args)
        assert torch.equal(y, NORM_FORMULAS[name](args)), (name, case)
        if name in ("group_norm", "batch_norm"):
            assert torch.equal(y, getattr(ops, name)(x.contiguous(), *args[1:])), (name, case)
        if post:
            real = real.relu()
        near = slope < 4000
        sure = real.isfinite() & (near if real.dim() == 2 else near[:, None])
        steps = (y.double() - ((real / out[0]).round() + out[1]).clamp(*_range(to))).abs()
        assert steps[sure].le(1).all(), (name, case)


def _range(dtype):
    return torch.iinfo(dtype).min, torch.iinfo(dtype).max


def test_words_are_seldom_a_step_off():
    torch.manual_seed(4)
    x, weight, bias = random_int(U8, 64, 768), torch.rand(768) + 0.5, torch.randn(768) / 4
    y = ops.layer_norm(x, 0.05, 120, weight, bias, 0.03, 120, None, [768])
    value = (x.double() - 120) * 0.05
    real = functional.layer_norm(value, [768], weight.double(), bias.double(), 1e-5)
    off = y.double() != ((real / 0.03).round() + 120).clamp(0, 255)
    assert off.double().mean() < 0.08
    z = ops.group_norm(x.view(4, 16, 768).movedim(-1, 1), 0.05, 120, weight, bias, 0.03, 120, None, 32)
    real = functional.group_norm(value.view(4, 16, 768).movedim(-1, 1), 32, weight.double(), bias.double())
    off = z.double() != ((real / 0.03).round() + 120).clamp(0, 255)
    assert off.double().mean() < 0.02


def test_long_rows_and_many_rows_of_columns():
    # Past the blocks in which 32-bit lanes of squares are folded.
    x = torch.full((1, 3_000_000), 255, dtype=U8)
    x[0, ::2] = 0
    y = ops.layer_norm(x, 0.1, 7, None, None, 1.0, 0, F32, [x.shape[1]])
    assert torch.allclose(y[0, :2], torch.tensor([-1.0, 1.0]), atol=1e-5)
    wide = x.view(1, 1, -1, 3).movedim(-1, 1)
    z = ops.group_norm(wide, 0.1, 7, None, None, 1.0, 0, F32, 1)
    assert torch.equal(z, ops.group_norm(wide.contiguous(), 0.1, 7, None, None, 1.0, 0, F32, 1))
    assert torch.allclose(z.abs(), torch.ones(()), atol=1e-5)


def test_a_row_without_spread_is_its_bias():
    bias = torch.tensor([0.5, -0.5, 2.0])
    for x in (torch.full((2, 3), 77, dtype=U8), torch.full((2, 3), 1e6)):
        qparams = (0.1, 3) if x.dtype == U8 else (1.0, 0)
        y = ops.layer_norm(x, *qparams, None, bias, 0.1, 10, U8, [3])
        assert y.tolist() == [[15, 5, 30]] * 2


@pytest.mark.parametrize("eps", [1e-5, 1e-12])
def test_equal_values_of_large_steps_are_the_bias(eps):
    """1 / sqrt(eps) times the rounding of a value would be steps."""
    x = torch.tensor([0, 5, 200, 255], dtype=U8).reshape(4, 1, 1).expand(4, 3, 2)
    bias = torch.tensor([0.25, -0.5, 1.0])
    out = (0.02, 128, U8)
    expected = torch.tensor([140, 103, 178], dtype=U8)  # of 12.5, -25 and 50 steps, ties to even
    for y in (
        ops.instance_norm(x, 30.0, 7, torch.ones(3), bias, *out, eps),
        ops.group_norm(x.contiguous(), 30.0, 7, None, bias, *out, 3, eps),
        ops.layer_norm(x[..., 0].unsqueeze(2), 30.0, 7, None, torch.full((1,), 0.25), *out, [1], eps),
    ):
        want = expected[:1] if y.shape[-1] == 1 else expected.reshape(1, 3, 1)
        assert (y.int() - want.int()).abs().max() <= 1
        assert (y == y[:1]).all()


def test_no_number_gives_the_lowest_integer():
    x = torch.tensor([[1.0, float("nan")], [3e38, 3e38], [float("inf"), 1.0], [1.0, 2.0]])
    y = ops.layer_norm(x, 1.0, 0, None, None, 0.1, 0, S8, [2])
    assert y[:3].eq(-128).all()
    assert y[3].tolist() == [-10, 10]
    assert ops.layer_norm(x, 1.0, 0, None, None, 1.0, 0, None, [2])[:3].isnan().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, f: ops.layer_norm(x, 0.1, 0, None, None, 0.1, 0, None, [4]), "'normalized_shape' must be"),
        (lambda x, f: ops.layer_norm(x, 0.1, 0, None, None, 0.1, 0, None, []), "'normalized_shape' must"),
        (lambda x, f: ops.layer_norm(x, 0.1, 0, f[0, :4], None, 0.1, 0, None, [6]), "'weight' must have"),
        (lambda x, f: ops.layer_norm(f, 0.1, 0, None, None, 0.1, 0, U8, [6]), "'input_scale' must be 1.0"),
        (lambda x, f: ops.layer_norm(f, 1.0, 3, None, None, 0.1, 0, U8, [6]), "'input_zero_point' must be 0"),
        (lambda x, f: ops.layer_norm(x, 0.1, 0, None, None, 0.1, 0, None, [6], -1.0), "'eps' must be a"),
        (lambda x, f: ops.layer_norm(x, 0.1, 0, None, None, 0.1, 0, None, [6], 1e-5, "add"),
         "'post_ops' must not contain"),
        (lambda x, f: ops.rms_norm(x, 0.1, 0, None, 0.1, 0, F32, [6]), "'output_scale' must be 1.0"),
        (lambda x, f: ops.add_layer_norm(x, 0.1, 0, f[:2], 1.0, 0, None, None, 0.1, 0, None, [6]),
         "'other' must have the sizes of input"),
        (lambda x, f: ops.group_norm(x, 0.1, 0, None, None, 0.1, 0, None, 4), "'num_groups' must be"),
        (lambda x, f: ops.group_norm(x, 0.1, 0, f[0, :4], None, 0.1, 0, None, 2), "'weight' must have"),
        (lambda x, f: ops.instance_norm(x, 0.1, 0, None, None, 0.1, 0, None), "'input' must have at least 3"),
        (lambda x, f: ops.batch_norm(x, 0.1, 0, f[0], f[0, :1], None, None, 0.1, 0, None),
         "'running_var' must have the sizes"),
        (lambda x, f: ops.batch_norm(x[:, :0], 0.1, 0, f[0, :0], f[0, :0], None, None, 0.1, 0, None),
         "'input' must have no dimension of size 0"),
    ],
)  # fmt: skip
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(random_int(U8, 3, 6), torch.randn(3, 6))


@pytest.mark.parametrize("name", ["add", "prelu", "affine"])
def test_post_ops_that_read_operands(name):
    x, f = random_int(U8, 3, 6), torch.randn(6)
    message = f"'post_ops' must not contain 'add', 'prelu' or 'affine', got '{name}'"
    for device in ("cpu", "meta"):  # the fake kernel says the same
        i, mean = x.to(device), f.to(device)
        with pytest.raises(ValueError, match=message):
            ops.layer_norm(i, 0.1, 0, None, None, 0.1, 0, None, [6], 1e-5, name)
        with pytest.raises(ValueError, match=message):
            ops.batch_norm(i, 0.1, 0, mean, mean, None, None, 0.1, 0, None, 1e-5, name)


def test_threads_keep_their_groups_apart():
    x, weight, bias = random_int(U8, 1, 4096, 5, 5), torch.randn(4096), torch.randn(4096)
    args = (x, 0.1, 7, weight, bias, 0.05, 128, None, 2048)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = ops.group_norm(*args)
    torch.set_num_threads(4)
    try:
        assert all(torch.equal(ops.group_norm(*args), expected) for _ in range(50))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("eps", [-1e-5, float("nan"), float("inf")])
def test_eps(eps):
    x, f = random_int(U8, 3, 6), torch.randn(3, 6)
    for call in (
        lambda: ops.layer_norm(x, 0.1, 0, None, None, 0.1, 0, None, [6], eps),
        lambda: ops.group_norm(x, 0.1, 0, None, None, 0.1, 0, None, 2, eps),
        lambda: ops.batch_norm(x, 0.1, 0, f[0], f[0], None, None, 0.1, 0, None, eps),
    ):
        with pytest.raises(ValueError, match=f"'eps' must be a finite number of at least 0, got {eps}"):
            call()


def test_dtypes_are_checked():
    x, f = random_int(U8, 3, 6), torch.randn(3, 6)
    with pytest.raises(TypeError, match="'input' must have dtype uint8 or int8"):
        ops.group_norm(f, 1.0, 0, None, None, 0.1, 0, U8, 2)
    with pytest.raises(TypeError, match="'weight' must have dtype float32 or bfloat16"):
        ops.layer_norm(x, 0.1, 0, f[0].double(), None, 0.1, 0, None, [6])
    with pytest.raises(TypeError, match="'sum_dtype' must be float32 or bfloat16"):
        ops.add_layer_norm_sum(x, 0.1, 0, f, 1.0, 0, None, None, 0.1, 0, None, [6], sum_dtype=U8)


@pytest.mark.parametrize("size", [-(1 << 63), -(1 << 62) - 1, (1 << 63) - 1])
def test_sizes_at_the_ends_of_int64(size):
    """torch takes those below -2^62 for symbols."""
    x, w = torch.zeros(2, 4, dtype=torch.uint8), torch.ones(4)
    calls = {
        "layer_norm": (x, 0.1, 0, w, None, 0.1, 0, None, [size]),
        "interpolate": (x[None, None], 0.1, 0, 0.1, 0, None, [size, 3]),
    }
    for name, args in calls.items():
        with pytest.raises(ValueError, match=f"^torch_ao::{name}: argument "):
            getattr(ops, name)(*args)
