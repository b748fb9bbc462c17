"""Input-weight equalization in FX graph mode: factors as in torch.ao, a float model that stays equal."""

import copy
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torch_ao_ext
from torch_ao_ext import quantization as tq
from torch_ao_ext.quantization.fx import _equalize as eq
from torch_ao_ext.quantization.fx._equalized import EqualizedInput, equalized
from torch_ao_ext.quantization.fx.custom_config import PrepareCustomConfig
from torch_ao_ext.quantization.quantize_fx import convert_fx, convert_to_reference_fx, prepare_fx
from torch_ao_ext.quantization.quantizer._targets import CONV, LINEAR

ALL = tq.QConfigMapping().set_global(eq.default_equalization_qconfig)
QCONFIG = tq.QConfig(
    tq.MinMaxObserver.with_args(dtype=torch.quint8),
    tq.MinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric),
)
MAPPING = tq.QConfigMapping().set_global(QCONFIG)
HISTOGRAM = tq.get_default_qconfig_mapping("onednn")


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1, self.b1 = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(6))
        self.w2 = nn.Parameter(torch.randn(4, 6))

    def forward(self, x):
        return F.linear(F.relu(F.linear(x, self.w1, self.b1)), self.w2)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        y = self.a(x)
        return self.b(y) + y


class Tied(nn.Module):
    """One weight in two layers, one bias in two others."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.b.weight, self.c.bias = self.a.weight, self.b.bias

    def forward(self, x):
        return self.c(self.b(F.relu(self.a(x)))) + self.b(x) + self.a(torch.sigmoid(x))


class Padded(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding="same"), nn.Conv2d(4, 4, 3, padding="same", groups=2)
        self.up, self.c = nn.ConvTranspose2d(4, 4, 2), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.c(self.up(self.b(F.relu(self.a(x)))))


def seq(*layers):
    return nn.Sequential(*layers)


# Model, shape of the input behind the batch, axis of its channels.
MODELS = {
    "linear": (lambda: seq(nn.Linear(8, 4)), (8,), 1),
    "two linear": (lambda: seq(nn.Linear(8, 6), nn.Linear(6, 4)), (8,), 1),
    "linear relu": (lambda: seq(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU()), (8,), 1),
    "functions": (Functional, (8,), 1),
    "conv": (lambda: seq(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 3, 1)), (4, 9, 8), 1),
    "conv1d": (lambda: seq(nn.Conv1d(4, 6, 3, bias=False), nn.Conv1d(6, 3, 1)), (4, 9), 1),
    "conv3d": (lambda: seq(nn.Conv3d(4, 6, 2), nn.ReLU()), (4, 3, 4, 5), 1),
}
OWN = {
    "grouped": (lambda: seq(nn.Conv2d(4, 8, 3, groups=2), nn.Conv2d(8, 8, 3, groups=8)), (4, 9, 8), 1),
    "batch norm": (
        lambda: seq(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 3, 1)), (4, 8, 8), 1
    ),
    "sequence": (lambda: seq(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4)), (3, 8), 2),
    "residual": (Residual, (8,), 1),
    "tied": (Tied, (8,), 1),
    "padded": (Padded, (4, 6, 6), 1),
    "pool": (lambda: seq(nn.Conv2d(4, 6, 3), nn.MaxPool2d(2), nn.Conv2d(6, 3, 1)), (4, 8, 8), 1),
    "conv to linear": (lambda: seq(nn.Conv1d(4, 5, 3), nn.Linear(5, 5)), (4, 7), 1),
}  # fmt: skip


def case(name):
    """A model and inputs whose channels differ by a factor of 2^8; each adds as much to the results."""
    make, shape, axis = {**MODELS, **OWN}[name]
    torch.manual_seed(0)
    model = make().eval()
    channels = shape[axis - 1]
    factors = torch.logspace(-4, 4, channels, base=2)
    inputs = torch.randn(16, *shape) * factors.reshape([-1] + [1] * (len(shape) - axis))
    weight = next(model.parameters())
    with torch.no_grad():
        if weight.shape[1] == channels:
            weight /= factors.reshape([1, -1] + [1] * (weight.dim() - 2))
    return model, inputs


def looks(graph):
    """The equalized layers' looks in graph order."""
    modules = dict(graph.named_modules())
    called = [modules[n.target] for n in graph.graph.nodes if n.op == "call_module" and n.target in modules]
    return [m for m in called if isinstance(m, EqualizedInput)]


def prepared(name, mapping=MAPPING, config=ALL):
    model, x = case(name)
    graph = prepare_fx(model, mapping, (x,), _equalization_config=config)
    with torch.no_grad():
        graph(x)
    return model, graph, x


