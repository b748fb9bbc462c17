"""Parts of equalization and bias correction that torch.ao has names for."""

import importlib
import warnings

import pytest
import torch
from torch import nn

from torch_ao_ext.nn import intrinsic
from torch_ao_ext.ns import _numeric_suite
from torch_ao_ext.quantization import QuantWrapper, _correct_bias, _equalize, default_qconfig, quantize


def theirs(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"torch.ao.quantization.{name}")


def test_ranges_are_those_of_torch_ao():
    other, x = theirs("_equalize"), torch.randn(3, 4, 5)
    for axis in range(3):
        assert torch.equal(_equalize.channel_range(x, axis), other.channel_range(x, axis))
    assert torch.equal(_equalize.channel_range(x, -1), _equalize.channel_range(x, 2))
    for axes in ([0], [0, 2], [2, 1, 0]):
        for keep in (False, True):
            assert torch.equal(
                _equalize.max_over_ndim(x, list(axes), keep), other.max_over_ndim(x, list(axes), keep)
            )
            assert torch.equal(
                _equalize.min_over_ndim(x, list(axes), keep), other.min_over_ndim(x, list(axes), keep)
            )
    assert _equalize.max_over_ndim(x, []) is x and _equalize.min_over_ndim(x, []) is x


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_of_layers_and_containers(wrapped):
    layer = nn.Linear(4, 3)
    module = intrinsic.LinearReLU(layer, nn.ReLU()) if wrapped else layer
    assert _equalize.get_module_weight(module) is layer.weight
    assert _equalize.get_module_bias(module) is layer.bias and _equalize.has_bias(module)
    weight, bias = torch.randn(3, 4), torch.randn(3)
    _equalize.set_module_weight(module, weight)
    _equalize.set_module_bias(module, bias)
    x = torch.randn(2, 4)
    want = nn.functional.linear(x, weight, bias)
    assert torch.equal(module(x), want.relu() if wrapped else want)
    assert not _equalize.has_bias(nn.Conv2d(1, 1, 1, bias=False))
    with pytest.raises(ValueError, match="get_module_weight: modules must be linear or convolution layers"):
        _equalize.get_module_weight(nn.ReLU())


def test_pairs_of_names():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.Linear(2, 2))
    groups = _equalize.process_paired_modules_list_to_name(model, [[model[0], "2", model[3]]])
    assert groups == [["0", "2", "3"]]
    assert _equalize.expand_groups_in_paired_modules_list(groups) == [["0", "2"], ["2", "3"]]
    assert _equalize.get_name_by_module(model, model[2]) == "2"
    for call, said in [
        (lambda: _equalize.get_name_by_module(model, nn.ReLU()), "must be in the model, got ReLU"),
        (lambda: _equalize.process_paired_modules_list_to_name(model, [["x"]]), "of the model, got 'x'"),
        (lambda: _equalize.expand_groups_in_paired_modules_list([["0"]]), "groups of two or more"),
        (lambda: _equalize.converged({"a": model[0]}, {}), r"have the names \['a'\], got \[\]"),
    ]:
        with pytest.raises(ValueError, match=said):
            call()


def test_convergence():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.load_state_dict(first.state_dict())
    assert not _equalize.converged({"a": first}, {"a": None})
    assert _equalize.converged({"a": first}, {"a": second})
    with torch.no_grad():
        second.weight[0, 0] += 0.25
    assert not _equalize.converged({"a": first}, {"a": second}, 0.24)
    assert _equalize.converged({"a": first}, {"a": second}, 0.26)


def test_names_and_parameters():
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2)))
    assert _correct_bias.get_module(model, "0.0") is model[0][0]
    assert _correct_bias.get_module(model, "") is model
    assert _correct_bias.parent_child_names("a.b.c") == ("a.b", "c")
    for name in ("c", "a.b.c"):
        assert _correct_bias.parent_child_names(name) == theirs("_correct_bias").parent_child_names(name)
    linear = model[0][0]
    assert _correct_bias.get_param(linear, "bias") is linear.bias
    assert _correct_bias.get_param(linear, "missing") is None


def test_mean_shadow_logger():
    torch.manual_seed(0)
    model = QuantWrapper(nn.Linear(6, 3)).eval()
    model.qconfig = default_qconfig
    batches = [torch.randn(4, 6) for _ in range(3)]
    int8 = quantize(model, lambda m: [m(x) for x in batches], ())
    assert torch.equal(_correct_bias.get_param(int8.module, "bias"), model.module.bias)
    logger = _correct_bias.MeanShadowLogger
    _numeric_suite.prepare_model_with_stubs(model, int8, {nn.Linear}, logger)
    results = [int8(x) for x in batches]
    stats = next(iter(_numeric_suite.get_logger_dict(int8).values()))
    assert torch.allclose(stats["quantized"], torch.stack(results).mean(0), atol=1e-6)
    found = next(m for m in int8.modules() if isinstance(m, logger))
    assert found.count == 3 and (stats["float"] - stats["quantized"]).abs().max() < 0.1
    found.clear()
    assert found.stats == {"float": None, "quantized": None} and found.count == 0
    other = theirs("_correct_bias").MeanShadowLogger()
    for x in batches:
        found(x, 2 * x), other(x.clone(), 2 * x)
    for name, mean in other.stats.items():
        assert torch.allclose(found.stats[name], mean, atol=1e-6)
