"""Patterns of FX graph mode on graphs of torch.fx: matches, fusion, handlers."""

import importlib
import operator
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from torch_ao_ext.nn import intrinsic
from torch_ao_ext.quantization import backend_config as bc
from torch_ao_ext.quantization.fx import fuse_handler, match_utils, pattern_utils
from torch_ao_ext.quantization.fx import quantize_handler as handlers
from torch_ao_ext.quantization.fx.custom_config import FuseCustomConfig
from torch_ao_ext.quantization.fx.fuse import fuse
from torch_ao_ext.quantization.fx.tracer import QuantizationTracer
from torch_ao_ext.quantization.quantize_fx import fuse_fx
from torch_ao_ext.quantization.utils import MatchAllNode


class Block(nn.Module):
    """Layers, functions and methods; one relu for two places."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.conv3, self.conv4 = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.relu, self.fc = nn.ReLU(), nn.Linear(4, 2)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(x)) + x)
        y = F.relu(self.conv3(y)).mean((2, 3))
        return torch.sigmoid(self.fc(y).relu()) * y.size(0), self.conv4(x)


def traced(model):
    return fx.GraphModule(model, QuantizationTracer([], []).trace(model))


@pytest.fixture
def graph():
    torch.manual_seed(0)
    model = Block()
    model(torch.randn(4, 3, 8, 8))  # statistics
    return traced(model.eval())


def theirs(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"torch.ao.quantization.{name}")


PATTERNS = [
    nn.Conv2d, nn.ReLU, F.relu, "relu", torch.sigmoid, (nn.ReLU, (nn.BatchNorm2d, nn.Conv2d)),
    (nn.BatchNorm2d, nn.Conv2d), (nn.ReLU, operator.add), (F.relu, nn.Conv2d), ("relu", nn.Linear),
    (nn.ReLU, (operator.add, (nn.BatchNorm2d, nn.Conv2d), MatchAllNode)),
    (operator.add, MatchAllNode, nn.Conv2d), (nn.ReLU, nn.Conv2d), "size",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_matches_are_those_of_torch_ao(graph, pattern):
    other = theirs("fx.match_utils")

    def replaced(part):
        if isinstance(part, tuple):
            return tuple(map(replaced, part))
        return other.MatchAllNode if part is MatchAllNode else part

    modules = dict(graph.named_modules())
    hits = 0
    for most in (1, 3):
        mine = [match_utils._is_match(modules, node, pattern, most) for node in graph.graph.nodes]
        want = [other._is_match(modules, node, replaced(pattern), most) for node in graph.graph.nodes]
        assert mine == want
        hits += sum(mine)
    assert (hits > 0) is (pattern not in ((operator.add, MatchAllNode, nn.Conv2d), (nn.ReLU, nn.Conv2d)))


def kinds(graph):
    found = {n.target: graph.get_submodule(n.target) for n in graph.graph.nodes if n.op == "call_module"}
    return {name: type(module).__name__ for name, module in found.items()}


@pytest.mark.parametrize("training", [False, True])
def test_fusion_is_that_of_torch_ao(graph, training):
    """And the methods `relu` besides, which torch.ao leaves alone."""
    graph.train(training)
    before = kinds(graph)
    fused = fuse(graph, training)
    want = kinds(theirs("fx.fuse").fuse(traced(Block().train(training)), training))
    assert kinds(fused) == {**want, "fc": "LinearReLU"} and "bn2" not in want
    assert kinds(graph) == before
    x = torch.randn(4, 3, 8, 8)
    for mine, expected in zip(fused.eval()(x), graph.eval()(x), strict=True):
        assert torch.allclose(mine, expected, atol=1e-5)


def test_fuse_fx_takes_the_patterns_of_the_backend():
    """A relu that is used twice, functions, and a fuser method of the user's with an input of its own."""
    model = Block().eval()
    assert kinds(fuse_fx(model))["conv1"] == "ConvReLU2d"
    only = bc.BackendPatternConfig((nn.Conv2d, F.relu)).set_fuser_method(
        lambda is_qat, conv, relu: intrinsic.ConvReLU2d(conv, relu)
    )  # fmt: skip
    fused = kinds(fuse_fx(model, backend_config=bc.BackendConfig("mine").set_backend_pattern_config(only)))
    assert fused == {**kinds(traced(model)), "conv3": "ConvReLU2d"}

    class Sum(nn.Module):
        def __init__(self, product):
            super().__init__()
            self.product = product

        def forward(self, x, other):
            return torch.relu(self.product(x) + other)

    def fuser(is_qat, relu, add):
        operation, (norm, conv), _ = add
        assert (operation, is_qat) == (operator.add, False)
        return Sum(nn.Sequential(conv, norm))

    pattern = (nn.ReLU, (operator.add, (nn.BatchNorm2d, nn.Conv2d), MatchAllNode))
    entry = bc.BackendPatternConfig()._set_pattern_complex_format(pattern).set_fuser_method(fuser)
    entry._set_root_node_getter(lambda nodes: nodes[1][1][1])
    entry._set_extra_inputs_getter(lambda nodes: [nodes[1][2]])
    fused = fuse(traced(model), False, None, bc.BackendConfig("mine").set_backend_pattern_config(entry))
    assert kinds(fused)["conv2"] == "Sum"
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(fused(x)[0], model(x)[0], atol=1e-6)


