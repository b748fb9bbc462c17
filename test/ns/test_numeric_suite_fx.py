"""Numeric suite of graphs: loggers, shadows, candidates."""

import pickle
import warnings

import pytest
import torch
from torch import nn

from torch_ao_ext import lower
from torch_ao_ext import quantization as tq
from torch_ao_ext._island import Island
from torch_ao_ext.ns import _numeric_suite_fx as ns
from torch_ao_ext.ns.fx._match import GraphMatchingException
from torch_ao_ext.ns.fx.qconfig_multi_mapping import QConfigMultiMapping
from torch_ao_ext.ns.fx.utils import compute_sqnr
from torch_ao_ext.quantization.quantize_fx import convert_fx, prepare_fx
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
from torch_ao_ext.quantization.quantizer import X86InductorQuantizer
from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86


class Net(nn.Module):
    """A residual block, pooling, cat, linear layers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.conv, self.fc = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(8, 6)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x):
        y = self.stem(x)
        y = torch.relu(self.conv(y) + y)
        y = self.pool(y)
        y = torch.cat([y, y * 0.5], 1).mean([2, 3])
        return self.fc(y)


def batch(size, seed=1):
    torch.manual_seed(seed)
    return torch.randn(size, 3, 8, 8)


@pytest.fixture(scope="module")
def graphs():
    model = Net().eval().requires_grad_(False)
    prepared = prepare_fx(model, tq.get_default_qconfig_mapping("onednn"), (batch(4),))
    for seed in range(3):
        prepared(batch(4, seed))
    return model, prepared, convert_fx(prepared)


def test_weights(graphs):
    _, prepared, int8 = graphs
    results = ns.extract_weights("fp32", prepared, "int8", int8)
    fqns = {layer["weight"]["int8"][0]["fqn"] for layer in results.values()}
    assert {"stem.0", "conv", "fc"} == fqns
    ns.extend_logger_results_with_comparison(results, "fp32", "int8", compute_sqnr, "sqnr")
    for layer in results.values():
        (result,) = layer["weight"]["int8"]
        assert result["sqnr"][0] > 35 and result["values"][0].dtype == torch.int8


def test_a_batch_norm_inside_a_product():
    """The product's result is compared with that of the batch norm behind its relu."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).eval()
    nn.init.normal_(model[2].weight)
    nn.init.normal_(model[2].bias)
    prepared = prepare_fx(model, tq.get_default_qconfig_mapping("onednn"), (batch(4),))
    prepared(batch(4))
    int8 = convert_fx(prepared)
    assert "batch_norm" not in str(int8.graph)
    first, second = ns.add_loggers("fp32", prepared, "int8", int8, ns.OutputLogger)
    first(batch(4, seed=9)), second(batch(4, seed=9))
    results = ns.extract_logger_info(first, second, ns.OutputLogger, "int8")
    ns.extend_logger_results_with_comparison(results, "fp32", "int8", compute_sqnr, "sqnr")
    layers = {r["fqn"]: r["sqnr"] for v in results.values() for r in v["node_output"]["int8"]}
    assert set(layers) == {"0", "3"} and all(s > 30 for values in layers.values() for s in values)


@pytest.mark.parametrize("inputs", [False, True])
def test_loggers_in_both_graphs(graphs, inputs):
    model, prepared, int8 = graphs
    first, second = ns.add_loggers("fp32", prepared, "int8", int8, ns.OutputLogger, inputs)
    x = batch(4, seed=9)
    assert torch.equal(first(x), prepared(x)) and torch.equal(second(x), int8(x))
    results = ns.extract_logger_info(first, second, ns.OutputLogger, "int8")
    ns.extend_logger_results_with_comparison(results, "fp32", "int8", compute_sqnr, "sqnr")
    kinds = {r["ref_node_target_type"] for v in results.values() for r in v["node_output"]["int8"]}
    for op in ("conv2d", "linear", "mul", "max_pool2d"):
        assert any(op in kind for kind in kinds), op
    for name, layer in results.items():
        assert name in {n.name for n in int8.graph.nodes}
        assert all(s > 20 for r in layer["node_output"]["int8"] for s in r["sqnr"])
        assert ("node_input" in layer) == inputs
    residual = next(v for k, v in results.items() if k.startswith("add"))
    if inputs:
        assert len(residual["node_input"]["int8"]) == len(residual["node_input"]["fp32"]) == 2
    # The value behind the residual's relu, in both.
    assert residual["node_output"]["fp32"][0]["values"][0].min() >= 0
    # The graphs that were given have no loggers.
    assert not any(isinstance(m, ns.OutputLogger) for m in [*prepared.modules(), *int8.modules()])


