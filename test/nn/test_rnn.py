"""Dynamic LSTM and GRU modules: every call form of the float layer, every runtime."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import torch_ao_ext
from torch_ao_ext.nn.quantized import dynamic
from torch_ao_ext.ops import service
from torch_ao_ext.quantization import (
    bfloat16_dynamic_qconfig,
    default_dynamic_qconfig,
    int16_dynamic_qconfig,
    mixed_dynamic_qconfig,
    quantize_dynamic,
    row_dynamic_qconfig,
)


class Model(nn.Module):
    def __init__(self, kind, **kwargs):
        super().__init__()
        self.rnn = kind(12, 32, **kwargs)
        self.head = nn.Linear(32 * (1 + self.rnn.bidirectional), 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


@pytest.fixture(params=[nn.LSTM, nn.GRU, nn.RNN])
def model(request):
    torch.manual_seed(0)
    return Model(request.param, num_layers=2, bidirectional=True, batch_first=True).eval()


def close(a, b):
    return (a - b).norm() / b.norm() < 0.03


@pytest.mark.parametrize("kind", [dynamic.LSTM, dynamic.GRU])
def test_arguments_by_place_are_torch_aos(kind):
    layer = kind(8, 4, 2, False, True, 0.0, True, torch.bfloat16)
    assert layer.weight_dtype == torch.bfloat16 and layer.batch_first and layer.bidirectional
    assert layer(torch.zeros(3, 5, 8))[0].shape == (3, 5, 8) and layer.proj_size == 0


def test_quantize_dynamic_converts_packs_and_reports(model):
    q, x = quantize_dynamic(model, strict=True), torch.randn(3, 5, 12)
    assert isinstance(q.rnn, dynamic.RNNBase) and not list(q.rnn.parameters())
    rows = {row.fqn: (row.status, row.engine) for row in torch_ao_ext.report(q).rows}
    assert rows["rnn"] == ("int8", "native")
    assert close(q(x), model(x))
    counts = {name: entry["pack_count"] for name, entry in torch_ao_ext.explain(q).weights.items()}
    ends = ("l0", "l0_reverse", "l1", "l1_reverse")
    assert counts == {"head": 1, **{f"rnn.weight_ih_{end}": 1 for end in ends}}


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_call_forms_follow_the_float_layer(kind):
    torch.manual_seed(0)
    for first in (False, True):
        layer = kind(12, 32, batch_first=first).eval()
        q = quantize_dynamic(layer)
        state = torch.rand(1, 3, 32) - 0.5
        hx = (state, state) if kind is nn.LSTM else state
        x = torch.randn((3, 5, 12) if first else (5, 3, 12))
        single = tuple(s[:, 0] for s in hx) if kind is nn.LSTM else hx[:, 0]
        packed = pack_sequence([torch.randn(n, 12) for n in (2, 5, 3)], enforce_sorted=False)
        for args in ((x,), (x, hx), (torch.randn(5, 12),), (torch.randn(5, 12), single), (packed, hx)):
            (got, ends), (want, real) = q(*args), layer(*args)
            if args[0] is packed:
                assert torch.equal(got.batch_sizes, want.batch_sizes)
                got, want = got.data, want.data
            assert got.shape == want.shape and close(got, want)
            pairs = zip(ends, real, strict=True) if kind is nn.LSTM else [(ends, real)]
            assert all(a.shape == b.shape and close(a, b) for a, b in pairs)


def test_copies_and_files_give_the_same_bits(model):
    q, x = quantize_dynamic(model), torch.randn(3, 5, 12)
    y, buffer = q(x), io.BytesIO()
    torch.save(q.state_dict(), buffer)
    buffer.seek(0)
    other = quantize_dynamic(Model(type(model.rnn), num_layers=2, bidirectional=True, batch_first=True))
    other.load_state_dict(torch.load(buffer, weights_only=True))
    for copied in (other, copy.deepcopy(q), pickle.loads(pickle.dumps(q))):
        assert torch.equal(copied(x), y)


def test_traced_compiled_and_exported_graphs_hold_one_op(model):
    q, x = quantize_dynamic(model), torch.randn(3, 5, 12)
    y, op = q(x), f"torch_ao.{type(model.rnn).__name__.lower()}.default"
    exported = torch.export.export(q, (x,))
    assert str(exported.graph).count(op) == 1 and "aten.lstm" not in str(exported.graph)
    assert torch.equal(exported.module()(x), y)
    assert torch.equal(torch.jit.trace(q, x, check_trace=False)(x), y)
    assert torch.equal(torch.compile(q, fullgraph=True, backend="aot_eager")(x), y)


def test_repack_reaches_every_layer_and_direction(model):
    q, x = quantize_dynamic(model), torch.randn(3, 5, 12)
    y, firsts = q(x), q.rnn._side()[0][::2]  # packed forms hang on the first weight of each
    for packed in (q, torch.export.export(q, (x,)).module()):
        assert all(service.explain_weight(w)["states"] for w in firsts)
        torch_ao_ext.repack(packed)
        assert not any(service.explain_weight(w)["states"] for w in firsts)
        assert torch.equal(packed(x), y)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("first", [False, True])
def test_scripts_give_the_same_bits(kind, first, tmp_path):
    torch.manual_seed(3)
    for more in ({}, {"num_layers": 2, "bidirectional": True}, {"bias": False}, {"proj_size": 5}):
        if "proj_size" in more and kind is not nn.LSTM:
            continue
        model = nn.Sequential(kind(12, 16, batch_first=first, **more)).eval()
        for qconfig in (mixed_dynamic_qconfig, default_dynamic_qconfig):
            q = quantize_dynamic(model, {kind: qconfig})[0]
            torch.jit.save(torch.jit.script(q), tmp_path / "q.pt")
            scripted, cells = torch.jit.load(tmp_path / "q.pt"), q.num_layers * (1 + q.bidirectional)
            assert str(scripted.inlined_graph).count("torch_ao::") == 1
            h = torch.rand(cells, 3, more.get("proj_size", 16))
            hx = (h, torch.rand(cells, 3, 16)) if kind is nn.LSTM else h
            one = (hx[0][:, 0], hx[1][:, 0]) if kind is nn.LSTM else hx[:, 0]
            x, row = torch.randn((3, 5, 12) if first else (5, 3, 12)), torch.randn(5, 12)
            for args in ((x,), (x, hx), (row,), (row, one)):
                (got, ends), (want, states) = scripted(*args), q(*args)
                assert torch.equal(got, want)
                pairs = zip(ends, states, strict=True) if kind is nn.LSTM else [(ends, states)]
                assert all(torch.equal(a, b) for a, b in pairs)


def test_float_and_newer_states_are_refused(model):
    q = quantize_dynamic(model)
    for strict in (True, False):
        with pytest.raises(RuntimeError, match="rnn.weight_ih_l0 is a float weight; load it into the float"):
            q.load_state_dict(model.state_dict(), strict=strict)
        newer = {**q.state_dict(), "rnn.format_version": torch.tensor(2)}
        with pytest.raises(RuntimeError, match="rnn.format_version must be <= 1, got 2"):
            q.load_state_dict(newer, strict=strict)


def test_half_keeps_scales_and_biases(model):
    q, x = quantize_dynamic(model), torch.randn(3, 5, 12)
    y = q(x)
    assert q.rnn.half().weight_ih_l0_scale.dtype == torch.float32 and torch.equal(q(x), y)


def test_training_with_dropout_is_refused():
    with pytest.raises(ValueError, match="training mode with dropout"):
        quantize_dynamic(nn.LSTM(4, 8, 2, dropout=0.5)).train()


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_rnn_keeps_its_nonlinearity(nonlinearity):
    torch.manual_seed(0)
    layer, x = nn.RNN(12, 32, nonlinearity=nonlinearity), torch.randn(5, 3, 12)
    q = quantize_dynamic(layer)
    assert q.mode == layer.mode and close(q(x)[0], layer(x)[0])
    with pytest.raises(ValueError, match="RNN: argument 'nonlinearity' must be 'tanh' or 'relu', got 'gelu'"):
        dynamic.RNN(3, 4, nonlinearity="gelu")


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell])
@pytest.mark.parametrize("qconfig", [int16_dynamic_qconfig, bfloat16_dynamic_qconfig])
def test_weights_of_sixteen_bits(kind, qconfig, tmp_path):
    torch.manual_seed(0)
    layer, x = nn.Sequential(kind(12, 32)).eval(), torch.randn(4, 12)
    q = quantize_dynamic(layer, {kind: qconfig}, strict=True)
    int8 = quantize_dynamic(layer, {kind: row_dynamic_qconfig})
    dtype = torch.bfloat16 if qconfig is bfloat16_dynamic_qconfig else torch.int16

    def first(module):
        y = module(x)
        return y[0] if isinstance(y, tuple) else y

    y, want = first(q), first(layer)
    assert q[0].half().weight_dtype == dtype and int8[0].weight_dtype == torch.int8
    assert (y - want).norm() < (first(int8) - want).norm() and (y - want).norm() / want.norm() < 0.01
    int8.load_state_dict(q.state_dict())
    for name, value in q[0].get_weight().items():
        w = getattr(layer[0], name)
        if dtype == torch.bfloat16:
            assert torch.equal(value, w.to(dtype))
        else:
            assert (value.dequantize() - w).abs().max() <= w.abs().max() / 32639 * 0.51
            assert value.int_repr().abs().amax(1).eq(32639).all()
        q[0].set_weight_bias({name: value if dtype == torch.int16 else value.clone()})
    assert torch.equal(first(q), y)
    torch_ao_ext.save_quantized(q, tmp_path / "q.safetensors")
    loaded = torch_ao_ext.load_quantized(tmp_path / "q.safetensors", lambda: nn.Sequential(kind(12, 32)))
    for other in (int8, loaded, copy.deepcopy(q), pickle.loads(pickle.dumps(q)), torch.jit.trace(q, x)):
        assert torch.equal(first(other), y)
    assert torch.equal(first(torch.export.export(q, (x,)).module()), y)
    with pytest.raises(RuntimeError, match="is a float weight; load it into the float"):
        q.load_state_dict(copy.deepcopy(layer).to(torch.bfloat16).state_dict(), strict=False)


def test_bfloat16_weights_are_for_recurrent_layers():
    with pytest.raises(ValueError, match="qconfig.weight must observe for int8"):
        quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear: bfloat16_dynamic_qconfig})
    with pytest.raises(ValueError, match="GRU: argument 'dtype' must be torch.qint8, int8, int16 or"):
        dynamic.GRU(3, 4, dtype=torch.float16)
