"""lower: one operator for each pattern, and the integers that the q/dq graph gives."""

import os
import subprocess
import sys
import warnings

import pytest
import torch
import torch.nn.functional as functional
from flow_models import converted, count, export, prepared, quantizer, targets
from torch import nn

import torch_ao_ext
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
from torch_ao_ext.quantization.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer
from torch_ao_ext.quantization.quantizer.xnnpack_quantizer import get_symmetric_quantization_config
from torch_ao_ext.quantization.quantizer.xnnpack_quantizer_utils import OP_TO_ANNOTATOR

CONFIG = get_symmetric_quantization_config(is_per_channel=True)


class Everything(Quantizer):
    """Every float tensor into and out of every operator, all with one spec each."""

    def annotate(self, model):
        for op in ("linear", "conv", "conv_transpose"):
            OP_TO_ANNOTATOR[op](model, CONFIG, None)
        for node in model.graph.nodes:
            value = node.meta.get("val")
            known = "quantization_annotation" in node.meta
            if node.op != "call_function" or known or not isinstance(value, torch.Tensor):
                continue
            if value.dtype != torch.float32:
                continue
            inputs = [n for n in node.all_input_nodes if isinstance(n.meta.get("val"), torch.Tensor)]
            node.meta["quantization_annotation"] = QuantizationAnnotation(
                {n: CONFIG.input_activation for n in inputs}, output_qspec=CONFIG.output_activation
            )
        return model

    def validate(self, model):
        pass


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def flow(model, example, how=None):
    """(converted, lowered) of a model whose every tensor is quantized."""
    with torch.no_grad():
        ready = prepare_pt2e(export(model.eval(), example), how or Everything())
        ready(*example)
        quantized = convert_pt2e(ready)
        with warnings.catch_warnings():  # a move alone is no operator of ours
            warnings.filterwarnings("ignore", message="lower: argument 'model' must hold an operator")
            return quantized, torch_ao_ext.lower(quantized, islands=False)


def steps_apart(quantized, lowered, example):
    """Largest difference of the results in steps of the output's scale."""
    last = list(lowered.graph.nodes)[-1].args[0][0]
    last = last.args[0] if "contiguous" in str(last.target) else last
    assert "torch_ao.dequantize" in str(last.target)
    with torch.no_grad():
        return ((quantized(*example) - lowered(*example)).abs().max() / last.args[1]).item()


IMAGE = torch.randn(2, 6, 8, 9)
POST_OPS = {
    "relu": torch.relu, "relu6": functional.relu6, "hardtanh": functional.hardtanh, "silu": functional.silu,
    "clamp": lambda x: x.clamp(-0.2, 0.5), "clamp min": lambda x: x.clamp(min=-0.1), "gelu": functional.gelu,
    "leaky": lambda x: functional.leaky_relu(x, 0.2), "hardswish": functional.hardswish, "tanh": torch.tanh,
    "gelu tanh": lambda x: functional.gelu(x, approximate="tanh"), "sigmoid": torch.sigmoid,
    "hardsigmoid": functional.hardsigmoid,
}  # fmt: skip


