"""legacy.load_state_dict: what torch.ao has saved, under every engine."""

import io
import warnings

import pytest
import torch
from torch import nn
from torch_ao_peer import peer

import torch_ao_ext.quantization as tq
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.quantization import legacy

ENGINES = ["x86", "onednn", "fbgemm", "qnnpack"]


class Net(nn.Module):
    """Most modules with qparams of their own."""

    def __init__(self, stubs, functional):
        super().__init__()
        self.quant, self.dequant = stubs.QuantStub(), stubs.DeQuantStub()
        self.conv, self.relu = nn.Conv2d(3, 8, 3), nn.ReLU()
        self.bn, self.act = nn.BatchNorm2d(8), nn.Hardswish()
        self.leaky, self.add, self.norm = nn.LeakyReLU(0.1), functional(), nn.GroupNorm(2, 8)
        self.fc, self.sigmoid = nn.Linear(8, 5), nn.Sigmoid()

    def forward(self, x):
        x = self.act(self.bn(self.relu(self.conv(self.quant(x)))))
        x = self.leaky(x)
        x = self.norm(self.add.add(x, x)).mean((2, 3))
        return self.dequant(self.sigmoid(self.fc(x)))


def net(stubs, functional, source=None):
    torch.manual_seed(0)
    model = Net(stubs, functional).eval()
    if source is not None:
        model.load_state_dict(source.state_dict())
    return model


def through_file(state, weights_only=True):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about its own storages
        return torch.load(file, weights_only=weights_only)


def images(seed):
    return torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(seed))


def static(module, model, qconfig, batches):
    model.qconfig = qconfig
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        observed = module.prepare(module.fuse_modules(model, [["conv", "relu"]]))
        for batch in batches:
            observed(batch)
        return module.convert(observed)


