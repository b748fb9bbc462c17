"""Quantization-aware training in eager mode."""

import copy
import warnings

import pytest
import torch
from digits import accuracy, digits, fit
from eager_models import RESNET_GROUPS, images, resnet
from torch import nn
from torch_ao_peer import peer

import torch_ao_ext
from torch_ao_ext import quantization as tq
from torch_ao_ext.nn import intrinsic, qat
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.quantization import (
    QuantWrapper,
    convert,
    fuse_modules_qat,
    get_default_qat_qconfig,
    prepare_qat,
    quantize_qat,
)


@pytest.fixture(autouse=True)
def _quiet(_warnings_are_errors):
    """torch.ao warns of its end, its arguments, and of the dtypes of its tensors."""
    warnings.filterwarnings("ignore", message=r"torch\.quantize_per_tensor")
    warnings.filterwarnings("ignore", message=r"torch\.ao\.quantization is deprecated")
    warnings.filterwarnings("ignore", message="Please use quant_min and quant_max")


def prepared(q, functional, backend="onednn", source=None):
    model = q.fuse_modules_qat(resnet(q, functional, source).train(), RESNET_GROUPS)
    model.qconfig = q.get_default_qat_qconfig(backend)
    return q.prepare_qat(model)


def train(model, steps=3):
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    losses = []
    for batch in images(steps):
        loss = model(batch).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("backend", ["x86", "onednn", "qnnpack"])
def test_training_is_that_of_torch_ao(backend):
    from torch.ao.nn.quantized import FloatFunctional

    source = resnet(tq, nnq.FloatFunctional)
    a, b = (
        prepared(tq, nnq.FloatFunctional, backend, source),
        prepared(peer(), FloatFunctional, backend, source),
    )
    assert set(a.state_dict()) == set(b.state_dict())
    # Ties of fake quantization fall by the last bit of float sums, and training goes on from there.
    assert train(a) == pytest.approx(train(b), rel=2e-3)
    theirs = b.state_dict()
    for key, value in a.state_dict().items():
        assert torch.allclose(value.double(), theirs[key].double(), rtol=0.02, atol=0.02), key
    b.load_state_dict(a.state_dict())  # their files are ours


def test_conversion_gives_what_training_saw():
    model = prepared(tq, nnq.FloatFunctional)
    train(model)
    model.eval()
    model.apply(tq.disable_observer)
    x = images(1, seed=9)[0]
    with torch.no_grad():
        seen = model(x)
    int8 = convert(model)
    assert dict(torch_ao_ext.report(int8).int8) == {"ConvReLU2d": 3, "Conv2d": 3, "Linear": 1}
    # Training does not round the average pooling, which keeps the qparams of its input.
    assert (int8(x) - seen).abs().max() <= 4.01 * int8.fc.scale
    assert isinstance(model.conv, intrinsic.qat.ConvBnReLU2d)


def test_weights_are_those_that_were_trained():
    """torch.ao converts with another rule for the scale than the one it trains with."""
    layer = nn.Linear(16, 8)
    layer.qconfig = get_default_qat_qconfig("onednn")
    tuned = qat.Linear.from_float(layer)
    tuned.activation_post_process = layer.qconfig.activation()
    tuned.activation_post_process(tuned(torch.randn(4, 16)))
    int8 = nnq.Linear.from_float(tuned)
    assert torch.equal(int8.weight().dequantize(), tuned.weight_fake_quant(tuned.weight))
    fake = tuned.weight_fake_quant
    tq.disable_fake_quant(fake)
    fake.activation_post_process.averaging_constant = 1
    fake(tuned.weight * 3)
    tq.enable_fake_quant(fake)  # no forward has rounded with the new range
    assert torch.allclose(fake.calculate_qparams()[0], 3 * int8.weight_scale, rtol=0.01)


def test_observers_and_places():
    model = prepared(tq, nnq.FloatFunctional)
    assert type(model.conv) is intrinsic.qat.ConvBnReLU2d and type(model.fc) is qat.Linear
    assert not hasattr(model.conv.bn, "activation_post_process")
    for module in (model.conv, model.quant, model.l1.add, model.fc):
        assert isinstance(module.activation_post_process, tq.FakeQuantizeBase)
    assert not hasattr(model.dequant, "activation_post_process")


def digits_model():
    torch.manual_seed(0)
    return QuantWrapper(nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(512, 10),
    ))  # fmt: skip


