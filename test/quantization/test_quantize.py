"""quantize_dynamic: what is converted, and by which rule."""

import copy
import gc
import warnings
import weakref

import pytest
import torch
from float_models import ALL, Block, Net, kinds
from torch import nn

import torch_ao_ext
from torch_ao_ext.nn.quantized.dynamic import DynamicQuant, Linear
from torch_ao_ext.quantization import (
    QConfig,
    default_dynamic_qconfig,
    mse_row_dynamic_qconfig,
    per_channel_dynamic_qconfig,
    quantize_dynamic,
    row_dynamic_qconfig,
)


def test_default_converts_a_copy():
    model = Net()
    before = copy.deepcopy(model.state_dict())
    q = quantize_dynamic(model)
    assert set(kinds(q)) == ALL and all(kinds(q).values())
    assert not any(kinds(model).values())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training and not q.training
    assert not any(hasattr(m, "qconfig") for m in (*q.modules(), *model.modules()))
    x = torch.randn(5, 12)
    assert (q(x) - model(x)).abs().max() < 0.05


def test_copy_shares_nothing_with_the_original():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Embedding(5, 4))
    q = quantize_dynamic(model)
    x = torch.randn(2, 4)
    expected = q[0](x)
    theirs = {t.data_ptr() for t in model.state_dict().values()}
    assert not theirs & {t.data_ptr() for t in q.state_dict().values()}
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert torch.equal(q[0](x), expected) and q[1].weight.abs().sum() > 0


def test_inplace_converts_the_model_and_frees_the_floats():
    model = Net()
    weights = [weakref.ref(m.weight) for m in model.modules() if isinstance(m, nn.Linear)]
    q = quantize_dynamic(model, inplace=True)
    gc.collect()
    assert q is model and all(kinds(model).values())
    assert [w for w in weights if w() is not None] == []


def test_root_that_is_a_layer():
    layer = nn.Linear(4, 2)
    q = quantize_dynamic(layer)
    assert isinstance(q, Linear) and isinstance(layer, nn.Linear)
    assert isinstance(quantize_dynamic(layer, inplace=True), Linear)


SPECS = {
    "type": ({nn.Linear}, ALL),
    "name": ({"head"}, {"head"}),
    "subtree": ({"encoder.1"}, {"encoder.1.fc1", "encoder.1.fc2"}),
    "container type": ({Block}, ALL - {"head"}),
    "dict": ({"encoder": default_dynamic_qconfig}, ALL - {"head"}),
    "name None beats type": ({nn.Linear: default_dynamic_qconfig, "head": None}, ALL - {"head"}),
    "type beats inherited None": ({nn.Linear: default_dynamic_qconfig, "encoder": None}, ALL),
    "name inside None subtree": (
        {"encoder": None, "": default_dynamic_qconfig, "encoder.0.fc1": default_dynamic_qconfig},
        {"encoder.0.fc1", "head"},
    ),
}


@pytest.mark.parametrize("case", list(SPECS))
def test_spec_selects_as_torch_ao_does(case):
    spec, expected = SPECS[case]
    q = quantize_dynamic(Net(), spec)
    assert {name for name, int8 in kinds(q).items() if int8} == expected
    with warnings.catch_warnings():  # the peer, as it is in torch
        warnings.simplefilter("ignore")
        import torch.ao.quantization as peer

        theirs = copy.deepcopy(spec)
        if isinstance(theirs, dict):
            theirs = {k: v and peer.default_dynamic_qconfig for k, v in theirs.items()}
        t = peer.quantize_dynamic(Net(), theirs)
        peer_linear = torch.ao.nn.quantized.dynamic.Linear
        assert {n for n, m in t.named_modules() if isinstance(m, peer_linear)} == expected


def test_qconfig_chooses_the_numerics():
    default = quantize_dynamic(Net(), {nn.Linear})
    assert default.head.dynamic_quant == DynamicQuant(True, False, False)
    assert default.head.weight_scale.shape == (3,)
    spec = {"head": default_dynamic_qconfig, "encoder.0": per_channel_dynamic_qconfig,
            "encoder.1": mse_row_dynamic_qconfig}  # fmt: skip
    q = quantize_dynamic(Net(), spec)
    assert q.head.dynamic_quant == DynamicQuant(False, False, True)
    assert q.head.weight_scale.shape == (1,)
    assert q.encoder[0].fc1.dynamic_quant == DynamicQuant(False, False, True)
    assert q.encoder[0].fc1.weight_scale.shape == (8,)
    assert q.encoder[1].fc1.dynamic_quant == DynamicQuant()


def test_qconfig_attribute_of_a_module_wins():
    model = Net()
    model.head.qconfig = None
    model.encoder.qconfig = default_dynamic_qconfig
    q = quantize_dynamic(model, {"head": row_dynamic_qconfig, nn.Linear: row_dynamic_qconfig})
    assert not kinds(q)["head"] and kinds(q)["encoder.0.fc1"]


def test_int8_and_qint8_are_the_same():
    assert all(kinds(quantize_dynamic(Net(), {nn.Linear}, dtype=torch.int8)).values())
    assert all(kinds(quantize_dynamic(Net(), {nn.Linear}, dtype=torch.qint8)).values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.quint8, torch.quint4x2])
def test_unsupported_dtype(dtype):
    with pytest.raises(ValueError, match="argument 'dtype' must be torch.qint8 or torch.int8, got"):
        quantize_dynamic(Net(), dtype=dtype)
    assert all(kinds(quantize_dynamic(Net(), {nn.Linear: row_dynamic_qconfig}, dtype=dtype)).values())


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"qconfig_spec": [nn.Linear]}, "argument 'qconfig_spec' must be a dict, a set or None, got list"),
        ({"qconfig_spec": {nn.Linear: 3}}, "must map .* to a QConfig or None, got 3"),
        ({"qconfig_spec": {3: None}}, "must have types and names as keys, got 3"),
        ({"mapping": {nn.Linear: nn.Identity}}, "'mapping' must have values with from_float, got .*Identity"),
        ({"model": torch.ones(1)}, "argument 'model' must be a Python nn.Module, got Tensor"),
        ({"qconfig_spec": {nn.Linear: QConfig(nn.Identity, None)._replace(
            weight=torch_ao_ext.quantization.PlaceholderObserver.with_args(dtype=torch.float16))}},
         r"'encoder.0.fc1': qconfig.weight must observe for int8 .*, got torch.float16"),
    ],
)  # fmt: skip
def test_bad_arguments(arguments, text):
    with pytest.raises(ValueError, match=text):
        quantize_dynamic(**{"model": Net(), **arguments})


def test_bad_qconfig_changes_nothing_in_place():
    axis1 = torch_ao_ext.quantization.default_per_channel_weight_observer.with_args(ch_axis=1)
    bad = QConfig(torch_ao_ext.quantization.default_dynamic_quant_observer, axis1)
    model = Net()
    with pytest.raises(ValueError, match="'head': qconfig.weight must have ch_axis 0 .*, got 1"):
        quantize_dynamic(model, {nn.Linear: row_dynamic_qconfig, "head": bad}, inplace=True)
    assert not any(kinds(model).values())


def test_scripted_model_is_refused():
    with pytest.raises(ValueError, match="must be a Python nn.Module"):
        quantize_dynamic(torch.jit.script(nn.Linear(2, 2)))
