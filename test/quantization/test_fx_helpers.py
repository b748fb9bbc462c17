"""Classes and functions of FX graph mode that programs import; constants and failures of its capture."""

import copy
import importlib
import inspect
import operator
import pickle
import re
import types
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from torch_ao_ext import quantization as tq
from torch_ao_ext.nn import intrinsic, quantizable
from torch_ao_ext.ns._numeric_suite_fx import NSTracer
from torch_ao_ext.quantization.fx import graph_module as gm
from torch_ao_ext.quantization.fx import utils
from torch_ao_ext.quantization.fx.custom_config import PrepareCustomConfig
from torch_ao_ext.quantization.fx.tracer import QuantizationTracer, ScopeContextManager
from torch_ao_ext.quantization.quantize_fx import (
    convert_fx,
    convert_to_reference_fx,
    fuse_fx,
    prepare_fx,
    prepare_qat_fx,
)

MAPPING = tq.get_default_qconfig_mapping("onednn")
X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def observed(model, *inputs, custom=None):
    graph = prepare_fx(model.eval(), MAPPING, inputs, custom)
    graph(*inputs)
    return graph


def test_graphs_are_told_apart_by_class():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4)))
    custom = PrepareCustomConfig().set_standalone_module_name("1", None, (), None)
    graph = observed(model, X, custom=custom)
    inner = [m for m in graph.modules() if isinstance(m, gm.ObservedStandaloneGraphModule)]
    assert len(inner) == 1
    for same in (graph, copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        assert isinstance(same, gm.ObservedGraphModule)
        assert not isinstance(same, (gm.ObservedStandaloneGraphModule, gm.QuantizedGraphModule))
        assert torch.equal(same(X), graph(X))
    with pytest.raises(NotImplementedError, match="train"):
        graph.train()
    int8 = convert_fx(graph)
    assert isinstance(int8, gm.QuantizedGraphModule) and not isinstance(int8, gm.ObservedGraphModule)
    trained = prepare_qat_fx(nn.Linear(4, 4), tq.get_default_qat_qconfig_mapping("onednn"), (X,))
    assert isinstance(trained, gm.ObservedGraphModule)
    assert isinstance(fuse_fx(model.eval()), gm.FusedGraphModule)


def test_attributes_are_taken_over():
    root = nn.Linear(2, 2)
    root.note = "kept"
    graph = gm.FusedGraphModule(root, fx.symbolic_trace(nn.Identity()).graph, {"note", "none"})
    assert graph.note == "kept" and copy.deepcopy(graph).note == "kept" and not hasattr(graph, "none")


class Choice(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x, flag, scale=2.0, mode="plain"):
        y = self.fc(x)
        if flag:
            y = torch.relu(y)
        return (-y if mode == "minus" else y) * scale


@pytest.mark.parametrize("constants", [(True,), (False, 3.0), (True, 2.0, "minus")])
def test_numbers_and_strings_are_constants_of_the_graph(constants):
    model = Choice().eval()
    graph = observed(model, X, *constants)
    int8, reference = convert_fx(graph), convert_to_reference_fx(graph)
    more = torch.randn(7, 4)
    for made in (int8, reference, copy.deepcopy(int8), pickle.loads(pickle.dumps(int8))):
        assert (made(X, *constants) - model(X, *constants)).abs().max() < 0.1
        assert made(more, *constants).shape == (7, 4)  # the batch stays free
    wrong = (not constants[0], *constants[1:])
    with pytest.raises(ValueError, match=f"input 'flag' must be {constants[0]}, .*got {wrong[0]}"):
        int8(X, *wrong)
    with pytest.raises(AssertionError, match="flag"):
        graph(X, *wrong)
    if len(constants) == 3:
        with pytest.raises(ValueError, match="input 'mode' must be 'minus', .*got 'plain'"):
            int8(X, True, 2.0, "plain")
    assert tuple(torch.export.export(int8, (X, *constants)).module()(X, *constants).shape) == (3, 4)


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        y = self.fc(x)
        if y.sum() > 0:  # the line that is named
            y = torch.relu(y)
        return y


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.fc = Branch(), nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(self.inner(x))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m: prepare_fx(m, MAPPING, (X,)), "prepare_fx: argument 'model' must be what torch.export"),
        (lambda m: fuse_fx(m), "fuse_fx: argument 'model' must be what torch.fx traces"),
    ],
)
def test_what_cannot_be_captured_is_named_with_file_and_line(call, said):
    line = inspect.getsourcelines(Branch.forward)[1] + 2
    place = f'File "{__file__}", line {line}, in forward (if y.sum() > 0:  # the line that is named)'
    with pytest.raises(ValueError, match=f"^{re.escape(said)}.*{re.escape(place)}") as error:
        call(Outer().eval())
    assert error.value.__cause__ is not None


