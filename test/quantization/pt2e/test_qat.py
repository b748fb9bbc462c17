"""prepare_qat_pt2e: training of exported graphs."""

import copy

import pytest
import torch
from qat_models import NETS, exported, make, quantizer, steps, switch
from torch import nn

import torch_ao_ext
from torch_ao_ext.quantization.pt2e._qat import ProductBatchNorm
from torch_ao_ext.quantization.pt2e.export_utils import (
    move_exported_model_to_eval,
    move_exported_model_to_train,
)
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e, prepare_qat_pt2e


@pytest.mark.parametrize("kind", ["channel", "tensor"])
@pytest.mark.parametrize("name", NETS)
def test_without_rounding_it_trains_like_the_float_model(name, kind):
    model, x = make(name)
    reference = copy.deepcopy(model)
    graph = prepare_qat_pt2e(exported(model, x), quantizer(kind))
    assert sum(isinstance(m, ProductBatchNorm) for m in graph.modules()) == 1
    switch(graph, "disable_fake_quant")
    assert steps(graph, x) == pytest.approx(steps(reference, x), rel=1e-4)
    for key, value in reference.state_dict().items():
        assert torch.allclose(model.state_dict()[key].double(), value.double(), atol=1e-4), key
    move_exported_model_to_eval(graph)
    reference.eval()
    assert torch.allclose(graph(x), reference(x), atol=1e-4)


@pytest.mark.parametrize("kind", ["x86", "channel", "tensor"])
@pytest.mark.parametrize("name", NETS)
def test_conversion_gives_what_training_saw(name, kind):
    model, x = make(name)
    if kind == "x86" and name in ("conv3d", "transposed"):
        pytest.skip("X86InductorQuantizer has no such operator")
    graph = prepare_qat_pt2e(exported(model, x), quantizer(kind))
    steps(graph, x)
    move_exported_model_to_eval(graph)
    switch(graph, "disable_observer")
    with torch.no_grad():
        seen = graph(x)
        converted = convert_pt2e(graph)
        lowered = torch_ao_ext.lower(converted)
        assert torch.allclose(converted(x), seen, atol=2e-5)
        assert (lowered(x) - seen).abs().max() <= 0.05 * seen.abs().max()
    rows = torch_ao_ext.report(lowered).rows
    assert [r.status for r in rows if r.macs] == ["int8"]
    assert "batch_norm" not in str(converted.graph) and "num_batches_tracked" not in str(converted.graph)


def test_conversion_goes_to_evaluation_by_itself():
    model = nn.Sequential(
        nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 2), nn.BatchNorm1d(2, affine=False)
    ).train()
    x = torch.randn(9, 4)
    graph = prepare_qat_pt2e(exported(model, x), quantizer("channel"))
    steps(graph, x)
    converted = convert_pt2e(graph)
    assert torch.equal(converted(x), converted(x)) and "dropout" not in str(converted.graph)


def test_switching_keeps_eps_momentum_and_dropout():
    model = nn.Sequential(
        nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, 1e-2, 0.4), nn.Dropout(0.25), nn.BatchNorm2d(6)
    ).train()
    x = torch.randn(3, 4, 6, 6)
    graph = prepare_qat_pt2e(exported(model, x), quantizer("channel"))
    fused = next(m for m in graph.modules() if isinstance(m, ProductBatchNorm))
    graph(x)
    switch(graph, "disable_observer")  # moving averages go on in evaluation
    for _ in range(2):
        move_exported_model_to_eval(graph)
        assert not fused.training and torch.equal(graph(x), graph(x))
        before = fused.running_mean.clone()
        graph(x)
        assert torch.equal(fused.running_mean, before)
        move_exported_model_to_train(graph)
        graph(x)
        assert fused.training and not torch.equal(fused.running_mean, before)
    assert (fused.eps, fused.momentum) == (1e-2, 0.4) and "0.25, True" in str(graph.graph)
    with pytest.raises(NotImplementedError, match="move_exported_model_to_eval"):
        graph.eval()


