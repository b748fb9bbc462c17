"""Stubs, FloatFunctional and QFunctional, activations and norms between quantized tensors."""

import copy
import warnings

import pytest
import torch
from static_cases import MODULES, make
from static_peer import nnq as peer_nnq
from static_peer import ours, steps, theirs
from torch import nn

import torch_ao_ext
from torch_ao_ext import load_quantized, save_quantized
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.nn.quantized._between import FloatToo
from torch_ao_ext.quantization import DeQuantStub, QuantStub, convert, default_qconfig, prepare
from torch_ao_ext.quantization.observer import PlaceholderObserver, default_observer


@pytest.fixture(autouse=True)
def _quiet(_warnings_are_errors):
    """torch.ao's tensors warn of their dtypes."""
    warnings.filterwarnings("ignore", message=r"torch\.quantize_per_tensor")


@pytest.mark.parametrize(
    "dtype, point", [(torch.quint8, 10), (torch.qint8, -20), (torch.uint8, 0), (torch.int8, 5)]
)
def test_quantize_and_back(dtype, point):
    x = torch.randn(50) * 20
    q = nnq.Quantize(0.07, point, dtype)(x)
    spelling = {torch.uint8: torch.quint8, torch.int8: torch.qint8}.get(dtype, dtype)
    want = torch.quantize_per_tensor(x, 0.07, point, spelling)
    assert torch.equal(q.int_repr(), want.int_repr())
    assert torch.allclose(nnq.DeQuantize()(q), want.dequantize(), rtol=1e-6)
    assert nnq.DeQuantize()(x) is x


def test_quantize_takes_low_precision_and_refuses_integers():
    x = torch.randn(8)
    q = nnq.Quantize(0.1, 100)
    assert torch.equal(q(x.bfloat16()).int_repr(), q(x.bfloat16().float()).int_repr())
    with pytest.raises(TypeError, match="Quantize: argument 'x' must be a float tensor, got torch.int64"):
        q(torch.ones(2, dtype=torch.int64))
    with pytest.raises(TypeError, match="must be a float tensor, got QuantizedTensor"):
        q(q(x))
    with pytest.raises(ValueError, match=r"Quantize: argument 'zero_point' must be in \[0, 255\], got 300"):
        nnq.Quantize(0.1, 300)


BINARY = ["add", "add_relu", "mul", "matmul"]


@pytest.mark.parametrize("name", BINARY)
def test_functional_against_torch_ao(name):
    a, b = ours(4, 4), ours(4, 4, scale=0.03, zero_point=100, seed=2)
    mine, peer = nnq.QFunctional(), peer_nnq().QFunctional()
    mine.scale, mine.zero_point = peer.scale, peer.zero_point = 0.06, 111
    y = getattr(mine, name)(a, b)
    assert steps(y, getattr(peer, name)(theirs(a), theirs(b))) <= 1
    real = getattr(nnq.FXFloatFunctional(), name)(a.dequantize(), b.dequantize())
    inside = (real / 0.06 + 111).clamp(0, 255)
    assert (y.int_repr() - inside).abs().max() <= 0.501


# Sizes as torch.matmul takes them: matrices, batches that broadcast, vectors on one side and on both.
PRODUCTS = [
    ((3, 7), (7, 5)), ((2, 1, 3, 7), (4, 7, 5)), ((7,), (7, 5)), ((3, 7), (7,)), ((7,), (7,)),
    ((7,), (2, 7, 5)), ((2, 3, 7), (7,)), ((0, 7), (7, 5)), ((3, 0), (0, 5)),
]  # fmt: skip


@pytest.mark.parametrize("sizes", PRODUCTS)
def test_functional_matmul_of_integers(sizes, monkeypatch):
    a, b = ours(*sizes[0]), ours(*sizes[1], scale=0.03, zero_point=100, seed=2)
    mine, peer = nnq.QFunctional(), peer_nnq().QFunctional()
    mine.scale, mine.zero_point = peer.scale, peer.zero_point = 0.06, 111
    want = peer.matmul(theirs(a), theirs(b))
    exact = a.int_repr().long().sub(120) @ b.int_repr().long().sub(100)
    v = exact.float() * (torch.tensor(0.05) * torch.tensor(0.03)) / torch.tensor(0.06)
    monkeypatch.setattr(torch, "matmul", None)  # not in floats
    y = mine.matmul(a, b)
    assert steps(y, want) <= 1
    assert torch.equal(y.int_repr(), (v.round() + 111).clamp(0, 255).to(torch.uint8))


