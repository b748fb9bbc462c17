"""fx.lstm_utils: an LSTM whose hidden state is observed by the user's choice."""

import pytest
import torch
from torch import nn

from torch_ao_ext import quantization as tq
from torch_ao_ext.nn import quantizable
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.quantization.fx.custom_config import ConvertCustomConfig, PrepareCustomConfig
from torch_ao_ext.quantization.fx.lstm_utils import (
    _get_lstm_with_individually_observed_parts,
    _get_reference_quantized_lstm_module,
)
from torch_ao_ext.quantization.quantize_fx import convert_fx, prepare_fx

# Results lie between -1 and 1.
HIDDEN = tq.FixedQParamsObserver.with_args(
    scale=1 / 128, zero_point=128, dtype=torch.quint8, quant_min=0, quant_max=255
)
X = torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(0))


class Observed(quantizable.LSTM):
    """As a program writes it for torch.ao."""

    @classmethod
    def from_float(cls, mod):
        return _get_lstm_with_individually_observed_parts(mod, (X,), hidden_state_obs_ctr=HIDDEN)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.fc = nn.LSTM(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.fc(self.lstm(x)[0])


def float_lstm():
    layer = Net().lstm.eval()
    layer.qconfig = tq.get_default_qconfig("onednn")
    return layer


def test_hidden_state():
    layer = float_lstm()
    observed = _get_lstm_with_individually_observed_parts(layer, (X,), hidden_state_obs_ctr=HIDDEN)
    assert type(observed) is quantizable.LSTM and observed.qconfig is layer.qconfig
    assert observed.weight_ih_l0 is layer.weight_ih_l0
    for place in (observed, observed.quant_hidden):
        assert isinstance(place.activation_post_process, tq.FixedQParamsObserver)
    torch.testing.assert_close(observed(X)[0], layer(X)[0])
    int8 = _get_reference_quantized_lstm_module(observed)
    assert type(int8) is nnq.LSTM
    plain = _get_lstm_with_individually_observed_parts(layer, (X,))
    assert type(plain.activation_post_process) is tq.HistogramObserver


def test_in_a_graph():
    model = Net().eval()
    custom = PrepareCustomConfig().set_float_to_observed_mapping(nn.LSTM, Observed)
    graph = prepare_fx(model, tq.get_default_qconfig_mapping("onednn"), (X,), custom)
    graph(X)
    done = ConvertCustomConfig().set_observed_to_quantized_mapping(Observed, nnq.LSTM)
    int8 = convert_fx(graph, done)
    lstm = next(m for m in int8.modules() if isinstance(m, nnq.LSTM))
    assert float(lstm.scale) == 1 / 128 and int(lstm.zero_point) == 128
    assert 20 * torch.log10(model(X).norm() / (model(X) - int8(X)).norm()) > 25


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sigmoid_obs_ctr": HIDDEN}, "'sigmoid_obs_ctr' must be None: the gates run in float"),
        ({"cell_state_obs_ctr": HIDDEN}, "'cell_state_obs_ctr' must be None"),
        ({"split_gates": True}, "'split_gates' must be False"),
    ],
)
def test_parts_that_run_in_float(options, said):
    with pytest.raises(ValueError, match=f"_get_lstm_with_individually_observed_parts: argument {said}"):
        _get_lstm_with_individually_observed_parts(float_lstm(), (X,), **options)
    with pytest.raises(ValueError, match="'float_lstm' must have a qconfig, got none"):
        _get_lstm_with_individually_observed_parts(nn.LSTM(4, 6), (X,))