def test_such_modules_may_stay_whole():
    custom = PrepareCustomConfig().set_non_traceable_module_names(["inner"])
    model = Outer()
    graph = observed(model, X, custom=custom)
    assert (convert_fx(graph)(X) - model(X)).abs().max() < 0.1


def test_constants_of_scripts():
    constants = (True, 2.5, "minus", 3)
    model = nn.Sequential()
    model.choice = Choice()
    model.forward = lambda x, flag, scale, mode, count: model.choice(x, flag, scale, mode) * count
    int8 = convert_fx(observed(model, X, *constants))
    script = torch.jit.script(int8)
    assert torch.equal(script(X, *constants), int8(X, *constants))
    for index, wrong in enumerate((False, 1.5, "plain", 4)):
        given = [*constants[:index], wrong, *constants[index + 1 :]]
        for made, kind in ((int8, ValueError), (script, torch.jit.Error)):
            with pytest.raises(kind, match=f"input '.*' must be '?{constants[index]}'?,.* got '?{wrong}'?"):
                made(X, *given)


def test_converted_graphs_script():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))
    x = torch.randn(2, 3, 8, 8)
    int8 = convert_fx(observed(model, x))
    script = torch.jit.script(int8)
    for given in (x, torch.randn(5, 3, 8, 8)):
        assert torch.equal(script(given), int8(given))


class Traced(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 4))
        self.fused = intrinsic.LinearReLU(nn.Linear(4, 4), nn.ReLU())
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        y = F.relu(self.second(self.first(x))) + x.size(0) + x.shape[1]
        return F.linear(self.fused(y), torch.neg(self.weight * 2))


def traced():
    model = Traced().eval()
    graph = QuantizationTracer([], []).trace(model)
    return fx.GraphModule(model, graph), {node.name: node for node in graph.nodes}


def test_tracer():
    model, nodes = traced()
    assert [n.target for n in nodes.values() if n.op == "call_module"] == [
        "first", "second.0", "second.1", "fused"
    ]  # fmt: skip
    again = Traced().eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(model(X), again(X))
    whole = QuantizationTracer(["second"], [nn.ReLU]).trace(Traced())
    assert [n.target for n in whole.nodes if n.op == "call_module"] == ["first", "second", "fused"]
    whole = QuantizationTracer([], [nn.Sequential]).trace(Traced())
    assert "second" in [n.target for n in whole.nodes if n.op == "call_module"]
    watched = nn.Sequential(nn.Linear(4, 4), tq.MinMaxObserver(), tq.default_fake_quant())
    nodes = NSTracer([], []).trace(watched).nodes
    assert [n.target for n in nodes if n.op == "call_module"] == ["0", "1", "2"]
    scope = fx.proxy.Scope("", None)
    with ScopeContextManager(scope, watched[0], "a.b") as inner:
        assert (inner.module_path, inner.module_type) == ("a.b", nn.Linear) and inner is scope
    assert (scope.module_path, scope.module_type) == ("", None)


def test_names_and_constants():
    model, nodes = traced()
    model.scale_0 = 1
    assert utils.get_new_attr_name_with_prefix("scale_")(model) == "scale_1"
    with model.graph.inserting_before(nodes["output"]):
        number = utils.create_getattr_from_value(model, model.graph, "a.b", 0.5)
        tensor = utils.create_getattr_from_value(model, model.graph, "scale_", model.weight)
        old = nodes["first"]
        old.stack_trace = "here"
        new = utils.create_node_from_old_node_preserve_meta(
            model.graph, ("call_function", torch.neg, (number,)), old
        )
    assert (number.target, tensor.target, new.stack_trace) == ("a_b0", "scale_1", "here")
    assert model.a_b0 == 0.5 and torch.equal(model.scale_1, model.weight)
    assert model.scale_1.data_ptr() != model.weight.data_ptr()
    assert not dict(model.named_parameters()).keys() & {"a_b0", "scale_1"}


def test_devices():
    assert utils.assert_and_get_unique_device(nn.ReLU()) is None
    assert utils.assert_and_get_unique_device(nn.Linear(2, 2)) == torch.device("cpu")
    mixed = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta"))
    with pytest.warns(UserWarning, match="meta device"):
        assert utils.assert_and_get_unique_device(mixed) == torch.device("cpu")
    several = nn.Module()
    several.register_buffer("a", torch.empty(1, device="meta"))
    several.parameters = lambda: iter([types.SimpleNamespace(device=torch.device("cuda", i)) for i in (0, 1)])
    with pytest.raises(AssertionError, match="must be on one device, got cuda:0, cuda:1, meta"):
        utils.assert_and_get_unique_device(several)


