"""Observed custom modules: LSTM and multi-head attention between quantized tensors."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import torch_ao_ext
from torch_ao_ext import load_quantized, save_quantized
from torch_ao_ext import quantization as tq
from torch_ao_ext.nn import quantizable
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.quantization import convert, default_qconfig, get_default_qconfig, prepare, quantize

ONEDNN = get_default_qconfig("onednn")


def sqnr(want, have):
    want, have = want.detach(), have.detach()
    return float(10 * torch.log10(want.pow(2).sum() / (want - have).pow(2).sum()))


class Net(nn.Module):
    """Both between stubs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.quant, self.dequant, self.weights = tq.QuantStub(), tq.DeQuantStub(), tq.DeQuantStub()
        self.lstm = nn.LSTM(32, 24, 2, batch_first=True, bidirectional=True)
        self.att = nn.MultiheadAttention(48, 4, batch_first=True)
        self.fc = nn.Linear(48, 10)

    def forward(self, x):
        x, _ = self.lstm(self.quant(x))
        y, weights = self.att(x, x, x)
        return self.dequant(self.fc(y)), self.weights(weights)


def converted(model, *batches, qconfig=ONEDNN):
    model.qconfig = qconfig
    observed = prepare(model)
    for batch in batches:
        observed(*batch)
    return observed, convert(observed)


def test_both_in_a_model(tmp_path):
    model = Net().eval().requires_grad_(False)
    x = torch.randn(4, 20, 32)
    observed, int8 = converted(model, *[(torch.randn(8, 20, 32),) for _ in range(3)])
    assert type(observed.lstm) is quantizable.LSTM and type(observed.att) is quantizable.MultiheadAttention
    assert type(int8.lstm) is nnq.LSTM and type(int8.att) is nnq.MultiheadAttention
    assert int8.lstm.lstm.per_row and not int8.lstm.lstm.reduce_range
    want, have = model(x), int8(x)
    assert torch.allclose(observed(x)[0], want[0], atol=1e-6)
    assert sqnr(want[0], have[0]) > 35 and sqnr(want[1], have[1]) > 35
    report = torch_ao_ext.report(int8)
    assert dict(report.int8) == {"LSTM": 1, "Linear": 5} and not report.float
    assert torch.equal(torch.jit.trace(int8, x)(x)[0], have[0])
    assert torch.equal(torch.export.export(int8, (x,)).module()(x)[0], have[0])
    assert torch.equal(copy.deepcopy(int8)(x)[0], have[0])
    path = tmp_path / "model.safetensors"
    save_quantized(int8, path)
    assert torch.equal(load_quantized(path, Net)(x)[0], have[0])


LSTMS = {
    "plain": {},
    "two layers": {"num_layers": 2, "dropout": 0.1},
    "bidirectional": {"bidirectional": True},
    "projection": {"proj_size": 5},
    "no bias": {"bias": False},
    "batch first": {"batch_first": True},
}


@pytest.mark.parametrize("name", LSTMS)
def test_lstm(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.LSTM(16, 12, **LSTMS[name])).eval().requires_grad_(False)
    batch = torch.randn(7, 5, 16)
    model.qconfig = ONEDNN
    observed = prepare(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="LSTM with projections is not supported with oneDNN")
        _, states = observed(batch)
        observed[0](batch, states)
    int8 = convert(observed)
    layer = int8[0]
    q = nnq.Quantize(0.03, 128)(batch)
    y, (h, c) = layer(q)
    want, (want_h, want_c) = model(q.dequantize())
    assert y.q_scale() == layer.scale and sqnr(want, y.dequantize()) > 30
    assert (
        sqnr(want_h, h.dequantize()) > 28 and h.q_scale() == layer.quant_hidden.scale and sqnr(want_c, c) > 30
    )
    again, _ = layer(q, (h, c))
    want_again, _ = model[0](q.dequantize(), (want_h, want_c))
    assert sqnr(want_again, again.dequantize()) > 28
    with pytest.raises(TypeError, match="nn.quantized.LSTM '0': argument 'input' must be a QuantizedTensor"):
        layer(batch)


def test_lstm_packed_sequences():
    model = nn.Sequential(nn.LSTM(16, 12)).eval().requires_grad_(False)
    packed = pack_padded_sequence(torch.randn(7, 3, 16), torch.tensor([7, 4, 2]))
    _, int8 = converted(model, (packed,))
    y, _ = int8[0](packed)
    want, _ = model(packed)
    assert sqnr(pad_packed_sequence(want)[0], pad_packed_sequence(y)[0]) > 30


def test_lstm_refusals():
    with pytest.raises(NotImplementedError, match="use from_observed"):
        nnq.LSTM.from_float(nn.LSTM(2, 2))
    with pytest.raises(
        ValueError, match="LSTM.from_observed|must have an activation_post_process|must have a qconfig"
    ):
        nnq.LSTM.from_observed(quantizable.LSTM(2, 2))
    with pytest.raises(ValueError, match="LSTM.from_float: argument 'mod' must be nn.LSTM, got GRU"):
        quantizable.LSTM.from_float(nn.GRU(2, 2))