def test_shadows_see_the_input_of_the_int8_operator(graphs):
    model, prepared, int8 = graphs
    shadowed = ns.add_shadow_loggers("fp32", prepared, "int8", int8, ns.OutputLogger)
    x = batch(4, seed=9)
    assert torch.equal(shadowed(x), int8(x))
    alone = ns.extract_shadow_logger_info(shadowed, ns.OutputLogger, "int8")
    first, second = ns.add_loggers("fp32", prepared, "int8", int8, ns.OutputLogger)
    first(x), second(x)
    both = ns.extract_logger_info(first, second, ns.OutputLogger, "int8")
    for results in (alone, both):
        ns.extend_logger_results_with_comparison(results, "fp32", "int8", compute_sqnr, "sqnr")

    def sqnr(results, fqn):
        found = [v["node_output"]["int8"][0] for v in results.values()]
        return next(float(r["sqnr"][0]) for r in found if r["fqn"] == fqn)

    # What earlier layers add is not in a shadow's figure.
    assert sqnr(alone, "fc") > sqnr(both, "fc")
    for layer in alone.values():
        (have,) = layer["node_output"]["int8"]
        others = (v["node_output"]["int8"][0] for v in both.values())
        want = next(r for r in others if r["ref_node_name"] == have["ref_node_name"])
        assert torch.equal(have["values"][0], want["values"][0])


def test_inputs_of_shadows(graphs):
    _, prepared, int8 = graphs
    shadowed = ns.add_shadow_loggers("fp32", prepared, "int8", int8, ns.OutputLogger, True)
    shadowed(batch(2))
    for layer in ns.extract_shadow_logger_info(shadowed, ns.OutputLogger, "fp32").values():
        for a, b in zip(layer["node_input"]["fp32"], layer["node_input"]["int8"], strict=True):
            assert torch.equal(a["values"][0], b["values"][0])


def test_dynamic_layers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval().requires_grad_(False)
    x = torch.randn(6, 8)
    mapping = tq.QConfigMapping().set_global(tq.default_dynamic_qconfig)
    prepared = prepare_fx(model, mapping, (x,))
    int8 = convert_fx(prepared)
    shadowed = ns.add_shadow_loggers("fp32", prepared, "int8", int8, ns.OutputLogger)
    assert torch.equal(shadowed(x), int8(x))
    results = ns.extract_shadow_logger_info(shadowed, ns.OutputLogger, "int8")
    ns.extend_logger_results_with_comparison(results, "fp32", "int8", compute_sqnr, "sqnr")
    assert len(results) == 2
    assert all(v["node_output"]["int8"][0]["sqnr"][0] > 30 for v in results.values())


def test_candidates(graphs, capsys):
    model = graphs[0]
    coarse = tq.QConfig(tq.default_observer, tq.default_weight_observer)
    fine = tq.QConfig(tq.default_observer, tq.default_per_channel_weight_observer)
    candidates = QConfigMultiMapping().set_global([coarse, fine]).set_module_name("fc", [fine])
    shadows = ns.prepare_n_shadows_model(model, (batch(4),), candidates)
    ns.loggers_set_save_activations(shadows, False)
    for seed in range(3):
        assert torch.allclose(shadows(batch(4, seed)), model(batch(4, seed)), atol=1e-5)
    recorded = ns.extract_results_n_shadows_model(shadows)["model"]["node_output"]
    assert recorded["subgraph_0_0"][0]["values"] == []
    int8 = ns.convert_n_shadows_model(shadows)
    ns.loggers_set_enabled(int8, False)
    int8(batch(4, 8))
    ns.loggers_set_enabled(int8, True)
    ns.loggers_set_save_activations(int8, True)
    assert torch.allclose(int8(batch(4, 9)), model(batch(4, 9)), atol=1e-5)
    results = ns.extract_results_n_shadows_model(int8)["model"]["node_output"]
    assert set(results) == {f"subgraph_{i}_{j}" for i in range(2) for j in range(3)} | {
        "subgraph_2_0", "subgraph_2_1"
    }  # fmt: skip
    for name, (result,) in results.items():
        if name.endswith("_0"):
            assert result["qconfig_str"] == "" and len(result["values"]) == 1
        else:
            reference = results[name[:-1] + "0"][0]
            assert result["comparisons"] == [compute_sqnr(reference["values"][0], result["values"][0])]
            assert result["comparisons"][0] > 20 and "Observer" in result["qconfig_str"]
    ns.print_comparisons_n_shadows_model(ns.extract_results_n_shadows_model(int8))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["node_name", "node_type", "fqn", "0", "1"]
    assert [line.split()[2] for line in lines[1:]] == ["stem.0", "conv", "fc"]
    assert lines[-1].split()[-1] == "-"