def test_producers():
    model, nodes = traced()
    chain = utils.collect_producer_nodes(nodes["neg"])
    assert [n.name for n in chain] == ["neg", "mul", "weight"]
    assert torch.equal(utils.graph_module_from_producer_nodes(model, chain)(), -2 * model.weight)
    assert utils.collect_producer_nodes(nodes["relu"]) is None
    with pytest.raises(ValueError, match="'producer_nodes' must not be empty"):
        utils.graph_module_from_producer_nodes(model, [])


def test_readers_and_arguments():
    model, nodes = traced()
    modules = dict(model.named_modules())
    assert utils.maybe_get_next_module(nodes["first"], modules, nn.ReLU) is nodes["second_0"]
    assert utils.maybe_get_next_module(nodes["second_1"], modules, None, F.relu) is nodes["relu"]
    assert utils.maybe_get_next_module(nodes["second_1"], modules, nn.ReLU) is None
    assert utils.all_node_args_except_first(nodes["linear"]) == [1]
    assert utils.return_arg_list([0, 1, 5])(nodes["linear"]) == [0, 1]


def test_numbers_are_known():
    model, nodes = traced()
    modules = dict(model.named_modules())
    sizes = [n for n in nodes.values() if n.target in (operator.getitem, "size") or n.target is getattr]
    assert len(sizes) == 3
    for node in nodes.values():
        if node.op != "output":
            assert utils.all_node_args_have_no_tensors(node, modules, {}) == (node in sizes), node
    assert utils.all_node_args_have_no_tensors(3, modules, {})


def test_skipped_modules():
    config = PrepareCustomConfig().set_non_traceable_module_names(["a"])
    config.set_non_traceable_module_classes([nn.GRU]).set_standalone_module_name("b", None, (), None)
    config.set_standalone_module_class(nn.Bilinear, None, (), None)
    config.set_float_to_observed_mapping(nn.LSTM, quantizable.LSTM)
    names, classes = utils.get_skipped_module_name_and_classes(config, False)
    assert (names, classes) == (["a", "b"], [nn.GRU, nn.Bilinear, nn.LSTM])
    assert utils.get_skipped_module_name_and_classes(config, True) == (["a"], [nn.GRU])
    assert config.non_traceable_module_names == ["a"]


def test_arguments_that_are_no_values():
    """As in torch.ao's table; it has the functions under "call_method", where no node finds them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = importlib.import_module("torch.ao.quantization.fx.utils")
    graph = fx.Graph()
    x, mask = graph.placeholder("x"), graph.placeholder("mask")
    calls = [
        graph.call_method("masked_fill", (x, mask, 0.0)), graph.call_method("permute", (x, 1, 0, 2)),
        graph.call_method("size", (x, 1)), graph.call_method("size", (x,)), graph.call_method("relu", (x,)),
        graph.call_method("unsqueeze", (x, 0)), graph.call_method("view", (x, -1)),
    ]  # fmt: skip

    def indices(module, node):
        found = module.get_non_observable_arg_indexes_and_types(node)
        return {kind: function(node) for kind, function in found.items()}

    for node in calls:
        assert indices(utils, node) == indices(theirs, node), node
    assert indices(utils, calls[0]) == {torch.bool: [1], float: [2]}
    assert indices(utils, graph.call_function(torch.transpose, (x, 0, 1))) == {int: [1, 2]}
    assert utils.get_non_observable_arg_indexes_and_types(x) is utils.EMPTY_ARG_DICT == {}
    own = {info for info in theirs.NON_OBSERVABLE_ARG_DICT if isinstance(info.target, str)}
    assert {tuple(info) for info in own} <= {tuple(info) for info in utils.NON_OBSERVABLE_ARG_DICT}


def test_weights_and_biases_among_arguments():
    graph = fx.Graph()
    x, w, b = (graph.placeholder(name) for name in "xwb")
    aten = torch.ops.aten
    for node in (
        graph.call_function(F.linear, (x, w, b)), graph.call_function(F.conv2d, (x, w), {"bias": b}),
        graph.call_function(F.layer_norm, (x, (4,), w, b)), graph.call_function(F.group_norm, (x, 2, w, b)),
        graph.call_function(F.instance_norm, (x,), {"weight": w, "bias": b}),
        graph.call_function(aten.conv2d.default, (x, w, b)),
        graph.call_function(aten.linear.default, (x, w, b)),
    ):  # fmt: skip
        is_weight = [utils.node_arg_is_weight(node, arg) for arg in (x, w, b, None)]
        assert is_weight == [False, True, False, False], node
        assert [utils.node_arg_is_bias(node, arg) for arg in (x, w, b, None)] == [False, False, True, False]
        stays = node.target in utils.NON_QUANTIZABLE_WEIGHT_OPS
        assert stays is ("norm" in str(node.target))
    rows = graph.call_function(F.embedding, (x, w))
    assert utils.node_arg_is_weight(rows, w) and not utils.node_arg_is_bias(rows, w)
    assert not utils.node_arg_is_weight(graph.call_function(torch.add, (x, w)), w)
