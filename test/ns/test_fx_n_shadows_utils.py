"""ns.fx.n_shadows_utils: results by layer, weights of candidates, small graphs, beside torch.ao's."""

import importlib
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from torch_ao_ext import quantization as tq
from torch_ao_ext.ns import _numeric_suite_fx as ns
from torch_ao_ext.ns.fx import n_shadows_utils as utils
from torch_ao_ext.ns.fx.qconfig_multi_mapping import QConfigMultiMapping
from torch_ao_ext.ns.fx.utils import compute_sqnr


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU()
        self.w = nn.Parameter(torch.randn(5, 4))

    def forward(self, x):
        y = self.relu(self.conv(x))
        return F.relu(F.linear(y.mean([2, 3]), self.w)) + 1


X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def theirs():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("torch.ao.ns.fx.n_shadows_utils")


@pytest.fixture(scope="module")
def shadows():
    coarse = tq.QConfig(tq.default_observer, tq.default_weight_observer)
    fine = tq.QConfig(tq.default_observer, tq.default_per_channel_weight_observer)
    candidates = QConfigMultiMapping().set_global([coarse, fine])
    prepared = ns.prepare_n_shadows_model(Net().eval().requires_grad_(False), (X,), candidates)
    prepared(X)
    int8 = ns.convert_n_shadows_model(prepared)
    for _ in range(2):
        int8(X)
    return prepared, int8


def test_results_of_nodes(theirs):
    traced = fx.symbolic_trace(Net())
    results = []
    for module in (utils, theirs):
        module.OutputProp(traced).propagate(X)
        results.append({n.name: n.traced_result for n in traced.graph.nodes if n.op.startswith("call")})
        for node in traced.graph.nodes:
            node.__dict__.pop("traced_result", None)
    assert results[0].keys() == results[1].keys() and len(results[0]) == 6
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


@pytest.mark.parametrize("ends", [("conv", "relu"), ("conv", "conv"), ("linear", "relu_1"), ("mean", "add")])
def test_graphs_of_a_few_nodes(theirs, ends):
    traced = fx.symbolic_trace(Net())
    by_name = {node.name: node for node in traced.graph.nodes}
    first, last = (by_name[name] for name in ends)
    small = utils.create_submodule_from_subgraph(traced, first, last)
    utils.OutputProp(traced).propagate(X)
    inputs = [node for node in first.all_input_nodes]
    if ends == ("mean", "add"):
        inputs.append(by_name["w"])
    given = [n.traced_result for n in inputs]
    assert torch.equal(small(*given), last.traced_result)
    if ends != ("mean", "add"):  # a weight of a later node stops torch.ao's
        other = theirs.create_submodule_from_subgraph(traced, first, last)
        assert torch.equal(other(*given), last.traced_result)
    assert sum(n.op == "placeholder" for n in small.graph.nodes) == len(given)
    with pytest.raises(ValueError, match="'first_node' must lead to last_node"):
        utils.create_submodule_from_subgraph(traced, by_name["add"], by_name["conv"])


