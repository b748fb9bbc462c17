"""Weights of recurrent layers: accessors, and names by torch.ao's paths."""

import copy
import importlib
import pickle
import warnings

import pytest
import torch
from torch import nn

import torch_ao_ext
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized import dynamic
from torch_ao_ext.nn.quantized.dynamic.modules import rnn
from torch_ao_ext.nn.quantized.reference.modules import rnn as reference
from torch_ao_ext.quantization import (
    default_qconfig,
    mixed_dynamic_qconfig,
    quantize_dynamic,
    row_dynamic_qconfig,
)

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
    wide = torch.full((18, 4), 32640, dtype=torch.int16)
    with pytest.raises(ValueError, match="'weight_ih' must have integers of at most 32639, got 32640"):
        cell.set_weight_bias({"weight_ih": QuantizedTensor(wide, 0.1, 0)})
    fits = QuantizedTensor(wide.neg() + 1, 0.1, 0)
    cell.set_weight_bias({"weight_ih": fits})
    assert torch.equal(cell.get_weight()["weight_ih"].int_repr(), fits.int_repr())
    tensor_rule = dynamic.GRUCell(4, 6, per_row=False)
    with pytest.raises(ValueError, match="'weight_ih' must be int8 with per_row=False, got int16"):
        tensor_rule.set_weight_bias({"weight_ih": fits})
    assert tensor_rule.weight_dtype == torch.int8


# kind, K, H, further arguments, whether W_ih of the first layer, other W_ih, and W_hh and W_hr are int16
BY_SIZE = [
    (nn.LSTM, 40, 256, {"num_layers": 2}, (True, True, True)),
    (nn.LSTM, 128, 256, {"num_layers": 2, "bidirectional": True}, (True, True, True)),
    (nn.LSTM, 129, 256, {"num_layers": 2, "bidirectional": True}, (False, True, True)),
    (nn.LSTM, 8, 257, {"num_layers": 2}, (False, False, False)),
    (nn.LSTM, 20, 512, {"num_layers": 2, "proj_size": 128}, (True, True, True)),
    (nn.GRU, 8, 295, {"num_layers": 2}, (True, True, True)),
    (nn.GRU, 8, 296, {"num_layers": 2}, (False, False, False)),
    (nn.RNN, 512, 512, {"num_layers": 2}, (False, True, True)),
    (nn.LSTMCell, 8, 16, {}, (False, False, False)),
]


@pytest.mark.parametrize(("kind", "k", "h", "more", "wide"), BY_SIZE)
def test_sizes_choose_sixteen_bits(kind, k, h, more, wide):
    layer = kind(k, h, **more)
    asked = quantize_dynamic(nn.Sequential(layer), {kind: mixed_dynamic_qconfig})[0]
    for q in (quantize_dynamic(layer), asked):
        found = {name: w.int_repr().dtype for name, w in q.get_weight().items()}
        for name, dtype in found.items():
            first = name.partition("_reverse")[0].endswith(("ih_l0", "weight_ih"))
            expected = wide[0] if first else wide[1] if "ih" in name else wide[2]
            assert dtype == (torch.int16 if expected else torch.int8), name
        assert q.weight_dtype == (torch.int16 if any(wide) else torch.int8)
        (row,) = torch_ao_ext.report(q).rows
        assert ("int16" in row.op) == any(wide) and ("int8 and int16" in row.op) == (len({*wide}) == 2)


def test_mixed_weights_survive_files_and_copies(tmp_path):
    torch.manual_seed(1)
    layer, x = nn.Sequential(nn.LSTM(12, 16, 2, bidirectional=True)).eval(), torch.randn(5, 3, 12)
    q = quantize_dynamic(layer)
    dtypes = {name: w.int_repr().dtype for name, w in q[0].get_weight().items()}
    assert {*dtypes.values()} == {torch.int8, torch.int16}
    int8 = quantize_dynamic(layer, {nn.LSTM: row_dynamic_qconfig})
    int8.load_state_dict(q.state_dict())
    torch_ao_ext.save_quantized(q, tmp_path / "q.safetensors")
    loaded = torch_ao_ext.load_quantized(tmp_path / "q.safetensors", lambda: nn.Sequential(layer[0]))
    taken = quantize_dynamic(layer, {nn.LSTM: row_dynamic_qconfig})
    taken[0].set_weight_bias(q[0].get_weight())
    for other in (int8, loaded, taken, copy.deepcopy(q), pickle.loads(pickle.dumps(q))):
        assert torch.equal(other(x)[0], q(x)[0])
        assert {name: w.int_repr().dtype for name, w in other[0].get_weight().items()} == dtypes
    for dtype, narrow in (("int16", "weight"), ("int16", 3), ("bfloat16", "weight_ih_l0")):
        args = {"input_size": 12, "hidden_size": 16, "dtype": dtype, "int8_weights": narrow}
        with pytest.raises(ValueError, match="int8_weights must be of .*'weight_hh_l0'. beside"):
            dynamic.LSTM._from_saved(args)


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