@pytest.mark.parametrize("name", POST_OPS)
def test_activations(name):
    quantized, lowered = flow(Function(POST_OPS[name]), (IMAGE,))
    assert count(lowered, "torch_ao.requantize") == 1 and len(targets(lowered)) == 3
    assert steps_apart(quantized, lowered, (IMAGE,)) <= 1.001

    class Fused(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act = nn.Conv2d(6, 5, 3), Function(POST_OPS[name])

        def forward(self, x):
            return self.act(self.conv(x))

    quantized, lowered = flow(Fused(), (IMAGE,), quantizer("x86"))
    assert targets(lowered) == [
        "torch_ao.quantize_per_tensor.default", "torch_ao.conv2d.default", "torch_ao.contiguous.default"
    ]  # fmt: skip
    with torch.no_grad():
        assert torch.allclose(quantized(IMAGE), lowered(IMAGE), atol=1e-5)


@pytest.mark.parametrize("slopes", [1, 5])
@pytest.mark.parametrize("kind", ["conv", "linear", "images of linear", "dynamic linear"])
def test_prelu(kind, slopes):
    class Fused(nn.Module):
        def __init__(self):
            super().__init__()
            self.product = nn.Conv2d(6, 5, 3) if kind == "conv" else nn.Linear(9, 5)
            self.act = nn.PReLU(slopes)
            self.act.weight.data.uniform_(-1, 1)

        def forward(self, x):
            return self.act(self.product(x))

    example = (torch.randn(7, 9),) if kind in ("linear", "dynamic linear") else (IMAGE,)
    if kind == "images of linear":
        example = (torch.randn(2, 5, 4, 9),)  # dimension 1, that of the slopes, is not that of the columns
    quantized, lowered = flow(Fused(), example, quantizer("x86 dynamic" if "dynamic" in kind else "x86"))
    fused = kind != "images of linear" or slopes == 1
    assert count(lowered, "prelu.default") == (0 if fused else 1)
    with torch.no_grad():
        assert torch.allclose(quantized(*example), lowered(*example), atol=1e-4)


BETWEEN = {
    "add": (lambda x, y: x + y, "torch_ao.add", 5),
    "add relu": (lambda x, y: torch.relu(x + y), "torch_ao.add", 5),
    "mul": (lambda x, y: x * y, "torch_ao.mul", 5),
    "broadcast": (lambda x, y: x * y.mean((2, 3), keepdim=True), "torch_ao.mul", 6),
    "cat": (lambda x, y: torch.cat([x, y], 1), "torch_ao.cat", 5),
    "max_pool": (lambda x, y: functional.max_pool2d(x, 3, 2, 1, ceil_mode=True), "torch_ao.max_pool2d", 4),
    "avg_pool": (lambda x, y: functional.avg_pool2d(x, 3, 2, 1, False, False), "torch_ao.avg_pool2d", 3),
    "adaptive": (lambda x, y: functional.adaptive_avg_pool2d(x, (3, 4)), "torch_ao.adaptive_avg_pool2d", 3),
    "mean": (lambda x, y: x.mean((-1, -2)), "torch_ao.adaptive_avg_pool2d", 4),
    "permute": (lambda x, y: x.permute(0, 2, 3, 1), "permute.default", 4),
    "pad": (lambda x, y: functional.pad(x, (1, 2, 0, 1)), "pad.default", 4),
    "slice": (lambda x, y: x[:, 1:3], "slice.Tensor", 4),
}  # fmt: skip


@pytest.mark.parametrize("name", BETWEEN)
def test_operators_between(name):
    function, target, nodes = BETWEEN[name]
    example = (IMAGE, torch.randn(2, 6, 8, 9) * 0.3)
    quantized, lowered = flow(Function(function), example)
    assert count(lowered, target) == 1
    made = [t for t in targets(lowered) if "contiguous" not in t]
    assert len(made) <= nodes, made
    assert count(lowered, "quantized_decomposed") == 0
    # A change of scale between two operators rounds once more.
    assert steps_apart(quantized, lowered, example) <= 1.001


def test_residual_add_joins_the_conv():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 1)

        def forward(self, x):
            return torch.relu(self.b(self.a(x)) + x)

    quantized, lowered = flow(Block(), (IMAGE,), quantizer("x86"))
    calls = [n for n in lowered.graph.nodes if "conv2d" in str(n.target)]
    assert [n.args[14] for n in calls] == ["", "add,relu"]
    assert calls[1].args[16].target is torch.ops.torch_ao.quantize_per_tensor.default
    with torch.no_grad():
        assert torch.allclose(quantized(IMAGE), lowered(IMAGE), atol=1e-5)


