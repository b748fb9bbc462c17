"""ns.fx: tables of related operators, matching, weights and node types, beside torch.ao's."""

import importlib
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

import torch_ao_ext.nn.quantized as nnq
import torch_ao_ext.nn.quantized.dynamic as nnqd
from torch_ao_ext import quantization as tq
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.ns.fx import graph_matcher, mappings, pattern_utils, utils, weight_utils
from torch_ao_ext.ns.fx.ns_types import NSSubgraph
from torch_ao_ext.ns.fx.utils import NodeInputOrOutputType as Kind
from torch_ao_ext.quantization.fx.tracer import NSTracer
from torch_ao_ext.quantization.quantize_fx import convert_fx, prepare_fx

EITHER = {torch.cat, F.dropout, nn.Dropout, nn.ReLU6, torch.ops.aten.add.Tensor}
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def theirs():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = ("mappings", "graph_matcher", "weight_utils", "utils", "pattern_utils")
        return {name: importlib.import_module(f"torch.ao.ns.fx.{name}") for name in names}


def of_torch_ao(member):
    """What this library has in place of a member of torch.ao's tables; None for its operators."""
    module = getattr(member, "__module__", None)
    if isinstance(module, str) and module.startswith("torch.ao"):
        ours = importlib.import_module(module.replace("torch.ao", "torch_ao_ext", 1))
        return getattr(ours, member.__name__)
    return None if member is None or "quantized." in str(member) else member


