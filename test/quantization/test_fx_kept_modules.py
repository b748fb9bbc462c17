"""FX graph mode: modules that stay whole, and integers at the borders of graphs."""

import copy
import pickle
import warnings

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
from torch_ao_ext.quantization import (
    QConfigMapping,
    default_dynamic_qconfig,
    get_default_qat_qconfig_mapping,
    get_default_qconfig,
)
from torch_ao_ext.quantization.fx.custom_config import ConvertCustomConfig, PrepareCustomConfig
from torch_ao_ext.quantization.quantize_fx import (
    convert_fx,
    prepare_fx,
    prepare_qat_fx,
)


@pytest.mark.parametrize("by", ["name", "class"])
def test_non_traceable_modules_stay_float(by):
    model = Model(Gate()).eval()
    config = PrepareCustomConfig()
    if by == "name":
        config.set_non_traceable_module_names(["middle"])
    else:
        config.set_non_traceable_module_classes([Gate])
    with pytest.raises(Exception, match="data-dependent"):
        prepare_fx(model, STATIC, batches(5, 8)[0])
    graph = convert_fx(calibrated(model, STATIC, *batches(5, 8), prepare_custom_config=config))
    assert int8(graph) == [("first", "linear"), ("last", "linear")]
    for size in (1, 3, 5):  # the batch stays free
        (x,) = batches(size, 8)[-1]
        assert sqnr(model(x), graph(x)) > 25
    assert sqnr(model(-x), graph(-x)) > 25  # the other branch


@pytest.mark.parametrize("inner", ["own mapping", "the model's"])
@pytest.mark.parametrize("by", ["name", "class"])
def test_standalone_modules_are_models_of_their_own(by, inner):
    model = Model(Block()).eval()
    mapping = QConfigMapping().set_global(get_default_qconfig("qnnpack")) if inner == "own mapping" else None
    entry = (mapping, (torch.randn(2, 8),), None)
    config = PrepareCustomConfig()
    if by == "name":
        config.set_standalone_module_name("middle", *entry)
    else:
        config.set_standalone_module_class(Block, *entry)
    outer = STATIC if inner == "the model's" else QConfigMapping()
    observed = calibrated(model, outer, *batches(5, 8), prepare_custom_config=config)
    graph = convert_fx(observed)
    whole = convert_fx(calibrated(model, STATIC, *batches(5, 8)))
    (x,) = batches(3, 8)[-1]
    assert sqnr(model(x), graph(x)) > sqnr(model(x), whole(x)) - 3
    names = {name.replace("module.graph_module.", "") for name, _ in int8(graph)}
    assert names == {"middle.a", "middle.b"} | ({"first", "last"} if inner == "the model's" else set())
    # The prepared model is left as it was.
    assert torch.equal(convert_fx(observed)(x), graph(x))
    assert sqnr(model(x), observed(x)) > 100


def test_a_standalone_module_takes_its_inputs_from_the_model():
    model = Model(Block()).eval()
    config = PrepareCustomConfig().set_standalone_module_name("middle", None, (), None)
    graph = convert_fx(calibrated(model, STATIC, *batches(5, 8), prepare_custom_config=config))
    assert len(int8(graph)) == 4


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_dynamic_recurrent_layers(kind):
    model = Recurrent(kind).eval()
    mapping = QConfigMapping().set_global(default_dynamic_qconfig)
    graph = convert_fx(prepare_fx(model, mapping, batches(3, 6, 8)[0]))
    alone = torch_ao_ext.quantization.quantize_dynamic(model, {kind: default_dynamic_qconfig})
    assert [op for _, op in int8(graph)].count("linear_dynamic") == 2
    assert any("rnn" in name for name, _ in int8(graph))
    for size in (1, 3, 4):
        (x,) = batches(size, 6, 8)[-1]
        assert sqnr(model(x)[0], graph(x)[0]) > 25
        y = alone.first(x)
        assert torch.equal(alone.rnn(y)[0], graph.get_submodule("rnn").module(y)[0])
    assert graph(x)[1][0].shape == model(x)[1][0].shape if kind is nn.LSTM else True


def test_lstm_alone():
    class Only(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(8, 16)

        def forward(self, x):
            return self.rnn(x)[0]

    model = Only().eval()
    mapping = QConfigMapping().set_object_type(nn.LSTM, default_dynamic_qconfig)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = convert_fx(prepare_fx(model, mapping, batches(6, 3, 8)[0]))
    (x,) = batches(9, 3, 8)[0]  # the first dimension is free
    assert sqnr(model(x), graph(x)) > 25
    warnings.filterwarnings("ignore", message="The tensor attributes self.rnn._flat_weights")
    with pytest.raises(ValueError, match="must annotate a node"):
        prepare_fx(model, QConfigMapping().set_object_type(nn.GRU, default_dynamic_qconfig), (x,))


def test_copies_and_pickles():
    """Prepared and converted graphs with parts of each kind."""
    model = nn.Sequential(Model(Gate()), Model(Block()), Scaled(nn.Linear(4, 8)), Block()).eval()
    config = PrepareCustomConfig().set_non_traceable_module_classes([Gate])
    config.set_standalone_module_class(Block, None, (), None)
    config.set_float_to_observed_mapping(Scaled, ObservedScaled)
    model[1].first = nn.Linear(4, 8)
    to = ConvertCustomConfig().set_observed_to_quantized_mapping(ObservedScaled, QuantizedScaled)
    observed = calibrated(model, STATIC, *batches(5, 8), prepare_custom_config=config)
    (x,) = batches(3, 8)[-1]
    graph = convert_fx(observed, convert_custom_config=to)
    want = graph(x)
    assert sqnr(model(x), want) > 15
    for copied in (copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))):
        assert torch.equal(copied(graph)(x), want)
        again = copied(observed)
        assert torch.equal(convert_fx(again, convert_custom_config=to)(x), want)
        again(x * 10)
        assert not torch.equal(convert_fx(again, convert_custom_config=to)(x), want)
    assert torch.equal(convert_fx(observed, convert_custom_config=to)(x), want)


def test_one_module_called_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.block, self.fc = Gate(), Block(), nn.Linear(8, 8)

        def forward(self, x):
            return self.block(self.gate(self.fc(self.block(self.gate(x)))))

    torch.manual_seed(0)
    model = Twice().eval()
    config = PrepareCustomConfig().set_non_traceable_module_classes([Gate])
    config.set_standalone_module_name("block", None, (), None)
    graph = convert_fx(calibrated(model, STATIC, *batches(5, 8), prepare_custom_config=config))
    (x,) = batches(5, 8)[0]
    assert sqnr(model(x), graph(x)) > 20
    assert graph.block.module is graph.block_1.module


def test_training_around_kept_modules():
    model = Model(Gate()).train()
    config = PrepareCustomConfig().set_non_traceable_module_names(["middle"])
    mapping = get_default_qat_qconfig_mapping("onednn")
    graph = prepare_qat_fx(model, mapping, batches(5, 8)[0], prepare_custom_config=config)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    losses = []
    for (x,) in batches(5, 8, count=1) * 30:
        loss = graph(x).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] and model.first.weight.grad is not None
    assert len(int8(convert_fx(graph))) == 2


def test_statistics_and_random_numbers_stay():
    model = Model(nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.5))).train()
    config = PrepareCustomConfig().set_non_traceable_module_names(["middle"])
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(7)
    prepare_qat_fx(model, get_default_qat_qconfig_mapping("onednn"), batches(5, 8)[0], config)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
