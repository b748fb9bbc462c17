"""Equalization, bias correction and learnable fake quantization."""

import copy
import importlib
import warnings

import pytest
import torch
from torch import nn

from torch_ao_ext import quantization as tq
from torch_ao_ext.nn import intrinsic
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.quantization import QuantWrapper, default_qconfig, quantize, quantize_dynamic
from torch_ao_ext.quantization._correct_bias import bias_correction
from torch_ao_ext.quantization._equalize import cross_layer_equalization, equalize
from torch_ao_ext.quantization._learnable_fake_quantize import _LearnableFakeQuantize
from torch_ao_ext.quantization.observer import (
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
)


def peer(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"torch.ao.quantization.{name}")


def uneven(layer, seed=0):
    """Output channels of very different ranges."""
    torch.manual_seed(seed)
    with torch.no_grad():
        layer.weight.mul_(
            torch.logspace(-2, 1, layer.weight.shape[0]).reshape(-1, *[1] * (layer.weight.dim() - 1))
        )
    return layer


PAIRS = {
    "linear": (lambda: (nn.Linear(6, 8), nn.Linear(8, 5)), (4, 6)),
    "conv": (lambda: (nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)), (2, 3, 9, 9)),
    "conv1d no bias": (lambda: (nn.Conv1d(3, 8, 3, bias=False), nn.Conv1d(8, 4, 3)), (2, 3, 9)),
    "depthwise": (lambda: (nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8)), (2, 3, 9, 9)),
    "grouped": (lambda: (nn.Conv2d(4, 8, 1, groups=2), nn.Conv2d(8, 4, 3, groups=4)), (2, 4, 9, 9)),
    "transposed": (
        lambda: (nn.ConvTranspose2d(4, 8, 3, groups=2), nn.ConvTranspose2d(8, 6, 3, groups=2)), (2, 4, 5, 5),
    ),
    "container": (lambda: (intrinsic.LinearReLU(nn.Linear(6, 8), nn.ReLU()), nn.Linear(8, 5)), (4, 6)),
}  # fmt: skip


def net(name):
    first, second = PAIRS[name][0]()
    uneven(first[0] if isinstance(first, nn.Sequential) else first)
    return nn.Sequential(first, nn.ReLU(), second), torch.randn(*PAIRS[name][1])


@pytest.mark.parametrize("name", PAIRS)
def test_equalized_models_compute_the_same(name):
    model, x = net(name)
    want = model(x)
    equal = equalize(model, [["0", "2"]], inplace=False)
    assert torch.allclose(equal(x), want, rtol=1e-4, atol=1e-4)
    assert equalize(model, [[model[0], model[2]]]) is model and torch.allclose(
        model(x), want, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", ["linear", "conv", "conv1d no bias"])
def test_equalization_against_torch_ao(name):
    if name.startswith("conv1d"):
        model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 5))
    else:
        model, _ = net(name)
    theirs = copy.deepcopy(model)
    peer("_equalize").cross_layer_equalization(theirs[0], theirs[2])
    cross_layer_equalization(model[0], model[2])
    for mine, other in zip(model.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-6)


def test_ranges_become_equal_and_int8_better():
    torch.manual_seed(0)
    model = nn.Sequential(uneven(nn.Linear(32, 32)), nn.ReLU(), nn.Linear(32, 16)).eval()
    model.requires_grad_(False)
    x = torch.randn(256, 32)
    equal = equalize(model, [["0", "2"]], inplace=False)
    spread = [layer.weight.detach().amax(axis) - layer.weight.detach().amin(axis)
              for layer, axis in ((equal[0], 1), (equal[2], 0))]  # fmt: skip
    assert torch.allclose(*spread, rtol=1e-3)

    def error(net):
        wrapped = QuantWrapper(net).eval()
        wrapped.qconfig = default_qconfig
        return float((quantize(wrapped, lambda m, data: m(data), [x])(x) - model(x)).pow(2).mean())

    assert error(equal) < error(model) / 2


def test_a_dead_channel_stays():
    model, x = net("linear")
    with torch.no_grad():
        model[0].weight[3] = 0
    want = model(x)
    equalize(model, [["0", "2"]])
    assert torch.allclose(model(x), want, rtol=1e-4, atol=1e-4) and not model[0].weight[3].any()