DIGIT_GROUPS = [["module.0", "module.1", "module.2"], ["module.3", "module.4", "module.5"]]


@pytest.fixture(scope="module")
def trained():
    train_data, test_data = digits()
    model = digits_model().train()
    fit(model, train_data, 8, 3e-3)
    return model.eval(), train_data, test_data


def test_digits_after_training(trained):
    model, train_data, test_data = trained
    wanted = accuracy(model, test_data)
    assert wanted > 0.94
    fused = fuse_modules_qat(copy.deepcopy(model).train(), DIGIT_GROUPS)
    fused.qconfig = get_default_qat_qconfig("onednn")
    tuned = prepare_qat(fused, inplace=True)
    fit(tuned, train_data, 2, 3e-4)
    tuned.eval()
    tuned.apply(tq.disable_observer)
    int8 = convert(tuned)
    assert accuracy(int8, test_data) >= wanted - 0.005
    with torch.no_grad():
        seen, y = tuned(test_data[0]), int8(test_data[0])
    assert (seen - y).abs().max() <= 1.01 * int8.module[8].scale
    assert sum(torch_ao_ext.report(int8).int8.values()) == 3


def test_digits_after_calibration(trained):
    model, train_data, test_data = trained
    fused = tq.fuse_modules(model, DIGIT_GROUPS)
    fused.qconfig = tq.get_default_qconfig("onednn")
    int8 = tq.quantize(fused, lambda m, x: m(x), [train_data[0][:256]])
    assert accuracy(int8, test_data) >= accuracy(model, test_data) - 0.005


def test_quantize_qat_in_one_call():
    model = QuantWrapper(nn.Linear(4, 4)).eval()
    model.qconfig = get_default_qat_qconfig("onednn")
    int8 = quantize_qat(model, lambda m, x: m(x).sum().backward(), [torch.randn(8, 4)])
    assert type(int8.module) is nnq.Linear and not model.training and type(model.module) is nn.Linear
    assert quantize_qat(model, lambda m, x: m(x), [torch.randn(8, 4)], inplace=True) is model


def test_optimizer_made_before_in_place_preparation():
    model = QuantWrapper(nn.Linear(4, 4)).train()
    model.qconfig = get_default_qat_qconfig("onednn")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    before = model.module.weight.detach().clone()
    prepare_qat(model, inplace=True)(torch.randn(8, 4)).sum().backward()
    optimizer.step()
    assert not torch.equal(model.module.weight, before)


def test_fixed_ranges_train_with_fake_quantization():
    model = QuantWrapper(nn.Sequential(nn.Linear(4, 4), nn.Sigmoid())).train()
    model.qconfig = get_default_qat_qconfig("onednn")
    model = prepare_qat(model)
    assert isinstance(model.module[1].activation_post_process, tq.FixedQParamsFakeQuantize)
    model(torch.randn(8, 4))
    assert convert(model.eval()).module[1].qparams == (1 / 256, 0, torch.uint8)


def test_embedding_rows_are_trained_and_converted():
    model = nn.Sequential(nn.Embedding(10, 8)).train()
    model[0].qconfig = tq.default_embedding_qat_qconfig
    tuned = prepare_qat(model, tq.get_embedding_qat_module_mappings())
    assert type(tuned[0]) is qat.Embedding
    index = torch.tensor([3, 4])
    tuned(index).sum().backward()
    int8 = convert(tuned.eval())
    assert type(int8[0]) is nnq.Embedding
    assert (int8(index) - model(index)).abs().max() < 0.05


def test_refusals():
    model = QuantWrapper(nn.Linear(4, 4)).eval()
    model.qconfig = get_default_qat_qconfig("onednn")
    with pytest.raises(ValueError, match="prepare_qat: argument 'model' must be in training mode"):
        prepare_qat(model)
    model.train()
    model.qconfig = model.qconfig._replace(weight=None)
    with pytest.raises(
        ValueError, match="prepare_qat: 'module': Linear: argument 'qconfig' must have a weight"
    ):
        prepare_qat(model)


def test_table_has_that_of_torch_ao():
    names = {k.__name__: v.__name__ for k, v in tq.get_default_qat_module_mappings().items()}
    for kind, module in peer().get_default_qat_module_mappings().items():
        assert names.pop(kind.__name__) == module.__name__
    assert names == {"Conv1d": "Conv1d", "ConvReLU1d": "ConvReLU1d"}  # torch.ao forgets them
