"""Activations and norms between quantized tensors, integer by integer against torch.ao's kernels."""

import warnings

import pytest
import torch
from torch import nn

import torch_ao_ext

MINE = torch_ao_ext.nn.quantized
SCALE, POINT = 0.03, 120


@pytest.fixture(autouse=True)
def _quiet():
    """torch.ao's tensors are deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def peer():
    import torch.ao.nn.intrinsic.quantized
    import torch.ao.nn.quantized

    return torch.ao.nn


def values(*shape):
    torch.manual_seed(0)
    return torch.randn(*shape) * 2


def norm_tensors(channels):
    torch.manual_seed(1)
    return nn.Parameter(torch.rand(channels) + 0.5), nn.Parameter(torch.randn(channels))


CASES = {
    "ReLU6": (lambda q: q.ReLU6(), (4, 5)),
    "Hardswish": (lambda q: q.Hardswish(SCALE, POINT), (4, 50)),
    "ELU": (lambda q: q.ELU(SCALE, POINT, 0.7), (4, 50)),
    "LeakyReLU": (lambda q: q.LeakyReLU(SCALE, POINT, 0.2), (4, 50)),
    "Sigmoid": (lambda q: q.Sigmoid(1 / 256, 0), (4, 50)),
    "Softmax": (lambda q: q.Softmax(-1, 1 / 256, 0), (4, 50)),
    "LayerNorm": (lambda q: q.LayerNorm([16], *norm_tensors(16), SCALE, POINT), (6, 16)),
    "GroupNorm": (lambda q: q.GroupNorm(2, 6, *norm_tensors(6), SCALE, POINT), (3, 6, 5)),
    "InstanceNorm1d": (lambda q: q.InstanceNorm1d(6, *norm_tensors(6), SCALE, POINT), (3, 6, 20)),
    "InstanceNorm2d": (lambda q: q.InstanceNorm2d(6, *norm_tensors(6), SCALE, POINT), (3, 6, 5, 4)),
    "InstanceNorm3d": (lambda q: q.InstanceNorm3d(6, *norm_tensors(6), SCALE, POINT), (2, 6, 3, 5, 4)),
    "BatchNorm2d": (lambda q: q.BatchNorm2d(6), (3, 6, 5, 4)),
    "BatchNorm3d": (lambda q: q.BatchNorm3d(6), (2, 6, 3, 5, 4)),
}


def settled(module):
    """With qparams and statistics where the class takes none in its constructor."""
    if "BatchNorm" in type(module).__name__ or "BNReLU" in type(module).__name__:
        torch.manual_seed(2)
        state = module.state_dict()
        for name in ("weight", "bias", "running_mean", "running_var"):
            state[name] = torch.rand(6) + 0.5
        module.load_state_dict(state)
        if hasattr(module, "set_output"):
            module.set_output(SCALE, POINT, torch.uint8)
        else:
            module.scale.fill_(SCALE), module.zero_point.fill_(POINT)
    return module.eval()


@pytest.mark.parametrize("name", CASES)
def test_integers(name):
    make, shape = CASES[name]
    x, scale, point = values(*shape), 0.05, 100
    theirs = settled(make(peer().quantized))
    mine = settled(make(MINE))
    want = theirs(torch.quantize_per_tensor(x, scale, point, torch.quint8))
    have = mine(MINE.Quantize(scale, point)(x))
    assert have.q_scale() == pytest.approx(want.q_scale()) and have.q_zero_point() == want.q_zero_point()
    steps = (want.int_repr().int() - have.int_repr().int()).abs()
    assert steps.max() <= 1 and (steps > 0).float().mean() < 0.1
    assert len(want.int_repr().unique()) > 10


@pytest.mark.parametrize("rank", [2, 3])
def test_batch_norm_with_relu(rank):
    name, shape = f"BNReLU{rank}d", (3, 6, 5, 4) if rank == 2 else (2, 6, 3, 5, 4)
    theirs = settled(getattr(peer().intrinsic.quantized, name)(6))
    mine = settled(getattr(torch_ao_ext.nn.intrinsic.quantized, name)(6))
    x = values(*shape)
    want = theirs(torch.quantize_per_tensor(x, 0.05, 100, torch.quint8))
    have = mine(MINE.Quantize(0.05, 100)(x))
    assert (want.int_repr().int() - have.int_repr().int()).abs().max() <= 1


def test_prelu():
    """torch.ao's kernel shrinks positive values, too: there, the float formula counts."""
    x, weight = values(3, 4, 5), torch.tensor([0.2])
    theirs = peer().quantized.PReLU(SCALE, POINT, 1)
    theirs.set_weight(torch.quantize_per_tensor(weight, 0.4 / 255, 100, torch.quint8))
    mine = MINE.PReLU(SCALE, POINT, 1)
    mine.set_weight(MINE.Quantize(0.4 / 255, 100)(weight))
    want = theirs(torch.quantize_per_tensor(x, 0.05, 100, torch.quint8))
    q = MINE.Quantize(0.05, 100)(x)
    have = mine(q)
    below = q.dequantize() < 0
    assert (want.int_repr().int() - have.int_repr().int()).abs()[below].max() <= 1
    assert (have.dequantize() - q.dequantize())[~below].abs().max() <= SCALE / 2 + 1e-6


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("layers, both", [(1, False), (2, True)])
def test_dynamic_recurrent_layers_are_nearer_to_float(kind, layers, both):
    """Not bit-equal by design: rows have scales of their own here, a tensor of 7 bits there."""
    torch.manual_seed(0)
    layer = getattr(nn, kind)(16, 24, layers, bidirectional=both).eval()
    holder = nn.Sequential(layer)
    x = values(7, 3, 16)
    from torch.ao.quantization import quantize_dynamic

    want = layer(x)[0].detach()
    theirs = quantize_dynamic(holder, {getattr(nn, kind)}, dtype=torch.qint8)[0](x)[0]
    mine = torch_ao_ext.quantization.quantize_dynamic(holder)[0](x)[0]
    noise = [(want - y).norm() / want.norm() for y in (mine, theirs)]
    assert noise[0] <= noise[1] and noise[0] < 0.03


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
def test_dynamic_cells_are_nearer_to_float(kind):
    torch.manual_seed(0)
    holder = nn.Sequential(getattr(nn, kind)(16, 24)).eval()
    x, h = values(5, 16), values(5, 24) / 4
    state = (h, h) if kind == "LSTMCell" else h
    from torch.ao.quantization import quantize_dynamic

    first = lambda y: y[0] if isinstance(y, tuple) else y  # noqa: E731
    want = first(holder[0](x, state)).detach()
    theirs = first(quantize_dynamic(holder, {getattr(nn, kind)}, dtype=torch.qint8)[0](x, state))
    mine = first(torch_ao_ext.quantization.quantize_dynamic(holder)[0](x, state))
    noise = [(want - y).norm() / want.norm() for y in (mine, theirs)]
    assert noise[0] <= noise[1] and noise[0] < 0.03


