"""Products with a batch normalization: the fold in float32, exact results, torch's own, messages."""

import random

import numpy as np
import op_reference as reference
import pytest
import test_conv
import test_linear
import torch
import torch.nn.functional as functional
from op_cases import EXACT_ENGINES, random_int
from test_conv import OPS, op_name

ops = torch.ops.torch_ao
F = np.float32
CASES = 500  # of each op
# All have a name without relu, those that are not transposed one with it, too.
FORMS = [(*op, relu) for op in OPS for relu in (False, True)[: 2 - op[1]]]


def statistics(rng, n):
    """running_mean, running_var, bn_weight, bn_bias, eps."""
    gamma = torch.randn(n) if rng.random() < 0.8 else None
    if gamma is not None:
        gamma[rng.randrange(n)] = 0
    beta = torch.randn(n) if rng.random() < 0.8 else None
    return torch.randn(n), torch.rand(n) * rng.choice([0.01, 4.0]), gamma, beta, rng.choice([1e-5, 1e-3])


def folded(s_w, bias, bn, n):
    """csrc/ops/batch_norm.h, every step one float32 operation."""
    mean, var, gamma, beta, eps = (reference.to_numpy(v) if isinstance(v, torch.Tensor) else v for v in bn)
    factor = (F(1) / np.sqrt((var + F(eps)).astype(F))).astype(F)
    if gamma is not None:
        factor = (gamma * factor).astype(F)
    b = np.zeros(n, F) if bias is None else bias.numpy()
    b = ((b - mean).astype(F) * factor).astype(F)
    if beta is not None:
        b = (b + beta).astype(F)
    scale = (np.broadcast_to(s_w.numpy(), n) * factor).astype(F)
    return torch.from_numpy(scale), torch.from_numpy(b)


def run_conv_case(rng, rank, transposed, relu):
    x, w, groups, n, numbers = test_conv.random_case(rng, rank, transposed)
    info = torch.iinfo(x.dtype)
    zp_x = rng.randint(info.min, info.max)
    s_w = torch.rand(rng.choice([1, n])) * 0.02 + 1e-4
    zp_w = torch.randint(-128, 128, (rng.choice([1, n]),)) if rng.random() < 0.2 else None
    bias = torch.randn(n) if rng.random() < 0.7 else None
    bn = statistics(rng, n)
    dtype = rng.choice([torch.uint8, torch.int8, torch.float32])
    s_y, zp_y = (1.0, 0) if dtype == torch.float32 else (rng.choice([0.05, 0.7, 4.0]), rng.randint(0, 100))
    acc = test_conv.accumulators(rank, transposed, x, zp_x, w, zp_w, groups, **numbers)
    y = getattr(ops, f"{op_name(rank, transposed)}_bn{'_relu' * relu}")(
        x, 0.03, zp_x, w, s_w, zp_w, bias, *bn, s_y, zp_y, dtype, groups=groups, **numbers
    )
    expected = test_conv.quantized(acc, 0.03, *folded(s_w, bias, bn, n), s_y, zp_y, dtype, relu)
    assert torch.equal(y, expected), (x.shape, x.dtype, w.shape, groups, numbers, relu)


@pytest.mark.parametrize(("rank", "transposed", "relu"), FORMS)
def test_random_cases_of_conv_are_exact(rank, transposed, relu):
    torch.manual_seed(rank)
    rng = random.Random(f"{rank} {transposed} {relu} bn")
    for _ in range(CASES):
        run_conv_case(rng, rank, transposed, relu)


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize(("rank", "transposed", "relu"), FORMS)
def test_each_engine_of_conv_is_exact(rank, transposed, relu, engine, forced):
    torch.manual_seed(7)
    rng = random.Random(engine)
    forced(engine)
    for _ in range(10):
        run_conv_case(rng, rank, transposed, relu)


@pytest.mark.parametrize("post_ops", ["", "relu"])
@pytest.mark.parametrize("engine", EXACT_ENGINES)
def test_random_cases_of_linear_are_exact(engine, post_ops, forced, rng):
    forced(engine)
    for _ in range(CASES):
        call = test_linear.random_call(rng)
        n = call[3].shape[0]
        bn = statistics(rng, n)
        scale, bias = folded(call[4], call[6], bn, n)
        y = (ops.linear_bn_relu if post_ops else ops.linear_bn)(*call[:7], *bn, *call[7:])
        assert torch.equal(y, reference.linear(*call[:4], scale, call[5], bias, *call[7:], post_ops))


def test_xnnpack_takes_positive_scales_only(forced):
    forced("xnnpack")
    x, w, s = random_int(torch.int8, 3, 16), random_int(torch.int8, 8, 16), torch.full((8,), 0.01)
    mean, var, gamma = torch.zeros(8), torch.ones(8), torch.full((8,), 0.5)
    call = (x, 0.1, 0, w, s, None, None, mean, var)
    exact = ops.linear_bn(*call, gamma, None, 0.0, 0.05, 0)
    ops._set_engine("reference")
    assert (exact.int() - ops.linear_bn(*call, gamma, None, 0.0, 0.05, 0).int()).abs().max() <= 1
    ops._set_engine("xnnpack")
    for value in (-0.5, 0.0):
        gamma = torch.full((8,), 0.5)
        gamma[3] = value
        with pytest.raises(NotImplementedError, match="xnnpack: weight scale .* needs a positive normal"):
            ops.linear_bn(*call, gamma, None, 0.0, 0.05, 0)


