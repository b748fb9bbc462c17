"""Files of models prepared with auto_edges."""

import pytest
import torch
from saved_models import join, manifest_of, sign, small_file, split
from torch import nn

from torch_ao_ext import load_quantized, save_quantized
from torch_ao_ext.quantization import convert, get_default_qconfig, prepare


class Net(nn.Module):
    """A float layer and a function without an int8 form between int8 layers."""

    def __init__(self):
        super().__init__()
        self.first, self.act = nn.Linear(8, 6), nn.ReLU()
        self.rnn = nn.GRU(6, 6, batch_first=True)
        self.last = nn.Linear(6, 4)

    def forward(self, x):
        x = torch.cumsum(self.act(self.first(x)), 1)
        return self.last(self.rnn(x)[0])


def float_model():
    return Net().eval()


def simple_model():
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4)).eval()


def int8(model):
    model.qconfig = get_default_qconfig("onednn")
    observed = prepare(model, auto_edges=True)
    observed(torch.randn(16, 3, 8))
    return convert(observed)


def test_round_trip(tmp_path):
    torch.manual_seed(0)
    path, x = tmp_path / "net.safetensors", torch.randn(2, 3, 8)
    model = int8(float_model())
    expected = model(x)
    save_quantized(model, path)
    loaded = load_quantized(path, float_model, meta=False)  # torch's GRU keeps tensors in a list
    assert torch.equal(loaded(x), expected) and type(loaded(x)) is torch.Tensor
    # Once more, from the loaded one; and into another.
    save_quantized(loaded, path)
    other = int8(float_model())
    assert load_quantized(path, into=other) is other
    assert torch.equal(other(x), expected)
    assert len(other._forward_pre_hooks) == len(model._forward_pre_hooks)


def test_without_a_function(tmp_path):
    path, x = tmp_path / "net.safetensors", torch.randn(2, 8)
    model = int8(simple_model())
    save_quantized(model, path)
    assert torch.equal(load_quantized(path)(x), model(x))
    manifest = manifest_of(split(path.read_bytes())[0])
    scale, point, dtype = model[0].edge
    assert manifest["edges"]["0"] == [scale, point, str(dtype).removeprefix("torch.")]


def test_other_models_have_no_such_key(tmp_path):
    assert "edges" not in manifest_of(split(small_file(tmp_path / "small.safetensors"))[0])


BAD = {
    "list": ([], "'edges' must be an object"),
    "length": ({"0": [0.1, 3]}, "malformed entry '0'"),
    "scale": ({"0": [0.0, 3, "uint8"]}, "malformed entry '0'"),
    "infinite": ({"0": [float("inf"), 3, "uint8"]}, "malformed entry '0'"),
    "integer scale": ({"0": [1, 3, "uint8"]}, "malformed entry '0'"),
    "zero point": ({"0": [0.1, 256, "uint8"]}, "malformed entry '0'"),
    "sign": ({"0": [0.1, -129, "int8"]}, "malformed entry '0'"),
    "bool": ({"0": [0.1, True, "int8"]}, "malformed entry '0'"),
    "dtype": ({"0": [0.1, 3, "int32"]}, "malformed entry '0'"),
    "dtype list": ({"0": [0.1, 3, ["int8"]]}, "malformed entry '0'"),
    "module": ({"9": [0.1, 3, "uint8"]}, "'9': no such module"),
    "float module": ({"1": [0.1, 3, "uint8"]}, "must name int8 modules, got '1' of nn.ReLU"),
}


@pytest.mark.parametrize("name", BAD)
def test_damaged(tmp_path, name):
    edges, text = BAD[name]
    path = tmp_path / "net.safetensors"
    save_quantized(int8(simple_model()), path)
    header, body = split(path.read_bytes())
    manifest = manifest_of(header)
    manifest["edges"] = edges
    sign(header, manifest)
    path.write_bytes(join(header, body))
    with pytest.raises(ValueError, match=text):
        load_quantized(path)
