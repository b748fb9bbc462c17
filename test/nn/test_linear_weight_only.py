"""nn.quantized.LinearWeightOnly: numbers, state, every way to store or compile it."""

import copy
import io
import pickle

import pytest
import safetensors.torch
import torch
from torch import nn

import torch_ao_ext
from torch_ao_ext.nn.quantized import LinearWeightOnly

FORMATS = [(8, 0, 8), (4, 32, 8), (4, 128, 8), (8, 0, 16)]


def layer(bits=8, group_size=0, input_bits=8, k=70, n=9, bias=True):
    return LinearWeightOnly.from_float(nn.Linear(k, n, bias=bias), bits, group_size, input_bits)


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers(fmt, dtype):
    q = layer(*fmt)
    x = torch.randn(2, 3, 70).to(dtype)
    y = q(x)
    assert y.shape == (2, 3, 9) and y.dtype == dtype
    assert q.qweight.dtype == (torch.int8 if fmt[0] == 8 else torch.uint8)
    want = nn.functional.linear(x.double(), q.weight().double(), q.bias().double())
    tolerance = 0.02 if dtype == torch.bfloat16 or fmt[2] == 8 else 2e-4
    torch.testing.assert_close(y.double(), want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("bits, group, steps", [(8, 0, 127.5), (4, 32, 7.5), (4, 128, 7.5)])
def test_weight_is_within_half_a_step(bits, group, steps):
    float_layer = nn.Linear(300, 20)
    weight = float_layer.weight.detach()
    error = (LinearWeightOnly.from_float(float_layer, bits, group).weight() - weight).abs()
    assert float(error.max()) <= 0.51 / steps * float(weight.abs().max())


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_state_survives(fmt):
    q, x = layer(*fmt), torch.randn(4, 70)
    want = q(x)
    fresh = LinearWeightOnly(70, 9, True, *fmt)
    file = io.BytesIO()
    torch.save(q.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(fresh(x), want)
    fresh = LinearWeightOnly(70, 9, True, *fmt)
    fresh.load_state_dict(safetensors.torch.load(safetensors.torch.save(q.state_dict())))
    assert torch.equal(fresh(x), want)
    for other in (copy.deepcopy(q), pickle.loads(pickle.dumps(q))):
        assert torch.equal(other(x), want) and other.extra_repr() == q.extra_repr()
    low = copy.deepcopy(q).to(torch.bfloat16)
    assert low.weight_scale.dtype == torch.float32 and torch.equal(low(x), want)


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_runtimes_give_the_same_bits(fmt):
    q, x = nn.Sequential(layer(*fmt)).eval(), torch.randn(4, 70)
    want = q(x)
    assert torch.equal(torch.jit.script(q)(x), want)
    assert torch.equal(torch.jit.trace(q, x)(x), want)
    assert torch.equal(torch.compile(q, fullgraph=True, dynamic=True)(x), want)
    batch = {"input": {0: torch.export.Dim("batch", min=2)}}
    exported = torch.export.export(q, (x,), dynamic_shapes=batch).module()
    assert torch.equal(exported(torch.cat((x, x)))[:4], want)
    assert [row.op for row in torch_ao_ext.report(exported).rows] == ["linear_weight_only"]


def test_bias_follows_the_state():
    for bias in (True, False):
        q = layer(4, 32, bias=bias)
        other = LinearWeightOnly(70, 9, not bias, 4, 32)
        other.load_state_dict(q.state_dict())
        assert (other.qbias is None) is (not bias)


def test_wrong_state_is_refused():
    q = layer(4, 32)
    with pytest.raises(RuntimeError, match=r"weight_format .* must be \[4, 64, 8\], got \[4, 32, 8\]"):
        LinearWeightOnly(70, 9, True, 4, 64).load_state_dict(q.state_dict())
    with pytest.raises(RuntimeError, match="weight is a float weight; load it into the float model"):
        q.load_state_dict(nn.Linear(70, 9).state_dict(), strict=False)
    state = {**q.state_dict(), "format_version": torch.tensor(2)}
    with pytest.raises(RuntimeError, match="format_version must be <= 1, got 2"):
        q.load_state_dict(state)


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"bits": 2}, "argument 'bits' must be 8 or 4, got 2"),
        ({"bits": True}, "argument 'bits' must be 8 or 4, got True"),
        ({"bits": 8, "group_size": 32}, "argument 'group_size' must be 0 with 8 bits, got 32"),
        ({"bits": 4, "group_size": 16}, "argument 'group_size' must be 32 or 64 or 128 with 4 bits, got 16"),
        ({"input_bits": 32}, "argument 'input_bits' must be 8 or 16, got 32"),
    ],
)
def test_wrong_formats(arguments, text):
    with pytest.raises(ValueError, match=text):
        LinearWeightOnly(8, 4, **arguments)
    with pytest.raises(ValueError, match=text):
        LinearWeightOnly.from_float(nn.Linear(8, 4), **arguments)


def test_from_float_refuses_other_modules_and_nan():
    with pytest.raises(ValueError, match="must be nn.Linear or Conv1D, got Conv2d"):
        LinearWeightOnly.from_float(nn.Conv2d(1, 1, 1))
    bad = nn.Linear(4, 4)
    bad.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="weight must be finite, got NaN"):
        LinearWeightOnly.from_float(bad, 4, 32)
