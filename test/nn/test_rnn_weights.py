"""Weights of recurrent layers: accessors, and names by torch.ao's paths."""

import importlib
import warnings

import pytest
import torch
from torch import nn

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized import dynamic
from torch_ao_ext.nn.quantized.dynamic.modules import rnn
from torch_ao_ext.nn.quantized.reference.modules import rnn as reference
from torch_ao_ext.quantization import default_qconfig, quantize_dynamic

LAYERS = {
    "LSTM": (lambda: nn.LSTM(4, 6, 2), torch.randn(3, 2, 4)),
    "GRU": (lambda: nn.GRU(4, 6, bias=False), torch.randn(3, 2, 4)),
    "LSTMCell": (lambda: nn.LSTMCell(4, 6), torch.randn(2, 4)),
    "RNNCell": (lambda: nn.RNNCell(4, 6), torch.randn(2, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_weights_go_from_layer_to_layer(name):
    make, x = LAYERS[name]
    layers = [quantize_dynamic(nn.ModuleDict({"a": make()}))["a"] for _ in range(2)]
    assert type(layers[0]) is getattr(rnn, name) is getattr(dynamic, name)
    weights, biases = layers[0].get_weight(), layers[0].get_bias()
    floats = dict(make().named_parameters())
    assert {n for n in floats if n.startswith("weight")} == set(weights)
    assert {n for n in floats if n.startswith("bias")} == set(biases)
    assert all(isinstance(w, QuantizedTensor) and w.shape == floats[n].shape for n, w in weights.items())
    before = layers[1](x)[0]
    layers[1].set_weight_bias({**weights, **biases})
    assert torch.equal(layers[1](x)[0], layers[0](x)[0]) and not torch.equal(before, layers[1](x)[0])
    first = next(iter(weights))
    per_tensor = QuantizedTensor(weights[first].int_repr(), 0.01, 0)
    layers[1].set_weight_bias({first: per_tensor})
    assert torch.equal(layers[1].get_weight()[first].dequantize(), per_tensor.dequantize())


def test_weights_that_do_not_fit():
    cell = dynamic.GRUCell(4, 6)
    weight = cell.get_weight()["weight_ih"]
    for given, said in [
        ({"weight": weight}, r"names must be \['weight_ih', .*'bias_hh'\], got 'weight'"),
        ({"weight_hh": weight}, r"'weight_hh' must be torch.int8 \[18, 6\], got torch.int8 \[18, 4\]"),
        ({"bias_ih": torch.ones(3)}, r"'bias_ih' must be torch.float32 \[18\], got torch.float32 \[3\]"),
        ({"weight_ih": QuantizedTensor(weight.int_repr(), 0.1, 3)}, "'weight_ih' must have zero point 0"),
    ]:
        with pytest.raises(ValueError, match=f"GRUCell.set_weight_bias: {said}"):
            cell.set_weight_bias(given)


def test_permutation():
    x = torch.arange(6).reshape(2, 3)
    assert rnn.apply_permutation(x, torch.tensor([2, 0, 1])).tolist() == [[2, 0, 1], [5, 3, 4]]


@pytest.mark.parametrize("name", ["LSTM", "LSTMCell"])
def test_integers_of_reference_weights(name):
    """As torch.ao's."""
    torch.manual_seed(0)
    make, _ = LAYERS[name]
    layer = make()
    layer.qconfig = default_qconfig
    made = getattr(reference, name).from_float(layer)
    assert isinstance(made, reference.RNNCellBase if name.endswith("Cell") else reference.RNNBase)
    assert reference.get_quantized_weight(made, "weight_none") is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = importlib.import_module("torch.ao.nn.quantized.reference.modules.rnn")
        for key in made.weight_names():
            scale, point = getattr(made, f"{key}_scale"), getattr(made, f"{key}_zero_point")
            want = torch.quantize_per_tensor(getattr(layer, key), float(scale), int(point), torch.qint8)
            assert torch.equal(reference.get_quantized_weight(made, key), want.int_repr())
    assert other.get_quantized_weight(nn.Linear(1, 1), "weight_none") is None
