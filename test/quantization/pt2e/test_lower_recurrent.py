"""LSTM, GRU and RNN layers of exported graphs become one int8 operator each."""

import copy
import warnings
from operator import getitem

import pytest
import torch
from torch import fx, nn

import torch_ao_ext
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86

KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "tanh": nn.RNN, "relu": nn.RNN}


def layer_of(kind, *sizes, **kwargs):
    if kind in ("tanh", "relu"):
        kwargs["nonlinearity"] = kind
    return KINDS[kind](*sizes, **kwargs)


class Tagger(nn.Module):
    """Linear, recurrent layer, Linear; states in and out when asked."""

    def __init__(self, kind, **kwargs):
        super().__init__()
        self.first = nn.Linear(10, 12)
        self.rnn = layer_of(kind, 12, 16, **kwargs)
        width = (self.rnn.proj_size or 16) * (1 + self.rnn.bidirectional)
        self.last = nn.Linear(width, 3)

    def forward(self, x, hx=None):
        y, ends = self.rnn(self.first(x), hx)
        return self.last(y), ends


def packed_gru(layer):
    """The graph of a GRU on rows of several sequences, as PackedSequence holds them; export has none."""
    graph, aten = fx.Graph(), torch.ops.aten
    rows, sizes, h = map(graph.placeholder, ("rows", "batch_sizes", "h"))
    weights = [graph.get_attr(name) for name, _ in layer.named_parameters()]
    call = graph.call_function(aten.gru.data, (rows, sizes, h, weights, True, 1, 0.0, False, False))
    graph.output(graph.call_function(getitem, (call, 0)))
    return fx.GraphModule(layer, graph)


def export(model, args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # export's word on the flat weights of recurrent layers
        return torch.export.export(model, args).module()


def flat(answer):
    y, ends = answer
    return (y, *(ends if isinstance(ends, tuple) else (ends,)))


def count(graph, name):
    return sum(f"{name}." in str(node.target) for node in graph.graph.nodes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("more", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}])
def test_one_operator_with_the_bits_of_the_layer(kind, first, more):
    torch.manual_seed(0)
    model = Tagger(kind, batch_first=first, **more).eval()
    x = torch.randn((3, 5, 10) if first else (5, 3, 10))
    with torch.no_grad():
        h = torch.rand(model.rnn.num_layers * (1 + model.rnn.bidirectional), 3, 16) - 0.5
        hx = (h, torch.rand_like(h)) if kind == "lstm" else h
        want = flat(torch_ao_ext.quantization.quantize_dynamic(model, {type(model.rnn)})(x, hx))
        exported = export(model, (x, hx))
        lowered = torch_ao_ext.lower(exported)
        op = "rnn" if kind in ("tanh", "relu") else kind
        assert count(lowered, f"torch_ao.{op}") == 1 and not count(lowered, f"aten.{op}")
        got = flat(lowered(x, hx))
        assert all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(got, want, strict=True))
        assert torch_ao_ext.report(lowered).int8[op] == 1
        again = export(lowered, (x, hx))
        for other in (copy.deepcopy(lowered), again, torch.jit.trace(lowered, (x, hx), check_trace=False)):
            assert all(torch.equal(a, b) for a, b in zip(flat(other(x, hx)), want, strict=True))
        with pytest.warns(UserWarning, match="must hold an operator of quantized tensors"):
            left = torch_ao_ext.report(torch_ao_ext.lower(exported, recurrent_dtype=None))
    assert left.float[f"rnn_{kind}" if op == "rnn" else op] == 1


def test_projections_packed_sequences_and_bfloat16_weights():
    torch.manual_seed(0)
    model, x = Tagger("lstm", proj_size=5).eval(), torch.randn(5, 3, 10)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the float layer says that oneDNN has no projections
        exported, want = export(model, (x,)), flat(model(x))
        error = []
        for dtype in (torch.int8, torch.int16, torch.bfloat16):
            got = flat(torch_ao_ext.lower(exported, recurrent_dtype=dtype)(x))
            error.append(max(float((a - b).norm() / b.norm()) for a, b in zip(got, want, strict=True)))
        assert error[1] < error[0] < 0.02
        packed, sizes = packed_gru(nn.GRU(12, 16)), torch.tensor([3, 3, 2, 1, 1])
        args = (torch.randn(10, 12), sizes, torch.zeros(1, 3, 16))
        lowered = torch_ao_ext.lower(packed)
        assert count(lowered, "torch_ao.gru") == 1
        assert (lowered(*args) - packed(*args)).norm() / packed(*args).norm() < 0.02


