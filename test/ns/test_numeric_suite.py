"""Numeric suite of eager mode, against torch.ao's where both exist."""

import copy
import warnings

import pytest
import torch
from torch import nn

import torch_ao_ext
from torch_ao_ext import quantization as tq
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.ns import _numeric_suite as ns
from torch_ao_ext.ns.fx import utils


class Net(nn.Module):
    """Layers of several kinds, and a sum."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()
        self.conv, self.fc, self.ff = nn.Conv2d(3, 4, 3), nn.Linear(4, 6), nnq.FloatFunctional()

    def forward(self, x):
        y = self.conv(self.quant(x))
        y = self.fc(y.mean([2, 3]))
        return self.dequant(self.ff.add_relu(y, y))


def flows():
    model = Net().eval().requires_grad_(False)
    model.qconfig = tq.get_default_qconfig("onednn")
    x = torch.randn(8, 3, 6, 6)
    prepared = tq.prepare(model)
    prepared(x)
    return model, tq.convert(prepared), x


def test_weights_side_by_side():
    model, int8, _ = flows()
    found = ns.compare_weights(model.state_dict(), int8.state_dict())
    assert set(found) == {"conv.weight", "fc.weight"}
    for pair in found.values():
        assert pair["float"].shape == pair["quantized"].shape
        assert utils.compute_sqnr(pair["float"], pair["quantized"]) > 35


def test_weights_of_recurrent_and_fused_layers():
    torch.manual_seed(0)
    model = nn.LSTM(8, 4, num_layers=2, bidirectional=True).eval()
    int8 = tq.quantize_dynamic(nn.ModuleList([model]))
    found = ns.compare_weights(nn.ModuleList([model]).state_dict(), int8.state_dict())
    assert len(found) == 8
    assert all(utils.compute_sqnr(p["float"], p["quantized"]) > 30 for p in found.values())
    fused = tq.fuse_modules(nn.Sequential(nn.Linear(8, 4), nn.ReLU()).eval(), [["0", "1"]])
    dynamic = tq.quantize_dynamic(fused, {torch_ao_ext.nn.intrinsic.LinearReLU: tq.default_dynamic_qconfig})
    assert set(ns.compare_weights(fused.state_dict(), dynamic.state_dict())) == {"0.0.weight"}


def test_results_of_each_layer():
    model, int8, x = flows()
    want = int8(x)
    found = ns.compare_model_outputs(copy.deepcopy(model), int8, x)
    assert {"conv.stats", "fc.stats", "ff.stats"} <= set(found)
    for stats in found.values():
        for a, b in zip(stats["float"], stats["quantized"], strict=True):
            assert utils.compute_sqnr(a, b) > 25
    assert torch.equal(int8(x), want)


def test_each_layer_on_the_same_input():
    model, int8, x = flows()
    want = int8(x)
    found = ns.compare_model_stub(model, int8, {nn.Conv2d, nn.Linear, nnq.FloatFunctional}, x)
    assert set(found) == {"conv.stats", "fc.stats", "ff.stats"}
    linear = found["fc.stats"]
    assert len(linear["float"]) == 1 and utils.compute_sqnr(linear["float"][0], linear["quantized"][0]) > 30
    assert torch.equal(int8(x), want)
    assert len(linear["float"]) == 2
    assert type(int8.fc) is ns.Shadow


def test_shadow_of_a_recurrent_layer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.LSTM(8, 4)).eval().requires_grad_(False)
    int8 = tq.quantize_dynamic(model)
    found = ns.compare_model_stub(model, int8, {nn.LSTM}, torch.randn(5, 2, 8))
    assert found["0.stats"]["float"][0].shape == (5, 2, 4)


def test_against_torch_ao():
    warnings.simplefilter("ignore")
    from torch.ao import quantization as peer
    from torch.ao.ns import _numeric_suite as theirs

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval().requires_grad_(False)
    x = torch.randn(16, 8)
    other = peer.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    mine = tq.quantize_dynamic(copy.deepcopy(model), {nn.Linear: tq.default_dynamic_qconfig})
    want = theirs.compare_model_outputs(copy.deepcopy(model), copy.deepcopy(other), x)
    have = ns.compare_model_outputs(copy.deepcopy(model), copy.deepcopy(mine), x)
    for name in ("0.stats", "2.stats"):
        assert name in want and name in have
        assert torch.equal(want[name]["float"][0], have[name]["float"][0])
        assert utils.compute_sqnr(want[name]["quantized"][0], have[name]["quantized"][0]) > 40
    shadows = theirs.compare_model_stub(model, other, {nn.Linear}, x)
    mine = ns.compare_model_stub(model, mine, {nn.Linear}, x)
    assert set(shadows) == set(mine) == {"0.stats", "2.stats"}


@pytest.mark.parametrize("name", [n for n in utils.__all__ if n.startswith("compute_")])
def test_measures_equal_torch_aos(name):
    warnings.simplefilter("ignore")
    from torch.ao.ns.fx import utils as theirs

    torch.manual_seed(0)
    x, y = torch.randn(3, 5), torch.randn(3, 5)
    mine, other = getattr(utils, name), getattr(theirs, name)
    assert torch.allclose(mine(x, y), other(x, y), atol=1e-6)
    both = mine([x, (y, x)], [y, (x, x + 0.1)])
    assert torch.allclose(both[0], other(x, y), atol=1e-6) and len(both[1]) == 2
    q = torch_ao_ext.nn.quantized.Quantize(0.05, 128)(x)
    assert torch.allclose(mine(x, q), other(x, q.dequantize()), atol=1e-6)
    with pytest.raises(ValueError, match=f"{name}: argument 'y' must have the shape of x"):
        mine(x, y[:1])
    with pytest.raises(ValueError, match="must have the structure of x"):
        mine([x], [y, y])
    with pytest.raises(TypeError, match="argument 'x' must be a tensor, got float"):
        mine(1.0, y)


def test_refusals():
    model, int8, _ = flows()
    with pytest.raises(ValueError, match="must name classes of float modules that are quantized in q_module"):
        ns.prepare_model_with_stubs(model, int8, {nn.LSTM}, ns.ShadowLogger)
    with pytest.raises(ValueError, match="argument 'q_module' must be a Python nn.Module, got int"):
        ns.prepare_model_outputs(model, 3)