def test_a_float_operand_is_added_as_it_is():
    linear = nn.Linear(8, 8)
    model = Function(lambda x, y: linear(x) + y)
    model.linear = linear
    example = (torch.randn(3, 8), torch.randn(3, 8))
    how = quantizer("x86 dynamic")
    _, lowered = flow(model, example, how)
    call = next(n for n in lowered.graph.nodes if "linear_dynamic" in str(n.target))
    assert call.args[9] == "add" and call.args[11].name == "inputs_1"


DYNAMIC = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)


class DynamicConvs(Quantizer):
    """Every convolution, its input quantized at run time."""

    def annotate(self, model):
        for op in ("conv", "conv_transpose"):
            OP_TO_ANNOTATOR[op](model, DYNAMIC, None)
        return model

    def validate(self, model):
        pass


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions_of_inputs_quantized_at_run_time(rank, transposed):
    name = f"{'conv_transpose' if transposed else 'conv'}{rank}d"
    layer = getattr(nn, f"Conv{'Transpose' * transposed}{rank}d")(4, 6, 3, stride=2, padding=1, groups=2)
    model = Function(lambda x, y: torch.relu(layer(x) + y))
    model.layer = layer
    x = torch.randn(3, 4, *[6] * rank)
    example = (x, torch.randn_like(layer(x)).detach())
    quantized, lowered = flow(model, example, DynamicConvs())
    call = next(n for n in lowered.graph.nodes if f"torch_ao.{name}_dynamic" in str(n.target))
    assert call.args[5] is False and call.args[-3] == "add,relu"
    assert {*targets(lowered)} <= {f"torch_ao.{name}_dynamic.default", "torch_ao.contiguous.default"}
    assert torch_ao_ext.report(lowered).int8 == {f"{name}_dynamic": 1}
    with torch.no_grad():
        for factor in (1.0, 30.0):  # the range comes from the data
            inputs = (x * factor, example[1])
            assert torch.allclose(quantized(*inputs), lowered(*inputs), rtol=1e-4, atol=1e-4 * factor)


def test_computed_bounds_stay_operators():
    conv = nn.Conv2d(6, 6, 1)
    model = Function(lambda x: torch.clamp_min(conv(x), x.mean()))
    model.conv = conv
    quantized, lowered = flow(model, (IMAGE,), quantizer("x86"))
    assert count(lowered, "clamp_min") == 1
    with torch.no_grad():
        assert torch.allclose(quantized(IMAGE), lowered(IMAGE), atol=1e-4)


def test_quantize_moves_before_max_pool():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(6, 6, 3), nn.Conv2d(6, 6, 1)

        def forward(self, x):  # a float operator between conv and pooling
            return self.b(functional.max_pool2d(torch.exp(self.a(x)), 2, padding=1))

    quantized, lowered = flow(Pooled(), (IMAGE,), quantizer("x86"))
    assert targets(lowered)[2:4] == ["exp.default", "torch_ao.quantize_per_tensor.default"]
    assert count(lowered, "torch_ao.max_pool2d") == 1
    with torch.no_grad():
        assert torch.allclose(quantized(IMAGE), lowered(IMAGE), atol=1e-5)


