"""TorchScript programs of torch.ao: scripts and traces, eager and FX graph mode."""

import warnings

import pytest
import torch
from eager_models import RESNET_GROUPS, images, resnet
from torch import nn
from torch_ao_peer import peer

import torch_ao_ext
from torch_ao_ext.quantization import legacy


@pytest.fixture(autouse=True)
def _quiet():
    """torch.ao and TorchScript are deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class engine:
    """torch.ao's engine, for a while."""

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        self.before = torch.backends.quantized.engine
        torch.backends.quantized.engine = self.name

    def __exit__(self, *args):
        torch.backends.quantized.engine = self.before


def eager(model, batches, backend):
    q = peer()
    model.qconfig = q.get_default_qconfig(backend)
    model = q.prepare(model)
    for batch in batches:
        model(batch)
    return q.convert(model)


def steps(want, have):
    """Largest difference in units of the smallest one that occurs in want."""
    values = want.flatten().unique().sort().values
    return float((want - have).abs().max() / (values[1:] - values[:-1]).min())


@pytest.mark.parametrize("backend", ["x86", "onednn", "qnnpack"])
@pytest.mark.parametrize("how", ["script", "trace", "fx"])
def test_residual_network(backend, how, tmp_path):
    from torch.ao.nn.quantized import FloatFunctional, FXFloatFunctional
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    with engine(backend):
        if how == "fx":
            model = resnet(peer(), FXFloatFunctional)
            model = prepare_fx(model, peer().get_default_qconfig_mapping(backend), (images(1)[0],))
            for batch in images():
                model(batch)
            model = convert_fx(model)
        else:
            model = peer().fuse_modules(resnet(peer(), FloatFunctional), RESNET_GROUPS)
            model = eager(model, images(), backend)
        program = torch.jit.trace(model, images(1)[0]) if how == "trace" else torch.jit.script(model)
        program.save(tmp_path / "theirs.pt")
        x = images(1, seed=9)[0]
        want = model(x)
    graph = legacy.load_archive(str(tmp_path / "theirs.pt"))
    have = graph(x)
    assert 10 * torch.log10(want.pow(2).sum() / (want - have).pow(2).sum()) > 35
    assert steps(want, have) <= 3  # seven layers, each within one
    ops = [r.op for r in torch_ao_ext.report(graph).rows if r.status == "int8"]
    assert ops.count("conv2d") == 6 and ops.count("linear") == 1 and ops.count("add") == 2
    again = torch.jit.script(graph)
    for size in (1, 3, 8):
        assert torch.equal(again(x[:size]), graph(x[:size])) and graph(x[:size]).shape == (size, 10)


class Parts(nn.Module):
    """Operators that the network above does not have."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        q = peer()
        functional = torch.ao.nn.quantized.FloatFunctional
        self.quant, self.dequant = q.QuantStub(), q.DeQuantStub()
        self.conv1, self.up = nn.Conv1d(3, 4, 3, padding=1, groups=1), nn.ConvTranspose1d(4, 4, 2, stride=2)
        self.swish, self.leaky, self.sigmoid = nn.Hardswish(), nn.LeakyReLU(0.2), nn.Sigmoid()
        self.cat, self.mul = functional(), functional()
        self.pool, self.relu, self.six, self.tanh = nn.AvgPool1d(2), nn.ReLU(), nn.ReLU6(), nn.Tanh()

    def forward(self, x):
        y = self.swish(self.conv1(self.quant(x)))
        y = self.cat.cat([self.leaky(y), self.sigmoid(y)], 1)
        y = self.mul.mul(self.six(y), self.tanh(self.relu(y)))
        return self.dequant(self.pool(y).permute(0, 2, 1).reshape(x.size(0), -1)) * 2 + 1


@pytest.mark.parametrize("how", ["script", "trace"])
def test_other_operators(how):
    torch.manual_seed(1)
    batches = [torch.randn(4, 3, 8) for _ in range(3)]
    with engine("qnnpack"):
        model = eager(Parts().eval(), batches, "qnnpack")
        program = torch.jit.script(model) if how == "script" else torch.jit.trace(model, batches[0])
        want = model(batches[0])
    graph = legacy.load_archive(program)
    assert steps(want, graph(batches[0])) <= 2.01
    ops = {r.op for r in torch_ao_ext.report(graph).rows if r.status == "int8"}
    assert {"conv1d", "requantize", "mul", "avg_pool1d"} <= ops


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_geometry_of_convolutions(rank):
    torch.manual_seed(2)
    q = peer()
    conv = getattr(nn, f"Conv{rank}d")(4, 6, 3, stride=2, padding=1, dilation=1, groups=2, bias=False)
    model = q.QuantWrapper(conv).eval()
    x = torch.randn(2, 4, *[7] * rank)
    with engine("x86"):
        model = eager(model, [x], "x86")
        program, want = torch.jit.script(model), model(x)
    assert steps(want, legacy.load_archive(program)(x)) <= 1.01


@pytest.mark.parametrize("rank", [1, 2])
def test_geometry_of_transposed_convolutions(rank):
    torch.manual_seed(2)
    q = peer()
    up = getattr(nn, f"ConvTranspose{rank}d")(4, 6, 3, stride=2, padding=1, output_padding=1)
    model = q.QuantWrapper(up).eval()
    x = torch.randn(2, 4, *[5] * rank)
    with engine("qnnpack"):
        model.qconfig = q.get_default_qconfig("qnnpack")
        model = eager(model, [x], "qnnpack")
        program, want = torch.jit.script(model), model(x)
    assert steps(want, legacy.load_archive(program)(x)) <= 1.01


def test_dynamic_layers():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    with engine("x86"):
        other = peer().quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
        program = torch.jit.script(other)
        x = torch.randn(5, 8)
        want = other(x)
    graph = legacy.load_archive(program)
    assert (want - graph(x)).abs().max() < 0.02
    assert [r.op for r in torch_ao_ext.report(graph).rows if r.macs] == ["linear_dynamic"] * 2


class Branch(nn.Module):
    def __init__(self, fc):
        super().__init__()
        self.fc = fc

    def forward(self, x):
        if bool(x.sum() > 0):
            return self.fc(x)
        return x


class Threshold(nn.Module):
    def forward(self, x):
        x = torch.quantize_per_tensor(x, 0.1, 0, torch.quint8)
        return torch.ops.quantized.threshold(x, 0.5, 0.0).dequantize()


def test_refusals():
    q = peer()
    with engine("x86"):
        fc = q.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)).eval())[0]
    with pytest.raises(ValueError, match="operators that this library has, got quantized::threshold: "):
        legacy.load_archive(torch.jit.script(Threshold().eval()))
    with pytest.raises(ValueError, match="got prim::If: control flow that depends on values"):
        legacy.load_archive(torch.jit.script(Branch(fc).eval()))
    with pytest.raises(ValueError, match="must hold quantized:: operators, got none"):
        legacy.load_archive(torch.jit.script(nn.Linear(4, 4).eval()))