def test_three_in_a_row():
    torch.manual_seed(0)
    model = nn.Sequential(uneven(nn.Linear(4, 8)), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(5, 4)
    want = model(x)
    equalize(model, [["0", "2", "4"]])
    assert torch.allclose(model(x), want, rtol=1e-4, atol=1e-4)


BAD = {
    "one": ([["0"]], "must hold groups of two or more"),
    "name": ([["0", "9"]], "must hold modules of the model, got '9'"),
    "module": ([["0", nn.Linear(1, 1)]], "must hold modules of the model"),
    "activation": ([["0", "1"]], "modules must be linear or convolution layers, got ReLU"),
    "sizes": ([["2", "0"]], r"must take as many channels as module1 gives \(5\), got 6"),
}


@pytest.mark.parametrize("name", BAD)
def test_equalization_refusals(name):
    groups, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        equalize(net("linear")[0], groups)
    with pytest.raises(ValueError, match="axes must be 0 and 1, got 1 and 0"):
        cross_layer_equalization(nn.Linear(2, 2), nn.Linear(2, 2), 1, 0)


def biased(model):
    """int8 weights that are off by one step in one direction, as a bad clipping makes them."""
    for module in model.modules():
        if hasattr(module, "qweight"):
            module.qweight = (module.qweight.int() + 2).clamp(-128, 127).to(torch.int8)
    return model


@pytest.mark.parametrize("kind", ["static linear", "static conv", "dynamic"])
@pytest.mark.parametrize("bias", [False, True])
def test_bias_correction(kind, bias):
    torch.manual_seed(0)
    if kind == "static conv":
        body = nn.Sequential(nn.Conv2d(3, 8, 3, bias=bias), nn.ReLU(), nn.Conv2d(8, 4, 3, bias=bias))
        batches = [torch.rand(4, 3, 8, 8) for _ in range(3)]
    else:
        body = nn.Sequential(nn.Linear(16, 8, bias=bias), nn.ReLU(), nn.Linear(8, 4, bias=bias))
        batches = [torch.rand(32, 16) for _ in range(3)]
    model = QuantWrapper(body).eval().requires_grad_(False)
    if kind == "dynamic":
        int8 = biased(quantize_dynamic(model))
    else:
        model.qconfig = tq.get_default_qconfig("onednn")
        int8 = biased(quantize(model, lambda m, data: [m(b) for b in data], [batches]))
    x = batches[0]
    channels = [d for d in range(model(x).dim()) if d != (1 if kind == "static conv" else model(x).dim() - 1)]
    before = (int8(x) - model(x)).mean(channels).abs().max()
    bias_correction(model, int8, [(b, "label") for b in batches])
    after = (int8(x) - model(x)).mean(channels).abs().max()
    assert after < before / 3
    assert all(m.qbias is not None for m in int8.modules() if hasattr(m, "qweight"))


def test_bias_correction_takes_what_it_is_told():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)).eval().requires_grad_(False)
    int8 = quantize_dynamic(model)
    before = [m.qbias.clone() for m in int8]
    seen = []

    def batches():
        for i in range(5):
            seen.append(i)
            yield torch.randn(16, 8)

    bias_correction(model, int8, batches(), target_modules=[nnq.dynamic.Linear], neval_batches=2)
    assert len(seen) <= 3 and not any(torch.equal(m.qbias, b) for m, b in zip(int8, before, strict=True))
    with pytest.raises(ValueError, match="'img_data' must have a batch, got none"):
        bias_correction(model, int8, [])
    with pytest.raises(ValueError, match="'float_model' must have the module '1'"):
        bias_correction(model[:1], int8, [torch.randn(2, 8)])


LEARNABLE = {
    "tensor": (MovingAverageMinMaxObserver, {}, {}),
    "tensor symmetric": (
        MovingAverageMinMaxObserver,
        {"quant_min": -128, "quant_max": 127},
        {"dtype": torch.qint8, "qscheme": torch.per_tensor_symmetric},
    ),
    "channel": (
        MovingAveragePerChannelMinMaxObserver,
        {"quant_min": -128, "quant_max": 127, "channel_len": 4},
        {"dtype": torch.qint8, "qscheme": torch.per_channel_symmetric, "ch_axis": 0},
    ),
    "scaled": (MovingAverageMinMaxObserver, {"use_grad_scaling": True}, {}),
}


