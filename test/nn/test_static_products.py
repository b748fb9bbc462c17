"""nn.quantized Linear and Conv*, and their fused forms, against torch.ao's and the float formula."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from static_peer import nnq as peer_nnq
from static_peer import ours, steps, theirs
from torch import nn

import torch_ao_ext
from torch_ao_ext import load_quantized, save_quantized
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn import intrinsic
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.quantization import (
    QConfig,
    default_per_channel_qconfig,
    default_per_channel_weight_observer,
    default_qconfig,
    get_default_qconfig,
)
from torch_ao_ext.quantization.observer import MinMaxObserver, PlaceholderObserver

nniq = intrinsic.quantized


@pytest.fixture(autouse=True)
def _quiet(_warnings_are_errors):
    """torch warns of its slow path for even kernels, and torch.ao's tensors of their dtypes."""
    warnings.filterwarnings("ignore", message="Using padding='same' with even kernel")
    warnings.filterwarnings("ignore", message=r"torch\.quantize_per_tensor")


@pytest.fixture
def fbgemm():
    """Its transposed convolutions are right; x86 and onednn mix up channels when C is not O."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    yield
    torch.backends.quantized.engine = before


def observed(mod, x, qconfig=default_qconfig, *more):
    """A float module as prepare leaves it, after one batch."""
    mod = mod.eval()
    for part in mod.modules():
        part.qconfig = qconfig
    mod.activation_post_process = qconfig.activation()
    mod.activation_post_process(mod(x, *more))
    return mod


def peer_copy(cls, mod, int8):
    """torch.ao's module of the same integers: its weight is not quantized a second time."""
    fresh = copy.deepcopy(mod)
    module = cls.from_float(fresh)
    w = int8.weight()
    assert (module.weight().int_repr().int() - w.int_repr().int()).abs().max() <= 1
    return module


CONVS = {
    "plain": {},
    "stride": {"stride": 2},
    "padding": {"padding": 1},
    "dilation": {"dilation": 2, "padding": 2},
    "groups": {"groups": 2},
    "depthwise": {"groups": 4, "out": 4, "padding": 1},
    "no bias": {"bias": False},
    "same": {"padding": "same"},
    "same even": {"padding": "same", "kernel": 4},
    "valid": {"padding": "valid"},
    "reflect": {"padding": 2, "padding_mode": "reflect"},
    "replicate": {"padding": 2, "padding_mode": "replicate"},
    "circular": {"padding": 2, "padding_mode": "circular"},
    "same circular": {"padding": "same", "padding_mode": "circular"},
}


def make_conv(rank, options, transposed=False):
    options = dict(options)
    torch.manual_seed(0)
    kind = getattr(nn, f"Conv{'Transpose' if transposed else ''}{rank}d")
    return kind(4, options.pop("out", 6), options.pop("kernel", 3), **options)


def exact(int8, q, function):
    """The real formula on the integers, rounded once."""
    y = function(q.dequantize())
    value = torch.round(y.double() / int8.scale) + int8.zero_point
    low, high = (0, 255) if int8.dtype == torch.uint8 else (-128, 127)
    return value.clamp(low, high)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize("qconfig", [default_qconfig, default_per_channel_qconfig], ids=["tensor", "channel"])
def test_conv_against_the_float_layer_of_its_weights(rank, name, qconfig):
    q = ours(2, 4, *[7] * rank)
    conv = observed(make_conv(rank, CONVS[name]), q.dequantize(), qconfig)
    int8 = getattr(nnq, f"Conv{rank}d").from_float(conv)
    y = int8(q)
    twin = copy.deepcopy(conv)
    twin.weight.data = int8.weight().dequantize()
    want = exact(int8, q, twin)
    assert tuple(y.shape) == tuple(want.shape)
    # Exact in int32; the float layer sums in another order, which moves ties.
    assert (y.int_repr().double() - want).abs().max() <= 1
    assert (y.int_repr().double() != want).double().mean() < 0.01
    one = QuantizedTensor(q.int_repr()[0], q.q_scale(), q.q_zero_point())
    assert torch.equal(int8(one).int_repr(), y.int_repr()[0])


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("name", ["plain", "stride", "padding", "dilation", "groups", "no bias", "reflect"])
@pytest.mark.parametrize("relu", [False, True])
def test_conv_against_torch_ao(rank, name, relu):
    if rank == 3 and name == "reflect":
        pytest.skip("torch.ao has no reflect padding in 3-D")
    q = ours(2, 4, *[7] * rank)
    conv = make_conv(rank, CONVS[name])
    mod = conv if not relu else getattr(intrinsic, f"ConvReLU{rank}d")(conv, nn.ReLU())
    mod = observed(mod, q.dequantize())
    if relu:
        import torch.ao.nn.intrinsic as peer_nni
        import torch.ao.nn.intrinsic.quantized as peer_nniq

        container = getattr(peer_nni, f"ConvReLU{rank}d")(conv, nn.ReLU())
        peer = peer_copy(
            getattr(peer_nniq, f"ConvReLU{rank}d"), observed(container, q.dequantize()),
            getattr(nniq, f"ConvReLU{rank}d").from_float(mod),
        )  # fmt: skip
        int8 = getattr(nniq, f"ConvReLU{rank}d").from_float(mod)
    else:
        int8 = getattr(nnq, f"Conv{rank}d").from_float(mod)
        peer = peer_copy(getattr(peer_nnq(), f"Conv{rank}d"), mod, int8)
    assert steps(int8(q), peer(theirs(q))) <= 1


