"""nn.qat and nn.intrinsic.qat against torch.ao's: values, gradients, statistics, state, to_float."""

import copy
import importlib
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from torch_ao_ext.nn import intrinsic, qat
from torch_ao_ext.quantization import (
    default_dynamic_qat_qconfig,
    default_embedding_qat_qconfig,
    default_qat_qconfig,
    default_qconfig,
    get_default_qat_qconfig,
)


@pytest.fixture(autouse=True)
def _quiet(_warnings_are_errors):
    """torch.ao warns of its own arguments."""
    warnings.filterwarnings("ignore", message="Please use quant_min and quant_max")


def peer(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"torch.ao.nn.{path}")


def conv(rank, **options):
    torch.manual_seed(0)
    return getattr(nn, f"Conv{rank}d")(4, 6, 3, **{"padding": 1, **options})


def norm(rank):
    bn = getattr(nn, f"BatchNorm{rank}d")(6, eps=1e-3, momentum=0.3)
    with torch.no_grad():
        bn.weight.uniform_(0.5, 1.5)
        bn.bias.normal_()
        bn.running_mean.normal_()
        bn.running_var.uniform_(0.5, 2)
    return bn


def cases():
    found = {}
    for rank in (1, 2, 3):
        shape = (4, 4, *[5] * rank)
        for bias in (True, False):
            tag = "" if bias else " no bias"
            found[f"Conv{rank}d{tag}"] = (f"Conv{rank}d", lambda r=rank, b=bias: (conv(r, bias=b),), shape)
            found[f"ConvBn{rank}d{tag}"] = (
                f"ConvBn{rank}d", lambda r=rank, b=bias: (conv(r, bias=b), norm(r)), shape,
            )  # fmt: skip
        found[f"ConvBnReLU{rank}d"] = (
            f"ConvBnReLU{rank}d", lambda r=rank: (conv(r, groups=2, stride=2), norm(r), nn.ReLU()), shape,
        )  # fmt: skip
        found[f"ConvReLU{rank}d"] = (f"ConvReLU{rank}d", lambda r=rank: (conv(r), nn.ReLU()), shape)
    found["Linear"] = ("Linear", lambda: (nn.Linear(4, 6),), (8, 4))
    found["LinearReLU"] = ("LinearReLU", lambda: (nn.Linear(4, 6), nn.ReLU()), (8, 4))
    found["LinearBn1d"] = ("LinearBn1d", lambda: (nn.Linear(4, 6), norm(1)), (8, 4))
    found["LinearBn1d no bias"] = ("LinearBn1d", lambda: (nn.Linear(4, 6, bias=False), norm(1)), (8, 4))
    return found


CASES = cases()


def both(name, qconfig=default_qat_qconfig):
    """Our module and torch.ao's, of copies of the same float layers, and an input."""
    cls, make, shape = CASES[name]
    layers = make()
    mine, theirs = list(copy.deepcopy(layers)), list(copy.deepcopy(layers))
    single = len(layers) == 1
    mine = mine[0] if single else getattr(intrinsic, cls)(*mine)
    theirs = theirs[0] if single else getattr(peer("intrinsic"), cls)(*theirs)
    for module in (mine, theirs):
        for part in module.modules():
            part.qconfig = qconfig
        module.train()
    a = getattr(qat if single else intrinsic.qat, cls).from_float(mine)
    b = getattr(peer("qat" if single else "intrinsic.qat"), cls).from_float(theirs)
    return a, b, torch.randn(*shape), mine