def test_static_lstm_is_nearer_to_float():
    """Gates are not quantized between its parts here; torch.ao observes each of them."""
    import torch.ao.quantization as theirs_q

    torch.manual_seed(0)
    layer = nn.LSTM(16, 24).eval()
    x = values(7, 3, 16)
    want = layer(x)[0].detach()
    results = []
    for package in (torch_ao_ext.quantization, theirs_q):

        class Model(nn.Module):
            def __init__(self, package=package):
                super().__init__()
                self.quant, self.dequant, self.lstm = (
                    package.QuantStub(),
                    package.DeQuantStub(),
                    nn.LSTM(16, 24),
                )
                self.lstm.load_state_dict(layer.state_dict())

            def forward(self, x):
                return self.dequant(self.lstm(self.quant(x))[0])

        model = Model().eval()
        model.qconfig = package.get_default_qconfig("x86")
        model = package.prepare(model)
        model(x)
        results.append(package.convert(model)(x))
    noise = [(want - y).norm() / want.norm() for y in results]
    assert noise[0] <= noise[1] and noise[0] < 0.05


@pytest.mark.parametrize("relu", [False, True])
def test_convolution_with_a_sum(relu):
    import torch.ao.nn.intrinsic.quantized as theirs_q

    name = "ConvAddReLU2d" if relu else "ConvAdd2d"
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "onednn"
    try:
        torch.manual_seed(0)
        weight, bias = torch.randn(4, 3, 3, 3) * 0.2, torch.randn(4)
        theirs = getattr(theirs_q, name)(3, 4, 3)
        q = torch.quantize_per_tensor(weight, 0.01, 0, torch.qint8)
        theirs.set_weight_bias(q, bias)
        theirs.scale, theirs.zero_point = SCALE, POINT
        x, other = values(2, 3, 6, 6), values(2, 4, 4, 4)
        want = theirs(
            torch.quantize_per_tensor(x, 0.05, 100, torch.quint8),
            torch.quantize_per_tensor(other, 0.04, 110, torch.quint8),
        )
        mine = getattr(torch_ao_ext.nn.intrinsic.quantized, name)(3, 4, 3)
        mine.set_weight_bias(q, bias)
        mine.set_output(SCALE, POINT, torch.uint8)
        have = mine(MINE.Quantize(0.05, 100)(x), MINE.Quantize(0.04, 110)(other))
    finally:
        torch.backends.quantized.engine = before
    assert (want.int_repr().int() - have.int_repr().int()).abs().max() <= 1