class Images(nn.Module):
    """A view that counts on the contiguous layout, and an image as result."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 4, 1)
        self.head = nn.Linear(4 * 8 * 9, 5)

    def forward(self, x):
        x = self.b(self.a(x))
        return x, self.head(x.view(x.shape[0], -1)), torch.relu(x).view(2, 2, 2, 72)


@pytest.mark.parametrize("how", ["x86", "xnnpack"])
def test_layouts_of_the_float_graph_hold(how):
    quantized, lowered = flow(Images(), (IMAGE,), quantizer(how))
    with torch.no_grad():
        for expected, actual in zip(quantized(IMAGE), lowered(IMAGE), strict=True):
            assert actual.is_contiguous()
            assert torch.allclose(expected, actual, atol=0.05)


@pytest.mark.parametrize("how", ["x86", "xnnpack"])
def test_results_that_are_no_values(how):
    """Classes of pixels, and whether they are any."""
    model = Function(lambda x: (model.layer(x).argmax(1), model.layer(x) > 0, model.layer(x).double()))
    model.layer = nn.Conv2d(6, 4, 1)
    quantized, lowered = flow(model, (IMAGE,), quantizer(how))
    with torch.no_grad():
        for expected, actual in zip(quantized(IMAGE), lowered(IMAGE), strict=True):
            assert actual.is_contiguous() and actual.dtype == expected.dtype
            assert (expected == actual).double().mean() > 0.9 or torch.allclose(expected, actual, atol=0.05)


def test_the_order_of_memory_changes_where_floats_end():
    quantized, lowered = flow(Function(lambda x: torch.relu(functional.max_pool2d(x, 2))), (IMAGE,))
    formats = {str(n.target): n.kwargs.get("memory_format") for n in lowered.graph.nodes}
    assert formats["torch_ao.dequantize_per_tensor.default"] == torch.contiguous_format
    conv = Function(lambda x: conv.layer(x))
    conv.layer = nn.Conv2d(6, 4, 1)
    quantized, lowered = flow(conv, (IMAGE,), quantizer("x86"))
    formats = {str(n.target): n.kwargs.get("memory_format") for n in lowered.graph.nodes}
    assert formats["torch_ao.quantize_per_tensor.default"] == torch.channels_last
    assert "torch_ao.contiguous.default" in formats  # of floats
    for x in (IMAGE, IMAGE.to(memory_format=torch.channels_last), IMAGE[:1].expand(2, -1, -1, -1)):
        assert torch.equal(lowered(x), torch_ao_ext.lower(quantized)(x))
        assert torch.allclose(quantized(x), lowered(x), atol=1e-5)


def test_narrow_output_range():
    class Narrow(Everything):
        def annotate(self, model):
            OP_TO_ANNOTATOR["linear"](model, CONFIG, None)
            for node in model.graph.nodes:
                if "linear" in str(node.target):
                    spec = node.meta["quantization_annotation"].output_qspec
                    node.meta["quantization_annotation"].output_qspec = QuantizationSpec(
                        torch.int8, spec.observer_or_fake_quant_ctr, -20, 30, spec.qscheme
                    )
            return model

    x = torch.randn(40, 16)
    quantized, lowered = flow(nn.Sequential(nn.Linear(16, 16)), (x,), Narrow())
    call = next(n for n in lowered.graph.nodes if "torch_ao.linear" in str(n.target))
    assert call.args[10] == "clamp"
    with torch.no_grad():
        assert torch.allclose(quantized(3 * x), lowered(3 * x), atol=1e-6)  # saturates


def test_several_readers_get_floats():
    conv = nn.Conv2d(6, 6, 1)
    model = Function(lambda x: (lambda y: (torch.relu(y), y.exp()))(conv(x)))
    model.conv = conv
    quantized, lowered = flow(model, (IMAGE,), quantizer("x86"))
    assert next(n for n in lowered.graph.nodes if "conv2d" in str(n.target)).args[9] is torch.float32
    with torch.no_grad():
        for expected, actual in zip(quantized(IMAGE), lowered(IMAGE), strict=True):
            assert torch.allclose(expected, actual, atol=1e-4)


def test_reasons_and_strict():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.even, self.odd = nn.Conv2d(6, 4, 3, padding="same"), nn.Conv2d(4, 4, 2, padding="same")

        def forward(self, x):
            return self.odd(self.even(x))

    with warnings.catch_warnings():
        # torch's own, once in a process
        warnings.filterwarnings("ignore", message="Using padding='same' with even kernel")
        quantized, lowered = flow(Odd(), (IMAGE,), quantizer("x86"))
    rows = {row.fqn: row for row in torch_ao_ext.report(lowered).rows}
    assert rows["even"].status == "int8"
    assert rows["odd"].reason == "padding 'same' is wider on one side"
    with pytest.raises(ValueError, match=r"got 1 float operators; node '\w+' in module 'odd' .*'same'"):
        torch_ao_ext.lower(quantized, strict=True)


def test_nothing_to_lower():
    graph = export(Function(torch.relu), (IMAGE,))
    with pytest.warns(UserWarning, match="must hold an operator of quantized tensors"):
        torch_ao_ext.lower(graph)
    with pytest.raises(ValueError, match="must hold an operator"):
        torch_ao_ext.lower(graph, strict=True)


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_backends(engine):
    _, example, quantized = converted("ResidualCnn")
    lowered = torch_ao_ext.lower(quantized, example, backend=engine)
    rows = [row for row in torch_ao_ext.report(lowered).rows if row.op in ("conv2d", "linear")]
    assert {row.engine for row in rows} == {engine}
    with torch.no_grad():
        assert torch.equal(lowered(*example), torch_ao_ext.lower(quantized)(*example))
    assert torch_ao_ext.ops.service.info()["engine"] == ""


def test_what_is_refused():
    _, example, quantized = converted("Reused")
    with pytest.raises(TypeError, match="'model' must be an exported graph module"):
        torch_ao_ext.lower(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="'backend' must be one of auto, onednn.*, got 'fbgemm'"):
        torch_ao_ext.lower(quantized, backend="fbgemm")
    with pytest.raises(ValueError, match="'example_inputs' must be given with a backend"):
        torch_ao_ext.lower(quantized, backend="native")
    with pytest.raises(TypeError, match="'example_inputs' must be a tuple"):
        torch_ao_ext.lower(quantized, example[0])
    with pytest.raises(TypeError, match="'strict' must be a bool"):
        torch_ao_ext.lower(quantized, strict=1)
    lowered = torch_ao_ext.lower(quantized)
    with pytest.raises(ValueError, match=r"input 'x' must have sizes \[4, 16\].*got \[4, 15\]"):
        lowered(torch.randn(4, 15))
    with pytest.raises(TypeError, match="input 'x' must have dtype torch.float32, got torch.float64"):
        lowered(torch.randn(4, 16).double())


def test_saving_a_graph_names_the_way(tmp_path):
    lowered = torch_ao_ext.lower(converted("Reused")[2])
    with pytest.raises(ValueError, match="got a graph: save it by torch.export.save"):
        torch_ao_ext.save_quantized(lowered, tmp_path / "model.safetensors")


@pytest.mark.parametrize("islands", [True, False])
def test_repack_reaches_graphs(islands):
    _, example, quantized = converted("Reused")
    lowered = torch_ao_ext.lower(quantized, example, islands=islands)
    weight = (lowered.island if islands else lowered).linear_qweight
    assert "not packed" not in str(torch_ao_ext.explain(lowered))
    with torch.no_grad():
        before = lowered(*example)
        weight.data.neg_()  # torch does not count this write
        assert torch.equal(lowered(*example), before)
        torch_ao_ext.repack(lowered)
        assert not torch.equal(lowered(*example), before)


def test_lowering_an_unfolded_graph():
    _, example, ready = prepared("ResidualCnn")
    with torch.no_grad():
        folded = torch_ao_ext.lower(convert_pt2e(ready))
        unfolded = torch_ao_ext.lower(convert_pt2e(ready, fold_quantize=False))
        assert torch.equal(folded(*example), unfolded(*example))


SCRIPT = """
import os, sys
sys.path.insert(0, sys.argv[1])
os.environ.update(CXX="/bin/false", CC="/bin/false", PATH="")
import torch
from flow_models import converted
import torch_ao_ext
model, example, quantized = converted("ResidualCnn")
with torch.no_grad():
    y = torch_ao_ext.lower(quantized)(*example)
assert torch.allclose(y, model(*example), atol=0.2)
assert "torchao" not in sys.modules
print("ran")
"""


def test_runs_without_a_compiler():
    here = os.path.dirname(__file__)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, here], capture_output=True, text=True, env=env, check=False
    )
    assert done.stdout.strip() == "ran", done.stderr[-2000:]