def test_fuse_keeps_attributes_and_refuses(graph):
    graph.note = [1]
    assert fuse(graph, False, FuseCustomConfig().set_preserved_attributes(["note"])).note == [1]
    assert issubclass(fuse_handler.DefaultFuseHandler, fuse_handler.FuseHandler)
    with pytest.raises(TypeError, match="fuse: argument 'model' must be a GraphModule, got Block"):
        fuse(Block(), False)
    with pytest.raises(ValueError, match="fuse: argument 'backend_config' must be a BackendConfig or a dict"):
        fuse(graph, False, None, 3)
    with pytest.raises(ValueError, match="must be in evaluation mode"):
        fuse(graph.train(), False)
    empty = bc.BackendConfig("none")
    assert kinds(fuse(graph.eval(), False, None, empty)) == kinds(graph)


FAMILIES = {
    "conv1": (handlers.ConvReluQuantizeHandler, 1), "fc": (handlers.LinearReLUQuantizeHandler, 1),
    "add": (handlers.BinaryOpQuantizeHandler, 2), "mul": (handlers.BinaryOpQuantizeHandler, 1),
    "mean": (handlers.CopyNodeQuantizeHandler, 1), "sigmoid": (handlers.FixedQParamsOpQuantizeHandler, 1),
}  # fmt: skip


def test_handlers_say_what_the_backend_says(graph):
    graph = fuse(graph, False)
    patterns = pattern_utils._sorted_patterns_dict(pattern_utils.get_default_quant_patterns())
    modules = dict(graph.named_modules())
    found = match_utils._find_matches(graph.graph, modules, patterns, {}, ["conv4"], [], [])
    for name, (family, tensors) in FAMILIES.items():
        last, nodes, pattern, handler = found[name]
        assert isinstance(handler, family) and handler.num_tensor_args == tensors, name
        assert handler.root_node.name == name and pattern in patterns and name in str(nodes)
        assert handler.is_general_tensor_value_op() is (family is handlers.CopyNodeQuantizeHandler)
        assert not handler.is_custom_module() and not handler.is_standalone_module()
    assert found["add"][0].name == found["relu_1"][0].name == "relu_1"  # one match
    made = handlers._get_pattern_to_quantize_handlers(bc.get_native_backend_config())
    assert made.keys() == patterns.keys()
    alone = found["conv4"]
    assert alone[2] is None and isinstance(alone[3], handlers.StandaloneModuleQuantizeHandler)
    assert alone[3].is_standalone_module() and "size" not in found
    custom = match_utils._find_matches(graph.graph, modules, {}, {}, [], [], [nn.Conv2d])
    assert custom.keys() == {"conv2", "conv4"}
    assert all(isinstance(m[3], handlers.CustomModuleQuantizeHandler) for m in custom.values())
    assert all(m[3].is_custom_module() for m in custom.values())


@pytest.mark.parametrize(
    ("pattern", "family"),
    [
        (nn.BatchNorm2d, handlers.BatchNormQuantizeHandler),
        (nn.LSTM, handlers.RNNDynamicQuantizeHandler),
        (nn.Embedding, handlers.EmbeddingQuantizeHandler),
        (nn.LeakyReLU, handlers.DefaultNodeQuantizeHandler),
        ("size", handlers.GeneralTensorShapeOpQuantizeHandler),
        (torch.cat, handlers.CatQuantizeHandler),
        ((nn.ReLU, nn.Conv1d), handlers.ConvReluQuantizeHandler),
        (intrinsic.LinearReLU, handlers.LinearReLUQuantizeHandler),
    ],
)
def test_families(pattern, family):
    tables = [bc.get_native_backend_config(), bc.native.get_test_only_legacy_native_backend_config()]
    found = [table for t in tables if pattern in (table := handlers._get_pattern_to_quantize_handlers(t))]
    assert found and all(issubclass(table[pattern], family) for table in found)


def test_the_number_of_tensors_must_be_known():
    class Numbers(nn.Module):
        def forward(self, x):
            return operator.add(x, x)

    entry = bc.BackendPatternConfig(operator.add)
    entry._set_num_tensor_args_to_observation_type({1: bc.ObservationType.OUTPUT_SHARE_OBSERVER_WITH_INPUT})
    table = handlers._get_pattern_to_quantize_handlers(
        bc.BackendConfig().set_backend_pattern_config(entry)
    )  # fmt: skip
    graph = traced(Numbers())
    with pytest.raises(ValueError, match=r"must have an observation type for 2 tensors, got \[1\]"):
        match_utils._find_matches(graph.graph, {}, table, {})


def test_default_tables():
    fusions = pattern_utils.get_default_fusion_patterns()
    assert fusions[(nn.ReLU, (nn.BatchNorm2d, nn.Conv2d))] is fuse_handler.DefaultFuseHandler
    assert nn.Conv2d not in fusions and nn.Conv2d in pattern_utils.get_default_quant_patterns()
    known = pattern_utils.get_default_output_activation_post_process_map(False)
    assert known.keys() == {
        nn.Hardsigmoid, F.hardsigmoid, "hardsigmoid", "hardsigmoid_", nn.Sigmoid, torch.sigmoid, "sigmoid",
        "sigmoid_", nn.Tanh, torch.tanh, "tanh", "tanh_",
    }  # fmt: skip
    assert (float(known[nn.Tanh]().scale), int(known[nn.Tanh]().zero_point)) == (2 / 256, 128)
    trained = pattern_utils.get_default_output_activation_post_process_map(True)
    x = torch.tensor([0.5, 0.501])
    assert torch.equal(trained["sigmoid"]()(x), torch.tensor([0.5, 0.5]))
    longest = list(pattern_utils._sorted_patterns_dict(fusions))
    sizes = [pattern_utils._parts(pattern) for pattern in longest]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == 3
