"""convert_fx(keep_original_weights=True): the float weights beside their integers."""

import copy
import importlib
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from torch_ao_ext import quantization as tq
from torch_ao_ext.quantization import quantize_fx
from torch_ao_ext.quantization.fx.convert import convert
from torch_ao_ext.quantization.fx.custom_config import PrepareCustomConfig
from torch_ao_ext.quantization.fx.lower_to_fbgemm import lower_to_fbgemm
from torch_ao_ext.quantization.pt2e import move_exported_model_to_eval
from torch_ao_ext.quantization.quantize_fx import (
    convert_fx,
    convert_to_reference_fx,
    prepare_fx,
    prepare_qat_fx,
)

X = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A batch norm to fold, a transposed convolution, a layer that is used twice, a function."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        self.up, self.fc = nn.ConvTranspose2d(8, 8, 2), nn.Linear(8, 8)
        self.weight = nn.Parameter(torch.randn(4, 8))

    def forward(self, x):
        x = self.up(self.relu(self.bn(self.conv(x)))).mean((2, 3))
        return F.linear(self.fc(self.fc(x)), self.weight)


def net(train=False):
    torch.manual_seed(0)
    model = Net().train(train)
    model.bn.running_mean.normal_(), model.bn.running_var.uniform_(0.5, 2), model.bn.weight.data.normal_()
    return model


def folded(model):
    factor = model.bn.weight / (model.bn.running_var + model.bn.eps).sqrt()
    return model.conv.weight * factor.reshape(-1, 1, 1, 1), model.bn.bias - model.bn.running_mean * factor


def check(int8, model):
    lookup = int8.original_weights_lookup
    weight, bias = folded(model)
    want = [(weight, bias), (model.up.weight, model.up.bias), (model.fc.weight, model.fc.bias)]
    want += [(model.weight, None)]
    assert set(lookup) == {k for k, value in int8.state_dict().items() if value.dtype == torch.int8}
    assert len(lookup) in (4, 5)
    left = list(want)
    for name, (found, found_bias) in lookup.items():
        match = [p for p in want if p[0].shape == found.shape and torch.allclose(p[0], found, atol=1e-6)]
        assert len(match) == 1, name
        assert (found_bias is None) == (match[0][1] is None)
        assert found_bias is None or torch.allclose(found_bias, match[0][1], atol=1e-5)
        left = [pair for pair in left if pair is not match[0]]
        integers = int8.state_dict()[name]  # an int8 weight is its float one in steps
        scale = found.abs().amax() / 60
        assert integers.shape == found.shape and ((integers > 0) & (found < -scale)).sum() == 0
    assert not left


def test_calibrated():
    model = net()
    observed = prepare_fx(model, tq.get_default_qconfig_mapping("onednn"), (X,))
    observed(X)
    int8 = convert_fx(observed, keep_original_weights=True)
    check(int8, model)
    by_pass = convert(observed, keep_original_weights=True)
    for other in (copy.deepcopy(int8), pickle.loads(pickle.dumps(int8)), by_pass):
        check(other, model)
        assert torch.equal(other(X), int8(X))
    assert not hasattr(convert_fx(observed), "original_weights_lookup")
    assert not hasattr(convert(observed, True, keep_original_weights=True), "original_weights_lookup")
    assert list(int8.state_dict()) == list(convert_fx(observed).state_dict())  # files stay as they are
    assert torch.equal(convert_fx(observed)(X), int8(X))
    model.fc.weight.data.zero_()
    assert all(weight.any() for weight, _ in int8.original_weights_lookup.values())  # copies


def test_trained():
    model = net(train=True)
    observed = prepare_qat_fx(model, tq.get_default_qat_qconfig_mapping("onednn"), (X,))
    observed(X)
    move_exported_model_to_eval(observed)
    check(convert_fx(observed, keep_original_weights=True), model)


def test_standalone_modules_have_their_own():
    model = nn.Sequential(nn.Sequential(nn.Linear(6, 4)), nn.Linear(4, 4)).eval()
    custom = PrepareCustomConfig().set_standalone_module_name("0", None, (), None, None)
    x = torch.randn(5, 6)
    observed = prepare_fx(model, tq.get_default_qconfig_mapping("onednn"), (x,), custom)
    observed(x)
    int8 = convert_fx(observed, keep_original_weights=True)
    lookups = [m.original_weights_lookup for m in int8.modules() if hasattr(m, "original_weights_lookup")]
    found = [weight for lookup in lookups for weight, _ in lookup.values()]
    assert {tuple(w.shape) for w in found} == {(4, 6), (4, 4)} and len(found) == 2


def test_torch_ao_keeps_the_same():
    """Weights of linear functions, which torch.ao packs in its graph."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, q = (importlib.import_module(f"torch.ao.quantization{n}") for n in (".quantize_fx", ""))

        class Functions(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(4, 6))
                self.bias = nn.Parameter(torch.randn(6))

            def forward(self, x):
                return F.linear(F.linear(x, self.first, self.bias), self.second)

        model, x = Functions().eval(), torch.randn(5, 8)
        lookups = []
        for package, place in ((theirs, q), (quantize_fx, tq)):
            observed = package.prepare_fx(model, place.get_default_qconfig_mapping("x86"), (x,))
            observed(x)
            int8 = package.convert_fx(observed, keep_original_weights=True)
            values = sorted(int8.original_weights_lookup.values(), key=lambda pair: pair[0].numel())
            lookups.append(values)
    for (weight, *more), (other, bias) in zip(*lookups, strict=True):
        assert torch.equal(weight, other)
        # Behind it torch.ao has the bias, scales and zero points, by size.
        assert bias is None or any(torch.equal(value, bias) for value in more)


def test_flag_is_checked_and_reference_graphs_have_none():
    observed = prepare_fx(net(), tq.get_default_qconfig_mapping("onednn"), (X,))
    observed(X)
    reference = convert_to_reference_fx(observed)
    for value in (None, 1, "yes"):
        said = f"'keep_original_weights' must be a bool, got {value!r}"
        with pytest.raises(TypeError, match=f"lower_to_fbgemm: argument {said}"):
            lower_to_fbgemm(reference, {}, {}, keep_original_weights=value)
        for name, function in (("convert_fx", convert_fx), ("convert", convert)):
            with pytest.raises(TypeError, match=f"{name}: argument {said}"):
                function(observed, keep_original_weights=value)
    with pytest.raises(TypeError, match="convert: argument 'is_reference' must be a bool, got 0"):
        convert(observed, 0)
    with pytest.raises(ValueError, match="lower_to_fbgemm: .*'keep_original_weights' must be False"):
        lower_to_fbgemm(reference, {}, {}, keep_original_weights=True)