@pytest.mark.parametrize("name", LEARNABLE)
def test_learnable_against_torch_ao(name):
    observer, arguments, more = LEARNABLE[name]
    mine = _LearnableFakeQuantize(observer, **arguments, **more)
    their_observer = getattr(importlib.import_module("torch.ao.quantization.observer"), observer.__name__)
    theirs = peer("_learnable_fake_quantize")._LearnableFakeQuantize(their_observer, **arguments, **more)
    x = torch.randn(4, 6)
    assert torch.equal(mine(x), theirs(x))
    for module in (mine, theirs):
        module.enable_param_learning()
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    mine(a).pow(2).sum().backward()
    theirs(b).pow(2).sum().backward()
    assert torch.allclose(a.grad, b.grad) and torch.allclose(mine.scale.grad, theirs.scale.grad)
    assert torch.allclose(mine.zero_point.grad, theirs.zero_point.grad)
    for one, other in zip(mine.calculate_qparams(), theirs.calculate_qparams(), strict=True):
        assert torch.equal(one.double(), other.double())
    assert set(mine.state_dict()) - {"observer_enabled"} == set(theirs.state_dict()) - {"observer_enabled"}


def test_learning_lowers_the_error():
    torch.manual_seed(0)
    x = torch.randn(1000)
    fake = _LearnableFakeQuantize(MinMaxObserver, quant_min=0, quant_max=15, use_grad_scaling=False)
    fake(x)
    fake.enable_param_learning()
    before = float((fake(x) - x).pow(2).mean().detach())
    optimizer = torch.optim.Adam([fake.scale, fake.zero_point], 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        (fake(x) - x).pow(2).mean().backward()
        optimizer.step()
    assert float((fake(x) - x).pow(2).mean().detach()) < before


def test_learnable_phases_and_refusals():
    fake = _LearnableFakeQuantize(MovingAverageMinMaxObserver)
    x = torch.randn(5)
    fake.enable_static_observation()
    assert torch.equal(fake(x), x) and fake(torch.empty(0)).numel() == 0
    fake.enable_static_estimate()
    assert not torch.equal(fake(x), x) and not fake.scale.requires_grad and fake.bitwidth == 8
    with pytest.raises(ValueError, match=r"'quant_min' must be below quant_max \(3\), got 3"):
        _LearnableFakeQuantize(MinMaxObserver, 3, 3)
    with pytest.raises(ValueError, match=r"must be in \[0, 255\], got -1 and 200"):
        _LearnableFakeQuantize(MinMaxObserver, -1, 200)
    with pytest.raises(ValueError, match="'channel_len' must be -1 or positive, got 0"):
        _LearnableFakeQuantize(MinMaxObserver, channel_len=0)


def test_bias_correction_moves_as_torch_aos():
    """Static layers: torch.ao's leaves the biases of dynamic ones as they are."""
    warnings.simplefilter("ignore")
    import torch.ao.quantization as theirs
    from torch.ao.quantization._correct_bias import bias_correction as their_correction

    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval().requires_grad_(False)
    batches = [torch.rand(8, 3, 8, 8) for _ in range(3)]

    def calibrate(model, data):
        for batch in data:
            model(batch)

    moved = []
    for package, correct in ((tq, bias_correction), (theirs, their_correction)):
        model = package.QuantWrapper(copy.deepcopy(body)).eval()
        model.qconfig = package.get_default_qconfig("x86")
        int8 = package.quantize(copy.deepcopy(model), calibrate, [batches])
        layers = [int8.module[0], int8.module[2]]
        before = [layer.bias().clone() for layer in layers]
        correct(model, int8, [(b, 0) for b in batches], neval_batches=3)
        layers = [getattr(m, "orig_module", m) for m in (int8.module[0], int8.module[2])]
        moved.append([layer.bias() - old for layer, old in zip(layers, before, strict=True)])
    for mine, other in zip(*moved, strict=True):
        assert mine.norm() > 0 and other.norm() > 0
        assert torch.nn.functional.cosine_similarity(mine, other, 0) > 0.9