@pytest.mark.parametrize(("rank", "transposed"), OPS)
def test_close_to_torchs_batch_norm(rank, transposed):
    """Real values of the float layers, of both signs of gamma."""
    x = random_int(torch.uint8, 2, 8, *[6] * rank)
    w, s = random_int(torch.int8, 8, 8, *[3] * rank), torch.rand(8) * 0.01 + 0.001
    bias, mean, var = torch.randn(8), torch.randn(8), torch.rand(8) + 0.1
    gamma, beta = torch.linspace(-2, 2, 8), torch.randn(8)
    name = op_name(rank, transposed)
    column = (1, 8, *[1] * rank) if transposed else (8, 1, *[1] * rank)
    weight = w.double() * s.double().reshape(column)
    z = getattr(functional, name)((x.double() - 7) * 0.1, weight, bias.double())
    want = functional.batch_norm(z, *(t.double() for t in (mean, var, gamma, beta)), eps=1e-3)
    y = getattr(ops, f"{name}_bn")(
        x, 0.1, 7, w, s, None, bias, mean, var, gamma, beta, 1e-3, 1.0, 0, torch.float32
    )
    assert torch.allclose(y.double(), want, rtol=1e-5, atol=1e-4)


def test_a_gamma_of_zero_gives_beta():
    x, w, s = random_int(torch.uint8, 1, 3, 5, 5), random_int(torch.int8, 4, 3, 3, 3), torch.ones(1)
    beta = torch.randn(4)
    y = ops.conv2d_bn(
        x, 1.0, 0, w, s, None, torch.randn(4), torch.randn(4), torch.rand(4), torch.zeros(4), beta, 1e-5,
        1.0, 0, torch.float32,
    )  # fmt: skip
    assert torch.equal(y, beta.reshape(1, 4, 1, 1).expand_as(y))


def test_packed_again_when_a_statistic_changes_and_only_then():
    w, s = random_int(torch.int8, 4, 3, 3, 3), torch.ones(4)
    bn = [torch.zeros(4), torch.ones(4), torch.ones(4), torch.zeros(4)]
    x = random_int(torch.uint8, 1, 3, 5, 5)

    def run(eps=1e-5):
        return ops.conv2d_bn(x, 1.0, 0, w, s, None, None, *bn, eps, 1.0, 0, torch.float32)

    before = run()
    run()
    assert ops._pack_count(w) == 1
    for i, t in enumerate(bn):
        t.add_(1.0)
        assert not torch.equal(run(), before)
        assert ops._pack_count(w) == 2 + i
    run(1e-3)
    assert ops._pack_count(w) == 6


@pytest.mark.parametrize(
    ("argument", "error", "change"),
    [
        ("running_mean", ValueError, {"running_mean": torch.zeros(3)}),
        ("running_mean", ValueError, {"running_mean": torch.tensor([0.0, float("nan"), 0.0, 0.0])}),
        ("running_var", TypeError, {"running_var": torch.ones(4, dtype=torch.float64)}),
        ("running_var", ValueError, {"running_var": torch.tensor([1.0, -0.5, 1.0, 1.0])}),
        ("running_var", ValueError, {"running_var": torch.zeros(4), "eps": 0.0}),
        ("running_var", ValueError, {"bn_weight": torch.ones(4) * 3e38, "running_var": torch.ones(4) * 1e-8}),
        ("bn_weight", ValueError, {"bn_weight": torch.ones(4, 1)}),
        ("bn_bias", ValueError, {"bn_bias": torch.full((4,), float("inf"))}),
        ("eps", ValueError, {"eps": -1e-3}),
        ("eps", ValueError, {"eps": 1e300}),
    ],
)
@pytest.mark.parametrize("op", ["conv2d_bn", "linear_bn_relu"])
def test_messages(op, argument, error, change):
    shape = (4, 2, 1, 1) if op == "conv2d_bn" else (4, 2)
    call = {
        "running_mean": torch.zeros(4), "running_var": torch.ones(4), "bn_weight": None, "bn_bias": None,
        "eps": 1e-5, **change,
    }  # fmt: skip
    x, w = torch.ones((1, *shape[1:]), dtype=torch.uint8), torch.ones(shape, dtype=torch.int8)
    for batch in (x, x[:0]):  # an empty batch is no way past the checks
        with pytest.raises(error, match=f"torch_ao::{op}: argument '{argument}' must"):
            getattr(ops, op)(batch, 1.0, 0, w, torch.ones(1), None, None, *call.values(), 1.0, 0)


@pytest.mark.parametrize(
    ("var", "text"), [(-0.5, "hold values above -eps"), (1e-8, "give a finite scale and bias")]
)
def test_which_of_two_rules_a_variance_breaks(var, text):
    x, w, vectors = torch.ones(1, 2, dtype=torch.uint8), torch.ones(4, 2, dtype=torch.int8), torch.zeros(4)
    bn = vectors, torch.full((4,), var), torch.ones(4) * 3e38, None, 1e-10
    with pytest.raises(ValueError, match=f"'running_var' must {text}"):
        ops.linear_bn(x, 1.0, 0, w, torch.ones(1), None, None, *bn, 1.0, 0)