def test_between_int8_layers_with_islands_and_bfloat16():
    torch.manual_seed(0)
    model, x = Tagger("lstm", batch_first=True).eval(), torch.randn(3, 5, 10)
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    with torch.no_grad():
        prepared = prepare_pt2e(export(model, (x,)), quantizer)
        prepared(x)
        converted = convert_pt2e(prepared)
        plain = torch_ao_ext.lower(converted, strict=True)
        report = torch_ao_ext.report(plain)
        assert report.int8["linear"] == 2 and report.int8["lstm"] == 1 and not report.float
        want = model(x)[0]
        for options in ({}, {"islands": True}, {"float_dtype": torch.bfloat16}):
            y = torch_ao_ext.lower(converted, **options)(x)[0]
            assert y.dtype == want.dtype and (y - want).norm() / want.norm() < 0.03


CELLS = {
    "lstm_cell": lambda: nn.LSTMCell(10, 16),
    "gru_cell": lambda: nn.GRUCell(10, 16, bias=False),
    "rnn_cell": lambda: nn.RNNCell(10, 16, nonlinearity="relu"),
}


@pytest.mark.parametrize("name", CELLS)
def test_cells_have_the_bits_of_the_modules(name):
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = CELLS[name]()

        def forward(self, x):
            state = self.cell(x[0])
            state = self.cell(x[1], state)
            return state

    torch.manual_seed(0)
    model, x = Steps().eval(), torch.randn(2, 3, 10)
    with torch.no_grad():
        want = torch_ao_ext.quantization.quantize_dynamic(model)(x)
        gates = {"lstm_cell": 4, "gru_cell": 3, "rnn_cell": 1}[name]
        for islands in (False, True):
            lowered = torch_ao_ext.lower(export(model, (x,)), islands=islands)
            assert islands or count(lowered, f"torch_ao.{name}") == 2
            assert not count(lowered, f"aten.{name}") and not count(lowered, "aten.rnn_relu_cell")
            pairs = zip(lowered(x), want, strict=True) if name == "lstm_cell" else [(lowered(x), want)]
            assert all(torch.equal(a, b) for a, b in pairs)
            report = torch_ao_ext.report(lowered)
            assert [row.macs for row in report.rows if row.op == name] == [gates * 16 * 26] * 2
            assert not report.float and report.parameters["int8"] == gates * 16 * 26
        wide = torch_ao_ext.lower(export(model, (x,)), recurrent_dtype=torch.int16)(x)
        wide, exact, got = (y[0] if name == "lstm_cell" else y for y in (wide, model(x), lowered(x)))
        assert (wide - exact).norm() < (got - exact).norm()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nothing was lowered
            left = torch_ao_ext.report(torch_ao_ext.lower(export(model, (x,)), recurrent_dtype=None))
        assert not left.int8 and [row.macs for row in left.rows] == [gates * 16 * 26] * 2


def test_what_cannot_be_lowered_says_why():
    class Given(nn.Module):
        def forward(self, x, h, *weights):
            return torch.gru(x, h, weights, False, 1, 0.0, False, False, False)[0]

    args = (torch.randn(5, 3, 4), torch.zeros(1, 3, 6), torch.randn(18, 4), torch.randn(18, 6))
    with pytest.warns(UserWarning, match="must hold an operator of quantized tensors"):
        lowered = torch_ao_ext.lower(export(Given(), args))
    assert "its weights are not float constants" in str(torch_ao_ext.report(lowered))
    model = nn.LSTM(4, 6)
    with torch.no_grad():
        model.weight_hh_l0[0, 0] = torch.nan
    exported = export(model.eval(), (torch.randn(5, 3, 4),))
    with pytest.raises(ValueError, match="weight_hh_l0"):
        torch_ao_ext.lower(exported)
    with pytest.raises(ValueError, match="argument 'recurrent_dtype' must be 'mixed', torch.int8"):
        torch_ao_ext.lower(exported, recurrent_dtype=torch.float16)


def test_training_with_dropout_stays_float():
    x = torch.randn(5, 3, 4)
    exported = export(nn.LSTM(4, 6, 2, dropout=0.5), (x,))
    with pytest.warns(UserWarning, match="must hold an operator of quantized tensors"):
        lowered = torch_ao_ext.lower(exported)
    assert "it is in training mode with dropout" in str(torch_ao_ext.report(lowered))
