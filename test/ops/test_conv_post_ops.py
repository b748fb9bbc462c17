"""Post-ops behind convolutions: exact ones by op_reference.py, smooth ones close and equal in all engines."""

import random

import numpy as np
import op_reference as reference
import pytest
import torch
from op_cases import random_int
from test_conv import accumulators, op_name, random_case

ops = torch.ops.torch_ao
F = np.float32
ENGINES = ("native", "reference")
OUTPUTS = (torch.uint8, torch.int8, torch.float32, torch.bfloat16)
EXACT = [
    ("relu", []),
    ("clamp", [-0.5, 6.0]),
    ("leaky_relu", [0.01]),
    ("prelu", []),
    ("add", []),
    ("add,relu", []),
    ("add,prelu", []),
    ("relu,add", []),
    ("prelu,clamp,add,leaky_relu", [-1.0, 1.0, 0.3]),
    ("add,relu,affine", []),
    ("affine,prelu", []),
]
# A batch norm behind an activation, which oneDNN's primitives compute too.
AFFINE = [
    ("affine", []),
    ("relu,affine", []),
    ("clamp,affine,relu", [-0.5, 6.0]),
    ("relu,affine,clamp", [0.5, 6.0]),
]
SMOOTH = ["silu", "gelu", "gelu_tanh", "hardswish", "hardsigmoid", "sigmoid", "tanh"]


def random_call(rng, names, args):
    """(operator, positional and named arguments, the exact sums) of a random convolution."""
    rank, transposed = rng.choice([1, 2, 2, 3]), rng.random() < 0.3
    x, w, groups, n, numbers = random_case(rng, rank, transposed)
    info = torch.iinfo(x.dtype)
    zero_point = rng.randint(info.min, info.max)
    zp_w = torch.randint(-128, 128, (rng.choice([1, n]),)) if rng.random() < 0.2 else None
    acc = accumulators(rank, transposed, x, zero_point, w, zp_w, groups, **numbers)
    bias = torch.randn(n) if rng.random() < 0.7 else None
    dtype = rng.choice(OUTPUTS)
    output = (1.0, 0) if dtype.is_floating_point else (rng.uniform(0.01, 0.5), rng.randint(0, 100))
    named = {**numbers, "groups": groups, "post_ops": names, "post_op_args": args}
    if "add" in names:
        other = rng.choice(OUTPUTS)
        if other.is_floating_point:
            named["other"] = torch.randn(acc.shape).to(other)
        else:
            point = rng.randint(*reference.RANGES[other])
            named |= {"other": random_int(other, *acc.shape), "other_scale": 0.07, "other_zero_point": point}
    if "prelu" in names:
        named["slope"] = torch.randn(rng.choice([1, n]))
    if "affine" in names:
        named |= {"affine_weight": torch.randn(n), "affine_bias": torch.randn(n)}
        named["affine_weight"][rng.randrange(n)] = 0
    scale = torch.rand(rng.choice([1, n])) * 0.001 + 1e-4
    call = (x, rng.uniform(0.001, 0.05), zero_point, w, scale, zp_w, bias, *output, dtype)
    return getattr(ops, op_name(rank, transposed)), call, named, acc


def expected(call, named, acc):
    """The rule of csrc/engines/linear.h: an output pixel is a row."""
    n = acc.shape[1]
    columns = acc.movedim(1, -1)
    other = named.get("other")
    if other is not None:
        other = reference.other_values(
            other.movedim(1, -1), named.get("other_scale", 1.0), named.get("other_zero_point", 0), n
        )
    r = reference.real_values(
        columns.reshape(-1, n).numpy(), F(call[1]), call[4].expand(n).numpy(), reference.to_numpy(call[6]),
        named["post_ops"], named["post_op_args"], other,
        *(named.get(name) for name in ("slope", "affine_weight", "affine_bias")),
    )  # fmt: skip
    y = reference.to_output(r, call[9], call[7], call[8])
    return y.reshape(columns.shape).movedim(-1, 1)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("names", "args"), EXACT, ids=[names for names, _ in EXACT])
def test_random_cases_of_exact_post_ops(engine, names, args, forced):
    forced(engine)
    torch.manual_seed(3)
    rng = random.Random(names)
    for _ in range(60 if engine != "reference" else 15):
        operator, call, named, acc = random_call(rng, names, args)
        y = operator(*call, **named)
        assert torch.equal(y, expected(call, named, acc)), (call[0].shape, call[3].shape, named.keys())


@pytest.mark.parametrize("engine", (*ENGINES, "onednn"))
@pytest.mark.parametrize(("names", "args"), AFFINE, ids=[names for names, _ in AFFINE])
def test_random_cases_of_affine(engine, names, args, forced):
    """500 of each engine but the reference."""
    forced(engine)
    torch.manual_seed(3)
    rng = random.Random(names)
    ran = 0
    for _ in range(125 if engine != "reference" else 15):
        operator, call, named, acc = random_call(rng, names, args)
        try:
            y = operator(*call, **named)
        except NotImplementedError:  # not every convolution has every engine
            continue
        ran += 1
        assert torch.equal(y, expected(call, named, acc)), (call[0].shape, call[3].shape, named.keys())
    assert ran >= (15 if engine == "reference" else 60)


def test_xnnpack_refuses_affine(forced):
    forced("xnnpack")
    x, w, s = torch.ones(1, 2, 3, 3).to(torch.uint8), torch.ones(2, 2, 1, 1, dtype=torch.int8), torch.ones(1)
    named = {"post_ops": "relu,affine", "affine_weight": torch.ones(2), "affine_bias": torch.ones(2)}
    with pytest.raises(NotImplementedError, match="xnnpack: post-op other than relu or clamp"):
        ops.conv2d(x, 1.0, 0, w, s, None, None, 1.0, 0, **named)


