"""Static quantization in eager mode: prepare, convert, quantize."""

import copy
import warnings

import pytest
import torch
from eager_models import RESNET_GROUPS, calibrated, images, resnet, small, sqnr
from torch import nn
from torch_ao_peer import peer

import torch_ao_ext
from torch_ao_ext import load_quantized, save_quantized
from torch_ao_ext import quantization as tq
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.quantization import (
    DeQuantStub,
    QuantWrapper,
    convert,
    fuse_modules,
    get_default_qconfig,
    prepare,
    quantize,
)


@pytest.fixture(autouse=True)
def _quiet(_warnings_are_errors):
    """torch.ao warns of its end, and its tensors of their dtypes."""
    warnings.filterwarnings("ignore", message=r"torch\.quantize_per_tensor")
    warnings.filterwarnings("ignore", message=r"torch\.ao\.quantization is deprecated")
    warnings.filterwarnings("ignore", message="Please use quant_min and quant_max")


@pytest.fixture(scope="module")
def float_model():
    return resnet(tq, nnq.FloatFunctional)


@pytest.fixture(scope="module")
def int8_model(float_model):
    return convert(calibrated(tq, float_model, RESNET_GROUPS, get_default_qconfig("x86")))


@pytest.mark.parametrize("backend", ["x86", "onednn", "fbgemm", "qnnpack"])
def test_residual_network_against_torch_ao(float_model, backend):
    from torch.ao.nn.quantized import FloatFunctional

    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = backend
    try:
        theirs = resnet(peer(), FloatFunctional, float_model)
        mine = calibrated(tq, float_model, RESNET_GROUPS, get_default_qconfig(backend))
        other = calibrated(peer(), theirs, RESNET_GROUPS, peer().get_default_qconfig(backend))
        names = {n: m for n, m in mine.named_modules() if n.endswith("activation_post_process")}
        peers = {n: m for n, m in other.named_modules() if n.endswith("activation_post_process")}
        assert list(names) == list(peers)
        for name, observer in names.items():
            for a, b in zip(observer.calculate_qparams(), peers[name].calculate_qparams(), strict=True):
                assert torch.allclose(a.double(), b.double(), rtol=1e-5, atol=0)
        int8, int8_peer = convert(mine), peer().convert(other)
        x = images(1, seed=9)[0]
        want, y, z = float_model(x), int8(x), int8_peer(x)
    finally:
        torch.backends.quantized.engine = before
    kinds = {n: type(m).__name__ for n, m in int8.named_modules()}
    peer_kinds = {n: type(m).__name__ for n, m in int8_peer.named_modules() if "_packed_params" not in n}
    assert kinds == {n: k for n, k in peer_kinds.items() if not n.endswith("activation_post_process")}
    # One step at each layer adds up; the error of both is the same.
    assert (y - z).abs().max() <= 3.01 * int8.fc.scale
    assert sqnr(want, y) > 25 and sqnr(want, y) > sqnr(want, z) - 1


def test_report_and_input_model(float_model, int8_model):
    report = torch_ao_ext.report(int8_model)
    assert dict(report.int8) == {"ConvReLU2d": 3, "Conv2d": 3, "Linear": 1} and not report.float
    assert isinstance(float_model.conv, nn.Conv2d) and not hasattr(float_model, "qconfig")
    assert not any(
        hasattr(m, "qconfig") or hasattr(m, "activation_post_process") for m in int8_model.modules()
    )


def test_every_runtime_gives_the_same_numbers(int8_model, tmp_path):
    x = images(1, seed=9)[0]
    want = int8_model(x)
    assert torch.equal(torch.jit.trace(int8_model, x)(x), want)
    assert torch.equal(torch.export.export(int8_model, (x,)).module()(x), want)
    assert torch.equal(copy.deepcopy(int8_model)(x), want)
    path = tmp_path / "whole.pt"
    torch.save(int8_model, path)
    assert torch.equal(torch.load(path, weights_only=False)(x), want)
    state = tmp_path / "model.safetensors"
    save_quantized(int8_model, state)

    def model_fn():
        return fuse_modules(resnet(tq, nnq.FloatFunctional), RESNET_GROUPS)

    assert torch.equal(load_quantized(state, model_fn, meta=False)(x), want)