def test_cell_observes_its_hidden_state():
    cell = nn.LSTMCell(4, 6)
    mine = quantizable.LSTMCell.from_float(cell)
    mine.activation_post_process = tq.MinMaxObserver()
    x = torch.randn(3, 4)
    h, c = mine(x)
    assert torch.equal(h, cell(x)[0]) and torch.equal(c, cell(x)[1]) and mine.weight_ih is cell.weight_ih
    assert float(mine.activation_post_process.max_val) == float(h.detach().max())


ATTENTIONS = {
    "plain": ({}, {}),
    "sizes": ({"kdim": 12, "vdim": 20}, {}),
    "no bias": ({"bias": False}, {}),
    "appended": ({"add_bias_kv": True, "add_zero_attn": True}, {}),
    "mask": ({}, {"attn_mask": torch.full((5, 6), float("-inf")).triu(2)}),
    "padding": ({}, {"key_padding_mask": torch.tensor([[False] * 4 + [True] * 2] * 3)}),
    "per head": ({}, {"average_attn_weights": False}),
    "no weights": ({}, {"need_weights": False}),
    "sequence first": ({"batch_first": False}, {}),
}


def attention_inputs(options):
    kdim, vdim = options.get("kdim", 16), options.get("vdim", 16)
    shapes = [(3, 5, 16), (3, 6, kdim), (3, 6, vdim)]
    batches = [torch.randn(*shape) for shape in shapes]
    return batches if options.get("batch_first", True) else [b.transpose(0, 1) for b in batches]


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention(name):
    options, call = ATTENTIONS[name]
    torch.manual_seed(0)
    mod = nn.MultiheadAttention(16, 2, **{"batch_first": True, **options}).eval().requires_grad_(False)
    mine = quantizable.MultiheadAttention.from_float(mod)
    inputs = attention_inputs(options)
    want, weights = mod(*inputs, **call)
    y, found = mine(*inputs, **call)
    assert torch.allclose(y, want, atol=1e-6)
    assert (found is None) == (weights is None) and (
        weights is None or torch.allclose(found, weights, atol=1e-6)
    )
    back = mine.dequantize()
    assert torch.allclose(back(*inputs, **call)[0], want, atol=1e-6)

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.quants = nn.ModuleList(tq.QuantStub() for _ in range(3))
            self.att, self.dequant = copy.deepcopy(mod), tq.DeQuantStub()

        def forward(self, *parts):
            return self.dequant(self.att(*[q(p) for q, p in zip(self.quants, parts, strict=True)], **call)[0])

    model = Wrapped().eval()
    model.qconfig = ONEDNN
    int8 = quantize(model, lambda m, *data: m(*data), inputs)
    assert sqnr(want, int8(*inputs)) > 25
    assert type(int8.att) is nnq.MultiheadAttention
    assert sqnr(want, int8.att.dequantize()(*inputs, **call)[0]) > 25


def test_attention_against_torch_ao():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao.nn.quantizable import MultiheadAttention as Theirs

    mod = nn.MultiheadAttention(16, 2).eval()
    mod.qconfig = default_qconfig
    names = {n for n, _ in quantizable.MultiheadAttention.from_float(mod).named_children()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = Theirs.from_float(mod)
    # Ours scales the query inside the attention.
    assert names | {"q_scaling_product"} == {n for n, _ in theirs.named_children()}


def test_attention_refusals():
    with pytest.raises(ValueError, match="must be a multiple of num_heads, got embed_dim=6, num_heads=4"):
        quantizable.MultiheadAttention(6, 4)
    with pytest.raises(
        ValueError, match="from_float: argument 'mod' must be nn.MultiheadAttention, got Linear"
    ):
        quantizable.MultiheadAttention.from_float(nn.Linear(2, 2))
    x = torch.randn(2, 3, 8)
    with pytest.raises(RuntimeError, match="is_causal needs attn_mask"):
        quantizable.MultiheadAttention(8, 2)(x, x, x, is_causal=True)


def test_modules_without_data_stay_float():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()
            self.used, self.lstm, self.att = nn.Linear(8, 8), nn.LSTM(8, 8), nn.MultiheadAttention(8, 2)

        def forward(self, x):
            return self.dequant(self.used(self.quant(x)))

    with pytest.warns(UserWarning, match="convert: stay float, no data came to them: 'lstm', 'att'"):
        _, int8 = converted(Two().eval(), (torch.randn(3, 8),))
    x = torch.randn(3, 1, 8)
    int8.lstm(x)
    assert int8.att(x, x, x)[0].shape == x.shape


def test_gradients_of_attention_are_those_of_the_float_layer():
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    layer.qconfig = None
    ours = quantizable.MultiheadAttention.from_float(layer)
    grads = []
    for module in (layer, ours):
        x = torch.linspace(-1, 1, 2 * 5 * 8).reshape(2, 5, 8).requires_grad_()
        y, weights = module(x, x, x, need_weights=False)
        assert weights is None
        y.square().sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(grads[1], grads[0])


def test_gradients_of_a_mask_alone():
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, batch_first=True).requires_grad_(False)
    layer.qconfig = None
    x, grads = torch.randn(2, 5, 8), []
    for module in (layer, quantizable.MultiheadAttention.from_float(layer)):
        mask = torch.linspace(-1, 1, 25).reshape(5, 5).requires_grad_()
        module(x, x, x, attn_mask=mask, need_weights=False)[0].square().sum().backward()
        grads.append(mask.grad)
    torch.testing.assert_close(grads[1], grads[0])