def test_results_by_layer(theirs, shadows, capsys):
    results = ns.extract_results_n_shadows_model(shadows[1])
    grouped = utils.group_results_by_subgraph(results)
    assert list(grouped) == ["subgraph_0", "subgraph_1"]
    assert [set(layer) for layer in grouped.values()] == [{"0", "1", "2"}] * 2
    outputs = results["model"]["node_output"].values()
    full = {"comparisons": [], "comparison_fn_name": ""}
    for (result,) in outputs:
        result.update({**full, **result})  # torch.ao's float results have the keys
    found = theirs.group_results_by_subgraph(results)
    assert found.keys() == grouped.keys()
    assert all(found[name][j].keys() == grouped[name][j].keys() for name in found for j in found[name])
    ours, other = (m.create_results_comparison(grouped) for m in (utils, theirs))
    for name, layer in other.items():
        assert {k: v for k, v in layer.items() if k != "candidates"} == {
            k: v for k, v in ours[name].items() if k != "candidates"
        }
        for j, candidate in layer["candidates"].items():
            assert torch.equal(candidate["cmp_raw"], ours[name]["candidates"][j]["cmp_raw"])
            assert candidate["cmp_mean"] == ours[name]["candidates"][j]["cmp_mean"] > 20
            assert len(candidate["cmp_raw"]) == 2
    capsys.readouterr()
    utils.print_n_shadows_summary(ours)
    lines = capsys.readouterr().out.splitlines()
    ns.print_comparisons_n_shadows_model(results)
    assert capsys.readouterr().out.splitlines() == lines and len(lines) == 3
    mean = float(ours["subgraph_1"]["candidates"]["2"]["cmp_mean"])
    assert lines[2].split()[-1] == f"{mean:.1f}"


def test_a_candidate_that_never_ran():
    row = {"ref_node_name": "a", "ref_node_target_type": "b", "fqn": "c", "values": [], "qconfig_str": "",
           "comparisons": [], "comparison_fn_name": "sqnr"}  # fmt: skip
    found = utils.create_results_comparison({"subgraph_0": {"0": row, "1": row}})
    candidate = found["subgraph_0"]["candidates"]["1"]
    assert len(candidate["cmp_raw"]) == 0 and candidate["cmp_mean"].isnan()


def test_weights_of_candidates(shadows):
    prepared, int8 = shadows
    assert utils.extract_weight_comparison(prepared) == {"model": {"weight": {}}}
    found = utils.extract_weight_comparison(int8)["model"]["weight"]
    assert set(found) == {f"subgraph_{i}_{j}" for i in range(2) for j in range(3)}
    model = Net()
    for i, weight in enumerate((model.conv.weight, model.w)):
        (reference,) = found[f"subgraph_{i}_0"]
        assert torch.equal(reference["values"][0], weight)
        quality = []
        for j in (1, 2):
            (result,) = found[f"subgraph_{i}_{j}"]
            assert result["comparisons"] == [compute_sqnr(weight, result["values"][0])]
            quality.append(float(result["comparisons"][0]))
        assert quality[1] > quality[0] > 30  # a scale for each channel
    grouped = utils.group_results_by_subgraph({"model": {"weight": found}})
    comparison = utils.create_results_comparison(grouped)
    assert comparison["subgraph_0"]["candidates"]["1"]["comparison_fn_name"] == "sqnr"


def exported():
    graph = torch.export.export(Net().eval().requires_grad_(False), (X,)).module()
    first = next(n for n in graph.graph.nodes if n.target is torch.ops.aten.conv2d.default)
    return graph, first, next(iter(first.users))


def calls(graph):
    return [n.target for n in graph.graph.nodes if n.op == "call_module" and n.target.startswith("subgraph")]


@pytest.mark.parametrize("custom", [False, True])
def test_candidates_of_one_layer(custom):
    graph, first, last = exported()
    want = graph(X)
    qconfig = tq.QConfig(tq.default_observer, tq.default_weight_observer)
    tables = [{first.name: qconfig}, {first.name: None}, {first.name: qconfig}]
    mappings = [tq.QConfigMapping()] * 3
    args = (graph, 7, "any", [first, last], mappings, tables)
    more = {"custom_prepare_fn": tq.quantize_fx.prepare_fx} if custom else {}
    if custom:
        with pytest.raises(ValueError, match="argument 'mt' must have example inputs .* 'conv2d'"):
            utils.create_n_transformed_and_logged_copies_of_subgraph(*args, **more)
        utils.OutputProp(graph).propagate(X)
    utils.create_n_transformed_and_logged_copies_of_subgraph(*args, **more)
    graph.recompile()
    names = [f"subgraph_7_{j}" for j in (0, 1, 3)]
    assert calls(graph) == [names[0] + "_logger", *(n + end for n in names[1:] for end in ("", "_logger"))]
    assert torch.equal(graph(X), want)
    convert = {"custom_convert_fn": tq.quantize_fx.convert_fx} if custom else {}
    int8 = ns.convert_n_shadows_model(graph, **convert)
    assert torch.equal(int8(X), want)
    results = ns.extract_results_n_shadows_model(int8)["model"]["node_output"]
    assert list(results) == names and results[names[0]][0]["fqn"] == "conv"
    assert all(30 < results[name][0]["comparisons"][0] < 60 for name in names[1:])


