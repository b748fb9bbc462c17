"""fx.prepare, fx.convert, fx.lower_to_*: the parts of FX graph mode on graphs of torch.fx."""

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

import torch_ao_ext
from torch_ao_ext import quantization as tq
from torch_ao_ext.quantization.fx import _equalize, lower_to_fbgemm, lower_to_qnnpack
from torch_ao_ext.quantization.fx import graph_module as gm
from torch_ao_ext.quantization.fx.convert import convert
from torch_ao_ext.quantization.fx.custom_config import PrepareCustomConfig
from torch_ao_ext.quantization.fx.fuse import fuse
from torch_ao_ext.quantization.fx.prepare import prepare
from torch_ao_ext.quantization.fx.tracer import QuantizationTracer
from torch_ao_ext.quantization.pt2e import move_exported_model_to_eval
from torch_ao_ext.quantization.quantize_fx import (
    convert_fx,
    convert_to_reference_fx,
    prepare_fx,
    prepare_qat_fx,
)

MAPPING = tq.get_default_qconfig_mapping("onednn")
X = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Inner(nn.Module):
    """A layer and a function with a weight."""

    def __init__(self):
        super().__init__()
        self.linear, self.weight = nn.Linear(8, 8), nn.Parameter(torch.randn(8, 8))

    def forward(self, x):
        return F.linear(self.linear(x), self.weight) + x


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()
        self.inner, self.fc = Inner(), nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(self.inner(self.relu(self.bn(self.conv(x))).mean((2, 3))))


def traced(model):
    """The graph of torch.fx and the scopes of its nodes, as torch.ao's prepare_fx makes them."""
    tracer = QuantizationTracer([], [])
    graph = tracer.trace(model)
    return fx.GraphModule(tracer.root, graph), tracer.node_name_to_scope


def fqns(graph):
    return {row.fqn for row in torch_ao_ext.report(graph).rows if row.status == "int8" and row.macs}


def test_the_parts_are_prepare_fx_and_convert_fx():
    torch.manual_seed(0)
    model = Net().eval()
    graph, scopes = traced(model)
    before = str(graph.graph)
    observed = prepare(fuse(graph, False), MAPPING, False, scopes, (X,))
    whole = prepare_fx(model, MAPPING, (X,))
    assert isinstance(observed, gm.ObservedGraphModule) and str(graph.graph) == before
    observed(X), whole(X)
    int8, want = convert(observed), convert_fx(whole)
    assert isinstance(int8, gm.QuantizedGraphModule) and fqns(int8) == fqns(want) and len(fqns(want)) == 4
    assert torch.equal(int8(X), want(X))
    assert torch.equal(convert(observed, True)(X), convert_to_reference_fx(whole)(X))
    assert torch.equal(convert(observed, qconfig_mapping=MAPPING)(X), want(X))
    alone = prepare(graph, MAPPING.to_dict(), False, scopes, (X,), is_standalone_module=True)
    assert isinstance(alone, gm.ObservedStandaloneGraphModule)


def test_scopes_name_modules():
    """Of the tracer's notes, of the argument for a graph without notes, and against them."""
    graph, scopes = traced(Net().eval())
    mapping = tq.QConfigMapping().set_module_name("inner", tq.get_default_qconfig("onednn"))
    by_class = tq.QConfigMapping().set_object_type(Inner, tq.get_default_qconfig("onednn"))
    plain, _ = traced(Net().eval())
    for node in plain.graph.nodes:
        node.meta = {}
    plain_scopes = {name: (path, kind) for name, (path, kind) in scopes.items()}

    def quantized(graph, mapping, scopes):
        observed = prepare(graph, mapping, False, scopes, (X,))
        observed(X)
        return fqns(convert(observed))

    assert quantized(graph, mapping, {}) == {"inner.linear", "inner"}
    assert quantized(plain, mapping, plain_scopes) == {"inner.linear", "inner"}
    assert quantized(plain, by_class, plain_scopes) == {"inner.linear", "inner"}
    moved = {name: ("other", None) if path == "inner" else (path, kind)
             for name, (path, kind) in scopes.items()}  # fmt: skip
    assert quantized(graph, mapping, moved) == {"inner.linear"}


