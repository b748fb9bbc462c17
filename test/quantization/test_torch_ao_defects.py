"""What torch.ao of torch 2.13 gets wrong, and this library does not (each was run there)."""

import copy
import io
import pickle
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

import torch_ao_ext
from torch_ao_ext import quantization as tq
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.nn.sparse import quantized as sparse
from torch_ao_ext.quantization.quantize_fx import convert_fx, prepare_fx, prepare_qat_fx
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86

X = torch.randn(4, 3, 8, 8)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()
        self.conv, self.bn, self.up = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 2, 2)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.dequant(self.up(self.relu(self.bn(self.conv(self.quant(x))))))


def saved(model):
    """Through torch.save."""
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def pickled(model):
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("how", [pickled, saved])
@pytest.mark.parametrize("flow", ["eager", "fx", "pt2e"])
def test_prepared_and_converted_models_pickle(flow, how):
    """There, a qconfig holds a local function, and graphs with convolutions do not load."""
    warnings.simplefilter("ignore")
    model = Net().eval().requires_grad_(False)
    if flow == "eager":
        model = tq.fuse_modules(model, [["conv", "bn", "relu"]])
        model.qconfig = tq.get_default_qconfig("onednn")
        prepared, convert = tq.prepare(model), tq.convert
    elif flow == "fx":
        prepared, convert = prepare_fx(model, tq.get_default_qconfig_mapping("onednn"), (X,)), convert_fx
    else:
        quantizer = x86.X86InductorQuantizer()
        quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
        graph = torch.export.export(model, (X,)).module()
        prepared, convert = prepare_pt2e(graph, quantizer), convert_pt2e
    prepared(X)
    again = how(prepared)
    again(X * 2)
    assert torch.equal(again(X), prepared(X))
    int8 = convert(prepared)
    assert torch.equal(how(int8)(X), int8(X))
    assert not torch.equal(convert(again)(X), int8(X))  # it has seen more


def test_pickles_load_in_another_process(tmp_path):
    """Converted graphs hold operators that a fresh process has not defined yet."""
    warnings.simplefilter("ignore")
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    graph = torch.export.export(nn.Conv2d(3, 4, 3).eval(), (X,)).module()
    prepared = prepare_pt2e(graph, quantizer)
    prepared(X)
    converted = convert_pt2e(prepared)
    torch.save((converted, torch_ao_ext.lower(converted), X, converted(X)), tmp_path / "graphs.pt")
    code = (
        "import sys, torch\n"
        "converted, lowered, x, y = torch.load(sys.argv[1], weights_only=False)\n"
        "assert torch.equal(converted(x), y) and (lowered(x) - y).abs().max() < 0.05\n"
        "import torch_ao_ext\n"
        "assert torch.equal(torch_ao_ext.lower(converted)(x), lowered(x))\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, tmp_path / "graphs.pt"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def test_models_in_training_pickle():
    warnings.simplefilter("ignore")
    model = Net().train()
    graph = prepare_qat_fx(model, tq.get_default_qat_qconfig_mapping("onednn"), (X,))
    graph(X).sum().backward()
    again = pickled(graph)
    assert torch.equal(convert_fx(again)(X), convert_fx(graph)(X))
    with pytest.raises(NotImplementedError, match="does not reach into an exported graph"):
        again.eval()


def test_pickles_keep_free_sizes_and_names():
    """A graph that was pickled before its conversion takes any batch, and its report has the names."""
    warnings.simplefilter("ignore")
    model = Net().eval().requires_grad_(False)
    prepared = prepare_fx(model, tq.get_default_qconfig_mapping("onednn"), (X,))
    prepared(X)
    want, have = convert_fx(prepared), convert_fx(pickled(prepared))
    for graph in (have, pickled(have), convert_fx(pickled(pickled(prepared)))):
        for size in (1, 4, 7):
            x = torch.randn(size, 3, 8, 8)
            assert torch.equal(graph(x), want(x))
        with pytest.raises(ValueError, match=r"input 'x' must have sizes \[\*, 3, 8, 8\]"):
            graph(torch.randn(2, 3, 9, 8))
        rows = [(r.fqn, r.op, r.status) for r in torch_ao_ext.report(graph).rows]
        assert rows == [(r.fqn, r.op, r.status) for r in torch_ao_ext.report(want).rows]


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_sparse_layers_load_their_own_state(kind):
    torch.manual_seed(0)
    layer = nn.Linear(16, 8)
    layer.weight.data[::2] = 0
    layer.sparse_params = {"sparse_block_shape": (1, 4)}
    if kind == "static":
        layer.qconfig = tq.get_default_qconfig("onednn")
        layer.activation_post_process = layer.qconfig.activation()
        layer.activation_post_process(torch.randn(4, 8))
        made, other = (sparse.Linear.from_float(copy.deepcopy(layer)) for _ in range(2))
    else:
        layer.qconfig = tq.default_dynamic_qconfig
        made, other = (sparse.dynamic.Linear.from_float(copy.deepcopy(layer)) for _ in range(2))
    with torch.no_grad():
        for value in other.state_dict().values():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                value.zero_()
    other.load_state_dict(made.state_dict())
    state = made.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in other.state_dict().items() if isinstance(v, torch.Tensor))


def test_transposed_convolutions_of_the_default_mapping():
    """There, an AssertionError with an unformatted message."""
    warnings.simplefilter("ignore")
    model = nn.ConvTranspose2d(3, 4, 2).eval()
    observed = prepare_fx(model, tq.get_default_qconfig_mapping("onednn"), (X,))
    observed(X)
    assert (convert_fx(observed)(X) - model(X)).abs().max() < 0.1


def test_an_integer_bias_is_refused_at_once():
    """There, packing takes it and the first call fails."""
    layer = nnq.Linear(4, 2)
    weight = layer.weight()
    with pytest.raises((TypeError, ValueError), match="bias"):
        layer.set_weight_bias(weight, torch.zeros(2, dtype=torch.int32))


def test_a_bare_table_has_its_bits():
    """There, quint4x2 gives rows of 8 bits."""
    table = nnq.Embedding(4, 8, dtype=torch.quint4x2)
    assert table(torch.tensor([1])).shape == (1, 8)
    assert table.qweight.shape[1] == 8 // 2 + 4


def test_sparse_layers_work_without_a_choice_of_engine():
    layer = nn.Linear(16, 8)
    layer.sparse_params = {"sparse_block_shape": (1, 4)}
    layer.qconfig = tq.default_dynamic_qconfig
    assert sparse.dynamic.Linear.from_float(layer)(torch.randn(3, 16)).shape == (3, 8)
