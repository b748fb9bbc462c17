"""Eager mode, FX graph mode and pt2e on one model with one qconfig: layers, numbers."""

import copy
import importlib.util
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import torch_ao_ext
from torch_ao_ext import quantization as tq
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.quantization.observer import RowPlaceholderObserver
from torch_ao_ext.quantization.pt2e import move_exported_model_to_eval
from torch_ao_ext.quantization.quantize_fx import convert_fx, prepare_fx, prepare_qat_fx
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86

ROOT = Path(__file__).resolve().parents[2]


def resnet18():
    """The benchmark's ResNet-18, on small images."""
    path = ROOT / "benchmarks" / "models" / "eager.py"
    spec = importlib.util.spec_from_file_location("eager_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(ROOT))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT))
    model = module.make(tq, nnq.FloatFunctional)
    torch.manual_seed(1)
    return model, module.groups(model), [torch.randn(4, 3, 64, 64) for _ in range(4)], "fc"


def digits():
    """A network trained on scikit-learn's digits, with its images."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    y = torch.tensor(data.target)
    torch.manual_seed(0)
    model = tq.QuantWrapper(nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 10),
    ))  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(4):
        for index in torch.randperm(1400).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()
    assert (model.eval()(x[1400:]).argmax(1) == y[1400:]).float().mean() > 0.93
    groups = [["module.0", "module.1", "module.2"], ["module.3", "module.4", "module.5"]]
    return model, groups, list(x[:256].split(64)), "module.7"


@pytest.fixture(scope="module", params=[resnet18, digits], ids=["resnet18", "digits"])
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
    model, groups, batches, last = digits()
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


def encoder():
    """A small BERT, and tokens."""
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

    return Encoder().eval().requires_grad_(False), torch.randint(0, 200, (4, 12))


# torch.ao's (7 bits of the input), and 8 bits, which pt2e takes.
SEVEN, EIGHT = tq.per_channel_dynamic_qconfig, tq.QConfig(
    activation=RowPlaceholderObserver.with_args(per_row=False), weight=tq.default_per_channel_weight_observer
)


@pytest.mark.parametrize("qconfig", [SEVEN, tq.default_dynamic_qconfig, EIGHT])
def test_sentence_encoder(qconfig):
    """MiniLM with inputs quantized at run time; pt2e with the rule that it has."""
    warnings.simplefilter("ignore")
    model, tokens = encoder()
    eager = tq.quantize_dynamic(model, {nn.Linear: qconfig})
    observed = prepare_fx(model, tq.QConfigMapping().set_object_type(nn.Linear, qconfig), (tokens,))
    graphs = [convert_fx(observed)]
    if qconfig is EIGHT:
        config = x86.get_default_x86_inductor_quantization_config(is_dynamic=True)
        quantizer = x86.X86InductorQuantizer().set_global(config)
        prepared = prepare_pt2e(torch.export.export(model, (tokens,)).module(), quantizer)
        prepared(tokens)
        graphs.append(torch_ao_ext.lower(convert_pt2e(prepared)))
    want = eager(tokens)
    for graph in graphs:
        assert len(layers(eager)) == len(layers(graph)) == 18
        have = graph(tokens)
        # The same integers; float sums around them may be in another order.
        assert 20 * torch.log10(want.norm() / (want - have).norm()) > 90
    for size in (2, 7):
        tokens = torch.randint(0, 200, (size, 12))
        want, have = eager(tokens), graphs[0](tokens)
        assert 20 * torch.log10(want.norm() / (want - have).norm()) > 90
