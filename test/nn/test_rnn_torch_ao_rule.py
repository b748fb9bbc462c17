"""Recurrent modules of torch.ao's QConfigs: its numbers, in every runtime and file."""

import copy
import io
import itertools
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import torch_ao_ext
import torch_ao_ext.quantization as q
from torch_ao_ext.nn.quantized import dynamic
from torch_ao_ext.quantization.quantize_jit import quantize_dynamic_jit

QCONFIGS = ("default_dynamic_qconfig", "per_channel_dynamic_qconfig")
# torch.ao's gates round elsewhere (biases, sigmoid, tanh); h then moves by a step of 1/127 at most, of
# which a few units are off at a time.
MOST, MEAN = 4e-3, 1e-4


def theirs(model, kind, qconfig):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch.ao.quantization as ao

        return ao.quantize_dynamic(model, {kind: getattr(ao, qconfig)})


def tensors(answer):
    if isinstance(answer, PackedSequence):
        return [answer.data]
    if isinstance(answer, tuple):
        return [t for part in answer for t in tensors(part)]
    return [answer]


def assert_near(got, want):
    for a, b in zip(tensors(got), tensors(want), strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= MOST and (a - b).abs().mean() <= MEAN


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("qconfig", QCONFIGS)
def test_layers_are_torch_aos(kind, qconfig):
    for layers, both, packed, hx in itertools.product((1, 2), *[(False, True)] * 3):
        torch.manual_seed(layers)
        model = nn.Sequential(kind(24, 48, layers, bidirectional=both)).eval()  # theirs needs biases
        mine = q.quantize_dynamic(model, {kind: getattr(q, qconfig)})[0]
        assert not mine.per_row and mine.reduce_range and mine.weight_dtype == torch.int8
        x, state = torch.randn(12, 4, 24), torch.rand(layers * (1 + both), 4, 48) - 0.5
        states = None if not hx else (state, state * 2) if kind is nn.LSTM else state
        if packed:
            x = pack_padded_sequence(x, [12, 9, 9, 3])
        assert_near(mine(x, states), theirs(model, kind, qconfig)[0](x, states))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_eight_bits_are_qnnpacks(kind):
    """That engine of torch.ao's ignores reduce_range."""
    if "qnnpack" not in torch.backends.quantized.supported_engines:
        pytest.skip("torch was built without qnnpack")
    torch.manual_seed(4)
    model, x = nn.Sequential(kind(24, 48, 2)).eval(), torch.randn(12, 4, 24)
    activation = q.observer.RowPlaceholderObserver.with_args(per_row=False)
    config = q.QConfig(activation, q.default_dynamic_qconfig.weight)
    mine = q.quantize_dynamic(model, {kind: config})[0]
    assert (mine.per_row, mine.reduce_range) == (False, False)
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "qnnpack"
    try:
        assert_near(mine(x), theirs(model, kind, "default_dynamic_qconfig")[0](x))
    finally:
        torch.backends.quantized.engine = before


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
@pytest.mark.parametrize("qconfig", QCONFIGS)
def test_cells_are_torch_aos(kind, qconfig):
    torch.manual_seed(3)
    for options in ({}, {"nonlinearity": "relu"})[: 1 + (kind is nn.RNNCell)]:
        model, x, h = nn.Sequential(kind(24, 48, **options)).eval(), torch.randn(4, 24), torch.rand(4, 48)
        states = (h, h - 0.5) if kind is nn.LSTMCell else h
        mine = q.quantize_dynamic(model, {kind: getattr(q, qconfig)})[0]
        assert_near(mine(x, states), theirs(model, kind, qconfig)[0](x, states))


KINDS = (nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell)


@pytest.mark.parametrize("kind", KINDS)
def test_files_copies_and_runtimes_keep_the_rule(kind, tmp_path):
    torch.manual_seed(0)
    layer, x = nn.Sequential(kind(12, 32)).eval(), torch.randn(5, 12)
    made = q.quantize_dynamic(layer, {kind: q.default_dynamic_qconfig}, strict=True)
    rows = q.quantize_dynamic(layer, {kind: q.row_dynamic_qconfig})

    def first(module):
        y = module(x)
        return y[0] if isinstance(y, tuple) else y

    y, buffer = first(made), io.BytesIO()
    assert "per_row=False, reduce_range=True" in repr(made) and "per_row" not in repr(rows)
    assert made.state_dict()["0.act_quant"].tolist() == [0, 0, 1] and "0.act_quant" not in rows.state_dict()
    torch.save(made.state_dict(), buffer)
    buffer.seek(0)
    other = copy.deepcopy(rows)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    torch_ao_ext.save_quantized(made, tmp_path / "q.safetensors")
    loaded = torch_ao_ext.load_quantized(tmp_path / "q.safetensors", lambda: nn.Sequential(kind(12, 32)))
    exported = torch.export.export(made, (x,)).module()
    compiled = torch.compile(made, fullgraph=True, backend="aot_eager")
    copies = (other, loaded, copy.deepcopy(made), pickle.loads(pickle.dumps(made)))
    programs = torch.jit.trace(made, x, check_trace=False), torch.jit.script(made)
    for copied in (*copies, exported, compiled, *programs):
        assert torch.equal(first(copied), y)
    back = copy.deepcopy(made)
    back.load_state_dict(rows.state_dict())
    assert back[0].per_row and torch.equal(first(back), first(rows)) and not torch.equal(first(rows), y)
    with pytest.raises(RuntimeError, match="act_quant must be .0, 0, reduce_range., got .1, 0, 0."):
        back.load_state_dict({**made.state_dict(), "0.act_quant": torch.tensor([1, 0, 0])})


def test_projections_and_sequences_without_a_peer():
    """torch.ao has neither projections nor nn.RNN; both are near the float layer."""
    torch.manual_seed(1)
    for layer in (nn.LSTM(12, 32, 2, proj_size=9), nn.RNN(12, 32, 2), nn.RNN(12, 32, nonlinearity="relu")):
        x, kind = torch.randn(7, 3, 12), type(layer)
        mine = q.quantize_dynamic(nn.Sequential(layer), {kind: q.per_channel_dynamic_qconfig})[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the float layer says that oneDNN has no projections
            y, want = mine(x)[0], layer(x)[0]
        assert (y - want).norm() < 0.04 * want.norm() and not mine.per_row


def test_scripted_programs_follow_the_qconfig():
    torch.manual_seed(2)
    model, x = nn.Sequential(nn.GRU(12, 32)).eval(), torch.randn(7, 3, 12)
    program = quantize_dynamic_jit(torch.jit.script(model), {"": q.default_dynamic_qconfig})
    want = q.quantize_dynamic(model, {nn.GRU: q.default_dynamic_qconfig})(x)
    assert all(torch.equal(a, b) for a, b in zip(program(x), want, strict=True))


def test_rules_that_do_not_exist():
    for kind in (dynamic.LSTM, dynamic.GRUCell):
        with pytest.raises(ValueError, match="argument 'reduce_range' must be False with per_row, got True"):
            kind(4, 8, reduce_range=True)
        assert not kind(4, 8, per_row=False).reduce_range
    row = q.observer.RowPlaceholderObserver
    for activation in (row.with_args(symmetric=True), row.with_args(reduce_range=True)):
        config = q.QConfig(activation, q.row_dynamic_qconfig.weight)
        with pytest.raises(ValueError, match="qconfig.activation must be asymmetric, and per row of 8 bits"):
            q.quantize_dynamic(nn.Sequential(nn.GRU(4, 8)), {nn.GRU: config})
    config = q.QConfig(q.default_dynamic_qconfig.activation, q.int16_dynamic_qconfig.weight)
    with pytest.raises(ValueError, match="qconfig.weight must observe for int8 with one scale for all rows"):
        q.quantize_dynamic(nn.Sequential(nn.GRU(4, 8)), {nn.GRU: config})