def test_functional_matmul_of_other_dtypes_and_views():
    a, b = ours(2, 6, 4), ours(2, 6, 5, scale=0.03, zero_point=100, seed=2)
    signed = QuantizedTensor((a.int_repr().int() - 128).to(torch.int8), 0.05, -8)
    mine = nnq.QFunctional()
    mine.set_output(0.06, -17, torch.int8)
    y, same = mine.matmul(a.transpose(1, 2), b), mine.matmul(signed.transpose(1, 2), b)
    assert y.int_repr().dtype == torch.int8 and torch.equal(y.int_repr(), same.int_repr())
    real = a.dequantize().transpose(1, 2) @ b.dequantize()
    assert (y.int_repr() - (real / 0.06 - 17).clamp(-128, 127)).abs().max() <= 0.501
    with pytest.raises(ValueError, match=r"matmul: argument 'other' must have size\(1\)"):
        mine.matmul(a, b)


def test_functional_matmul_of_sums_beyond_int32():
    """33026 terms of 255 * 255."""
    ones = QuantizedTensor(torch.full((2, 33026), 255, dtype=torch.uint8), 1 / 255, 0)
    mine = nnq.QFunctional()
    mine.set_output(256.0, 3, torch.uint8)
    for column in (ones.t(), ones[0]):
        assert (mine.matmul(ones, column).int_repr() == 3 + 129).all()
        assert (mine.matmul(ones[:, 1:], column[1:]).int_repr() == 3 + 129).all()
    assert mine.matmul(ones[0], ones.t()).int_repr().tolist() == [132, 132]


def test_functional_matmul_after_prepare_and_convert():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.quant, self.dequant = QuantStub(), DeQuantStub()
            self.product = nnq.FloatFunctional()

        def forward(self, x):
            x = self.quant(x)
            return self.dequant(self.product.matmul(x, x.transpose(-1, -2)))

    x = torch.randn(4, 6, 16)
    model = Attention().eval()
    model.qconfig = default_qconfig
    model = prepare(model)
    want = model(x)
    model = convert(model)
    step = model.product.scale
    with torch.profiler.profile() as profile:
        y = model(x)
    assert "torch_ao::matmul" in {event.key for event in profile.key_averages()}
    assert (y - want).abs().max() <= 3 * step
    assert torch.equal(torch.jit.trace(model, x)(x), y)


def test_functional_cat():
    a, b = ours(2, 3), ours(2, 5, scale=0.03, zero_point=100, seed=2)
    mine, peer = nnq.QFunctional(), peer_nnq().QFunctional()
    mine.scale, mine.zero_point = peer.scale, peer.zero_point = 0.05, 120
    assert steps(mine.cat([a, b], dim=1), peer.cat([theirs(a), theirs(b)], dim=1)) <= 1


@pytest.mark.parametrize("value", [0.0, 0.3, -0.3, 4.0, 9.0, -9.0, 40.0])
def test_functional_add_scalar(value):
    q = ours(4, 5)
    y = nnq.QFunctional().add_scalar(q, value)
    assert steps(y, peer_nnq().QFunctional().add_scalar(theirs(q), value)) <= 1
    assert (y.dequantize() - (q.dequantize() + value)).abs().max() <= 0.51 * (q.q_scale() + y.q_scale())


@pytest.mark.parametrize("value", [2.0, 0.5, -1.5, 1e-3])
def test_functional_mul_scalar(value):
    q = ours(4, 5)
    y = nnq.QFunctional().mul_scalar(q, value)
    assert steps(y, peer_nnq().QFunctional().mul_scalar(theirs(q), value)) == 0
    assert torch.allclose(y.dequantize(), q.dequantize() * value, atol=1e-6)


def test_functional_mul_by_zero_and_beyond_range():
    q = ours(4, 5)
    assert not nnq.QFunctional().mul_scalar(q, 0).dequantize().any()
    with pytest.raises(ValueError, match="mul_scalar: argument 'y' must keep the scale normal, got 1e-40"):
        nnq.QFunctional().mul_scalar(q, 1e-40)


@pytest.mark.parametrize("name", [*BINARY, "cat"])
def test_functional_refuses_floats(name):
    q, f = ours(2, 2), torch.ones(2, 2)
    functional = nnq.QFunctional()
    args = ([q, f],) if name == "cat" else (q, f)
    with pytest.raises(
        TypeError, match="nn.quantized.QFunctional: argument 'input' must be a QuantizedTensor"
    ):
        getattr(functional, name)(*args)


def test_float_functional_observes_its_results():
    f = nnq.FloatFunctional()
    f.activation_post_process = default_observer()
    a, b = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -4.0]])
    assert torch.equal(f.add(a, b), a + b) and torch.equal(f.mul(a, b), a * b)
    assert torch.equal(f.cat([a, b], 1), torch.cat([a, b], 1))
    assert (float(f.activation_post_process.min_val), float(f.activation_post_process.max_val)) == (-8, 4)
    assert torch.equal(f.add_scalar(a, 100.0), a + 100) and torch.equal(f.mul_scalar(a, 100.0), a * 100)
    assert float(f.activation_post_process.max_val) == 4
    for module in (f, nnq.FXFloatFunctional(), nnq.QFunctional()):
        with pytest.raises(RuntimeError, match=f"{type(module).__name__}: forward must not be called"):
            module(a)
    made = nnq.QFunctional.from_float(f)
    assert made.qparams == (pytest.approx(12 / 127), 85, torch.uint8)