@pytest.mark.parametrize("name", SMOOTH)
def test_random_cases_of_smooth_post_ops_are_close_and_equal_in_all_engines(name, forced):
    torch.manual_seed(3)
    rng = random.Random(name)
    for _ in range(30):
        operator, call, named, acc = random_call(rng, name, [])
        want = expected(call, named, acc)
        ops._set_engine("reference")
        y = operator(*call, **named)
        ops._set_engine("")
        assert torch.equal(operator(*call, **named), y)
        if call[9].is_floating_point:
            tolerance = 2**-20 if call[9] == torch.float32 else 2**-7
            torch.testing.assert_close(y.double(), want.double(), rtol=tolerance, atol=2**-21)
        else:
            assert (y.int() - want.int()).abs().max() <= 1


BAD_TENSORS = [
    ("slope", ValueError, {"post_ops": "prelu"}),
    ("slope", ValueError, {"slope": torch.ones(2)}),
    ("slope", ValueError, {"post_ops": "relu", "slope": torch.ones(2)}),
    ("slope", ValueError, {"post_ops": "prelu", "slope": torch.ones(3)}),
    ("slope", TypeError, {"post_ops": "prelu", "slope": torch.ones(2, dtype=torch.float64)}),
    ("slope", ValueError, {"post_ops": "prelu", "slope": torch.tensor([1.0, float("inf")])}),
    ("affine_weight", ValueError, {"post_ops": "affine"}),
    ("affine_bias", ValueError, {"post_ops": "affine", "affine_weight": torch.ones(2)}),
    ("affine_bias", ValueError, {"post_ops": "relu", "affine_bias": torch.ones(2)}),
    ("affine_weight", ValueError, {"post_ops": "affine", "affine_weight": torch.ones(1)}),
    ("affine_weight", ValueError, {"post_ops": "affine", "affine_weight": torch.ones(2, 1)}),
    ("affine_weight", TypeError, {"post_ops": "affine", "affine_weight": torch.ones(2).double()}),
    ("affine_bias", ValueError,
     {"post_ops": "affine", "affine_weight": torch.ones(2), "affine_bias": torch.full((2,), float("inf"))}),
    ("affine_weight", ValueError,
     {"post_ops": "affine", "affine_weight": torch.full((2,), float("nan")), "affine_bias": torch.ones(2)}),
    ("post_ops", ValueError,
     {"post_ops": "affine,affine", "affine_weight": torch.ones(2), "affine_bias": torch.ones(2)}),
]  # fmt: skip


@pytest.mark.parametrize("op", ["conv2d", "conv2d_dynamic", "conv_transpose2d", "linear", "linear_dynamic"])
def test_tensors_of_post_ops_are_checked(op):
    size = (1, 1) if "conv" in op else ()
    x, w, s = torch.ones(1, 2, *size), torch.ones(2, 2, *size, dtype=torch.int8), torch.ones(1)
    call = (x, w, s) if "dynamic" in op else (x.to(torch.uint8), 1.0, 0, w, s, None, None, 1.0, 0)
    op = getattr(ops, op)
    for name, error, named in BAD_TENSORS:
        for rows in (1, 0):  # an empty batch is checked like any other
            with pytest.raises(error, match=f"argument '{name}' must"):
                op(call[0][:rows], *call[1:], **named)
        finite = all(not isinstance(v, torch.Tensor) or v.isfinite().all() for v in named.values())
        if finite:  # no values under meta tensors
            with pytest.raises(error, match=f"argument '{name}' must"):
                meta = [c.to("meta") if isinstance(c, torch.Tensor) else c for c in call]
                op(*meta, **{k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in named.items()})


@pytest.mark.parametrize("name", ["prelu", "affine"])
def test_ops_without_tensors_of_post_ops_refuse_them(name):
    w, s = torch.ones(4, 4, dtype=torch.int8), torch.ones(1)
    x = torch.ones(2, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="requantize: argument 'post_ops' must not contain 'add', 'prelu'"):
        ops.requantize(x, 1.0, 0, 1.0, 0, None, name)
    blocks = (torch.ones(4, 1, 4, dtype=torch.int8), torch.arange(5, dtype=torch.int32))
    columns = torch.zeros(4, dtype=torch.int32)
    with pytest.raises(ValueError, match=f"sparse_linear: argument 'post_ops' must not contain '{name}'"):
        ops.sparse_linear(x, 1.0, 0, *blocks, columns, w.shape, s, None, 1.0, 0, None, name)


def test_affine_is_the_batch_norm_behind_an_activation():
    """Against torch in f64, from integers that the f32 rule holds exactly enough."""
    torch.manual_seed(5)
    x, w = random_int(torch.uint8, 2, 3, 9, 9), random_int(torch.int8, 70, 3, 3, 3)
    norm = torch.nn.BatchNorm2d(70).eval()
    for t in (norm.running_mean, norm.weight.data, norm.bias.data):
        t.normal_()
    norm.running_var.uniform_(0.1, 2)
    factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * factor
    named = {"affine_weight": factor.float().detach(), "affine_bias": shift.float().detach()}
    output = (1.0, 0, torch.float32)
    y = ops.conv2d(x, 0.01, 3, w, torch.tensor([0.01]), None, None, *output, post_ops="relu,affine", **named)
    sums = torch.nn.functional.conv2d((x.double() - 3) * 0.01, w.double() * 0.01)
    want = norm.double()(sums.relu()).detach()
    torch.testing.assert_close(y.double(), want, rtol=1e-5, atol=1e-5)
