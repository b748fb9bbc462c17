"""fx.convert: what the module of one node becomes; utils.check_node. Beside torch.ao's."""

import copy
import importlib
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from torch_ao_ext import quantization as tq
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn import intrinsic, qat
from torch_ao_ext.nn.quantized import reference
from torch_ao_ext.quantization.backend_config import BackendConfig, get_native_backend_config
from torch_ao_ext.quantization.fx.prepare import prepare
from torch_ao_ext.quantization.quant_type import QuantType
from torch_ao_ext.quantization.utils import check_node

steps = importlib.import_module("torch_ao_ext.quantization.fx.convert")  # the package has the function
BACKEND = get_native_backend_config()
QCONFIG = tq.QConfig(tq.default_observer, tq.default_per_channel_weight_observer)


@pytest.fixture(scope="module")
def theirs():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("torch.ao.quantization")


def traced(*layers, qconfig=QCONFIG):
    model = nn.Sequential(*layers)
    for layer in layers:
        layer.qconfig = qconfig

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m, name):
            return bool(name)

    graph = fx.GraphModule(model, Tracer().trace(model))
    node = next(n for n in graph.graph.nodes if n.op == "call_module" and n.target == "0")
    return graph, node, dict(graph.named_modules())


def weighted(layer, qconfig=QCONFIG, observed=True, qconfigs=None, **options):
    graph, node, modules = traced(layer, qconfig=qconfig)
    names = {node.name} if observed else set()
    steps.convert_weighted_module(node, modules, names, qconfigs or {}, BACKEND, **options)
    assert modules["0"] is graph.get_submodule("0")
    return modules["0"]


@pytest.mark.parametrize("kind", ["Linear", "Conv2d", "ConvTranspose1d", "LSTM", "GRUCell"])
def test_layers_become_those_of_torch_ao(theirs, kind):
    torch.manual_seed(0)
    layer = getattr(nn, kind)(*((3, 4, 3) if "Conv" in kind else (4, 3)))
    recurrent = kind in ("LSTM", "GRUCell")
    ours, other = (
        q.default_dynamic_qconfig if recurrent else q.QConfig(q.default_observer, q.default_weight_observer)
        for q in (tq, theirs)
    )
    made = weighted(layer, ours)
    assert type(made) is getattr(reference, kind)
    warnings.simplefilter("ignore")  # torch.ao's own, restored behind each test
    graph, node, modules = traced(layer, qconfig=other)
    convert = importlib.import_module("torch.ao.quantization.fx.convert")
    backend = importlib.import_module("torch.ao.quantization.backend_config").get_native_backend_config()
    convert.convert_weighted_module(node, modules, {node.name}, {}, backend)
    want = graph.get_submodule("0")
    assert type(want).__name__ == kind and type(want).__module__.startswith("torch.ao")
    if recurrent:
        x = torch.randn(5, 4)
        pairs = zip(*(torch.utils._pytree.tree_leaves(m(x)) for m in (made, want)), strict=True)
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)
    else:
        assert torch.equal(made.get_weight(), want.get_weight())
        assert not torch.equal(made.get_weight(), layer.weight)


def test_trained_and_fused_layers():
    trained = qat.Linear(4, 3, qconfig=tq.get_default_qat_qconfig("onednn"))
    trained(torch.randn(2, 4))
    scale = trained.weight_fake_quant.calculate_qparams()[0]
    made = weighted(trained, trained.qconfig)
    assert type(made) is reference.Linear and torch.equal(made.weight_scale, scale)
    again = weighted(trained, trained.qconfig, is_decomposed=True, is_reference=True)
    assert torch.equal(again.get_weight(), made.get_weight())
    assert type(weighted(trained, trained.qconfig, observed=False)) is nn.Linear
    fused = weighted(intrinsic.ConvReLU2d(nn.Conv2d(3, 4, 3), nn.ReLU()))
    assert isinstance(fused, intrinsic.ConvReLU2d) and type(fused[0]) is reference.Conv2d
    assert len(fused[0].weight_scale) == 4


def test_what_stays():
    layer = nn.Linear(4, 3)
    halves = tq.QConfig(tq.PlaceholderObserver.with_args(dtype=torch.float16), tq.default_weight_observer)
    for options in ({"qconfig": None}, {"observed": False}, {"qconfigs": {"_0": None}}, {"qconfig": halves}):
        assert weighted(layer, **options) is layer
    graph, node, modules = traced(layer)
    steps.convert_weighted_module(node, modules, {node.name}, {}, BackendConfig("none"))
    assert modules["0"] is layer