def test_training():
    torch.manual_seed(0)
    model = Net().train()
    graph, scopes = traced(model)
    mapping = tq.get_default_qat_qconfig_mapping("onednn")
    trained = prepare(graph, mapping, True, scopes, (X,))
    trained(X).sum().backward()
    assert model.conv.weight.grad is not None  # its parameters
    move_exported_model_to_eval(trained)
    whole = prepare_qat_fx(model, mapping, (X,))
    whole(X)
    assert fqns(convert(trained)) == fqns(convert_fx(whole)) == {"conv", "inner.linear", "inner", "fc"}


def test_configs():
    model = Net().eval()
    model.note = "kept"
    graph, scopes = traced(model)
    graph.note = "kept"
    custom = PrepareCustomConfig().set_preserved_attributes(["note"]).set_output_quantized_indexes([0])
    equal = tq.QConfigMapping().set_global(_equalize.default_equalization_qconfig)
    observed = prepare(graph, MAPPING, False, scopes, (X,), custom, equal)
    assert observed.note == "kept"
    observed(X)
    int8 = convert(observed)
    assert int8(X).dtype == torch.uint8 and int8.note == "kept" and 0 in int8.output_qparams
    plain = prepare(graph, MAPPING, False, scopes, (X,), custom)
    plain(X)
    assert not torch.equal(convert(plain).inner_linear_qweight, int8.inner_linear_qweight)
    nothing = tq.backend_config.BackendConfig("none")
    for call, said in [
        (lambda: prepare(model, MAPPING, False, {}, (X,)), "'model' must be a GraphModule, got Net"),
        (lambda: prepare(graph, MAPPING, True, {}, (X,), None, equal), "must be None with is_qat, got one"),
        (lambda: prepare(graph, MAPPING, True, {}, (X,)), "must be in training mode"),
        (lambda: prepare(graph, MAPPING, False, {}, (X,), backend_config=nothing), "must annotate a node"),
        (lambda: prepare(graph, 3, False, {}, (X,)), "'qconfig_mapping' must be a QConfigMapping or a dict"),
    ]:
        with pytest.raises((TypeError, ValueError), match=f"prepare: argument .*{said}"):
            call()


@pytest.mark.parametrize(
    "lower_to", [lower_to_fbgemm.lower_to_fbgemm, lower_to_qnnpack.lower_to_qnnpack], ids=["fbgemm", "qnn"]
)
def test_lowering_by_name(lower_to):
    """All of a reference graph, or with operators that the map leaves float."""
    torch.manual_seed(0)
    observed = prepare_fx(Net().eval(), MAPPING, (X,))
    observed(X)
    reference = convert_to_reference_fx(observed)
    before = str(reference.graph)
    whole = lower_to(reference, {}, {})
    assert torch.equal(whole(X), convert_fx(observed)(X))
    linears = [n.name for n in reference.graph.nodes if n.target is torch.ops.aten.linear.default]
    qconfigs = {linears[0]: None, linears[1]: MAPPING.global_qconfig}
    partly = lower_to(reference, qconfigs, {})
    assert str(reference.graph) == before
    assert fqns(whole) - fqns(partly) == {"inner.linear"} and len(fqns(partly)) == 3
    assert not [n for n in partly.graph.nodes if "alias" in str(n.target)]
    rows = {row.fqn: row for row in torch_ao_ext.report(partly).rows}
    assert rows["inner.linear"].status == "float"
    noise = partly(X) - reference(X)
    assert 20 * torch.log10(reference(X).norm() / noise.norm()) > 30
    argument = f"{lower_to.__name__}: argument"
    with pytest.raises(ValueError, match=f"{argument} 'qconfig_map' must have names of nodes, got 'x1'"):
        lower_to(reference, {"x1": None}, {})
    with pytest.raises(TypeError, match=f"{argument} 'model'"):
        lower_to(Net(), {}, {})
