"""ns.fx.graph_passes: loggers and shadows at nodes of the user's choice."""

import importlib
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from torch_ao_ext import quantization as tq
from torch_ao_ext.ns import _numeric_suite_fx as ns
from torch_ao_ext.ns.fx.graph_matcher import GraphMatchingException, get_matching_subgraph_pairs
from torch_ao_ext.ns.fx.graph_passes import add_loggers_to_model, create_a_shadows_b
from torch_ao_ext.quantization.quantize_fx import convert_fx, prepare_fx


class Net(nn.Module):
    """A residual block, pooling, cat, a linear layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.pool, self.fc = nn.MaxPool2d(2), nn.Linear(8, 6)

    def forward(self, x):
        y = torch.relu(self.first(x))
        y = self.pool(torch.relu(self.second(y) + y))
        return self.fc(torch.cat([y, y * 0.5], 1).mean([2, 3]))


def batch(size, seed=1):
    torch.manual_seed(seed)
    return torch.randn(size, 3, 8, 8)


@pytest.fixture(scope="module")
def graphs():
    prepared = prepare_fx(Net().eval(), tq.get_default_qconfig_mapping("onednn"), (batch(4),))
    prepared(batch(4))
    return prepared, convert_fx(prepared)


def logged(model):
    found = [m for m in model.modules() if isinstance(m, ns.OutputLogger)]
    keys = ("ref_name", "ref_node_name", "prev_node_name", "model_name", "ref_node_target_type",
            "results_type", "index_within_arg", "index_of_arg")  # fmt: skip
    return {tuple(getattr(m, key) for key in keys): m.stats for m in found}


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.w = nn.Linear(4, 4), nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        y = self.fc(x)
        return F.linear(torch.cat([y, y + x]), self.w)


def test_a_traced_graph_logs_as_in_torch_ao():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        passes = importlib.import_module("torch.ao.ns.fx.graph_passes")
    traced, x = fx.symbolic_trace(Plain()), torch.randn(2, 4)
    by_name = {node.name: node for node in traced.graph.nodes}
    inputs = {by_name[name]: (f"in_{name}", "kind") for name in ("cat", "add")}
    outputs = {by_name[name]: (f"out_{name}", "kind") for name in ("fc", "linear")}
    found = []
    for function in (add_loggers_to_model, passes.add_loggers_to_model):
        model = function(traced, inputs, outputs, ns.OutputLogger, "fp32")
        assert torch.equal(model(x), traced(x))
        found.append(logged(model))
    ours, theirs = found
    # There, a logger behind a logged node reads the logger.
    assert {key[:2] + key[3:] for key in ours} == {key[:2] + key[3:] for key in theirs} and len(ours) == 6
    values = {key[:2] + key[3:]: stats for key, stats in theirs.items()}
    assert all(torch.equal(stats[0], values[key[:2] + key[3:]][0]) for key, stats in ours.items())


def test_an_int8_graph_logs_floats(graphs):
    prepared, int8 = graphs
    pairs = get_matching_subgraph_pairs(prepared, int8)
    nodes = {part.base_op_node: (name, "kind") for name, (_, part) in pairs.items()}
    x = batch(2, seed=5)
    model = add_loggers_to_model(int8, nodes, nodes, ns.OutputLogger, "int8")
    assert torch.equal(model(x), int8(x))
    first, second = ns.add_loggers("fp32", prepared, "int8", int8, ns.OutputLogger, True)
    second(x)
    have, want = logged(model), logged(second)
    assert len(have) == len(want) > 10

    def keyed(results):
        return {(key[1], key[5], key[7]): stats[0] for key, stats in results.items()}

    for key, value in keyed(have).items():
        assert torch.equal(value, keyed(want)[key]), key


def test_shadows_of_some_pairs(graphs):
    prepared, int8 = graphs
    pairs = get_matching_subgraph_pairs(prepared, int8)
    chosen = {name: pair for name, pair in pairs.items() if "conv2d" in name}
    x = batch(2, seed=5)
    shadowed = create_a_shadows_b("fp32", prepared, "int8", int8, chosen, ns.OutputLogger, True)
    assert torch.equal(shadowed(x), int8(x)) and len(chosen) == 2
    results = ns.extract_shadow_logger_info(shadowed, ns.OutputLogger, "int8")
    whole = ns.add_shadow_loggers("fp32", prepared, "int8", int8, ns.OutputLogger, True)
    whole(x)
    every = ns.extract_shadow_logger_info(whole, ns.OutputLogger, "int8")
    assert 0 < len(results) <= 2 < len(every)
    for name, layer in results.items():
        for kind in ("node_input", "node_output"):
            for model in ("fp32", "int8"):
                pair = layer[kind][model][0], every[name][kind][model][0]
                assert torch.equal(pair[0]["values"][0], pair[1]["values"][0])


def test_wrong_arguments(graphs):
    prepared, int8 = graphs
    pairs = get_matching_subgraph_pairs(prepared, int8)
    traced = fx.symbolic_trace(Plain())
    foreign = {next(iter(pairs.values()))[0].base_op_node: ("a", "b")}
    with pytest.raises(ValueError, match="nodes must be of the graph that is given"):
        add_loggers_to_model(traced, foreign, {}, ns.OutputLogger, "fp32")
    with pytest.raises(ValueError, match="argument 'gm' must be a graph"):
        add_loggers_to_model(nn.Linear(2, 2), {}, {}, ns.OutputLogger, "fp32")
    floats = get_matching_subgraph_pairs(traced, traced)
    with pytest.raises(GraphMatchingException, match="operators that lower or convert_fx made"):
        create_a_shadows_b("a", traced, "b", traced, floats, ns.OutputLogger, False)
    with pytest.raises(ValueError, match="nodes must be of the graph that is given"):
        create_a_shadows_b("a", traced, "b", int8, pairs, ns.OutputLogger, False)
