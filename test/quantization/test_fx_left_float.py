"""convert_fx with a QConfigMapping: what is prepared and stays float after all."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torch_ao_ext
from torch_ao_ext import quantization as tq
from torch_ao_ext.nn import quantizable
from torch_ao_ext.quantization.fx.custom_config import ConvertCustomConfig, PrepareCustomConfig
from torch_ao_ext.quantization.quantize_fx import (
    convert_fx,
    convert_to_reference_fx,
    prepare_fx,
    prepare_qat_fx,
)

X = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.a(self.relu(self.bn(self.conv(x))).mean((2, 3))))
        return self.c(torch.add(self.b(x), x))


def mapping(**none):
    """The default one, with None for some modules and functions."""
    made = tq.get_default_qconfig_mapping("onednn")
    for name in none.get("names", ()):
        made.set_module_name(name, None)
    for kind in none.get("types", ()):
        made.set_object_type(kind, None)
    return made


def int8(graph):
    """Layers and sums that run in int8."""
    rows = torch_ao_ext.report(graph).rows
    return {
        "add" if r.op == "add" else r.fqn for r in rows if r.status == "int8" and (r.macs or r.op == "add")
    }


@pytest.fixture(scope="module")
def observed():
    torch.manual_seed(0)
    graph = prepare_fx(Net().eval(), mapping(), (X,))
    graph(X)
    return graph


def twin(none):
    """The same model, prepared with the None: what it quantizes."""
    torch.manual_seed(0)
    graph = prepare_fx(Net().eval(), none, (X,))
    graph(X)
    return convert_fx(graph)


NONE = {
    "first": ({"names": ["conv"]}, {"conv"}),
    "middle": ({"names": ["a", "b"]}, {"a", "b"}),
    "class": ({"types": [nn.Linear]}, {"a", "b", "c"}),
    "sum": ({"types": [torch.add]}, {"add"}),
    "none": ({}, set()),
}


@pytest.mark.parametrize("name", NONE)
def test_none_leaves_float(observed, name):
    given, floats = NONE[name]
    before = copy.deepcopy(observed.state_dict())
    whole, partly = convert_fx(observed), convert_fx(observed, qconfig_mapping=mapping(**given))
    assert int8(whole) - int8(partly) == floats
    assert int8(partly) >= int8(whole) - floats
    # Another int8 graph of the same observed ranges, and near one that was prepared so.
    want, have = twin(mapping(**given))(X), partly(X)
    assert 20 * torch.log10(want.norm() / (want - have).norm()) > 30
    assert not [node for node in partly.graph.nodes if "alias" in str(node.target)]
    reference = convert_to_reference_fx(observed, qconfig_mapping=mapping(**given))
    assert 20 * torch.log10(want.norm() / (want - reference(X)).norm()) > 30
    assert before.keys() == observed.state_dict().keys()
    assert torch.equal(convert_fx(observed)(X), whole(X))  # the prepared graph is as it was


def test_all_none_is_the_float_model(observed):
    with pytest.warns(UserWarning, match="must hold"):
        graph = convert_fx(observed, qconfig_mapping=tq.QConfigMapping())
    torch.manual_seed(0)
    torch.testing.assert_close(graph(X), Net().eval()(X))


def test_trained():
    torch.manual_seed(0)
    qat = tq.get_default_qat_qconfig_mapping("onednn")
    graph = prepare_qat_fx(Net().train(), qat, (X,))
    graph(X)
    made = convert_fx(graph, qconfig_mapping=copy.deepcopy(qat).set_module_name("conv", None))
    whole = convert_fx(graph)
    assert int8(whole) - int8(made) == {"conv"}
    assert 20 * torch.log10(whole(X).norm() / (whole(X) - made(X)).norm()) > 25


class Kept(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.lstm, self.fc = nn.GRU(4, 4), nn.LSTM(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.lstm(self.gru(x)[0])[0])


def test_modules_that_stay_whole():
    x = torch.randn(5, 2, 4)
    rules = mapping().set_object_type(nn.GRU, tq.default_dynamic_qconfig)
    custom = PrepareCustomConfig().set_float_to_observed_mapping(nn.LSTM, quantizable.LSTM)
    graph = prepare_fx(Kept().eval(), rules, (x,), custom)
    graph(x)
    done = ConvertCustomConfig()
    none = copy.deepcopy(rules).set_object_type(nn.GRU, None)
    made, whole = convert_fx(graph, done, qconfig_mapping=none), convert_fx(graph, done)
    assert made(x).shape == (5, 2, 2)
    for model, kind in ((made, nn.GRU), (whole, torch_ao_ext.nn.quantized.dynamic.GRU)):
        assert [type(m) for m in model.modules() if type(m).__name__ == "GRU"] == [kind]
    refused = copy.deepcopy(rules).set_module_name("lstm", None)
    with pytest.raises(ValueError, match="must have a QConfig for 'lstm', which is prepared by itself, got"):
        convert_fx(graph, done, qconfig_mapping=refused)


def test_other_qconfigs_are_refused(observed):
    other = mapping().set_module_name("a", tq.default_qconfig)
    with pytest.raises(ValueError, match="'qconfig_mapping' must have the QConfigs of prepare or None, got"):
        convert_fx(observed, qconfig_mapping=other)
    with pytest.raises(ValueError, match="'qconfig_mapping' must be a QConfigMapping or a dict, got int"):
        convert_fx(observed, qconfig_mapping=3)
    same = convert_fx(observed, qconfig_mapping=mapping().to_dict())
    assert torch.equal(same(X), convert_fx(observed)(X))
