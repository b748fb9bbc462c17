"""Fake quantization in one pass: values and gradients of torch's operators, at every ISA level."""

import io
import os
import subprocess
import sys
import warnings

import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from torch_ao_ext import quantization as tq
from torch_ao_ext.quantization import _rounding

ops = torch.ops.torch_ao


def values(shape, seed=0, scale=1.0):
    torch.manual_seed(seed)
    return torch.randn(shape) * scale


@pytest.mark.parametrize("shape", [(1,), (15,), (16,), (33,), (3, 100_000), (2, 7, 5, 3)])
@pytest.mark.parametrize("bounds", [(0, 255), (-127, 127), (0, 127)])
def test_values_and_gradients_per_tensor(shape, bounds):
    x, scale, point = values(shape, scale=2.0), torch.tensor([0.0123]), torch.tensor([7], dtype=torch.int32)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    want = torch.fake_quantize_per_tensor_affine(a, scale, point, *bounds)
    have = _rounding._Round.apply(b, scale, point, *bounds)
    assert torch.equal(want, have)
    grad = values(shape, seed=1)
    want.backward(grad)
    have.backward(grad)
    assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize("layout", ["channels last", "transposed", "expanded gradient"])
def test_layouts(layout):
    x = values((2, 8, 5, 6))
    x = x.to(memory_format=torch.channels_last) if layout == "channels last" else x
    x = x.transpose(1, 3) if layout == "transposed" else x
    grad = values((1,)).expand(x.shape) if layout == "expanded gradient" else values(x.shape, 1)
    args = (torch.tensor([0.02]), torch.tensor([128]), 0, 255)
    a, b = x.detach().requires_grad_(), x.detach().requires_grad_()
    want = torch.fake_quantize_per_tensor_affine(a, args[0], args[1].int(), 0, 255)
    have = _rounding._Round.apply(b, *args)
    want.backward(grad)
    have.backward(grad)
    assert torch.equal(want, have) and have.stride() == x.stride()
    assert torch.equal(a.grad, b.grad)


def test_values_far_outside_and_nan():
    x = torch.tensor([3e38, -3e38, float("inf"), -float("inf"), float("nan"), 1.0])
    y = ops._fake_quantize(x, torch.tensor([0.5]), torch.tensor([10]), 0, 255)
    assert y.tolist() == [122.5, -5.0, 122.5, -5.0, -5.0, 1.0]
    grad = ops._fake_quantize_backward(torch.ones(6), x, torch.tensor([0.5]), torch.tensor([10]), 0, 255)
    assert grad.tolist() == [0, 0, 0, 0, 0, 1]


def test_backward_of_nothing():
    """Its strides reach further than a memory of no elements."""
    x = torch.empty(2, 6, 0, 5)
    grad = ops._fake_quantize_backward(x, x, torch.tensor([0.5]), torch.tensor([10]), 0, 255)
    assert grad.shape == x.shape


@pytest.mark.parametrize("shape", [(1, 1), (3, 15), (8, 16), (5, 4, 3, 3), (4, 20_001)])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("sign", [1, -1])
def test_scaled_weights(shape, per_channel, sign):
    """fq(W f) / f and its gradients, as torch's operators compose them."""
    n = shape[0]
    weight, factor = values(shape, scale=0.3), (values((n,), 2).abs() + 0.5) * sign
    count = n if per_channel else 1
    scale, point = torch.rand(count) * 0.002 + 0.001, torch.zeros(count).int()
    w1, f1 = weight.clone().requires_grad_(), factor.clone().requires_grad_()
    w2, f2 = weight.clone().requires_grad_(), factor.clone().requires_grad_()
    column = f1.reshape([-1] + [1] * (len(shape) - 1))
    if per_channel:
        q = torch.fake_quantize_per_channel_affine(w1 * column, scale, point, 0, -127, 127)
    else:
        q = torch.fake_quantize_per_tensor_affine(w1 * column, scale, point, -127, 127)
    want = q / column
    have = _rounding._RoundScaled.apply(w2, f2, scale, point, -127, 127)
    assert torch.allclose(want, have, rtol=1e-6, atol=0)
    grad = values(shape, 3)
    want.backward(grad)
    have.backward(grad)
    assert torch.allclose(w1.grad, w2.grad, rtol=1e-5, atol=0)
    # Two sums that nearly cancel, where torch's are computed apart.
    size = float((grad * weight).abs().sum(tuple(range(1, len(shape)))).max())
    assert (f1.grad - f2.grad).abs().max() <= 2e-6 * size


