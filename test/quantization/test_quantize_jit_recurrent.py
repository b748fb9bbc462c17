"""Recurrent layers of scripts and traces become one int8 operator each."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import torch_ao_ext
from torch_ao_ext import quantization as tq
from torch_ao_ext.quantization.quantize_jit import quantize_dynamic_jit


def trace(model, x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch.jit says about the float layer
        return torch.jit.trace(model, x, check_trace=False)


class Tagger(nn.Module):
    """A recurrent layer, its states, a Linear."""

    def __init__(self, kind, **kwargs):
        super().__init__()
        self.rnn = kind(10, 16, **kwargs)
        self.last = nn.Linear(16 * (1 + self.rnn.bidirectional), 3)

    def forward(self, x):
        y, ends = self.rnn(x)
        return self.last(y), ends


class Packed(nn.Module):
    """Sequences of several lengths."""

    def __init__(self, kind):
        super().__init__()
        self.rnn = kind(10, 16)

    def forward(self, x):
        return self.rnn(pack_padded_sequence(x, torch.tensor([5, 3, 2])))[0].data


def flat(answer):
    y, ends = answer
    return (y, *(ends if isinstance(ends, tuple) else (ends,)))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(
    "more", [{}, {"batch_first": True, "num_layers": 2, "bidirectional": True}, {"bias": False}]
)
@pytest.mark.parametrize(
    "qconfig",
    [
        tq.mixed_dynamic_qconfig,
        tq.row_dynamic_qconfig,
        tq.int16_dynamic_qconfig,
        tq.bfloat16_dynamic_qconfig,
    ],
)
def test_one_operator_with_the_bits_of_the_layer(kind, more, qconfig):
    torch.manual_seed(0)
    model, x = Tagger(kind, **more).eval(), torch.randn(3, 5, 10)
    spec = {"rnn": qconfig, "last": tq.row_dynamic_qconfig}
    with torch.no_grad():
        want = flat(torch_ao_ext.quantization.quantize_dynamic(model, spec)(x))
        for program in (trace(model, x), torch.jit.script(model)):
            made = quantize_dynamic_jit(program, spec)
            assert "aten::" + kind.__name__.lower() not in str(made.inlined_graph)
            got = flat(made(x))
            assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_packed_sequences(kind):
    torch.manual_seed(0)
    model, x = Packed(kind).eval(), torch.randn(5, 3, 10)
    with torch.no_grad():
        made = quantize_dynamic_jit(trace(model, x), {"": tq.int16_dynamic_qconfig})
        want = tq.quantize_dynamic(model, {kind: tq.int16_dynamic_qconfig})(x)
        assert f"torch_ao::{kind.__name__.lower()}" in str(made.inlined_graph)
        assert torch.equal(made(x), want)


def test_layers_without_a_qconfig_stay_float():
    model, x = Tagger(nn.LSTM).eval(), torch.randn(3, 5, 10)
    spec = {"": tq.row_dynamic_qconfig, "rnn": None}
    text = str(quantize_dynamic_jit(trace(model, x), spec).inlined_graph)
    assert "aten::lstm" in text and "torch_ao::lstm" not in text and "torch_ao::linear_dynamic" in text
    with torch.no_grad():
        model.rnn.weight_hh_l0[0, 0] = torch.inf
    with pytest.raises(ValueError, match="quantize_dynamic_jit: 'rnn': weight"):
        quantize_dynamic_jit(trace(model, x), {"": tq.row_dynamic_qconfig})