def _error_before_rounding(mod):
    """In steps: norms compute in 16 bits (csrc/kernels/norm.h)."""
    if isinstance(mod, (nn.LayerNorm, nn.RMSNorm)):
        return 0.2
    return 0.1 if any(part in type(mod).__name__ for part in ("Norm", "BN")) else 0.0


@pytest.mark.parametrize("name", MODULES)
def test_against_the_float_module(name):
    mod, int8, q, has_peer = make(name)
    y = int8(q)
    real = (mod(q.dequantize()) / int8.scale + int8.zero_point).clamp(0, 255)
    assert (y.int_repr() - real).abs().max() <= 0.502 + _error_before_rounding(mod)
    if has_peer:
        peer = getattr(peer_nnq(), name).from_float(copy.deepcopy(mod))
        assert steps(y, peer(theirs(q))) <= 1
    assert torch.equal(int8.train()(q).int_repr(), y.int_repr())  # statistics do not move


@pytest.mark.parametrize("name", MODULES)
def test_state_and_file(name, tmp_path):
    _, int8, q, _ = make(name)
    model = nn.Sequential(nnq.Quantize(0.05, 120), int8, nnq.DeQuantize())
    want = model(q.dequantize())
    assert torch.equal(copy.deepcopy(model)(q.dequantize()), want)
    path = tmp_path / "model.safetensors"
    save_quantized(model, path)
    assert torch.equal(load_quantized(path)(q.dequantize()), want)


@pytest.mark.parametrize("name", MODULES)
def test_floats_are_refused_and_an_observer_is_needed(name):
    mod, int8, q, _ = make(name)
    # Those that torch.ao leaves float take floats: test_static_forms.py.
    refused = torch.ones(2, dtype=torch.int32) if isinstance(int8, FloatToo) else q.dequantize()
    with pytest.raises(
        TypeError, match=f"nn.quantized.{type(int8).__name__}: argument 'input' must be a Quant"
    ):
        int8(refused)
    mod.activation_post_process = PlaceholderObserver()
    with pytest.raises(
        ValueError, match=f"{type(int8).__name__}: the activation observer must be for quint8"
    ):
        type(int8).from_float(mod)
    del mod.activation_post_process
    with pytest.raises(
        ValueError, match=f"{type(int8).__name__}.from_float: argument 'mod' must have an act"
    ):
        type(int8).from_float(mod)


def test_relu6_and_dropout():
    q = ours(4, 4, scale=0.2)
    assert torch.equal(nnq.ReLU6.from_float(nn.ReLU6())(q).dequantize(), q.dequantize().clamp(0, 6))
    dropout = nnq.Dropout.from_float(nn.Dropout(0.4))
    assert dropout.p == 0.4 and dropout.train()(q) is q
    for kind in (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout):
        assert kind().eval()(q) is q
        with pytest.raises(TypeError, match="training must be False"):
            kind()(q)


def test_default_ranges_of_sigmoid_and_softmax():
    for module in (nnq.Sigmoid(), nnq.Softmax(-1)):
        assert module.qparams == (1 / 256, 0, torch.uint8)


def test_report_names_what_is_computed_in_float():
    model = nn.Sequential(
        nnq.LayerNorm(4, None, None, 0.1, 10), nnq.Linear(4, 4), nnq.Softmax(-1),
        nnq.LayerNorm(4, None, None, 0.1, 10, dtype=torch.float64),
        nnq.BatchNorm2d(4, track_running_stats=False), nnq.SiLU(),
    )  # fmt: skip
    rows = torch_ao_ext.report(model).rows
    assert [(r.op, r.status, r.reason) for r in rows] == [
        ("LayerNorm", "int8", ""),
        ("Linear", "int8", ""),
        ("Softmax", "float", "int8 in and out, computed in float32"),
        ("LayerNorm", "float", "parameters of torch.float64"),
        ("BatchNorm2d", "float", "no running statistics"),
        ("SiLU", "int8", ""),
    ]


def test_images_without_a_batch():
    for tracked in (False, True):
        norm = nnq.InstanceNorm1d(4, scale=0.05, zero_point=120, track_running_stats=tracked)
        image = ours(4, 9)
        batch = QuantizedTensor(image.int_repr()[None], image.q_scale(), image.q_zero_point())
        assert torch.equal(norm(image).int_repr(), norm(batch).int_repr()[0])


def test_int8_activations():
    q = QuantizedTensor(torch.tensor([-128, 0, 127], dtype=torch.int8), 0.05, -10)
    y = nnq.Hardswish(0.04, -3, dtype=torch.qint8)(q)
    real = (nn.Hardswish()(q.dequantize()) / 0.04 - 3).clamp(-128, 127)
    assert y.dtype == torch.int8 and (y.int_repr() - real).abs().max() <= 0.502