class Net(nn.Module):
    """Modules, functions and methods; branches; what is passed over."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.bn, self.relu = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()
        self.second, self.pool = nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(2)
        self.fc, self.w = nn.Linear(8, 8), nn.Parameter(torch.randn(6, 8))

    def forward(self, x):
        y = self.relu(self.bn(self.conv(x)))
        y = F.relu(self.second(y) + y)
        y = torch.cat([self.pool(y), self.pool(y) * 0.5], 1).mean([2, 3])
        return F.linear(torch.sigmoid(self.fc(y)), self.w).reshape(-1)


@pytest.fixture(scope="module")
def graphs():
    model = Net().eval().requires_grad_(False)
    prepared = prepare_fx(model, tq.get_default_qconfig_mapping("onednn"), (X,))
    prepared(X)
    return model, prepared, convert_fx(prepared)


def test_what_is_related_in_torch_ao_is_related(theirs):
    home = {}
    for name, members in mappings.get_base_name_to_sets_of_related_ops().items():
        for member in members:
            assert home.setdefault(member, name) == name, "in two sets"
    count = 0
    for members in theirs["mappings"].get_base_name_to_sets_of_related_ops().values():
        ours = [m for m in map(of_torch_ao, members) if m is not None]
        if torch.conv_transpose1d in ours:  # one set for three ranks there
            continue
        assert len({home[m] for m in ours}) <= 1, ours
        count += len(ours)
    assert count > 150
    for name in ("conv2d_relu", "conv2d_dynamic", "conv2d_add"):
        assert home[getattr(torch.ops.torch_ao, name).default] == home[nn.Conv2d]
    assert home[nnqd.Linear] == home[torch.ops.aten.linear.default] == home[torch.ops.torch_ao.linear.tensor]


def test_types_are_those_of_torch_ao(theirs):
    ours = mappings.get_node_type_to_io_type_map()
    found = theirs["mappings"].get_node_type_to_io_type_map()
    assert set(ours) == set(found)
    for key, members in found.items():
        for member in map(of_torch_ao, members):
            if member is not None and member not in EITHER and "add" not in str(member):
                assert member in ours[key], (key, member)
    library = torch.ops.torch_ao
    assert {library.conv2d.default, library.cat.default} <= ours["funs_io_type_int8"]
    assert {library.linear_dynamic.default, library.lstm.default} <= ours["funs_io_type_fp32"]
    kinds = ours["mods_io_type_fp32"], ours["mods_io_type_int8"]
    assert nnqd.Linear in kinds[0] - kinds[1] and nnq.Linear in kinds[1] - kinds[0]


def test_what_is_passed_over(theirs):
    ours, found = (m.get_unmatchable_types_map() for m in (mappings, theirs["mappings"]))
    found["funs_unmatchable"] -= {torch.quantize_per_tensor}  # there are no such tensors here
    assert all(found[key] <= ours[key] for key in found) and set(ours) == set(found)
    assert torch.ops.torch_ao.dequantize_per_tensor.default in ours["funs_unmatchable"]


def test_operators_of_the_user():
    sets = mappings.get_base_name_to_sets_of_related_ops()
    mappings.add_op_to_sets_of_related_ops(sets, "mine", None)
    mappings.add_op_to_sets_of_related_ops(sets, "other", None)
    mappings.add_op_to_sets_of_related_ops(sets, len, F.linear)
    names = [mappings.get_base_name_for_op(sets, op) for op in ("mine", "other", len, nn.Linear, print)]
    assert names == ["0", "1", "linear", "linear", None]
    with pytest.raises(ValueError, match="argument 'related_op' must be in one of the sets, got <built-in"):
        mappings.add_op_to_sets_of_related_ops(sets, "mine", print)
    assert "mine" not in set().union(*mappings.get_base_name_to_sets_of_related_ops().values())
    pairs = pattern_utils.get_type_a_related_to_b({"a": {1, 2}, "b": {3}})
    assert pairs == {(1, 1), (1, 2), (2, 1), (2, 2), (3, 3)}


def test_traced_graphs_match_as_in_torch_ao(theirs):
    traced = fx.symbolic_trace(Net().eval())
    found = theirs["graph_matcher"].get_matching_subgraph_pairs(traced, traced)
    ours = graph_matcher.get_matching_subgraph_pairs(traced, traced)
    assert [tuple(pair) for pair in ours.values()] == [tuple(pair) for pair in found.values()]
    assert {"base_op_conv2d_0", "base_op_sigmoid_0", "base_op_cat_0"} <= set(ours)
    first = next(a for a, _ in ours.values() if a.start_node.name == "conv")
    assert (first.start_node.name, first.end_node.name) == ("conv", "relu") and first.base_op_node is first[0]


def test_reversed_fusions(theirs):
    """Sequences of torch.ao are known here; each is found from its last operator only."""
    ours = {fusion for fusion, _ in pattern_utils.get_reversed_fusions()}
    for fusion in ((nn.ReLU, nn.BatchNorm2d, nn.Conv2d), (F.relu, nn.Linear), (torch.relu, F.linear)):
        assert fusion in ours
    traced = fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()).eval())
    nodes = list(traced.graph.nodes)
    for module in (pattern_utils, theirs["pattern_utils"]):
        ends = module.end_node_matches_reversed_fusion
        fusion = (nn.ReLU, nn.BatchNorm2d, nn.Conv2d)
        assert [ends(n, fusion, traced, set()) for n in nodes] == [False, False, False, True, False]
        assert not ends(nodes[3], fusion, traced, {nodes[1]})


def test_a_traced_model_of_int8_modules(graphs):
    float_model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Flatten()).eval()
    model = nn.Sequential(tq.QuantStub(), *float_model, tq.DeQuantStub()).eval()
    model.qconfig = tq.get_default_qconfig("onednn")
    fused = tq.fuse_modules(model, [["1", "2"]])
    ready = tq.prepare(fused)
    ready(X)
    int8 = tq.convert(ready)

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m, name):
            return not isinstance(m, nn.Sequential) or type(m) is not nn.Sequential

    def traced(m):
        return fx.GraphModule(m, Tracer().trace(m))

    sets = mappings.get_unmatchable_types_map()
    sets["mods_unmatchable"] |= {nnq.Quantize, nnq.DeQuantize}
    pairs = graph_matcher.get_matching_subgraph_pairs(traced(float_model), traced(int8), None, sets)
    ends = {name: (str(a.end_node.target), str(b.end_node.target)) for name, (a, b) in pairs.items()}
    assert ends == {
        "base_op_conv2d_1": ("1", "1"), "base_op_conv2d_0": ("2", "3"), "base_op_flatten_0": ("3", "4"),
    }  # fmt: skip


def test_lowered_graphs_match_by_their_notes(graphs):
    _, prepared, int8 = graphs
    pairs = graph_matcher.get_matching_subgraph_pairs(prepared, int8)
    by_name = {name: (a.base_op_node.target, b.base_op_node.target) for name, (a, b) in pairs.items()}
    aten, library = torch.ops.aten, torch.ops.torch_ao
    assert by_name["base_op_conv2d_1"][0] is aten.conv2d.default
    assert by_name["base_op_linear_0"] == (aten.linear.default, library.linear.default)
    assert {"base_op_add_0", "base_op_mul_0", "base_op_max_pool2d_0", "base_op_cat_0"} <= set(by_name)
    assert all(isinstance(part, NSSubgraph) for pair in pairs.values() for part in pair)
    first = pairs["base_op_add_0"][0]
    assert first.end_node.target is aten.relu.default and first.start_node.target is aten.add.Tensor
    other = fx.symbolic_trace(nn.Sequential(nn.Tanh()))
    with pytest.raises(graph_matcher.GraphMatchingException, match="no operator in common"):
        graph_matcher.get_matching_subgraph_pairs(other, int8)


def test_graphs_that_do_not_match():
    one, two = (fx.symbolic_trace(nn.Sequential(*layers)) for layers in (
        (nn.Linear(4, 4), nn.Tanh()), (nn.Linear(4, 4), nn.Sigmoid())))  # fmt: skip
    more = fx.symbolic_trace(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Tanh()))
    match = graph_matcher.get_matching_subgraph_pairs
    with pytest.raises(graph_matcher.GraphMatchingException, match="related operators in the same order"):
        match(one, two)
    with pytest.raises(graph_matcher.GraphMatchingException, match="number of operators, got 2 and 3"):
        match(one, more)
    with pytest.raises(ValueError, match="argument 'gm_a' must be a graph"):
        match(nn.Linear(2, 2), one)


def test_weights_of_modules(theirs):
    from torch_ao_ext.nn import intrinsic, qat

    other = theirs["weight_utils"]
    conv, linear, lstm = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), nn.LSTM(4, 3, 2, bidirectional=True)
    for name, module in (("get_conv_mod_weight", conv), ("get_linear_mod_weight", linear)):
        assert torch.equal(getattr(weight_utils, name)(module), getattr(other, name)(module))
    ours, found = weight_utils.get_lstm_mod_weights(lstm), other.get_lstm_mod_weights(lstm)
    assert len(ours) == 8 and all(map(torch.equal, ours, found))
    fused = intrinsic.LinearReLU(linear, nn.ReLU())
    assert torch.equal(weight_utils.get_linear_mod_weight(fused), linear.weight)
    model = tq.quantize_dynamic(nn.Sequential(linear), {nn.Linear})
    weight = weight_utils.get_linear_mod_weight(model[0])
    assert isinstance(weight, QuantizedTensor)
    assert (weight.dequantize() - linear.weight).abs().max() < 0.02
    int8 = tq.quantize_dynamic(nn.Sequential(lstm), {nn.LSTM})[0]
    for a, b in zip(weight_utils.get_lstm_mod_weights(int8), ours, strict=True):
        assert utils.compute_sqnr(b, a) > 35
    linear.qconfig = tq.get_default_qat_qconfig("onednn")
    trained = qat.Linear.from_float(linear)
    assert torch.equal(weight_utils.get_linear_mod_weight(trained), linear.weight)
    with pytest.raises(TypeError, match="argument 'mod' must be torch.nn.LSTM"):
        weight_utils.get_lstm_mod_weights(linear)


def test_weights_of_nodes(graphs, theirs):
    model, prepared, int8 = graphs
    for a, b in graph_matcher.get_matching_subgraph_pairs(prepared, int8).values():
        gm_b = b.base_op_node.graph.owning_module
        one = weight_utils.extract_weight_from_node(a.base_op_node, prepared)
        two = weight_utils.extract_weight_from_node(b.base_op_node, gm_b)
        weighted = any(name in str(a.base_op_node.target) for name in ("conv", "linear"))
        assert (one is not None) == (two is not None) == weighted
        if weighted:
            assert isinstance(two["values"][0], QuantizedTensor) and two["type"] == "weight"
            assert utils.compute_sqnr(one["values"][0], two["values"][0]) > 35
    traced = fx.symbolic_trace(model)
    for node in traced.graph.nodes:
        ours = weight_utils.extract_weight_from_node(node, traced)
        found = theirs["weight_utils"].extract_weight_from_node(node, traced)
        assert (ours is None) == (found is None)
        if ours is not None:
            assert torch.equal(ours["values"][0], found["values"][0])
            left = {key: value for key, value in ours.items() if key not in ("values", "fqn")}
            assert left == {key: value for key, value in found.items() if key not in ("values", "fqn")}
    with pytest.raises(ValueError, match="argument 'node' must have a constant weight"):
        free = fx.symbolic_trace(lambda x, w: F.linear(x, w))
        weight_utils.get_linear_fun_weight(list(free.graph.nodes)[2], free)


def test_types_of_nodes(graphs, theirs):
    model, _, int8 = graphs
    traced = fx.symbolic_trace(model)
    tables = [m.get_node_type_to_io_type_map() for m in (mappings, theirs["mappings"])]
    for node in traced.graph.nodes:
        if not node.op.startswith("call"):
            continue
        ours = utils.get_node_first_input_and_output_type(node, traced, nn.Identity, tables[0])
        found = theirs["utils"].get_node_first_input_and_output_type(node, traced, nn.Identity, tables[1])
        names = [kind.name for kind in found]
        assert [kind.name for kind in ours] == names or names == ["UNKNOWN"] * 2, node
        for name in ("get_arg_indices_of_inputs_to_log", "op_type_supports_shadowing"):
            assert getattr(utils, name)(node) == getattr(theirs["utils"], name)(node)
        assert utils.get_target_type_str(node, traced) == theirs["utils"].get_target_type_str(node, traced)
        args = [utils.get_normalized_nth_input(node, traced, 0),
                theirs["utils"].get_normalized_nth_input(node, traced, 0)]  # fmt: skip
        assert args[0] is args[1] or args[0] == args[1]
        with pytest.raises(IndexError, match="argument 'idx' must be below"):
            utils.get_normalized_nth_input(node, traced, 99)
    graph = graph_matcher.check_graph("test", "model", int8)
    by_target = {node.target: node for node in graph.graph.nodes}
    quantize = by_target[torch.ops.torch_ao.quantize_per_tensor.default]
    kinds = utils.get_node_first_input_and_output_type(quantize, graph, nn.Identity, tables[0])
    assert kinds == (Kind.FP32, Kind.INT8)
    conv = next(user for user in quantize.users if "conv" in str(user.target))
    kinds = utils.get_node_first_input_and_output_type(conv, graph, nn.Identity, tables[0])
    assert kinds == (Kind.INT8, Kind.INT8)
    assert utils.get_node_input_qparams(conv, graph, tables[0]) == quantize.args[1:3]
    assert utils.get_node_input_qparams(quantize, graph, tables[0]) is None


def test_observers_are_looked_through(graphs):
    _, prepared, _ = graphs
    conv = next(n for n in prepared.graph.nodes if n.target is torch.ops.aten.conv2d.default)
    first = utils.return_first_non_observer_node(conv.args[0], prepared)
    assert conv.args[0].op == "call_module" and first.op == "placeholder"
    assert utils.return_first_non_observer_node(conv, prepared) is conv
    lstm = nn.Sequential(nn.LSTM(2, 2), nn.Identity())
    traced = fx.GraphModule(lstm, NSTracer([], []).trace(lstm))
    counts = [utils.get_number_of_non_param_args(n, traced) for n in traced.graph.nodes]
    assert counts == [1, 2, 1, 1]


def test_keys_and_names_of_results(theirs):
    def results():
        def one(node, fqn):
            return {"ref_node_name": node, "fqn": fqn}

        return {
            "base_op_0": {"node_output": {"a": [one("x", "m.x")], "b": [one("y", None)]}},
            "base_op_1": {"node_output": {"a": [one("z", "m.z")], "b": [one("w", None)]}},
        }

    for module in (utils, theirs["utils"]):
        found = results()
        assert list(module.rekey_logger_info_on_node_name_of_model(found, "b")) == ["y", "w"]
        assert list(module.rekey_logger_info_on_node_name_of_model(found, "c")) == list(found)
        assert module.maybe_add_missing_fqns(found) is None
        assert [layer["node_output"]["b"][0]["fqn"] for layer in found.values()] == ["m.x", "m.z"]


def test_measures_of_structures(theirs):
    for module in (utils, theirs["utils"]):
        largest = module.maybe_dequantize_first_two_tensor_args_and_handle_tuples(
            lambda x, y, z=0: (x - y).abs().max() + z
        )
        x = torch.ones(3)
        assert largest(x, x * 3, 1) == 3 and largest([x, x], [x, x + 1]) == [0, 1]
        assert largest(x, x.int()) is None
    q = QuantizedTensor(torch.tensor([2, 4, 6], dtype=torch.int8), 0.5)
    largest = utils.maybe_dequantize_first_two_tensor_args_and_handle_tuples(lambda x, y: (x - y).sum())
    assert largest(q, torch.ones(3)) == 3
