"""Static quantization in eager mode: single modules, what becomes of them."""

import copy
import warnings

import pytest
import torch
from eager_models import small
from torch import nn
from torch.nn.utils import parametrizations

import torch_ao_ext
from torch_ao_ext import quantization as tq
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.quantization import (
    DeQuantStub,
    QuantStub,
    convert,
    default_qconfig,
    prepare,
    quantize,
)


@pytest.fixture(autouse=True)
def _quiet(_warnings_are_errors):
    """torch.ao warns of its end, and its tensors of their dtypes."""
    warnings.filterwarnings("ignore", message=r"torch\.quantize_per_tensor")
    warnings.filterwarnings("ignore", message=r"torch\.ao\.quantization is deprecated")
    warnings.filterwarnings("ignore", message="Please use quant_min and quant_max")


def test_a_float_module_in_an_int8_region_is_named():
    model = small(nn.Linear(6, 6), nn.Linear(6, 6))
    model.module[1].qconfig = None
    observed = prepare(model)
    observed(torch.randn(8, 6))
    int8 = convert(observed)
    with pytest.raises(
        TypeError, match=r"linear in Linear 'module\.1': arguments must be float tensors.*DeQuantStub"
    ):
        int8(torch.randn(2, 6))


def test_a_missing_quant_stub_is_named():
    model = nn.Sequential(nn.Linear(6, 6)).eval()
    model.qconfig = default_qconfig
    observed = prepare(model)
    observed(torch.randn(8, 6))
    with pytest.raises(
        TypeError, match=r"nn.quantized.Linear '0': argument 'input' must be a QuantizedTensor"
    ):
        convert(observed)(torch.randn(2, 6))


def test_modules_and_weights_used_twice():
    shared = nn.Linear(6, 6)
    tied = nn.Linear(6, 6)
    tied.weight = shared.weight
    model = small(shared, nn.ReLU(), shared, tied)
    observed = prepare(model)
    assert sum(isinstance(m, tq.MinMaxObserver) for m in observed.modules()) == 3
    observed(torch.randn(32, 6))
    int8 = convert(observed)
    assert int8.module[0] is int8.module[2]
    assert int8.module[3].qweight.data_ptr() == int8.module[0].qweight.data_ptr()


def test_layers_without_data_stay_float():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.quant, self.dequant = QuantStub(), DeQuantStub()
            self.used, self.unused = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x):
            return self.dequant(self.used(self.quant(x)))

    model = Two().eval()
    model.qconfig = default_qconfig
    observed = prepare(model)
    with pytest.raises(ValueError, match="convert: no observer saw data; run batches after prepare"):
        convert(observed)
    observed(torch.randn(8, 6))
    with pytest.warns(UserWarning, match="convert: stay float, no data came to them: 'unused'"):
        int8 = convert(observed)
    assert type(int8.unused) is nn.Linear and type(int8.used) is nnq.Linear
    row = next(r for r in torch_ao_ext.report(int8).rows if r.fqn == "unused")
    assert row.reason == "it saw no data between prepare and convert"
    assert not hasattr(int8.unused, "activation_post_process") and not int8.unused._forward_hooks


def test_what_has_no_static_module_stays_float_with_a_reason():
    parts = {"emb": nn.Embedding(10, 8), "rnn": nn.GRU(8, 8), "layer": nn.TransformerEncoderLayer(8, 2)}
    model = nn.ModuleDict({**parts, "fc": nn.Linear(8, 4)}).eval()
    model.qconfig = default_qconfig
    observed = prepare(model)
    observed["fc"](torch.randn(3, 8))
    int8 = convert(observed)
    reasons = {r.fqn: r.reason for r in torch_ao_ext.report(int8).rows if r.status == "float"}
    assert reasons["rnn"].startswith("no static int8 module for nn.GRU; quantize_dynamic has one")
    assert reasons["emb"] and type(int8["fc"]) is nnq.Linear
    x = torch.randn(3, 1, 8)
    assert torch.equal(int8["layer"](x), model["layer"](x))  # as before
    assert torch.equal(int8["rnn"](x)[0], model["rnn"](x)[0])


def test_embeddings_with_a_row_qconfig():
    model = nn.Sequential(nn.Embedding(10, 8)).eval()
    model[0].qconfig = tq.float_qparams_weight_only_qconfig
    int8 = convert(prepare(model))
    assert type(int8[0]) is nnq.Embedding
    assert (int8(torch.tensor([3])) - model(torch.tensor([3]))).abs().max() < 0.05


def test_parametrized_and_weight_normed_layers():
    model = small(parametrizations.weight_norm(nn.Linear(6, 6)), nn.Linear(6, 6))
    x = torch.randn(32, 6)
    int8 = quantize(model, lambda m, data: m(data), [x])
    assert type(int8.module[0]) is nnq.Linear
    assert (int8(x) - model(x)).abs().max() < 0.1
    with pytest.warns(FutureWarning):
        old = small(torch.nn.utils.weight_norm(nn.Linear(6, 6)))
    assert type(quantize(old, lambda m, data: m(data), [x], inplace=True).module[0]) is nnq.Linear


@pytest.mark.parametrize("kind", [nn.Sigmoid, nn.Softmax])
def test_known_ranges_ignore_the_qconfig(kind):
    model = small(kind(*([-1] if kind is nn.Softmax else [])))
    observed = prepare(model)
    assert isinstance(observed.module[0].activation_post_process, tq.FixedQParamsObserver)
    observed(torch.randn(4, 6))
    assert convert(observed).module[0].qparams == (1 / 256, 0, torch.uint8)


def test_root_that_is_a_layer():
    layer = nn.Linear(6, 6).eval()
    layer.qconfig = default_qconfig
    observed = prepare(layer)
    observed(torch.randn(4, 6))
    assert type(convert(observed)) is nnq.Linear and type(observed) is nn.Linear


def test_stubs_pass_values():
    x = torch.randn(3)
    assert QuantStub()(x) is x and DeQuantStub()(x) is x
    assert QuantStub(default_qconfig).qconfig is default_qconfig
    assert isinstance(nnq.Quantize(0.1, 0)(x.abs()), QuantizedTensor)


def test_a_sum_that_was_never_observed():
    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.quant, self.dequant = QuantStub(), DeQuantStub()
            self.used, self.numbers = nnq.FloatFunctional(), nnq.FloatFunctional()

        def forward(self, x, more=False):
            x = self.quant(x)
            x = self.numbers.add_scalar(self.used.add(x, x), 0.5)
            return self.dequant(self.numbers.add(x, x) if more else x)

    model = Sums().eval()
    model.qconfig = default_qconfig
    observed = prepare(model)
    x = torch.randn(8, 6)
    observed(x)
    int8 = convert(observed)
    assert (int8(x) - model(x)).abs().max() < 0.1
    other = convert(observed)
    other.load_state_dict(int8.state_dict())
    for converted in (int8, copy.deepcopy(int8), other):
        with pytest.raises(
            ValueError, match=r"QFunctional 'numbers': results must have been observed .*got none"
        ):
            converted(x, more=True)