def test_state_dict_round_trip(float_model, int8_model):
    other = convert(calibrated(tq, float_model, RESNET_GROUPS, get_default_qconfig("onednn")))
    x = images(1, seed=9)[0]
    assert not torch.equal(other(x), int8_model(x))
    other.load_state_dict(int8_model.state_dict())
    assert torch.equal(other(x), int8_model(x))


def test_a_model_made_with_torch_ao_classes(float_model):
    from torch.ao.nn.quantized import FloatFunctional

    theirs = resnet(peer(), FloatFunctional, float_model)
    fused = peer().fuse_modules(theirs, RESNET_GROUPS)  # their containers, too
    fused.qconfig = get_default_qconfig("x86")
    observed = prepare(fused)
    mine = calibrated(tq, float_model, RESNET_GROUPS, get_default_qconfig("x86"))
    for batch in images():
        observed(batch)
    x = images(1, seed=9)[0]
    a, b = convert(observed), convert(mine)
    assert not any(type(m).__module__.startswith("torch.ao.") for m in a.modules())
    assert (a(x) - b(x)).abs().max() <= b.fc.scale * 1.01


def test_against_pt2e():
    from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 16, 10),
    ).eval()  # fmt: skip
    batches = [torch.randn(16, 1, 8, 8) for _ in range(4)]
    eager = QuantWrapper(fuse_modules(net, [["0", "1"], ["2", "3"]])).eval()
    eager.qconfig = get_default_qconfig("onednn")  # 8 bits, as the quantizer
    eager = prepare(eager)
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    graph = prepare_pt2e(torch.export.export(net, (batches[0],)).module(), quantizer)
    for batch in batches:
        eager(batch)
        graph(batch)
    eager, graph = convert(eager), torch_ao_ext.lower(convert_pt2e(graph))
    y, z = eager(batches[0]), graph(batches[0])
    assert sum(torch_ao_ext.report(eager).int8.values()) == 3
    assert sum(r.macs > 0 for r in torch_ao_ext.report(graph).rows if r.status == "int8") == 3
    # The graph's last layer gives floats, the eager one rounds them once more.
    assert (y - z).abs().max() <= 1.01 * eager.module[5].scale


def test_quantize_in_one_call():
    model = small(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)).train()
    x = torch.randn(64, 6)
    seen = []

    def run(observed, data):
        seen.append(observed.training)
        observed(data)

    int8 = quantize(model, run, [x])
    assert seen == [False] and model.training and not hasattr(model.module[0], "activation_post_process")
    assert (int8(x) - model(x)).abs().max() < 0.1
    same = quantize(model, run, [x], inplace=True)
    assert same is model and type(model.module[0]) is nnq.Linear


def test_nested_qconfigs():
    model = small(
        nn.Linear(6, 6), nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 6), DeQuantStub(), nn.Linear(6, 6))
    )
    model.module[2][2].qconfig = None
    model.module[2][0].qconfig = get_default_qconfig("onednn")
    observed = prepare(model)
    observed(torch.randn(8, 6))
    int8 = convert(observed)
    kinds = [type(m) for m in (*int8.module[:2], *int8.module[2])]
    assert kinds == [nnq.Linear, nnq.Linear, nnq.Linear, nnq.DeQuantize, nn.Linear]
    assert int8.module[0].weight_scale.numel() == 1 and int8.module[2][0].weight_scale.numel() == 6
    assert int8(torch.randn(2, 6)).dtype == torch.float32


def test_hooks_of_the_user():
    log = []
    model = small(nn.Linear(6, 6))
    layer = model.module[0]
    before = layer.register_forward_pre_hook(lambda m, args: log.append(type(args[0]).__name__))
    after = layer.register_forward_hook(lambda m, args, out: log.append(type(out).__name__))
    int8 = quantize(model, lambda m, x: m(x), [torch.randn(4, 6)], inplace=True)
    assert log == ["Tensor", "Tensor"]
    int8(torch.randn(2, 6))
    assert log[2:] == ["QuantizedTensor", "QuantizedTensor"]
    before.remove()
    after.remove()
    int8(torch.randn(2, 6))
    assert len(log) == 4
    assert not int8.module[0]._forward_hooks


def test_compiled_whole(int8_model):
    x = images(1, seed=9)[0]
    torch._dynamo.reset()
    assert torch.equal(torch.compile(int8_model, fullgraph=True, backend="aot_eager")(x), int8_model(x))
