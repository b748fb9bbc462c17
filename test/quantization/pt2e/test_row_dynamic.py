"""Inputs of linear quantized at run time, each row for itself: graphs, lowering, both flows."""

import pytest
import torch
from flow_models import converted, count, export, quantizer, targets
from torch import nn

import torch_ao_ext
from torch_ao_ext.quantization import (
    QConfig,
    QConfigMapping,
    default_channel_weight_observer,
    quantize_dynamic,
    row_dynamic_qconfig,
)
from torch_ao_ext.quantization.observer import RowPlaceholderObserver
from torch_ao_ext.quantization.pt2e.representation import reference_representation_rewrite
from torch_ao_ext.quantization.quantize_fx import convert_fx, prepare_fx
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
from torch_ao_ext.quantization.quantizer import Quantizer
from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86
from torch_ao_ext.quantization.quantizer.xnnpack_quantizer_utils import OP_TO_ANNOTATOR

ROW = "x86 row dynamic"
CHOOSE = "choose_qparams_per_token_asymmetric"


class Tokens(nn.Module):
    """Two layers; rows of the input differ in size by a factor of 10^4."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(24, 40), nn.Linear(40, 12, bias=False)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


def tokens(seed=0):
    torch.manual_seed(seed)
    return torch.randn(2, 9, 24) * torch.logspace(-2, 2, 9)[:, None]


def lowered(model, x, how=ROW, **free):
    quantized = convert_pt2e(prepare_pt2e(export(model, (x,), **free), quantizer(how)))
    return quantized, torch_ao_ext.lower(quantized)


def worst_row(y, want):
    """Least signal to noise of a row, dB."""
    return float(20 * torch.log10(want.norm(dim=-1) / (y - want).norm(dim=-1)).min())


def test_a_scale_for_each_row():
    quantized = converted("Encoder", ROW)[2]
    number = count(quantized, CHOOSE)
    assert 4 < number < count(quantized, "dequantize_per_token")  # of q, k and v in one place
    assert count(quantized, "_per_tensor") == 0
    model, x = Tokens().eval(), tokens()
    with torch.no_grad():
        want = model(x)
        tensor, rows = (worst_row(lowered(model, x, how)[0](x), want) for how in ("x86 dynamic", ROW))
    assert rows > 35 and tensor < 5


def test_lowered_as_quantize_dynamic():
    model = Tokens().eval()
    batch = torch.export.Dim("batch", min=1, max=9)
    quantized, low = lowered(model, tokens(), dynamic_shapes=({0: batch},))
    steps = torch_ao_ext.lower(quantized, islands=False)
    assert torch_ao_ext.report(low).int8 == {"linear_dynamic": 2}
    calls = [n for n in steps.graph.nodes if "linear_dynamic" in str(n.target)]
    assert [n.args[5] for n in calls] == [True, True] and [n.args[9] for n in calls] == ["relu", ""]
    eager = quantize_dynamic(model)
    with torch.no_grad():
        for x in (tokens(1), tokens(2)[:1], tokens(3).repeat(4, 1, 1)):
            y = low(x)
            assert torch.equal(y, eager(x))
            assert torch.allclose(y, quantized(x), rtol=1e-2, atol=1e-2 * float(y.abs().mean()))
            assert worst_row(y, quantized(x)) > 40
            assert torch.equal(torch.export.export(low, (x,)).module()(x), y)


def test_written_out_in_aten():
    x = tokens()
    quantized, low = lowered(Tokens().eval(), x)
    written = reference_representation_rewrite(quantized)
    assert not any("quantized_decomposed" in t for t in targets(written))
    with torch.no_grad():
        assert torch.allclose(written(x), quantized(x), rtol=1e-5, atol=1e-5)
        assert torch.allclose(reference_representation_rewrite(low)(x), low(x), rtol=1e-5, atol=1e-5)


def test_fx_mode():
    model, x = Tokens().eval(), tokens()
    graph = convert_fx(prepare_fx(model, QConfigMapping().set_global(row_dynamic_qconfig), (x,)))
    with torch.no_grad():
        assert torch.equal(graph(x), quantize_dynamic(model)(x))


def test_fx_mode_with_one_scale_for_the_value():
    model, x = Tokens().eval(), tokens()
    activation = RowPlaceholderObserver.with_args(per_row=False)
    qconfig = QConfig(activation, default_channel_weight_observer)
    graph = convert_fx(prepare_fx(model, QConfigMapping().set_global(qconfig), (x,)))
    with torch.no_grad():
        y, eager = graph(x), quantize_dynamic(model, {nn.Linear: qconfig})(x)
        assert torch.equal(y, eager)
        assert worst_row(y, model(x)) < 5 < 35 < worst_row(quantize_dynamic(model)(x), model(x))


def test_refusals():
    model, x = Tokens().eval(), tokens()
    for arguments in ({"symmetric": True}, {"reduce_range": True}, {"per_row": False, "reduce_range": True}):
        qconfig = QConfig(RowPlaceholderObserver.with_args(**arguments), default_channel_weight_observer)
        graph = prepare_fx(model, QConfigMapping().set_global(qconfig), (x,))
        with pytest.raises(ValueError, match="must have symmetric=False and reduce_range=False, got Dyn"):
            convert_fx(graph)


class Convolutions(Quantizer):
    def annotate(self, model):
        OP_TO_ANNOTATOR["conv"](model, x86.get_x86_inductor_row_dynamic_config(), None)
        return model

    def validate(self, model):
        pass


def test_a_convolution_needs_one_scale_for_a_sample():
    model, x = nn.Conv1d(4, 8, 3).eval(), torch.randn(2, 4, 9)
    quantized = convert_pt2e(prepare_pt2e(export(model, (x,)), Convolutions()))
    with pytest.warns(UserWarning, match="got none"):
        low = torch_ao_ext.lower(quantized)
    assert "quantized by rows; needs one scale for a sample" in str(torch_ao_ext.report(low))
    with torch.no_grad():
        assert torch.equal(low(x), quantized(x))
    with pytest.raises(ValueError, match="must run in int8 throughout when strict, got 1 float"):
        torch_ao_ext.lower(quantized, strict=True)