def test_candidates_that_are_not_added():
    graph, first, last = exported()
    step = utils.create_n_transformed_and_logged_copies_of_subgraph
    step(graph, 0, "", [first, last], [tq.QConfigMapping()], [{first.name: None}])
    step(graph, 0, "", [(first, first), last], [tq.QConfigMapping()], [{first.name: tq.default_qconfig}])
    assert calls(graph) == []
    one, added = utils.create_one_transformed_and_logged_copy_of_subgraph, [None]
    table = [{first.name: tq.default_qconfig}]
    one(graph, 0, 0, first, last, "conv", table, (), added)
    assert calls(graph) == ["subgraph_0_0_logger"] and added[0].target == "subgraph_0_0_logger"
    with pytest.raises(ValueError, match="must not have the candidate yet, got 'subgraph_0_0_logger'"):
        one(graph, 0, 0, first, last, "conv", table, (), added)
    with pytest.raises(ValueError, match="argument 'first_node' must lead to last_node"):
        one(graph, 0, 1, last, first, "conv", table, (), added)
    with pytest.raises(ValueError, match="'custom_prepare_kwargs' must not have 'qconfig_mapping'"):
        one(graph, 0, 1, first, last, "conv", table, (), added, None, {"qconfig_mapping": 1})
    one(graph, 0, 1, first, last, "conv", table, (), added)
    assert calls(graph)[1:] == ["subgraph_0_1", "subgraph_0_1_logger"]


@pytest.mark.parametrize("quantized", [(True, True), (True, False), (False, True)])
def test_a_path_of_its_own(quantized):
    graph, first, last = exported()
    linear = next(n for n in graph.graph.nodes if n.target is torch.ops.aten.linear.default)
    layers = {"a": [first, last], "b": [linear, next(iter(linear.users))]}
    qconfig = tq.QConfig(tq.default_observer, tq.default_weight_observer)
    mapping = tq.QConfigMapping().set_global(qconfig)
    wanted = dict(zip((first.name, linear.name), quantized, strict=True))
    utils.create_add_loggers_graph(
        graph, layers, mapping, {name: qconfig if on else None for name, on in wanted.items()}
    )
    graph.graph.lint()
    want = Net().eval()(X)
    assert torch.equal(graph(X), want)
    int8 = ns.convert_n_shadows_model(graph)
    assert torch.equal(int8(X), want)
    results = ns.extract_results_n_shadows_model(int8)["model"]["node_output"]
    found = [r[0]["comparisons"][0] for name, r in results.items() if name.endswith("_1")]
    assert len(found) == 4  # conv and relu, mean, linear and relu, add
    exact = [not torch.isfinite(torch.as_tensor(value)) for value in found]
    assert exact == [not quantized[0]] * 2 + [not any(quantized)] * 2
    assert all(15 < value < 60 for value, same in zip(found, exact, strict=True) if not same)
    # The layer behind reads what the int8 layer before gives.
    alone = Net().eval()
    y = int8.subgraph_0_1(X) if quantized[0] else alone.relu(alone.conv(X))
    y = y.mean([2, 3])
    y = int8.subgraph_2_1(y) if quantized[1] else F.relu(F.linear(y, alone.w))
    assert abs(found[-1] - compute_sqnr(want, y + 1)) < 1e-3