@pytest.mark.parametrize("observer", [
    tq.MinMaxObserver, tq.MovingAverageMinMaxObserver, tq.PerChannelMinMaxObserver,
    tq.MovingAveragePerChannelMinMaxObserver,
])  # fmt: skip
@pytest.mark.parametrize("fused", [False, True])
def test_modules_keep_their_state(observer, fused):
    """of_scaled_weight observes what the product would show."""
    moving = "Moving" in observer.__name__
    if fused and not moving:
        pytest.skip("the fused module takes moving averages only")
    channel = "PerChannel" in observer.__name__
    options = {
        "quant_min": -127, "quant_max": 127, "dtype": torch.qint8,
        "qscheme": torch.per_channel_symmetric if channel else torch.per_tensor_symmetric,
    }  # fmt: skip
    kind = tq.FusedMovingAvgObsFakeQuantize if fused else tq.FakeQuantize
    one, two = kind(observer, **options), kind(observer, **options)
    for seed in range(3):
        weight, factor = values((6, 4, 3, 3), seed), values((6,), seed + 9) + 3
        factor[0] = -factor[0]
        column = factor.reshape(-1, 1, 1, 1)
        want, have = one(weight * column) / column, two.of_scaled_weight(weight, factor)
        assert torch.allclose(want, have, rtol=1e-6, atol=0)
    states = one.state_dict(), two.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_what_the_fast_way_does_not_take_goes_the_other():
    """Hooks, switched off rounding and observers of histograms see the whole weight."""
    weight, factor = values((4, 6)), values((4,), 1).abs() + 0.5
    column, seen = factor.reshape(-1, 1), []
    module = tq.default_fused_per_channel_wt_fake_quant()
    module.register_forward_hook(lambda m, args, y: seen.append(args[0].shape))
    module.of_scaled_weight(weight, factor)
    assert seen == [weight.shape]
    module = tq.default_fused_per_channel_wt_fake_quant()
    module.disable_fake_quant()
    assert torch.allclose(module.of_scaled_weight(weight, factor), weight, rtol=1e-6)
    options = {"quant_min": -127, "quant_max": 127, "dtype": torch.qint8}
    module = tq.FakeQuantize(tq.HistogramObserver, qscheme=torch.per_tensor_symmetric, **options)
    other = tq.FakeQuantize(tq.HistogramObserver, qscheme=torch.per_tensor_symmetric, **options)
    assert torch.equal(module.of_scaled_weight(weight, factor), other(weight * column) / column)

    class Mine(tq.FakeQuantize):
        def forward(self, x):
            return super().forward(x) + 1

    module = Mine(tq.MinMaxObserver, qscheme=torch.per_tensor_symmetric, **options)
    assert (module.of_scaled_weight(weight, factor) * column).min() > -4 + 1


@pytest.mark.parametrize("count", [1, 7, 16, 33, 32768, 70_001])
def test_extremes(count):
    x = values((count,), scale=3.0)
    assert torch.equal(ops._min_max(x), torch.stack(list(x.aminmax())))
    rows = values((3, count), 1)
    assert torch.equal(ops._min_max(rows, True), torch.stack(list(torch.aminmax(rows, dim=1)), 1))
    for place in {0, count // 2, count - 1}:
        bad = x.clone()
        bad[place] = float("nan")
        assert ops._min_max(bad).isnan().all()
    positive = x.abs() + 1
    assert float(ops._min_max(positive)[0]) == float(positive.min())


@pytest.mark.parametrize("how", ["trace", "export", "make_fx", "compile"])
def test_what_records_operators_sees_those_of_torch(how):
    """ONNX and other backends know torch.fake_quantize_per_tensor_affine; so do torch's compilers."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
    module = tq.default_fused_act_fake_quant().eval()
    x = values((4, 8))
    module(x)
    module.disable_observer()
    want = module(x)
    if how == "trace":
        made = torch.jit.trace(module, x)
        text = str(made.inlined_graph)
    elif how == "export":
        made = torch.export.export(module, (x,)).module()
        text = made.code
    elif how == "make_fx":
        made = torch.fx.experimental.proxy_tensor.make_fx(module)(x)
        text = made.code
    else:
        seen = []

        def backend(graph, inputs):
            seen.append(graph.code)
            return graph

        made = torch.compile(module, backend=backend)
        made(x)
        text = "".join(seen)
    assert "torch_ao::" not in text and "ops.torch_ao." not in text
    assert how == "compile" or "fake_quant" in text or "fq_helper" in text
    assert torch.equal(made(x), want)


def test_onnx():
    """torch.ao's fused modules do not export: the exporter does not know their operator."""
    warnings.simplefilter("ignore")
    model = tq.QuantWrapper(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1))).train()
    model.qconfig = tq.get_default_qat_qconfig()
    prepared = tq.prepare_qat(model)
    x = values((2, 3, 8, 8))
    prepared(x)
    prepared.eval().apply(tq.disable_observer)
    want = prepared(x)
    before = {name: value.clone() for name, value in prepared.state_dict().items()}
    file = io.BytesIO()
    torch.onnx.export(prepared, (x,), file, dynamo=False, opset_version=19)
    assert all(torch.equal(value, before[name]) for name, value in prepared.state_dict().items())
    made = onnx.load_from_string(file.getvalue())
    assert [node.op_type for node in made.graph.node].count("QuantizeLinear") == 5
    (have,) = ReferenceEvaluator(made).run(None, {made.graph.input[0].name: x.numpy()})
    away = (torch.from_numpy(have) - want).abs() / prepared.module[1].activation_post_process.scale
    assert away.max() < 1.01 and (away > 0.5).float().mean() < 0.02


def test_function_transforms():
    module = tq.default_fused_act_fake_quant()
    x = values((4, 8))
    module(x)
    module.disable_observer()
    grads = torch.func.grad(lambda values: module(values).square().sum())(x)
    y = x.clone().requires_grad_()
    module(y).square().sum().backward()
    assert torch.allclose(grads, y.grad)


@pytest.mark.parametrize("level", ["portable", "avx2", "avx512"])
def test_every_level(level):
    """The comparisons of this file again, forced down where the CPU has more."""
    chosen = "values_and or layouts or far_outside or scaled_weights or extremes"
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", chosen]
    env = {**os.environ, "TORCH_AO_EXT_MAX_ISA": level}
    done = subprocess.run(run, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-3000:]
