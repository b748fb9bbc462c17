"""prepare(auto_edges=True): models without stubs."""

import copy
import threading
import warnings

import pytest
import torch
from torch import nn

import torch_ao_ext
from torch_ao_ext import quantization as tq
from torch_ao_ext.nn import intrinsic
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.quantization import convert, fuse_modules, get_default_qconfig, prepare, quantize


class Mixed(nn.Module):
    """Residual sums by +, attention, a norm, an LSTM, results in a dict; no stubs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.c1, self.b1 = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.c2 = nn.Conv2d(16, 16, 3, padding=1)
        self.att = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm, self.lstm = nn.LayerNorm(16), nn.LSTM(16, 16, batch_first=True)
        self.add, self.fc = nnq.FloatFunctional(), nn.Linear(16, 10)

    def forward(self, x):
        x = torch.relu(self.b1(self.c1(x)))
        x = torch.relu(x + self.c2(x))
        x = x.mean((2,)).transpose(1, 2)
        y = self.norm(x)
        x = self.add.add(x, self.att(y, y, y)[0])
        x, _ = self.lstm(x)
        return {"logits": self.fc(x[:, -1]), "features": [x]}


def sqnr(want, have):
    return float(10 * torch.log10(want.pow(2).sum() / (want - have).pow(2).sum()))


@pytest.fixture(scope="module")
def pair():
    model = Mixed().eval().requires_grad_(False)
    fused = fuse_modules(model, ["c1", "b1"])
    fused.qconfig = get_default_qconfig("onednn")
    observed = prepare(fused, auto_edges=True)
    for _ in range(4):
        observed(torch.randn(8, 3, 16, 16))
    return model, observed, convert(observed)


def test_a_model_without_stubs(pair):
    model, observed, int8 = pair
    x = torch.randn(2, 3, 16, 16)
    want, have = model(x), int8(x)
    assert torch.allclose(observed(x)["logits"], want["logits"], atol=1e-5)
    assert type(have["logits"]) is torch.Tensor and type(have["features"][0]) is torch.Tensor
    assert sqnr(want["logits"], have["logits"]) > 30
    rows = {r.fqn: r.status for r in torch_ao_ext.report(int8).rows}
    attention = {f"att.{name}" for name in ("linear_Q", "linear_K", "linear_V", "out_proj")}
    int8_rows = {n for n, status in rows.items() if status == "int8"}
    assert int8_rows == {"c1", "c2", "fc", "norm", "lstm.lstm", *attention}
    assert type(int8.add) is nnq.QFunctional and type(int8.norm) is nnq.LayerNorm
    assert not any("post_process" in name for name, _ in int8.named_modules())


def test_same_numbers_traced_exported_copied(pair):
    _, _, int8 = pair
    x = torch.randn(2, 3, 16, 16)
    want = int8(x)["logits"]
    with warnings.catch_warnings():  # of nn.MultiheadAttention in a trace, of nn.LSTM in an export
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", message="The tensor attributes self.lstm")
        traced = torch.jit.trace(lambda v: int8(v)["logits"], x)
        exported = torch.export.export(int8, (x,)).module()
    assert torch.equal(traced(x), want) and torch.equal(exported(x)["logits"], want)
    assert torch.equal(copy.deepcopy(int8)(x)["logits"], want)


def test_the_fallback_ends_with_the_model(pair):
    _, _, int8 = pair
    q = nnq.Quantize(0.1, 0)(torch.ones(2))
    int8(torch.randn(1, 3, 16, 16))
    with pytest.raises(TypeError, match="FloatFunctional"):
        q + q
    with pytest.raises(ValueError, match="conv2d"):
        int8(torch.randn(1, 5, 16, 16))  # wrong channels: the model stops half way
    with pytest.raises(TypeError, match="FloatFunctional"):
        q + q


def test_threads_do_not_share_the_fallback(pair):
    _, _, int8 = pair
    q = nnq.Quantize(0.1, 0)(torch.ones(2))
    errors = []
    started, done = threading.Event(), threading.Event()

    def hold(module, args):
        started.set()
        done.wait(10)

    handle = int8.fc.register_forward_pre_hook(hold)
    worker = threading.Thread(target=int8, args=(torch.randn(1, 3, 16, 16),))
    worker.start()
    started.wait(10)
    try:
        q + q
    except TypeError as error:
        errors.append(error)
    done.set()
    worker.join()
    handle.remove()
    assert len(errors) == 1


def test_quantize_in_one_call_of_a_single_layer():
    layer = nn.Linear(6, 4).eval()
    layer.qconfig = get_default_qconfig("onednn")
    x = torch.randn(64, 6)
    int8 = quantize(layer, lambda m, data: m(data), [x], auto_edges=True)
    assert type(int8) is nnq.Linear and type(int8(x)) is torch.Tensor
    assert (int8(x) - layer(x)).abs().max() < 0.05
    y = int8(nnq.Quantize(0.03, 128)(x))  # int8 input is taken as it is
    assert (y - layer(x)).abs().max() < 0.1


@pytest.mark.parametrize("product", [True, False])
def test_a_container_is_observed_by_what_comes_to_it(product):
    """Not by what leaves it, which is 20 times as large here."""
    torch.manual_seed(0)
    first = nn.Linear(6, 6) if product else nn.BatchNorm2d(6)
    container = (intrinsic.LinearReLU if product else intrinsic.BNReLU2d)(first, nn.ReLU())
    first.weight.data.mul_(20)
    x = torch.randn(64, 6) if product else torch.randn(8, 6, 3, 3)
    model = nn.Sequential(container).eval()
    model.qconfig = get_default_qconfig("onednn")
    observed = prepare(model, auto_edges=True)
    want = observed(x)
    int8 = convert(observed)
    assert int8[0].edge[0] == pytest.approx(float(x.max() - x.min()) / 255, rel=0.05)
    assert (int8(x) - want).abs().max() < 0.02 * want.max()


def test_stubs_and_edges_go_together():
    model = tq.QuantWrapper(nn.Sequential(nn.Linear(6, 6), nn.Softshrink(), nn.Linear(6, 6))).eval()
    model.qconfig = get_default_qconfig("onednn")
    x = torch.randn(64, 6)
    int8 = quantize(model, lambda m, data: m(data), [x], auto_edges=True)
    assert (int8(x) - model(x)).abs().max() < 0.1 and type(int8.quant) is nnq.Quantize


def test_hooks_of_the_user_see_the_model_as_before(pair):
    _, observed, _ = pair
    log = []
    observed.fc.register_forward_pre_hook(lambda m, args: log.append(type(args[0]).__name__))
    int8 = convert(observed)
    int8(torch.randn(1, 3, 16, 16))
    assert log == ["QuantizedTensor"] and len(int8.fc._forward_pre_hooks) == 1


def test_compiled_whole():
    net = nn.Sequential(nn.Linear(8, 8), nn.Tanhshrink(), nn.Linear(8, 4)).eval().requires_grad_(False)
    net.qconfig = get_default_qconfig("onednn")
    int8 = quantize(net, lambda m, v: m(v), [torch.randn(32, 8)], auto_edges=True)
    x = torch.randn(4, 8)
    torch._dynamo.reset()
    assert torch.equal(torch.compile(int8, fullgraph=True, backend="aot_eager")(x), int8(x))
