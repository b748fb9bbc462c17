"""Fake-quantize modules against torch.ao's: outputs, gradients, state."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch_ao_peer import peer

from torch_ao_ext import quantization as q
from torch_ao_ext.quantization import fake_quantize as ours


def torch_ao(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of reduce_range
        return getattr(peer().fake_quantize, name)()


DEFAULTS = [name for name in ours.__all__ if "fake_quant" in name and "able_" not in name]


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_equal_torch_aos(name):
    mine, theirs = getattr(q, name)(), torch_ao(name)
    for fact in ("quant_min", "quant_max", "dtype", "qscheme", "ch_axis", "is_dynamic"):
        assert getattr(mine, fact) == getattr(theirs, fact), fact
    assert mine.state_dict().keys() == theirs.state_dict().keys()
    torch.manual_seed(0)
    for scale in (1.0, 0.5, 3.0):
        x = torch.randn(6, 5) * scale
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        outputs = [m(a) for m, a in zip((mine, theirs), inputs, strict=True)]
        assert torch.equal(*outputs)
        for y in outputs:
            (y * torch.arange(30.0).reshape(6, 5)).sum().backward()
        assert torch.equal(inputs[0].grad, inputs[1].grad)
        for key, value in theirs.state_dict().items():
            assert torch.equal(mine.state_dict()[key].double(), value.double()), key


@pytest.mark.parametrize("name", ["default_fake_quant", "default_fused_per_channel_wt_fake_quant"])
def test_switches(name):
    fake = getattr(q, name)()
    model = nn.Sequential(fake)
    x = torch.randn(4, 3)
    model(x)
    before = copy.deepcopy(fake.state_dict())
    model.apply(q.disable_observer)
    y = model(x * 9)
    assert torch.equal(fake.scale, before["scale"]) and not torch.equal(y, x * 9)
    model.apply(q.disable_fake_quant)
    assert torch.equal(model(x * 9), x * 9)
    model.apply(q.enable_observer)
    model.apply(q.enable_fake_quant)
    assert not torch.equal(model(x * 9), x * 9) and not torch.equal(fake.scale, before["scale"])


@pytest.mark.parametrize("name", DEFAULTS)
def test_state_travels(name):
    make, x = getattr(q, name), torch.randn(6, 5)
    fake = make()
    fake(x)
    fake.disable_observer()
    loaded = make()
    loaded.load_state_dict(fake.state_dict())
    theirs = torch_ao(name)
    theirs(x)
    theirs.disable_observer()
    from_theirs = make()
    from_theirs.load_state_dict(theirs.state_dict())
    for other in (loaded, copy.deepcopy(fake), pickle.loads(pickle.dumps(fake)), from_theirs):
        assert torch.equal(other(x * 0.7), fake(x * 0.7))


def test_empty_input_changes_nothing():
    for make in (q.default_fake_quant, q.default_fused_act_fake_quant):
        fake = make()
        fake(torch.randn(5))
        before = copy.deepcopy(fake.state_dict())
        assert fake(torch.zeros(0, 3)).shape == (0, 3)
        assert all(torch.equal(v, before[k]) for k, v in fake.state_dict().items())


def test_training_through_a_fake_quantize():
    torch.manual_seed(0)
    layer, fake = nn.Linear(4, 1), q.default_fused_per_channel_wt_fake_quant(averaging_constant=1.0)
    x = torch.randn(256, 4)
    target = x @ torch.tensor([1.0, -2.0, 0.5, 0.0]) + 0.25
    optimizer = torch.optim.Adam(layer.parameters(), 0.05)
    for _ in range(200):
        y = nn.functional.linear(x, fake(layer.weight), layer.bias).squeeze(1)
        loss = (y - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 1e-3


class SchemelessObserver(q.NoopObserver):
    def __init__(self, is_dynamic):
        super().__init__()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: q.FakeQuantize(quant_min=9, quant_max=3), "'quant_min' must be at most quant_max"),
        (lambda: q.FakeQuantize(quant_min=-1, quant_max=3), r"'quant_min' must be in \[0, 255\]"),
        (
            lambda: q.FakeQuantize(
                q.MovingAverageMinMaxObserver.with_args(dtype=torch.qint8), quant_min=0, quant_max=255
            ),
            r"'quant_max' must be in \[-128, 127\]",
        ),
        (lambda: q.FakeQuantize(SchemelessObserver), "'observer' must have a qscheme per tensor"),
        (lambda: q.FixedQParamsFakeQuantize(q.MinMaxObserver), "must make a FixedQParamsObserver"),
        (
            lambda: q.FusedMovingAvgObsFakeQuantize(q.MinMaxObserver),
            "must be a moving-average observer, got MinMaxObserver",
        ),
    ],
)
def test_bad_settings_are_named(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_a_weight_is_divided_by_its_factor(bad):
    weight, factor = torch.randn(3, 4), torch.tensor([1.0, bad, 1.0])
    rest = (torch.full((3,), 0.1), torch.zeros(3, dtype=torch.int32), -128, 127)
    ops = torch.ops.torch_ao
    message = f"argument 'factor' must hold finite numbers other than 0, got {bad:g}"
    with pytest.raises(ValueError, match=f"torch_ao::_weight_fake_quantize: {message}"):
        ops._weight_fake_quantize(weight, factor, *rest)
    with pytest.raises(ValueError, match=f"torch_ao::_weight_fake_quantize_backward: {message}"):
        ops._weight_fake_quantize_backward(weight, weight, factor, *rest)
