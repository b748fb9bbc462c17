"""Observers and fake-quantize modules under torch.jit.script: the state and the qparams of eager mode."""

import io

import pytest
import torch
from torch import nn

from torch_ao_ext import quantization as tq

OBSERVERS = {
    "min max": tq.MinMaxObserver,
    "symmetric": tq.MinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric),
    "symmetric bytes": tq.MinMaxObserver.with_args(qscheme=torch.per_tensor_symmetric),
    "range": tq.MinMaxObserver.with_args(
        qscheme=torch.per_tensor_symmetric, quant_min=0, quant_max=127, eps=2**-12
    ),
    "reduced": tq.default_observer,
    "average": tq.MovingAverageMinMaxObserver.with_args(averaging_constant=0.3),
    "channels": tq.PerChannelMinMaxObserver.with_args(ch_axis=1),
    "channels symmetric": tq.default_per_channel_weight_observer,
    "rows": tq.default_float_qparams_observer,
    "channel average": tq.MovingAveragePerChannelMinMaxObserver.with_args(averaging_constant=0.3),
    "histogram": tq.HistogramObserver,
    "fixed": tq.default_fixed_qparams_range_0to1_observer,
}
FAKES = {
    "default": tq.default_fake_quant,
    "weight": tq.default_weight_fake_quant,
    "channel weight": tq.default_per_channel_weight_fake_quant,
    "embedding": tq.default_embedding_fake_quant,
    "histogram": tq.default_histogram_fake_quant,
    "dynamic": tq.default_dynamic_fake_quant,
    "fixed": tq.default_fixed_qparams_range_neg1to1_fake_quant,
    "fused": tq.default_fused_act_fake_quant,
    "fused weight": tq.default_fused_wt_fake_quant,
    "fused channel weight": tq.default_fused_per_channel_wt_fake_quant,
    "fused channels on axis 1": tq.FusedMovingAvgObsFakeQuantize.with_args(
        observer=tq.MovingAveragePerChannelMinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric, ch_axis=1,
    ),
}  # fmt: skip
EVERY = {**OBSERVERS, **{f"fake {name}": factory for name, factory in FAKES.items()}}
SILENT = {
    "placeholder": tq.default_placeholder_observer, "dynamic": tq.default_dynamic_quant_observer,
    "row": tq.observer.default_row_quant_observer, "noop": tq.NoopObserver, "reuse": tq.ReuseInputObserver,
    "recording": tq.RecordingObserver,
}  # fmt: skip


def batches():
    torch.manual_seed(0)
    return [torch.randn(4, 3, 5) * factor for factor in (1.0, 3.0, 0.5)]


def saved(module):
    file = io.BytesIO()
    torch.jit.save(module, file)
    file.seek(0)
    return torch.jit.load(file)


def same_state(first, second):
    first, second = first.state_dict(), second.state_dict()
    assert set(first) == set(second)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("name", EVERY)
def test_scripts_observe_as_eager_modules(name):
    eager = EVERY[name]()
    script = torch.jit.script(EVERY[name]())
    for x in batches():
        torch.testing.assert_close(script(x), eager(x), rtol=0, atol=0)
    assert script(torch.empty(4, 3, 0)).numel() == 0
    same_state(script, eager)
    again = saved(script)
    for module in (script, again):
        for mine, want in zip(module.calculate_qparams(), eager.calculate_qparams(), strict=True):
            assert torch.equal(mine, want)
    again(batches()[1])
    eager(batches()[1])
    same_state(again, eager)


@pytest.mark.parametrize("name", SILENT)
def test_observers_without_statistics(name):
    script = torch.jit.script(SILENT[name]())
    x = batches()[0]
    assert script(x) is x or torch.equal(script(x), x)
    assert torch.equal(saved(script)(x), x)


def test_recorded_tensors():
    script = torch.jit.script(tq.RecordingObserver())
    for x in batches():
        script(x)
    assert all(map(torch.equal, script.get_tensor_value(), batches()))


@pytest.mark.parametrize("name", ["min max", "average", "channels", "histogram"])
def test_reset(name):
    script, fresh = torch.jit.script(OBSERVERS[name]()), OBSERVERS[name]()
    script(batches()[0])
    script.reset_min_max_vals()
    for module in (script, fresh):
        module(batches()[1])
    same_state(script, fresh)


@pytest.mark.parametrize("name", ["min max", "average", "histogram"])
def test_values_that_are_not_finite(name):
    script, eager = torch.jit.script(OBSERVERS[name]()), OBSERVERS[name]()
    x = batches()[0]
    x[0, 0, 0] = float("inf")
    for module in (script, eager):
        with pytest.warns(UserWarning, match="ignored 1 infinite of 60"):
            module(x)
    same_state(script, eager)
    with pytest.raises(torch.jit.Error, match="must hold no NaN, got 1 of them"):
        script(torch.tensor([1.0, float("nan")]))


def test_channels_that_are_not_finite():
    script = torch.jit.script(OBSERVERS["channels"]())
    with pytest.raises(torch.jit.Error, match="must hold finite values, got others in 1 of 3"):
        script(torch.tensor([[1.0, float("nan"), 2.0]]))
    script(torch.ones(2, 3))
    with pytest.raises(torch.jit.Error, match="must have 3 channels in dimension 1, as before, got 4"):
        script(torch.ones(2, 4))


@pytest.mark.parametrize("name", FAKES)
def test_switches_reach_scripts(name):
    eager, script = FAKES[name](), torch.jit.script(nn.Sequential(FAKES[name]()))
    first, second, third = batches()
    eager(second), script(second)
    for switch, x in (
        (tq.disable_fake_quant, first), (tq.enable_fake_quant, second), (tq.disable_observer, third),
        (tq.enable_observer, third),
    ):  # fmt: skip
        eager.apply(switch)
        script.apply(switch)
        assert torch.equal(script(x), eager(x)), switch.__name__
        same_state(script[0], eager)
    assert all(int(script[0].state_dict()[f"{flag}_enabled"]) == 1 for flag in ("observer", "fake_quant"))


def test_gradients_pass():
    script, eager = torch.jit.script(tq.default_fake_quant()), tq.default_fake_quant()
    found = []
    for module in (script, eager):
        x = batches()[1].requires_grad_()
        module(x).square().sum().backward()
        found.append(x.grad)
    assert torch.equal(*found) and found[0].abs().sum() > 0
