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
        named["post_ops"], named["post_op_args"], other, named.get("slope"),
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


@pytest.mark.parametrize("op", ["conv2d", "conv2d_dynamic", "conv_transpose2d", "conv_transpose2d_dynamic"])
def test_slopes_are_checked(op):
    x, w, s = torch.ones(1, 2, 3, 3), torch.ones(2, 2, 1, 1, dtype=torch.int8), torch.ones(1)
    call = (x, w, s) if "dynamic" in op else (x.to(torch.uint8), 1.0, 0, w, s, None, None, 1.0, 0)
    op = getattr(ops, op)
    for error, named in (
        (ValueError, {"post_ops": "prelu"}),
        (ValueError, {"slope": torch.ones(2)}),
        (ValueError, {"post_ops": "relu", "slope": torch.ones(2)}),
        (ValueError, {"post_ops": "prelu", "slope": torch.ones(3)}),
        (TypeError, {"post_ops": "prelu", "slope": torch.ones(2, dtype=torch.float64)}),
        (ValueError, {"post_ops": "prelu", "slope": torch.tensor([1.0, float("inf")])}),
    ):
        with pytest.raises(error, match="argument 'slope' must"):
            op(*call, **named)
        if error is TypeError or "inf" not in str(named):
            with pytest.raises(error, match="argument 'slope' must"):
                meta = [c.to("meta") if isinstance(c, torch.Tensor) else c for c in call]
                op(*meta, **{k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in named.items()})


def test_ops_without_slopes_refuse_prelu():
    w, s = torch.ones(4, 4, dtype=torch.int8), torch.ones(1)
    x = torch.ones(2, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="requantize: argument 'post_ops' must not contain 'add' or 'prelu'"):
        ops.requantize(x, 1.0, 0, 1.0, 0, None, "prelu")
    blocks = (torch.ones(4, 1, 4, dtype=torch.int8), torch.arange(5, dtype=torch.int32))
    columns = torch.zeros(4, dtype=torch.int32)
    with pytest.raises(ValueError, match="sparse_linear: argument 'post_ops' must not contain 'prelu'"):
        ops.sparse_linear(x, 1.0, 0, *blocks, columns, w.shape, s, None, 1.0, 0, None, "prelu")
