"""FX graph mode: observed custom modules, of torch.nn and of users."""

import copy

import pytest
import torch
from fx_models import (
    STATIC,
    Block,
    Gate,
    Model,
    ObservedScaled,
    QuantizedScaled,
    Recurrent,
    Scaled,
    batches,
    calibrated,
    int8,
    sqnr,
)
from torch import nn

import torch_ao_ext
from torch_ao_ext.nn import quantizable
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.quantization import (
    QConfigMapping,
    get_default_qconfig,
)
from torch_ao_ext.quantization.fx.custom_config import ConvertCustomConfig, PrepareCustomConfig
from torch_ao_ext.quantization.quantize_fx import (
    convert_fx,
    prepare_fx,
)


def test_lstm_of_observed_custom_modules_equals_eager_mode():
    model = Recurrent(num_layers=2, bidirectional=False).eval()
    config = PrepareCustomConfig().set_float_to_observed_mapping(nn.LSTM, quantizable.LSTM)
    mapping = QConfigMapping().set_object_type(nn.LSTM, get_default_qconfig("onednn"))
    observed = calibrated(model, mapping, *batches(3, 6, 8), prepare_custom_config=config)
    assert type(observed.rnn.module.custom) is quantizable.LSTM
    to = ConvertCustomConfig().set_observed_to_quantized_mapping(quantizable.LSTM, nnq.LSTM)
    graph = convert_fx(observed, convert_custom_config=to)
    assert type(graph.rnn.module.custom) is nnq.LSTM
    eager = nn.Sequential(torch_ao_ext.quantization.QuantStub(), copy.deepcopy(model.rnn)).eval()
    eager.qconfig = get_default_qconfig("onednn")
    eager = torch_ao_ext.quantization.prepare(eager)
    for (x,) in batches(3, 6, 8):
        eager(model.first(x))
    eager = torch_ao_ext.quantization.convert(eager)
    for size in (1, 3, 4):
        (x,) = batches(size, 6, 8)[-1]
        y, (h, c) = graph(x)
        want, (want_h, want_c) = eager(model.first(x))
        assert torch.equal(y, model.last(want.dequantize()))
        assert torch.equal(h, want_h.dequantize()) and torch.equal(c, want_c)
    assert sqnr(model(x)[0], y) > 25


def test_attention_as_a_custom_module():
    class Attend(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(3)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=False)[0]

    model = Attend().eval()
    config = PrepareCustomConfig().set_float_to_observed_mapping(
        nn.MultiheadAttention, quantizable.MultiheadAttention
    )
    graph = convert_fx(calibrated(model, STATIC, *batches(3, 6, 8), prepare_custom_config=config))
    (x,) = batches(4, 6, 8)[-1]
    assert sqnr(model(x), graph(x)) > 20
    assert len(int8(graph)) == 4


def test_custom_modules_of_users():
    model = Model(Scaled(nn.Linear(8, 8))).eval()
    config = PrepareCustomConfig().set_float_to_observed_mapping(Scaled, ObservedScaled)
    observed = calibrated(model, STATIC, *batches(5, 8), prepare_custom_config=config)
    with pytest.raises(ValueError, match="must name the quantized class of ObservedScaled"):
        convert_fx(observed)
    to = ConvertCustomConfig().set_observed_to_quantized_mapping(ObservedScaled, QuantizedScaled)
    graph = convert_fx(observed, convert_custom_config=to)
    (x,) = batches(3, 8)[-1]
    assert len(int8(graph)) == 3 and sqnr(model(x), graph(x)) > 25


def test_dict_forms_go_both_ways():
    inner = PrepareCustomConfig().set_preserved_attributes(["a"])
    config = PrepareCustomConfig().set_standalone_module_name("x", STATIC, (torch.ones(1),), inner)
    config.set_standalone_module_class(Block, None, (), None).set_non_traceable_module_names(["y"])
    config.set_float_to_observed_mapping(nn.LSTM, quantizable.LSTM).set_input_quantized_indexes([0])
    again = PrepareCustomConfig.from_dict(config.to_dict())
    assert again.standalone_module_names["x"].prepare_custom_config.preserved_attributes == ["a"]
    one, two = (c.standalone_module_names["x"].qconfig_mapping.to_dict() for c in (config, again))
    assert one == two
    assert again.standalone_module_classes.keys() == {Block}
    assert again.float_to_observed_mapping == config.float_to_observed_mapping
    assert (again.non_traceable_module_names, again.input_quantized_indexes) == (["y"], [0])
    to = ConvertCustomConfig().set_observed_to_quantized_mapping(quantizable.LSTM, nnq.LSTM)
    assert to.to_dict() == {
        "observed_to_quantized_custom_module_class": {"static": {quantizable.LSTM: nnq.LSTM}}
    }
    assert ConvertCustomConfig.from_dict(to.to_dict()).to_dict() == to.to_dict()


REFUSED = {
    "a name": (
        PrepareCustomConfig().set_non_traceable_module_names(["nope"]), "names must be those of modules"
    ),
    "a standalone name": (
        PrepareCustomConfig().set_standalone_module_name("nope", None, (), None), "names must be those of"
    ),
    "an input index": (PrepareCustomConfig().set_input_quantized_indexes([1]), "must be less than 1, got 1"),
    "an output index": (
        PrepareCustomConfig().set_output_quantized_indexes([3]), "must be less than 1, got 3"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    config, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        prepare_fx(Model(Block()).eval(), STATIC, batches(5, 8)[0], prepare_custom_config=config)


def test_setters_check():
    config = PrepareCustomConfig()
    with pytest.raises(ValueError, match="classes must be subclasses of nn.Module, got 3"):
        config.set_non_traceable_module_classes([3])
    with pytest.raises(ValueError, match="must hold integers >= 0, got -1"):
        config.set_input_quantized_indexes([-1])
    with pytest.raises(ValueError, match="'observed_class' must have from_float"):
        config.set_float_to_observed_mapping(Gate, Gate)
    with pytest.raises(ValueError, match="'quantized_class' must have from_observed"):
        ConvertCustomConfig().set_observed_to_quantized_mapping(Gate, Gate)
    with pytest.raises(ValueError, match="keys must be among"):
        PrepareCustomConfig.from_dict({"prepare": 1})