TRANSPOSED = {
    "plain": {},
    "stride": {"stride": 2},
    "output_padding": {"stride": 2, "output_padding": 1, "padding": 1},
    "groups": {"groups": 2},
    "dilation": {"dilation": 2},
    "no bias": {"bias": False},
}


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("name", TRANSPOSED)
@pytest.mark.parametrize("qconfig", [default_qconfig, default_per_channel_qconfig], ids=["tensor", "channel"])
def test_transposed(rank, name, qconfig, fbgemm):
    q = ours(2, 4, *[5] * rank)
    conv = observed(make_conv(rank, TRANSPOSED[name], True), q.dequantize(), qconfig)
    int8 = getattr(nnq, f"ConvTranspose{rank}d").from_float(conv)
    y = int8(q)
    # Per channel: an output channel of group g has its scale at index g * (O / groups) + i.
    scale = (
        int8.weight_scale.expand(6) if qconfig is default_per_channel_qconfig else int8.weight_scale.expand(6)
    )
    groups = conv.groups
    factors = scale.reshape(groups, 1, -1, *[1] * rank).expand(groups, 4 // groups, -1, *[1] * rank)
    twin = copy.deepcopy(conv)
    twin.weight.data = int8.qweight.float() * factors.reshape(4, 6 // groups, *[1] * rank)
    assert (twin.weight - conv.weight).abs().max() <= float(scale.max()) * 0.51 + 1e-6
    want = exact(int8, q, twin)
    assert (y.int_repr().double() - want).abs().max() <= 1
    assert (y.int_repr().double() != want).double().mean() < 0.01
    if qconfig is default_qconfig and groups == 1:
        peer = getattr(peer_nnq(), f"ConvTranspose{rank}d").from_float(copy.deepcopy(conv))
        assert steps(y, peer(theirs(q))) <= 1


def test_transposed_output_size():
    q = ours(1, 4, 5, 5)
    conv = observed(nn.ConvTranspose2d(4, 6, 3, stride=2), q.dequantize())
    int8 = nnq.ConvTranspose2d.from_float(conv)
    assert tuple(int8(q, output_size=[12, 12]).shape) == (1, 6, 12, 12)
    with pytest.raises(ValueError, match="requested an output size"):
        int8(q, output_size=[20, 20])


ACTIVATIONS = {
    "Linear": (nnq.Linear, lambda m: m, lambda y: y),
    "LinearReLU": (nniq.LinearReLU, lambda m: intrinsic.LinearReLU(m, nn.ReLU()), F.relu),
    "LinearLeakyReLU": (
        nniq.LinearLeakyReLU,
        lambda m: intrinsic.LinearLeakyReLU(m, nn.LeakyReLU(0.2)),
        lambda y: F.leaky_relu(y, 0.2),
    ),
    "LinearTanh": (nniq.LinearTanh, lambda m: intrinsic.LinearTanh(m, nn.Tanh()), torch.tanh),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(5, 16), (2, 3, 16), (16,), (0, 16)])
def test_linear(name, bias, shape):
    cls, wrap, activation = ACTIVATIONS[name]
    q = ours(*shape)
    mod = observed(wrap(nn.Linear(16, 8, bias=bias)), torch.randn(32, 16), get_default_qconfig("onednn"))
    int8 = cls.from_float(mod)
    y = int8(q)
    linear = mod if name == "Linear" else mod[0]
    weight = int8.weight().dequantize()
    want = exact(int8, q, lambda x: activation(F.linear(x, weight, linear.bias)))
    assert tuple(y.shape) == (*shape[:-1], 8)
    assert torch.equal(y.int_repr().double(), want) or (y.int_repr().double() - want).abs().max() <= 1


@pytest.mark.parametrize("name", ["Linear", "LinearReLU"])
def test_linear_against_torch_ao(name):
    q = ours(5, 16)
    linear = nn.Linear(16, 8)
    if name == "Linear":
        mod = observed(linear, torch.randn(32, 16))
        int8, peer = nnq.Linear.from_float(mod), peer_nnq().Linear.from_float(copy.deepcopy(mod))
    else:
        import torch.ao.nn.intrinsic as peer_nni
        import torch.ao.nn.intrinsic.quantized as peer_nniq

        mod = observed(intrinsic.LinearReLU(linear, nn.ReLU()), q.dequantize())
        int8 = nniq.LinearReLU.from_float(mod)
        peer = peer_nniq.LinearReLU.from_float(
            observed(peer_nni.LinearReLU(linear, nn.ReLU()), q.dequantize())
        )
    assert torch.equal(int8.weight().int_repr(), peer.weight().int_repr())
    assert steps(int8(q), peer(theirs(q))) <= 1


@pytest.mark.parametrize("relu", [False, True])
def test_residual(relu):
    q, extra = ours(2, 4, 6, 6), ours(2, 4, 6, 6, scale=0.08, zero_point=90, seed=3)
    conv = nn.Conv2d(4, 4, 3, padding=1)
    mod = (
        intrinsic.ConvAddReLU2d(conv, torch.add, nn.ReLU()) if relu else intrinsic.ConvAdd2d(conv, torch.add)
    )
    cls = nniq.ConvAddReLU2d if relu else nniq.ConvAdd2d
    mod = observed(mod, q.dequantize(), default_qconfig, extra.dequantize())
    int8 = cls.from_float(mod)
    weight = int8.weight().dequantize()

    def function(x):
        y = F.conv2d(x, weight, conv.bias, padding=1) + extra.dequantize()
        return y.relu() if relu else y

    assert (int8(q, extra).int_repr().double() - exact(int8, q, function)).abs().max() <= 1
    mod.add = torch.mul
    with pytest.raises(
        ValueError, match=f"{cls.__name__}.from_float: 'add' of argument 'mod' must be torch's add"
    ):
        cls.from_float(mod)


MODULES = {
    "Linear": (lambda: nnq.Linear(16, 8), lambda: nn.Linear(16, 8), (3, 16)),
    "LinearLeakyReLU": (
        lambda: nniq.LinearLeakyReLU(16, 8, 0.3),
        lambda: intrinsic.LinearLeakyReLU(nn.Linear(16, 8), nn.LeakyReLU(0.3)),
        (3, 16),
    ),
    "Conv2d": (
        lambda: nnq.Conv2d(4, 6, 3, padding="same", padding_mode="reflect", groups=2),
        lambda: nn.Conv2d(4, 6, 3, padding="same", padding_mode="reflect", groups=2),
        (1, 4, 6, 6),
    ),
    "ConvTranspose1d": (
        lambda: nnq.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1),
        lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1),
        (1, 4, 6),
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_state_round_trip(name, tmp_path):
    empty, make, shape = MODULES[name]
    q = ours(*shape)
    source = type(empty()).from_float(observed(make(), q.dequantize(), default_per_channel_qconfig))
    want = source(q)
    target = empty()
    target.load_state_dict(source.state_dict())
    assert torch.equal(target(q), want) and target.qparams == source.qparams
    assert torch.equal(copy.deepcopy(source)(q), want)
    path = tmp_path / "model.safetensors"
    save_quantized(nn.Sequential(nnq.Quantize(0.05, 120), source, nnq.DeQuantize()), path)
    loaded = load_quantized(path)
    assert torch.equal(loaded(q.dequantize()), want.dequantize()) and type(loaded[1]) is type(source)
    load_quantized(path, into=nn.Sequential(nnq.Quantize(), empty(), nnq.DeQuantize()))
    half = copy.deepcopy(source).half()
    assert torch.equal(half(q), want) and half.output_scale.dtype == torch.float64
    assert torch_ao_ext.report(nn.Sequential(source)).rows[0].status == "int8"
    assert "packed bytes" in str(torch_ao_ext.explain(source))


def test_damaged_state_is_refused():
    layer = nnq.Linear(4, 2)
    state = {**layer.state_dict(), "output_scale": torch.tensor(-1.0, dtype=torch.float64)}
    with pytest.raises(
        RuntimeError, match=r"Linear: argument 'scale' must be a positive normal number, got -1.0"
    ):
        layer.load_state_dict(state)
    state = {**layer.state_dict(), "output_dtype": torch.tensor(7)}
    with pytest.raises(RuntimeError, match=r"output_dtype must be 0 \(uint8\) or 1 \(int8\), got 7"):
        layer.load_state_dict(state)
    with pytest.raises(RuntimeError, match="output_zero_point"):
        layer.load_state_dict({k: v for k, v in layer.state_dict().items() if k != "output_zero_point"})
    with pytest.raises(RuntimeError, match="weight is a float weight; .*convert that with convert"):
        layer.load_state_dict(nn.Linear(4, 2).state_dict(), strict=False)


def test_qparams_are_numbers_to_read_and_set():
    layer = nnq.Linear(4, 2)
    layer.scale, layer.zero_point = 0.25, 7
    assert (layer.scale, layer.zero_point, layer.dtype) == (0.25, 7, torch.uint8)
    assert float(layer.output_scale) == 0.25 and int(layer.output_zero_point) == 7
    for name, bad, rule in (
        ("scale", 0.0, "positive normal"), ("scale", float("nan"), "positive normal"),
        ("scale", 1e-45, "positive normal"), ("zero_point", 256, r"in \[0, 255\]"),
    ):  # fmt: skip
        with pytest.raises(
            ValueError, match=f"Linear: argument '{name}' must be {'a ' if name == 'scale' else ''}{rule}"
        ):
            setattr(layer, name, bad)
    with pytest.raises(ValueError, match="must be torch.quint8 or torch.qint8, got torch.int32"):
        layer.set_output(1.0, 0, torch.int32)


def test_set_weight_bias_and_accessors():
    q = ours(3, 16)
    source = nnq.Linear.from_float(observed(nn.Linear(16, 8), q.dequantize(), default_per_channel_qconfig))
    other = nnq.Linear(16, 8)
    other.set_weight_bias(source.weight(), source.bias())
    other.set_output(*source.qparams)
    assert torch.equal(other(q), source(q))
    with pytest.raises(ValueError, match=r"Linear: argument 'weight' must be int8 \[8, 16\]"):
        other.set_weight_bias(QuantizedTensor(torch.zeros(2, 2, dtype=torch.int8), 0.1, 0), None)


@pytest.mark.parametrize(
    "layer", [nnq.Linear(4, 2), nnq.Conv1d(4, 2, 1), nnq.ConvTranspose1d(4, 2, 1)], ids=str
)
def test_a_float_is_refused(layer):
    message = f"nn.quantized.{type(layer).__name__}: argument 'input' must be a QuantizedTensor, got a torch"
    with pytest.raises(TypeError, match=message + ".float32 tensor; put a QuantStub before it"):
        layer(torch.zeros(1, 4, 1))


def test_from_float_refusals():
    x = torch.randn(4, 16)
    good = observed(nn.Linear(16, 8), x)
    with pytest.raises(
        ValueError, match="Linear.from_float: argument 'mod' must be nn.Linear or hold one, got ReLU"
    ):
        nnq.Linear.from_float(nn.ReLU())
    with pytest.raises(
        ValueError, match="Conv2d.from_float: argument 'mod' must be nn.Conv2d or hold one, got Conv1d"
    ):
        nnq.Conv2d.from_float(nn.Conv1d(1, 1, 1))
    with pytest.raises(ValueError, match="must have an activation_post_process"):
        nnq.Linear.from_float(nn.Linear(16, 8))
    del good.qconfig
    with pytest.raises(ValueError, match="must have a qconfig"):
        nnq.Linear.from_float(good)
    good.qconfig = QConfig(MinMaxObserver, default_per_channel_weight_observer.with_args(ch_axis=1))
    with pytest.raises(ValueError, match="must have ch_axis 0"):
        nnq.Linear.from_float(good)
    good.qconfig, good.activation_post_process = default_qconfig, PlaceholderObserver()
    with pytest.raises(
        ValueError, match="activation observer must be for quint8 or qint8, got torch.float32"
    ):
        nnq.Linear.from_float(good)
    bad = observed(nn.Linear(16, 8), x)
    bad.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="weight must be finite, got NaN"):
        nnq.Linear.from_float(bad)


def test_constructor_refusals():
    with pytest.raises(ValueError, match=r"Conv2d: argument 'groups' must divide in_channels \(4\)"):
        nnq.Conv2d(4, 6, 3, groups=3)
    with pytest.raises(ValueError, match="Conv1d: argument 'padding_mode' must be one of zeros, reflect"):
        nnq.Conv1d(4, 6, 3, padding_mode="mirror")
    with pytest.raises(
        ValueError, match="ConvTranspose1d: argument 'padding_mode' must be one of zeros, got 'reflect'"
    ):
        nnq.ConvTranspose1d(4, 6, 3, padding_mode="reflect")
    with pytest.raises(ValueError, match="Linear: argument 'dtype' must be torch.qint8 or int8"):
        nnq.Linear(4, 2, dtype=torch.float16)


def test_reflect_padding_beyond_the_image_is_refused():
    with pytest.raises(
        ValueError, match="reflect padding of dimension 3 must be at most 1 for size 2, got 2"
    ):
        nnq.Conv2d(1, 1, 3, padding=2, padding_mode="reflect")(ours(1, 1, 4, 2))
