"""Observers and qconfigs against torch.ao's, whose arithmetic they repeat."""

import pickle

import pytest
import torch
from torch import nn
from torch_ao_peer import peer

from torch_ao_ext import quantization as q
from torch_ao_ext.quantization import observer as ours
from torch_ao_ext.quantization.quant_type import _get_quant_type_to_str, _quant_type_from_str

TENSOR = [torch.per_tensor_affine, torch.per_tensor_symmetric]
CHANNEL = [torch.per_channel_affine, torch.per_channel_symmetric]
RANGES = [{}, {"quant_min": -127, "quant_max": 127}, {"quant_min": 0, "quant_max": 127}, {"eps": 2**-12}]


def data():
    yield torch.randn(6, 5)
    yield torch.randn(6, 5) * 1e-9
    yield torch.rand(6, 5) + 3
    yield -torch.rand(6, 5) - 3
    yield torch.zeros(6, 5)
    yield torch.randn(6, 5).bfloat16()


@pytest.mark.parametrize("options", RANGES, ids=str)
@pytest.mark.parametrize("dtype", ["qint8", "quint8", "int8", "uint8"])
@pytest.mark.parametrize("scheme", TENSOR + CHANNEL, ids=str)
def test_qparams_equal_torch_aos(scheme, dtype, options):
    name = "MinMaxObserver" if scheme in TENSOR else "PerChannelMinMaxObserver"
    arguments = {"dtype": getattr(torch, dtype), "qscheme": scheme, **options}
    for x in data():
        mine = getattr(q, name)(**arguments)
        theirs = getattr(peer(), name)(**arguments)
        for part in (x, x[:, :2] * 2, x[:0]):
            assert mine(part) is part
            theirs(part)
        for a, b in zip(mine.calculate_qparams(), theirs.calculate_qparams(), strict=True):
            assert a.shape == b.shape and torch.equal(a.double(), b.double())


@pytest.mark.parametrize("reduce_range", [False, True])
def test_range_of_signed_types(reduce_range):
    observer = q.MinMaxObserver(torch.int8, reduce_range=reduce_range)
    expected = (-64, 63) if reduce_range else (-128, 127)
    assert (observer.quant_min, observer.quant_max) == expected


def test_channel_axis():
    observer = q.PerChannelMinMaxObserver(ch_axis=1, dtype=torch.int8, qscheme=torch.per_channel_symmetric)
    x = torch.randn(3, 4, 5)
    observer(x)
    assert torch.equal(observer.max_val, x.amax((0, 2)))


def test_unfed_observer_says_so():
    for observer in (q.MinMaxObserver(), q.PerChannelMinMaxObserver()):
        with pytest.warns(UserWarning, match="must run observer before"):
            scale, zero_point = observer.calculate_qparams()
        assert scale.tolist() == [1.0] and zero_point.tolist() == [0]


def test_reset_and_state_dict():
    for make in (q.MinMaxObserver, q.PerChannelMinMaxObserver):
        fed = make()
        fed(torch.randn(4, 3))
        fresh = make()
        fresh.load_state_dict(fed.state_dict())
        assert torch.equal(fresh.max_val, fed.max_val)
        fed.reset_min_max_vals()
        with pytest.warns(UserWarning):
            fed.calculate_qparams()