def sqnr(want, have):
    return 20 * torch.log10(want.norm() / (want - have).norm()).item()


@pytest.mark.parametrize("mapping", [MAPPING, HISTOGRAM], ids=["min max", "histogram"])
@pytest.mark.parametrize("name", [*MODELS, *OWN])
def test_float_values_stay(name, mapping):
    model, graph, x = prepared(name, mapping)
    before = {key: value.clone() for key, value in graph.state_dict().items()}
    made, reference = equalized(graph), convert_to_reference_fx(graph)
    for key, value in graph.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert looks(graph) and not looks(made)
    with torch.no_grad():
        torch.testing.assert_close(made(x), model(x), rtol=2e-4, atol=2e-4 * model(x).abs().max().item())
        assert sqnr(model(x), reference(x)) > 15


@pytest.mark.parametrize("name", MODELS)
def test_factors_are_torch_aos(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch.ao.quantization as theirs
        from torch.ao.quantization.fx import _equalize as other
        from torch.ao.quantization.quantize_fx import prepare_fx as their_prepare
    model, graph, x = prepared(name)
    symmetric = theirs.MinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)
    qconfig = theirs.QConfig(theirs.MinMaxObserver.with_args(dtype=torch.quint8), symmetric)
    configs = [theirs.QConfigMapping().set_global(c) for c in (qconfig, other.default_equalization_qconfig)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = their_prepare(copy.deepcopy(model), configs[0], (x,), _equalization_config=configs[1])
    peer(x)
    modules = dict(peer.named_modules())
    found = other.update_obs_for_equalization(peer, modules)
    want = [m.equalization_scale.reshape(-1) for m in found.values()]
    layers = looks(graph)
    assert len(want) == len(layers) > 0
    nodes = [n for n in graph.graph.nodes if n.target in LINEAR | CONV]
    for scale, look, node in zip(want, layers, nodes, strict=True):
        weight = graph.get_parameter(node.args[1].args[0].target)
        look.weight_observer(weight)
        torch.testing.assert_close(
            eq.calculate_equalization_scale(look.input_observer, look.weight_observer), scale
        )


@pytest.mark.parametrize(
    "name", ["linear", "two linear", "linear relu", "conv", "grouped", "batch norm", "sequence"]
)
@pytest.mark.parametrize("mapping", [MAPPING, HISTOGRAM], ids=["min max", "histogram"])
def test_noise_falls(name, mapping):
    model, graph, x = prepared(name, mapping)
    plain = prepare_fx(model, mapping, (x,))
    plain(x)
    with torch.no_grad():
        want = model(x)
        before, after = sqnr(want, convert_fx(plain)(x)), sqnr(want, convert_fx(graph)(x))
    assert after > before + 2, (before, after)


@pytest.mark.parametrize(
    ("name", "layers", "multiplied"),
    [
        ("two linear", 2, 1),
        ("linear relu", 2, 1),
        ("conv", 2, 1),
        ("residual", 2, 2),
        ("pool", 2, 2),
        ("conv to linear", 2, 2),
    ],
)
def test_factors_move_into_the_layer_before(name, layers, multiplied):
    _, graph, x = prepared(name)
    int8 = convert_fx(graph)
    rows = torch_ao_ext.report(int8).rows
    assert len(looks(graph)) == layers
    assert sum(r.status == "int8" and r.op.startswith(("linear", "conv")) for r in rows) == layers
    assert sum(n.target is torch.ops.aten.mul.Tensor for n in equalized(graph).graph.nodes) == multiplied
    again = pickle.loads(pickle.dumps(int8))
    assert torch.equal(again(x), int8(x))


def test_configs_choose_layers():
    model, x = case("two linear")
    by_name = {"module_name": [("1", eq.default_equalization_qconfig)]}
    graph = prepare_fx(model, MAPPING, (x,), _equalization_config=by_name)
    (look,) = looks(graph)
    graph(x)
    assert look.input_observer.get_input_minmax()[0].shape == (6,)
    without = tq.QConfigMapping().set_global(eq.default_equalization_qconfig).set_module_name("0", None)
    assert len(looks(prepare_fx(model, MAPPING, (x,), _equalization_config=without))) == 1
    # The layer before is scaled, though it is not equalized itself.
    with torch.no_grad():
        torch.testing.assert_close(equalized(graph)(x), model(x), rtol=1e-4, atol=1e-3)
    with pytest.warns(UserWarning, match="names no int8 layer"):
        prepare_fx(
            model,
            MAPPING,
            (x,),
            _equalization_config={"module_name": [("5", eq.default_equalization_qconfig)]},
        )


def test_dynamic_layers():
    dynamic = tq.QConfigMapping().set_global(tq.default_dynamic_qconfig)
    model, graph, x = prepared("linear relu", dynamic)
    plain = prepare_fx(model, dynamic, (x,))
    with torch.no_grad():
        before, after = sqnr(model(x), convert_fx(plain)(x)), sqnr(model(x), convert_fx(graph)(x))
    assert after > before + 1
    rows = torch_ao_ext.report(convert_fx(graph)).rows
    assert sum(r.op == "linear_dynamic" and r.status == "int8" for r in rows) == 2


def test_fake_quantize_qconfigs():
    fake = tq.QConfig(tq.default_fake_quant, tq.default_weight_fake_quant)
    model, graph, x = prepared("linear relu", tq.QConfigMapping().set_global(fake))
    assert sqnr(model(x), convert_fx(graph)(x)) > 20


def test_integer_inputs_stay_integers():
    model, x = case("linear")
    custom = PrepareCustomConfig().set_input_quantized_indexes([0])
    graph = prepare_fx(model, MAPPING, (x,), custom, _equalization_config=ALL)
    graph(x)
    int8 = convert_fx(graph)
    scale, zero_point, low, high, dtype = int8.input_qparams[0]
    integers = torch.ops.torch_ao.quantize_per_tensor(x, scale, zero_point, low, high, dtype)
    assert sqnr(model(x), int8(integers)) > 10  # small channels are lost before they are scaled


def test_uncalibrated_graphs_raise():
    model, x = case("linear")
    with pytest.raises(ValueError, match="must be calibrated"):
        convert_fx(prepare_fx(model, MAPPING, (x,), _equalization_config=ALL))


def test_noisiest_layers_first():
    model, graph, x = prepared("two linear", config=None)
    noise = eq.get_layer_sqnr_dict(graph, convert_fx(graph), x)
    assert set(noise) == {"0", "1"} and all(5 < value < 80 for value in noise.values())
    worst = min(noise, key=noise.get)
    config = eq.get_equalization_qconfig_dict(noise, 1)
    assert config == {"module_name": [(worst, eq.default_equalization_qconfig)]}
    _, better, _ = prepared("two linear", config=config)
    assert len(looks(better)) == 1
    # An equalized graph has the same layers; inner values are scaled, those of the last are not.
    after = eq.get_layer_sqnr_dict(graph, convert_fx(better), x)
    assert set(after) == {"0", "1"} and after["1"] > noise["1"]


def test_observers():
    inputs, weights = eq._InputEqualizationObserver(), eq._WeightEqualizationObserver()
    with pytest.warns(UserWarning, match="must have seen values"):
        assert eq.calculate_equalization_scale(inputs, weights) == 1
    x = torch.tensor([[[0.0, 1.0], [-2.0, 3.0], [5.0, 5.0]]])  # the last channel has no range
    assert inputs(x) is x
    weights(torch.tensor([[0.0, 0.0, 1.0], [4.0, 0.0, 2.0]]))
    scale = eq.calculate_equalization_scale(inputs, weights)
    assert scale.tolist() == [2.0, 1.0, 1.0]
    with pytest.warns(UserWarning, match="has no equalization scale"):
        assert inputs.calculate_scaled_minmax() == (None, None)
    inputs.set_equalization_scale(scale)
    assert inputs.equalization_scale.shape == (1, 3, 1)
    assert [v.item() for v in inputs.calculate_scaled_minmax()] == [-2.0, 5.0]
    assert eq.reshape_scale(scale, 1, x).shape == (1, 3, 1)
    assert eq.is_equalization_observer(weights) and not eq.is_equalization_observer(nn.Identity())


def prepare_with(config):
    return prepare_fx(nn.Linear(2, 2).eval(), MAPPING, (torch.ones(1, 2),), _equalization_config=config)


REFUSED = {
    "type": (lambda: prepare_with(1), ValueError, "'_equalization_config' must be a QConfigMapping"),
    "qconfig": (lambda: prepare_with(MAPPING), ValueError, "must hold EqualizationQConfigs"),
    "observer": (
        lambda: eq.EqualizationQConfig(eq._InputEqualizationObserver()), ValueError, "class or factory"
    ),
    "scheme": (
        lambda: eq._InputEqualizationObserver(qscheme=torch.per_channel_affine), TypeError, "per_tensor"
    ),
    "dims": (lambda: eq._InputEqualizationObserver()(torch.ones(3)), ValueError, "2 to 5 dimensions, got 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    call, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        call()


def test_unequal_channels():
    inputs, weights = eq._InputEqualizationObserver(), eq._WeightEqualizationObserver()
    inputs(torch.randn(2, 3))
    weights(torch.randn(2, 4))
    with pytest.raises(ValueError, match="same channels, got 3 and 4"):
        eq.calculate_equalization_scale(inputs, weights)