def test_parameters_are_those_of_the_model():
    model, x = make("conv2d")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    graph = prepare_qat_pt2e(exported(model, x), quantizer("x86"))
    before = model[0].weight.detach().clone()
    graph(x).sum().backward()
    optimizer.step()
    assert not torch.equal(model[0].weight, before)
    assert {id(p) for p in graph.parameters()} == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("kind", ["x86", "channel"])
def test_a_batch_norm_behind_a_relu_is_converted_as_it_was_trained(kind):
    """The lowered product computes it, in float32 behind the relu, as the training graph does."""
    model = nn.Sequential(
        nn.Conv2d(4, 6, 3), nn.ReLU(), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(96, 5), nn.ReLU(),
        nn.BatchNorm1d(5), nn.Linear(5, 3),
    ).train()  # fmt: skip
    nn.init.normal_(model[2].weight)
    x = torch.randn(9, 4, 6, 6)
    graph = prepare_qat_pt2e(exported(model, x), quantizer(kind))
    steps(graph, x)
    switch(graph, "disable_observer")
    move_exported_model_to_eval(graph)
    converted = convert_pt2e(graph)
    lowered = torch_ao_ext.lower(converted, islands=False)
    assert "torch_ao.batch_norm" not in str(lowered.graph) and "aten.batch_norm" not in str(lowered.graph)
    with torch.no_grad():
        want = graph(x)
        for result in (converted(x), lowered(x)):
            torch.testing.assert_close(result, want, rtol=0, atol=0.01 * want.abs().max().item())


def test_layers_that_stay_float_keep_their_batch_norm():
    model = nn.Sequential(
        nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1), nn.BatchNorm2d(2)
    ).train()
    x = torch.randn(3, 4, 6, 6)
    chosen = quantizer("channel")
    chosen.set_module_name("0", None)
    graph = prepare_qat_pt2e(exported(model, x), chosen)
    assert sum(isinstance(m, ProductBatchNorm) for m in graph.modules()) == 1
    reference = copy.deepcopy(model)
    switch(graph, "disable_fake_quant")
    assert torch.allclose(graph(x), reference(x), atol=1e-4)
    move_exported_model_to_eval(graph)
    steps(graph, x)
    assert "batch_norm" in str(convert_pt2e(graph).graph)


def test_a_product_that_others_read_stays_apart():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.conv(x)
            return self.bn(y) + y

    x = torch.randn(3, 4, 5, 5)
    graph = prepare_qat_pt2e(exported(Two().train(), x), quantizer("channel"))
    assert not any(isinstance(m, ProductBatchNorm) for m in graph.modules())
    graph(x).sum().backward()


def test_a_channel_that_is_switched_off():
    model, x = make("conv2d")
    with torch.no_grad():
        model[1].weight[2] = 0
    graph = prepare_qat_pt2e(exported(model, x), quantizer("channel"))
    y = graph(x)
    y.sum().backward()
    assert torch.isfinite(y).all() and all(torch.isfinite(p.grad).all() for p in graph.parameters())


def test_copies_train_on_their_own():
    model, x = make("conv2d")
    graph = prepare_qat_pt2e(exported(model, x), quantizer("channel"))
    graph(x)
    twin = copy.deepcopy(graph)
    assert steps(twin, x) == pytest.approx(steps(graph, x), rel=1e-5)


def test_refusals():
    model, x = make("conv2d")
    graph = exported(model, x)
    with pytest.raises(ValueError, match=r"must have a config for training \(is_qat=True\)"):
        prepare_qat_pt2e(graph, quantizer("x86", is_qat=False))
    with pytest.raises(TypeError, match="prepare_qat_pt2e: argument 'quantizer' must be a"):
        prepare_qat_pt2e(graph, 3)
    with pytest.raises(
        ValueError, match="prepare_pt2e: argument 'model' must be exported in evaluation mode"
    ):
        prepare_pt2e(graph, quantizer("x86", is_qat=False))
    prepared = prepare_qat_pt2e(graph, quantizer("x86"))
    with pytest.raises(ValueError, match="must not be prepared yet"):
        prepare_qat_pt2e(prepared, quantizer("x86"))