class Observed(nn.Module):
    def forward(self, x):
        return x * 2


class Quantized(nn.Module):
    """Takes and gives QuantizedTensors."""

    @classmethod
    def from_observed(cls, observed):
        made = cls()
        scale, zero_point = observed.activation_post_process.calculate_qparams()
        made.scale, made.zero_point = float(scale), int(zero_point)
        return made

    def forward(self, x):
        assert isinstance(x, QuantizedTensor)
        y = torch.ops.torch_ao.quantize_per_tensor(
            x.dequantize() * 2, self.scale, self.zero_point, 0, 255, torch.uint8
        )
        return QuantizedTensor(y, self.scale, self.zero_point)


def test_a_custom_module_between_quantized_tensors():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.custom, self.observer = Observed(), tq.default_observer()
            self.custom.qconfig = tq.default_qconfig

        def forward(self, x):
            return self.observer(self.custom(x.dequantize()))

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m, name):
            return True

    model = Model()
    graph = fx.GraphModule(model, Tracer().trace(model))
    q = QuantizedTensor(torch.tensor([2, 4, 8], dtype=torch.uint8), 0.5)
    want = graph(q)
    modules, seen = dict(graph.named_modules()), set()
    node = next(n for n in graph.graph.nodes if n.target == "custom")
    table = {QuantType.STATIC: {Observed: Quantized}}
    steps.convert_custom_module(node, graph.graph, modules, table, seen)
    assert seen == {node} and isinstance(graph.custom, Quantized) and modules["custom"] is graph.custom
    assert not any(n.op == "call_method" for n in graph.graph.nodes)
    (behind,) = node.users
    behind.replace_all_uses_with(node)
    graph.graph.erase_node(behind)
    graph.recompile()
    result = graph(q)
    assert isinstance(result, QuantizedTensor)
    assert (result.dequantize() - want).abs().max() <= graph.custom.scale / 2
    bare, node, modules = traced(Observed())
    with pytest.raises(ValueError, match="argument 'node' must have an observer behind it"):
        steps.convert_custom_module(node, bare.graph, modules, table, set())


@pytest.mark.parametrize("is_reference", [False, True])
def test_a_standalone_module(is_reference):
    x = torch.randn(3, 4)
    inner = fx.symbolic_trace(nn.Sequential(nn.Linear(4, 5), nn.ReLU()).eval())
    mapping = tq.get_default_qconfig_mapping("onednn")
    observed = prepare(inner, mapping, False, {}, (x,), is_standalone_module=True)
    graph, node, modules = traced(observed)
    want = graph(x)
    steps.convert_standalone_module(node, modules, graph, is_reference, None)
    assert modules["0"] is graph.get_submodule("0") is not observed
    got = graph(x)
    assert 0 < (got - want).abs().max() < 0.05
    targets = {n.target for n in modules["0"].graph_module.graph.nodes}
    assert (torch.ops.aten.linear.default in targets) == is_reference
    plain, node, modules = traced(nn.Linear(4, 4))
    with pytest.raises(ValueError, match="must call an ObservedStandaloneGraphModule, got Linear"):
        steps.convert_standalone_module(node, modules, plain, False, None)


def test_attributes_that_copies_have():
    x = torch.randn(3, 4)
    mapping = tq.get_default_qconfig_mapping("onednn")
    graph = tq.quantize_fx.prepare_fx(nn.Sequential(nn.Linear(4, 5)).eval(), mapping, (x,))
    tq.quantize_fx.attach_preserved_attrs_to_model(graph, {"note": [1]})
    again = copy.deepcopy(graph)
    assert graph.note == again.note == [1]
    with pytest.raises(TypeError, match="attach_preserved_attrs_to_model: argument .model."):
        tq.quantize_fx.attach_preserved_attrs_to_model(nn.Linear(2, 2), {})


def test_check_node(theirs):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.pool = nn.Linear(4, 4), nn.Identity()

        def forward(self, x):
            y = F.relu(self.pool(self.fc(x))).reshape(-1).sigmoid()
            return torch.cat([y + 1, F.hardswish(y)]).exp()

    graph = fx.symbolic_trace(Model())
    modules = dict(graph.named_modules())
    other = importlib.import_module("torch.ao.quantization.utils").check_node
    found = {node.name: check_node(node, modules) for node in graph.graph.nodes}
    assert found == {node.name: other(node, modules) for node in graph.graph.nodes}
    assert sum(map(any, found.values())) == 6