@pytest.mark.parametrize(
    "make, error, text",
    [
        (lambda: q.MinMaxObserver(dtype=torch.float16), ValueError, "argument 'dtype' must be int8"),
        (lambda: q.MinMaxObserver(qscheme=torch.per_channel_affine), NotImplementedError, "'qscheme'"),
        (lambda: q.PerChannelMinMaxObserver(qscheme=torch.per_tensor_affine), NotImplementedError, "qsch"),
        (lambda: q.PerChannelMinMaxObserver(is_dynamic=True), NotImplementedError, "'is_dynamic'"),
        (lambda: q.MinMaxObserver(quant_min=1, quant_max=9), ValueError, "a range that includes 0"),
        (lambda: q.MinMaxObserver(quant_min=-200, quant_max=127), ValueError, "at most 256"),
        (lambda: q.ChannelWeightObserver(search="best"), ValueError, "'max' or 'mse', got 'best'"),
        (lambda: q.PlaceholderObserver().calculate_qparams(), RuntimeError, "recorded values"),
        (lambda: q.QConfig(q.MinMaxObserver(), q.MinMaxObserver), ValueError, "use its with_args"),
    ],
)
def test_bad_arguments(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_with_args_chain_and_callable_args():
    factory = q.MinMaxObserver.with_args(quant_min=0).with_args(quant_max=63)
    assert (factory().quant_max, factory(quant_max=31).quant_max) == (63, 31)
    calls = []
    late = q.MinMaxObserver.with_callable_args(eps=lambda: calls.append(1) or 0.5)
    assert late().eps.item() == 0.5 and late().eps.item() == 0.5 and len(calls) == 2
    assert late.with_args(quant_min=0, quant_max=7)().eps.item() == 0.5


def test_published_names_have_torch_aos_settings():
    theirs = peer()
    for name in (
        "default_weight_observer",
        "default_per_channel_weight_observer",
        "weight_observer_range_neg_127_to_127",
        "per_channel_weight_observer_range_neg_127_to_127",
        "default_dynamic_quant_observer",
        "default_placeholder_observer",
    ):
        mine, other = getattr(q, name)(), getattr(theirs, name)()
        assert type(mine).__name__ == type(other).__name__
        for attribute in ("dtype", "qscheme", "quant_min", "quant_max", "is_dynamic"):
            assert getattr(mine, attribute) == getattr(other, attribute), (name, attribute)
    for name in ("default_dynamic_qconfig", "per_channel_dynamic_qconfig"):
        mine, other = getattr(q, name), getattr(theirs, name)
        assert mine._fields == other._fields == ("activation", "weight")
        assert mine.weight().qscheme == other.weight().qscheme


def test_qconfig_equals():
    assert q.qconfig_equals(q.default_dynamic_qconfig, pickle.loads(pickle.dumps(q.default_dynamic_qconfig)))
    assert not q.qconfig_equals(q.default_dynamic_qconfig, q.per_channel_dynamic_qconfig)
    assert not q.qconfig_equals(q.row_dynamic_qconfig, q.mse_row_dynamic_qconfig)
    assert q.qconfig_equals(None, None) and not q.qconfig_equals(None, q.row_dynamic_qconfig)
    other = q.QConfig(nn.Identity, q.MinMaxObserver)
    assert q.qconfig_equals(other, q.QConfig(nn.Identity, q.MinMaxObserver))


def test_quant_type():
    theirs = peer().QuantType
    assert {t.name: int(t) for t in q.QuantType} == {t.name: int(t) for t in theirs}
    assert _get_quant_type_to_str(q.QuantType.WEIGHT_ONLY) == "weight_only"
    assert _quant_type_from_str("qat") is q.QuantType.QAT
    with pytest.raises(ValueError, match="must be one of dynamic, static, qat, weight_only, got 'x'"):
        _quant_type_from_str("x")


def test_all_names_exist():
    for module in (q, ours):
        assert len(set(module.__all__)) == len(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize("constant", [0.01, 0.5, 1.0])
def test_moving_averages_equal_torch_aos(constant):
    for name in ("MovingAverageMinMaxObserver", "MovingAveragePerChannelMinMaxObserver"):
        mine = getattr(q, name)(averaging_constant=constant)
        theirs = getattr(peer(), name)(averaging_constant=constant)
        for x in data():
            mine(x)
            theirs(x)
            assert torch.equal(mine.min_val, theirs.min_val) and torch.equal(mine.max_val, theirs.max_val)
        for a, b in zip(mine.calculate_qparams(), theirs.calculate_qparams(), strict=True):
            assert torch.equal(a.double(), b.double())


@pytest.mark.parametrize("name", ["MinMaxObserver", "MovingAverageMinMaxObserver"])
def test_values_without_a_range(name):
    observer = getattr(q, name)()
    observer(torch.tensor([1.0, -2.0]))
    with pytest.raises(ValueError, match=f"{name}: argument 'x' must hold no NaN, got 1 of them"):
        observer(torch.tensor([float("nan"), 1.0]))
    with pytest.warns(UserWarning, match="ignored 1 infinite of 2 values"):
        observer(torch.tensor([float("inf"), 0.5]))
    assert observer.max_val <= 1 and observer.min_val >= -2


def test_channels_without_a_range():
    observer = q.PerChannelMinMaxObserver()
    with pytest.raises(ValueError, match="finite values, got others in 1 of 2 channels, the first 1"):
        observer(torch.tensor([[1.0], [float("inf")]]))
    observer(torch.ones(2, 3))
    with pytest.raises(ValueError, match="must have 2 channels in dimension 0, as before, got 3"):
        observer(torch.ones(3, 3))


def test_defaults_equal_torch_aos():
    for name in ours.__all__:
        if not name.startswith("default_") or not hasattr(peer(), name):
            continue
        mine, theirs = getattr(q, name)(), getattr(peer(), name)()
        for fact in ("dtype", "qscheme", "quant_min", "quant_max", "is_dynamic", "ch_axis", "eps"):
            a, b = getattr(mine, fact, None), getattr(theirs, fact, None)
            assert a == b, (name, fact)
        if hasattr(theirs, "scale"):
            assert mine.calculate_qparams() == theirs.calculate_qparams()


@pytest.mark.parametrize("dtype", ["int16", "int32", "qint32"])
def test_wide_integers(dtype):
    observer = q.MinMaxObserver(getattr(torch, dtype), torch.per_tensor_symmetric)
    observer(torch.tensor([-2.0, 1.0]))
    bits = 16 if dtype == "int16" else 32
    assert (observer.quant_min, observer.quant_max) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    scale, point = observer.calculate_qparams()
    assert scale.item() == pytest.approx(max(2 / (2 ** (bits - 1) - 0.5), 2**-23)) and point == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: q.FixedQParamsObserver(0.0, 0), "'scale' must be above 0"),
        (lambda: q.FixedQParamsObserver(0.1, 300), r"'zero_point' must be in \[quant_min"),
        (lambda: q.FixedQParamsObserver(0.1, 0, is_dynamic=True), "'is_dynamic' must be False"),
        (lambda: q.HistogramObserver(bins=0), r"'bins' must be in \[1, 2\^20\]"),
        (lambda: q.HistogramObserver(dtype=torch.int32), "'dtype' must be an 8-bit dtype"),
        (lambda: q.HistogramObserver(qscheme=torch.per_channel_affine), "'qscheme' must be"),
        (lambda: q.HistogramObserver(is_dynamic=True), "'is_dynamic' must be False"),
        (lambda: q.MovingAverageMinMaxObserver(is_dynamic=True), "'averaging_constant' must be 1"),
        (lambda: q.RecordingObserver().calculate_qparams(), "needs recorded values"),
        (lambda: q.NoopObserver().calculate_qparams(), "needs recorded values"),
    ],
)
def test_bad_settings_are_named(call, message):
    with pytest.raises((ValueError, NotImplementedError, RuntimeError), match=message):
        call()