def lively(module):
    """With parameters and statistics that are not the start values."""
    torch.manual_seed(3)
    with torch.no_grad():
        for value in (*module.parameters(), *module.buffers()):
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape) + 0.5)
    return module.eval()


REFERENCES = {
    "Hardswish": (nn.Hardswish, (4, 50)),
    "ELU": (lambda: nn.ELU(0.7), (4, 50)),
    "LeakyReLU": (lambda: nn.LeakyReLU(0.2), (4, 50)),
    "Softmax": (lambda: nn.Softmax(-1), (4, 50)),
    "Dropout": (lambda: nn.Dropout(0.4), (4, 50)),
    "LayerNorm": (lambda: nn.LayerNorm([16]), (6, 16)),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(6, affine=True), (3, 6, 5, 4)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(6), (3, 6, 5, 4)),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_from_reference(name):
    make, shape = REFERENCES[name]
    mod, x = lively(make()), values(*shape)
    qparams = (1 / 256, 0) if name == "Softmax" else (SCALE, POINT)
    if name == "BatchNorm2d":  # torch.ao's takes no plain numbers
        qparams = tuple(map(torch.tensor, qparams))
    want = getattr(peer().quantized, name).from_reference(mod, *qparams)
    want = want(torch.quantize_per_tensor(x, 0.05, 100, torch.quint8))
    mine = getattr(MINE, name).from_reference(mod, *qparams)
    have = mine(input=MINE.Quantize(0.05, 100)(x))
    assert have.q_scale() == pytest.approx(want.q_scale()) and have.q_zero_point() == want.q_zero_point()
    assert (want.int_repr().int() - have.int_repr().int()).abs().max() <= 1
    assert len(want.int_repr().unique()) > 10


def test_constructor_arguments():
    assert MINE.Conv2d(3, 4, 3, device="meta").qweight.is_meta
    assert MINE.ConvTranspose1d(3, 4, 3, dtype=torch.float32, device="cpu").qbias.dtype == torch.float32
    assert MINE.dynamic.Conv1d(3, 4, 3, reduce_range=False).qbias.device.type == "cpu"
    fused = torch_ao_ext.nn.intrinsic.quantized
    assert fused.LinearReLU(3, 4, bias=False).qbias is None
    assert fused.LinearTanh(3, 4, bias=False).qbias is None
    with pytest.raises(ValueError, match="Conv2d: argument 'dtype' must be None or torch.float32, got"):
        MINE.Conv2d(3, 4, 3, dtype=torch.float16)
    with pytest.raises(ValueError, match="GRUCell: argument 'dtype' must be torch.qint8, int8, int16 or"):
        MINE.dynamic.GRUCell(3, 4, dtype=torch.float16)
    with pytest.raises(TypeError, match="device"):
        MINE.Hardswish(SCALE, POINT, torch.qint8)  # the third is the device, as in torch.ao


def test_layers_are_called_by_the_names_of_the_float_ones():
    """`layer(input=x)` goes on working in a quantized model."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv1d(3, 4, 3), nn.InstanceNorm1d(4), nn.Linear(6, 5)

        def forward(self, x):
            return self.fc(input=self.norm(input=self.conv(input=x)))

    tq, x = torch_ao_ext.quantization, values(2, 3, 8)
    model = nn.Sequential(Model()).eval()
    model.qconfig = tq.get_default_qconfig()
    prepared = tq.prepare(tq.QuantWrapper(model))
    want = prepared(x)
    have = tq.convert(prepared)(x)
    assert (have.dequantize() - want).abs().max() < 0.1 * want.abs().max()