def test_multi_mappings():
    a, b = tq.default_qconfig, tq.default_per_channel_qconfig
    made = QConfigMultiMapping().set_global([a, b]).set_object_type(nn.Linear, [b, None, b])
    made.set_module_name_regex("x.*", [a]).set_module_name_object_type_order("m", nn.Linear, 0, [a, b])
    first, second = made.qconfig_mappings_list
    assert (first.global_qconfig, second.global_qconfig) == (a, b)
    assert (first.object_type_qconfigs[nn.Linear], second.object_type_qconfigs[nn.Linear]) == (b, None)
    assert second.module_name_regex_qconfigs["x.*"] is None
    named = tq.QConfigMapping().set_module_name("p", a)
    again = QConfigMultiMapping.from_list_qconfig_mapping([named, second])
    assert again.qconfig_mappings_list[1].module_name_qconfigs["p"] is None
    assert again.qconfig_mappings_list[0].object_type_qconfigs[nn.Linear] is None
    later = QConfigMultiMapping().set_module_name("q", [a]).set_global([a, b])
    assert later.qconfig_mappings_list[1].module_name_qconfigs["q"] is None
    with pytest.raises(ValueError, match="'qconfig_list' must be a list of QConfigs"):
        made.set_global(a)


def test_refusals(graphs):
    model, prepared, int8 = graphs
    with pytest.raises(ValueError, match="argument 'model_a' must be a graph of prepare_fx"):
        ns.extract_weights("a", model, "b", int8)
    with pytest.raises(ValueError, match="'name_b' must differ from name_a"):
        ns.add_loggers("a", prepared, "a", int8, ns.OutputLogger)
    with pytest.raises(GraphMatchingException, match="must be convert_fx or lower of the first"):
        ns.add_loggers("a", prepared, "b", prepared, ns.OutputLogger)
    first, second = ns.add_loggers("a", prepared, "b", int8, ns.OutputLogger)
    with pytest.raises(ValueError, match="must be the name of a model, got 'c'"):
        ns.extract_logger_info(first, second, ns.OutputLogger, "c")
    first(batch(1)), second(batch(1))
    results = ns.extract_logger_info(first, second, ns.OutputLogger, "b")
    with pytest.raises(ValueError, match=r"'model_name_1' must be one of \['a', 'b'\], got 'c'"):
        ns.extend_logger_results_with_comparison(results, "c", "b", compute_sqnr, "sqnr")
    candidates = QConfigMultiMapping().set_global([tq.default_qconfig])
    with pytest.raises(ValueError, match="must be an nn.Module in evaluation mode, got training mode"):
        ns.prepare_n_shadows_model(Net().train(), (batch(1),), candidates)
    with pytest.raises(ValueError, match="must have int8 QConfigs for convolutions or linear layers"):
        ns.prepare_n_shadows_model(model, (batch(1),), QConfigMultiMapping())
    with pytest.raises(ValueError, match="argument 'custom_tracer' must be None"):
        ns.prepare_n_shadows_model(model, (batch(1),), candidates, custom_tracer=3)
    with pytest.raises(ValueError, match="must come from prepare_n_shadows_model"):
        ns.convert_n_shadows_model(prepared)


@pytest.mark.parametrize("pickled", [False, True])
def test_graphs_with_islands_show_every_operator(pickled):
    quantizer = X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    model = Net().eval().requires_grad_(False)
    prepared = prepare_pt2e(torch.export.export(model, (batch(4),)).module(), quantizer)
    prepared(batch(4))
    merged, plain = (lower(convert_pt2e(prepared), islands=islands) for islands in (True, False))
    assert any(isinstance(m, Island) for m in merged.modules())
    if pickled:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of its own pytree specs
            merged = pickle.loads(pickle.dumps(merged))
    found = []
    for int8 in (plain, merged):
        first, second = ns.add_loggers("fp32", prepared, "int8", int8, ns.OutputLogger)
        shadowed = ns.add_shadow_loggers("fp32", prepared, "int8", int8, ns.OutputLogger)
        with torch.no_grad():
            first(batch(4))
            assert torch.equal(second(batch(4)), int8(batch(4)))
            assert torch.equal(shadowed(batch(4)), int8(batch(4)))
        weights = ns.extract_weights("fp32", prepared, "int8", int8)
        found.append([ns.extract_logger_info(first, second, ns.OutputLogger, "int8"), weights])
    assert len(found[0][0]) == 4 and len(found[0][1]) == 3
    assert [list(r) for r in found[0]] == [list(r) for r in found[1]]
