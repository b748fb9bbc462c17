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


@pytest.mark.parametrize("kind", KINDS)
def test_activations_without_a_rule_are_those_of_linear(kind):
    """torch.ao's rule, and int8 weights, where no observer names another."""
    torch.manual_seed(5)
    model, x = nn.Sequential(kind(12, 32)).eval(), torch.randn(5, 12)
    want = tensors(q.quantize_dynamic(model, {kind: q.default_dynamic_qconfig})(x))
    plain = q.QConfigDynamic(weight=q.observer.default_weight_observer)
    for config in (plain, q.default_qconfig, q.QConfig(None, q.observer.default_weight_observer)):
        made = q.quantize_dynamic(model, {kind: config})
        assert (made[0].per_row, made[0].reduce_range) == (False, True)
        assert all(torch.equal(a, b) for a, b in zip(tensors(made(x)), want, strict=True))
        linear = q.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear: config})[0]
        assert linear.dynamic_quant == (False, False, True)
    mixed = q.QConfigDynamic(weight=q.observer.MixedWeightObserver)
    assert q.quantize_dynamic(model, {kind: mixed})[0].weight_dtype == torch.int8


@pytest.mark.parametrize("kind", [dynamic.LSTM, dynamic.GRU, dynamic.RNN, dynamic.LSTMCell, dynamic.RNNCell])
def test_flags_and_dtypes_of_constructors(kind):
    for name, value in (("per_row", 0), ("per_row", 1.0), ("reduce_range", None)):
        said = f"{kind.__name__}: argument '{name}' must be a bool, got {value}"
        with pytest.raises(TypeError, match=said):
            kind(4, 8, **{"per_row": False, name: value})
    for dtype in (torch.int16, torch.bfloat16):
        with pytest.raises(ValueError, match=f"must be torch.qint8 or int8 with per_row=False, got {dtype}"):
            kind(4, 8, dtype=dtype, per_row=False)
        assert kind(4, 8, dtype=dtype).weight_dtype == dtype


def refusals(made, rows, wide, layer):
    """States that a layer does not take, and what it says."""
    state, first = made.state_dict(), next(iter(rows.state_dict()))
    last = [name for name in state if name.startswith("0.weight") and not name.endswith("_scale")][-1]
    bias = [name for name in state if "bias" in name][-1]
    sixteen = {first: wide.state_dict()[first], f"{first}_scale": wide.state_dict()[f"{first}_scale"]}
    odd = {**wide.state_dict(), last: layer.state_dict()[last]}
    return [
        (layer.state_dict(), "is a float weight; load it into the float"),
        (odd, f"{last} is a float weight; load it into the float"),
        ({**wide.state_dict(), last: wide.state_dict()[last][1:]}, f"{last} must have shape"),
        ({**rows.state_dict(), bias: torch.ones(3)}, rf"{bias} must have shape .*, got \[3\]"),
        ({**state, **sixteen}, f"{first} must be int8 beside act_quant, got torch.int16"),
        ({**rows.state_dict(), last: rows.state_dict()[last].bfloat16()}, "int8 and int16, or all bfloat16"),
        ({**state, "0.act_quant": torch.tensor([0, 0, 2])}, "act_quant must be .0, 0, reduce_range."),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_state_changes_nothing(kind):
    torch.manual_seed(6)
    layer, x = nn.Sequential(kind(12, 32)).eval(), torch.randn(5, 12)
    made, rows, wide = [
        q.quantize_dynamic(layer, {kind: config})
        for config in (q.default_dynamic_qconfig, q.row_dynamic_qconfig, q.int16_dynamic_qconfig)
    ]
    for target in (made, rows, wide):
        rule, before = (target[0].per_row, target[0].reduce_range), tensors(target(x))
        kept = {name: value.clone() for name, value in target.state_dict().items()}
        for state, said in refusals(made, rows, wide, layer):
            with pytest.raises(RuntimeError, match=said):
                target.load_state_dict(state)
            assert (target[0].per_row, target[0].reduce_range) == rule
            now = target.state_dict()
            assert now.keys() == kept.keys()
            assert all(v.dtype == kept[n].dtype and torch.equal(v, kept[n]) for n, v in now.items())
            assert all(torch.equal(a, b) for a, b in zip(tensors(target(x)), before, strict=True))


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