@pytest.fixture
def engine(request):
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = request.param
    yield request.param
    torch.backends.quantized.engine = before


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_static_model(engine):
    from torch.ao.nn.quantized import FloatFunctional

    theirs = net(peer(), FloatFunctional)
    ours = net(tq, nnq.FloatFunctional, theirs)
    theirs = static(peer(), theirs, peer().get_default_qconfig(engine), [images(k) for k in range(3)])
    state = through_file(theirs.state_dict())
    # Calibrated on other numbers: all that counts comes from the file.
    ours = static(tq, ours, tq.get_default_qconfig(engine), [0.1 * images(9)])
    x = images(7)
    before = ours(x)
    assert not legacy.load_state_dict(ours, state).missing_keys
    assert torch.equal(ours.conv.weight().int_repr(), theirs.conv.weight().int_repr())
    assert torch.equal(ours.fc.weight().int_repr(), theirs.fc.weight().int_repr())
    for name in ("quant", "conv", "bn", "act", "leaky", "add", "norm", "fc"):
        mine, other = ours.get_submodule(name), theirs.get_submodule(name)
        assert mine.scale == float(other.scale) and mine.zero_point == int(other.zero_point), name
    step = 1 / 256
    assert (ours(x) - theirs(x)).abs().max() <= 2 * step
    assert (before - theirs(x)).abs().max() > 2 * step


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
@pytest.mark.parametrize("per_channel", [False, True])
def test_dynamic_linear(engine, per_channel):
    name = "per_channel_dynamic_qconfig" if per_channel else "default_dynamic_qconfig"
    layers = nn.Sequential(nn.Linear(16, 8), nn.Sequential(nn.Linear(8, 4, bias=False)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peer().quantize_dynamic(layers, {nn.Linear: getattr(peer(), name)})
        state = through_file(theirs.state_dict())
    other = nn.Sequential(nn.Linear(16, 8), nn.Sequential(nn.Linear(8, 4, bias=False)))
    ours = tq.quantize_dynamic(other, {nn.Linear: getattr(tq, name)})
    legacy.load_state_dict(ours, state)
    assert torch.equal(ours[0].weight().int_repr(), theirs[0].weight().int_repr())
    x = torch.randn(5, 16)
    assert (ours(x) - theirs(x)).norm() < 0.05 * theirs(x).norm()


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])
def test_dynamic_recurrent(kind, options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peer().quantize_dynamic(nn.Sequential(kind(6, 5, **options)), {kind})
        state = through_file(theirs.state_dict(), weights_only=False)
    ours = tq.quantize_dynamic(nn.Sequential(kind(6, 5, **options)), {kind})
    legacy.load_state_dict(ours, state)
    x = torch.randn(7, 2, 6)
    mine, other = ours(x)[0], theirs(x)[0]
    assert (mine - other).norm() < 0.05 * other.norm()


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_dynamic_cells(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peer().quantize_dynamic(nn.Sequential(kind(6, 5)), {kind})
        state = through_file(theirs.state_dict(), weights_only=False)
    ours = tq.quantize_dynamic(nn.Sequential(kind(6, 5)), {kind})
    legacy.load_state_dict(ours, state)
    x = torch.randn(3, 6)
    mine, other = (y[0] if isinstance(y, tuple) else y for y in (ours(x), theirs(x)))
    assert (mine - other).norm() < 0.05 * other.norm()


@pytest.mark.parametrize("bits", ["", "_4bit"])
@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_tables(kind, bits):
    def quantized(module):
        # torch.ao's bags sum, whatever the mode.
        model = nn.Sequential(kind(20, 8, **({"mode": "sum"} if kind is nn.EmbeddingBag else {})))
        model.qconfig = getattr(module, f"float_qparams_weight_only_qconfig{bits}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return module.convert(module.prepare(model))

    theirs, ours = quantized(peer()), quantized(tq)
    legacy.load_state_dict(ours, through_file(theirs.state_dict()))
    x = torch.randint(20, (4, 3))
    # Not theirs(x): torch.ao's 4-bit nn.Embedding cannot look up.
    rows = theirs[0].weight().dequantize()[x]
    expected = rows.sum(1) if kind is nn.EmbeddingBag else rows
    torch.testing.assert_close(ours(x), expected, rtol=1e-3, atol=4e-3)


@pytest.mark.parametrize("axis", [None, 1])
def test_transposed(axis):
    # By hand: torch.ao's transposed convolutions differ from engine to engine.
    values = torch.randn(3, 4, 2, 2)
    points = torch.zeros(4, dtype=torch.int64)
    if axis is None:
        weight = torch.quantize_per_tensor(values, 0.03, 0, torch.qint8)
    else:
        weight = torch.quantize_per_channel(values, torch.rand(4) * 0.01 + 0.02, points, axis, torch.qint8)
    state = {"weight": weight, "bias": torch.randn(4)}
    state |= {"scale": torch.tensor(0.05), "zero_point": torch.tensor(128)}
    layer = nnq.ConvTranspose2d(3, 4, 2, stride=2)
    legacy.load_state_dict(layer, state)
    x = nnq.Quantize(0.05, 128, torch.quint8)(torch.randn(2, 3, 5, 5))
    float_weight = weight.dequantize()
    expected = nn.functional.conv_transpose2d(x.dequantize(), float_weight, state["bias"], stride=2)
    assert ((layer(x).dequantize() - expected.clamp(-6.4, 6.35)).abs() <= 0.0251).all()


def test_older_keys_of_linear():
    # Versions 1 and 2 of torch.ao's Linear.
    weight = torch.quantize_per_channel(
        torch.randn(4, 6), torch.rand(4) * 0.01 + 0.01, torch.zeros(4, dtype=torch.int64), 0, torch.qint8
    )
    for start in ("", "_packed_params."):
        layer = nnq.Linear(6, 4)
        state = {f"{start}weight": weight, f"{start}bias": torch.ones(4)}
        state |= {"scale": torch.tensor(0.5), "zero_point": torch.tensor(3)}
        legacy.load_state_dict(layer, state)
        assert torch.equal(layer.weight().int_repr(), weight.int_repr())
        assert torch.equal(layer.bias(), torch.ones(4)) and (layer.scale, layer.zero_point) == (0.5, 3)


def linear_state(**values):
    weight = torch.quantize_per_tensor(torch.randn(4, 6), 0.02, 0, torch.qint8)
    state = {"scale": torch.tensor(0.5), "zero_point": torch.tensor(3)}
    state |= {"weight": weight, "bias": torch.ones(4)}
    made = {key: value() if callable(value) else value for key, value in {**state, **values}.items()}
    return {key: value for key, value in made.items() if value is not None}


def per_row(axis):
    count = (4, 6)[axis]
    points = torch.zeros(count, dtype=torch.int64)
    return torch.quantize_per_channel(torch.randn(4, 6), torch.ones(count), points, axis, torch.qint8)


BAD = {
    "float": ({"weight": torch.randn(4, 6)}, ValueError, "'weight' must be a quantized tensor, got"),
    "dtype": (
        {"weight": lambda: torch.quantize_per_tensor(torch.randn(4, 6), 0.1, 0, torch.quint8)},
        ValueError,
        "'weight' must be torch.qint8, got torch.quint8",
    ),
    "axis": ({"weight": lambda: per_row(1)}, ValueError, "'weight' must be quantized along axis 0, got"),
    "no weight": ({"weight": None, "bias": None}, RuntimeError, "Missing key.*qweight"),
    "no scale": ({"scale": None, "zero_point": None}, RuntimeError, "Missing key.*output_scale"),
    "shape": (
        {"weight": lambda: torch.quantize_per_tensor(torch.randn(4, 5), 0.1, 0, torch.qint8)},
        RuntimeError,
        "size mismatch for qweight",
    ),
    "bias": ({"bias": torch.ones(3)}, RuntimeError, "qbias"),
    "scale": ({"scale": torch.tensor(-1.0)}, RuntimeError, "'scale' must be a positive"),
    "more": ({"other": torch.ones(1)}, RuntimeError, "Unexpected key.*other"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_states(name):
    values, error, text = BAD[name]
    with pytest.raises(error, match=text):
        legacy.load_state_dict(nnq.Linear(6, 4), linear_state(**values))


def test_half_recurrent_weights_are_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = peer().quantize_dynamic(nn.Sequential(nn.LSTM(4, 3)), dtype=torch.float16).state_dict()
    ours = tq.quantize_dynamic(nn.Sequential(nn.LSTM(4, 3)))
    with pytest.raises(ValueError, match=r"0.param' must have int8 weights, got quantized_fp16"):
        legacy.load_state_dict(ours, state)


def test_model_must_be_a_module():
    with pytest.raises(ValueError, match="argument 'model' must be a module, got dict"):
        legacy.load_state_dict({}, {})