@pytest.mark.parametrize("name", CASES)
def test_against_torch_ao(name):
    a, b, x, _ = both(name)
    assert list(a.state_dict()) == list(b.state_dict())
    for step in range(2):
        y, z = a(x + step), b(x + step)
        assert torch.allclose(y, z, atol=1e-5)
        y.pow(2).sum().backward()
        z.pow(2).sum().backward()
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=1e-4, atol=1e-3)
    for (key, mine), theirs in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.allclose(mine.double(), theirs.double(), atol=1e-5), key
    a.eval()
    b.eval()
    assert torch.allclose(a(x), b(x), atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_without_fake_quantization_it_is_the_float_module(name):
    a, _, x, container = both(name)
    a.weight_fake_quant = nn.Identity()
    reference = copy.deepcopy(container)
    assert torch.allclose(a(x), reference(x), atol=1e-4)
    a.eval()
    reference.eval()
    assert torch.allclose(a(x), reference(x), atol=1e-5)
    plain = a.to_float()
    assert torch.allclose(plain(x), reference(x), atol=1e-5)
    assert not any(hasattr(m, "weight_fake_quant") for m in plain.modules())


@pytest.mark.parametrize("name", ["Conv2d", "ConvBn2d", "ConvReLU2d", "LinearReLU", "LinearBn1d"])
def test_parameters_are_shared_with_the_float_layers(name):
    a, _, _, container = both(name)
    product = container[0] if isinstance(container, nn.Sequential) else container
    assert a.weight is product.weight and a.bias is product.bias
    if hasattr(a, "bn"):
        assert a.bn is container[1] and (a.bn.eps, a.bn.momentum) == (1e-3, 0.3)


def test_frozen_statistics_stay_through_train_and_eval():
    a, _, x, _ = both("ConvBn2d")
    model = nn.Sequential(a)
    model.apply(intrinsic.qat.freeze_bn_stats)
    before = a.bn.running_mean.clone()
    for mode in (True, False, True):
        model.train(mode)
        model(x)
        assert torch.equal(a.bn.running_mean, before) and not a.bn.training
    model.apply(intrinsic.qat.update_bn_stats)
    assert a.bn.training
    model(x)
    assert not torch.equal(a.bn.running_mean, before)
    model.train(False)
    model.train(True)
    assert a.bn.training and (a.bn.eps, a.bn.momentum) == (1e-3, 0.3)


def test_a_channel_that_is_switched_off():
    a, _, x, _ = both("ConvBn2d")
    with torch.no_grad():
        a.bn.weight[2] = 0
    y = a(x)
    assert torch.isfinite(y).all() and torch.allclose(y[:, 2], a.bn.bias[2].expand_as(y[:, 2]))
    y.sum().backward()
    assert torch.isfinite(a.weight.grad).all() and torch.isfinite(a.bn.running_var).all()


def test_constructor_freezes():
    a = intrinsic.qat.ConvBn2d(4, 6, 3, freeze_bn=True, qconfig=default_qat_qconfig)
    assert a.freeze_bn and not a.bn.training and a.bias is None
    a.reset_running_stats()
    assert float(a.bn.running_var.sum()) == 6


def test_state_of_the_first_version_loads():
    a, _, _, _ = both("ConvBn2d")
    state = a.state_dict()
    old = {}
    for key, value in state.items():
        key = {"bn.weight": "gamma", "bn.bias": "beta"}.get(key, key.removeprefix("bn."))
        old[key] = value + 1 if value.is_floating_point() else value
    a.load_state_dict(old)
    assert torch.equal(a.bn.weight, old["gamma"]) and torch.equal(a.bn.running_var, old["running_var"])


def test_parametrized_layers_keep_their_parametrization():
    layer = parametrizations.weight_norm(nn.Linear(4, 6))
    layer.qconfig = default_qat_qconfig
    a = qat.Linear.from_float(layer)
    assert torch.nn.utils.parametrize.is_parametrized(a, "weight")
    x = torch.randn(3, 4)
    assert (a(x) - layer(x)).abs().max() < 0.05
    a(x).sum().backward()
    assert a.parametrizations.weight.original0.grad is not None


def test_precomputed_ranges():
    layer = nn.Linear(4, 6)
    layer.qconfig = default_qat_qconfig
    layer.weight_fake_quant = default_qat_qconfig.weight()
    assert qat.Linear.from_float(layer, True).weight_fake_quant is layer.weight_fake_quant
    assert qat.Linear.from_float(layer).weight_fake_quant is not layer.weight_fake_quant


EMBEDDINGS = {
    "Embedding": (lambda: nn.Embedding(10, 8, padding_idx=2), (torch.tensor([[1, 2], [3, 9]]),)),
    "EmbeddingBag": (
        lambda: nn.EmbeddingBag(10, 8, mode="sum", include_last_offset=True),
        (torch.tensor([1, 2, 3, 9]), torch.tensor([0, 3, 4])),
    ),
}


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_embeddings(name):
    make, inputs = EMBEDDINGS[name]
    layer = make()
    layer.qconfig = default_embedding_qat_qconfig
    a = getattr(qat, name).from_float(layer)
    b = getattr(peer("qat"), name).from_float(copy.deepcopy(layer))
    assert torch.equal(a(*inputs), b(*inputs))
    a(*inputs).sum().backward()
    assert layer.weight.grad is not None
    assert torch.equal(a.to_float()(*inputs), layer(*inputs)) and type(a.to_float()) is type(layer)
    layer.qconfig = default_qat_qconfig
    with pytest.raises(
        ValueError, match=f"{name}: qconfig.weight must have the qscheme .*float_qparams, got torch"
    ):
        getattr(qat, name).from_float(layer)


def test_dynamic_linear():
    layer = nn.Linear(4, 6)
    layer.qconfig = default_dynamic_qat_qconfig
    a = qat.dynamic.Linear.from_float(layer)
    other = copy.deepcopy(layer)
    other.qconfig = importlib.import_module("torch.ao.quantization").default_dynamic_qat_qconfig
    b = peer("qat.dynamic").Linear.from_float(other)
    x = torch.randn(3, 4)
    assert torch.equal(a(x), b(x))
    layer.qconfig = get_default_qat_qconfig("x86")
    with pytest.raises(ValueError, match="Linear: qconfig.activation must be dynamic"):
        qat.dynamic.Linear.from_float(layer)


def test_refusals():
    with pytest.raises(
        ValueError, match="Conv2d: argument 'qconfig' must have a weight fake-quantize module, got None"
    ):
        qat.Conv2d(3, 4, 3)
    layer = nn.Linear(4, 6)
    with pytest.raises(ValueError, match="Linear.from_float: argument 'mod' must have a qconfig"):
        qat.Linear.from_float(layer)
    with pytest.raises(ValueError, match="ConvBn2d.from_float: argument 'mod' must be ConvBn2d, got Linear"):
        intrinsic.qat.ConvBn2d.from_float(layer)
    a, _, x, _ = both("ConvBn2d", default_qconfig._replace(weight=default_qat_qconfig.weight))
    with pytest.raises(ValueError, match="ConvBn2d: argument 'x' must have 4 dimensions"):
        a(x[0])