def test_recording_observer_keeps_copies():
    observer, x = q.RecordingObserver(), torch.ones(2)
    observer(x)
    x.zero_()
    assert torch.equal(observer.get_tensor_value()[0], torch.ones(2))


def test_observer_state_dicts_travel():
    def prepared():
        model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        for layer, make in zip(model, (q.HistogramObserver, q.PerChannelMinMaxObserver), strict=True):
            layer.activation_post_process = make()
            layer.register_forward_hook(lambda m, _, y: m.activation_post_process(y))
        return model

    model, fresh = prepared(), prepared()
    model(torch.randn(5, 3))
    state = q.get_observer_state_dict(model)
    assert state and all("activation_post_process" in name for name in state)
    q.load_observer_state_dict(fresh, state)
    for name, value in q.get_observer_state_dict(fresh).items():
        assert torch.equal(value, state[name])
    with pytest.raises(KeyError, match="must have 0.activation_post_process"):
        q.load_observer_state_dict(fresh, {})
    with pytest.raises(KeyError, match="must name observers of the model, got extra"):
        q.load_observer_state_dict(fresh, {**state, "extra": torch.ones(1)})


def test_first_files_of_torch_ao_load():
    theirs = peer().PerChannelMinMaxObserver()
    theirs(torch.randn(4, 3))
    state = theirs.state_dict()
    state["min_vals"], state["max_vals"] = state.pop("min_val"), state.pop("max_val")
    del state["eps"]
    mine = q.PerChannelMinMaxObserver()
    mine.load_state_dict(state)
    assert torch.equal(mine.min_val, theirs.min_val) and torch.equal(mine.max_val, theirs.max_val)
