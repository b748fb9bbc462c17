"""quantize_weight_only: what is converted, what stays, what is shared, stored and reported."""

import copy

import pytest
import torch
from torch import nn

import torch_ao_ext
from torch_ao_ext import load_quantized, report, save_quantized
from torch_ao_ext.nn.quantized import LinearWeightOnly
from torch_ao_ext.quantization import quantize_dynamic, quantize_weight_only


class Conv1D(nn.Module):
    """transformers' layer: weight [K, N]."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.randn(nx, nf) * 0.1)
        self.bias = nn.Parameter(torch.randn(nf))

    def forward(self, x):
        return x @ self.weight + self.bias


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
        self.second.weight = self.first.weight
        self.again = self.first

    def forward(self, x):
        return self.again(self.second(self.first(x)))


def model():
    return nn.Sequential(nn.Linear(64, 40), nn.GELU(), nn.LayerNorm(40), Conv1D(20, 40), nn.Linear(20, 3))


@pytest.mark.parametrize("bits, group", [(8, None), (8, 0), (4, None), (4, 32), (4, 64)])
def test_converts_and_leaves_the_original(bits, group):
    float_model = model()
    state = copy.deepcopy(float_model.state_dict())
    q = quantize_weight_only(float_model, bits, group, input_bits=16)  # the error is that of the weights
    assert [i for i, m in enumerate(q) if isinstance(m, LinearWeightOnly)] == [0, 3, 4]
    assert all(torch.equal(v, state[k]) for k, v in float_model.state_dict().items())
    assert all(m.group_size == (group or (128 if bits == 4 else 0)) for m in q if hasattr(m, "bits"))
    x = torch.randn(5, 64)
    real = copy.deepcopy(float_model)
    for i in (0, 3, 4):
        real[i].weight.data = q[i].weight().t() if i == 3 else q[i].weight()
    with torch.no_grad():
        torch.testing.assert_close(q(x), real(x), rtol=1e-3, atol=1e-3)
    assert all(row.engine == "native" for row in report(q).rows if row.status == "int8")


def test_in_place_and_root():
    m = model()
    assert quantize_weight_only(m, inplace=True) is m and isinstance(m[0], LinearWeightOnly)
    assert isinstance(quantize_weight_only(nn.Linear(4, 4)), LinearWeightOnly)


@pytest.mark.parametrize("bits", [8, 4])
def test_tied_layers_share(bits):
    q = quantize_weight_only(Tied(), bits)
    assert q.first is q.again and q.first.qweight is q.second.qweight
    assert q.first.weight_scale is q.second.weight_scale
    assert q.first.qbias is not q.second.qbias


def test_filter_and_report():
    q = quantize_weight_only(model(), 4, 32, filter_fn=lambda module, name: name != "4")
    assert type(q[4]) is nn.Linear
    rows = {row.fqn: (row.op, row.status, row.reason) for row in report(q).rows}
    assert rows["0"] == ("LinearWeightOnly (4 bit)", "int8", "")
    assert rows["4"] == ("Linear", "float", "filter_fn says no")
    assert report(q).parameters["int8"] == 64 * 40 + 40 * 20
    assert "weight-only 4 bit in groups of 32" in str(torch_ao_ext.explain(q))


def test_attention_keeps_its_projection_float():
    q = quantize_weight_only(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True))
    assert isinstance(q.linear1, LinearWeightOnly) and type(q.self_attn) is nn.MultiheadAttention
    assert q(torch.randn(2, 3, 16)).shape == (2, 3, 16)


def test_bfloat16_model():
    q = quantize_weight_only(model().to(torch.bfloat16), 4, 32)
    count = torch.ops.torch_ao._pack_count()
    with torch.no_grad():
        assert q(torch.randn(2, 64).bfloat16()).dtype == torch.bfloat16
    assert torch.ops.torch_ao._pack_count() == count, "packed for bfloat16 when converted"


@pytest.mark.parametrize("bits", [8, 4])
def test_saved_files(bits, tmp_path):
    q = quantize_weight_only(model(), bits, inplace=True)
    path = tmp_path / "model.safetensors"
    save_quantized(q, path)
    x = torch.randn(3, 64)
    with torch.no_grad():
        want = q(x)
        assert torch.equal(load_quantized(path, model)(x), want)
        assert torch.equal(load_quantized(path, into=quantize_weight_only(model(), bits))(x), want)
    other = quantize_weight_only(model(), 12 - bits)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match="LinearWeightOnly"):
        load_quantized(path, into=other)
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="tensor"):
        load_quantized(path, model)


def test_prepack_and_repack():
    q = quantize_weight_only(model())
    torch_ao_ext.repack(q)
    assert "not packed" in str(torch_ao_ext.explain(q))
    torch_ao_ext.prepack(q)
    assert "not packed" not in str(torch_ao_ext.explain(q))


def test_nothing_to_convert():
    with pytest.warns(UserWarning, match="quantize_weight_only: nothing was quantized"):
        quantize_weight_only(nn.Sequential(nn.Conv1d(2, 2, 1)))
    with pytest.raises(ValueError, match="nothing was quantized"):
        quantize_weight_only(nn.ReLU(), strict=True)
    done = quantize_dynamic(nn.Sequential(nn.Linear(4, 4)))
    with pytest.warns(UserWarning, match="nothing was quantized"):
        quantize_weight_only(done)
    with pytest.raises(ValueError, match="1 layers stay float: '1': weights have dtype torch.float64"):
        quantize_weight_only(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4).double()), strict=True)


def test_arguments():
    with pytest.raises(ValueError, match="'model' must be a Python nn.Module, got int"):
        quantize_weight_only(3)
    with pytest.raises(ValueError, match="'bits' must be 8 or 4, got 3"):
        quantize_weight_only(model(), 3)
    with pytest.raises(ValueError, match="'group_size' must be 0 with 8 bits, got 128"):
        quantize_weight_only(model(), 8, 128)
    with pytest.raises(ValueError, match="'filter_fn' must be callable, got str"):
        quantize_weight_only(model(), filter_fn="0")
    bad = model()
    bad[4].weight.data[0, 0] = float("inf")
    with pytest.raises(ValueError, match="'4.weight' must be finite, got an infinity"):
        quantize_weight_only(bad, inplace=True)
    assert type(bad[0]) is nn.Linear, "nothing was changed"
