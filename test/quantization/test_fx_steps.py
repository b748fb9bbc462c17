"""fx.prepare.insert_observers_for_model and propagate_dtypes_for_known_nodes: prepare, step by step."""

import importlib
import warnings

import pytest
import torch
from fx_nets import Net, Parts, Recurrent
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from torch_ao_ext import quantization as tq
from torch_ao_ext.quantization import quantize_fx
from torch_ao_ext.quantization.fx import _equalize
from torch_ao_ext.quantization.fx.convert import convert
from torch_ao_ext.quantization.fx.custom_config import PrepareCustomConfig
from torch_ao_ext.quantization.fx.fuse import fuse
from torch_ao_ext.quantization.fx.prepare import (
    insert_observers_for_model,
    prepare,
    propagate_dtypes_for_known_nodes,
)
from torch_ao_ext.quantization.fx.tracer import QuantizationTracer

OURS, THEIRS = "torch_ao_ext.quantization", "torch.ao.quantization"
MAPPING = tq.get_default_qconfig_mapping("onednn")
TRAINING = tq.get_default_qat_qconfig_mapping("onednn")
DYNAMIC = tq.QConfigMapping().set_global(tq.default_dynamic_qconfig)
SECOND_LAYER = tq.get_default_qconfig_mapping("onednn").set_module_name("first", None)
EQUAL = tq.QConfigMapping().set_global(_equalize.default_equalization_qconfig)
IMAGES = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        y = self.first(x)
        return torch.sigmoid(self.second(y).relu()) + y


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        y = self.first(x)
        return self.second(y.masked_fill((x > 0).reshape(5, 8), 0.0).view(5, y.size(1)))


PARTS = PrepareCustomConfig().set_standalone_module_name("alone", None, (), None, None)
PARTS.set_non_traceable_module_names(["whole"])
BORDERS = PrepareCustomConfig().set_input_quantized_indexes([0]).set_output_quantized_indexes([0])
CASES = {
    "net": (Net, IMAGES, MAPPING, {}),
    "fused": (Net, IMAGES, MAPPING, {"fused": True}),
    "branches": (Branches, ROWS, MAPPING, {}),
    "a layer in float": (Branches, ROWS, SECOND_LAYER, {}),
    "dynamic": (Branches, ROWS, DYNAMIC, {}),
    "training": (Net, IMAGES, TRAINING, {"is_qat": True}),
    "mask": (Masked, ROWS, MAPPING, {}),
    "equalized": (Branches, ROWS, MAPPING, {"equalization": EQUAL}),
    "integers in and out": (Branches, ROWS, MAPPING, {"custom": BORDERS}),
    "recurrent": (Recurrent, ROWS.reshape(5, 1, 8), DYNAMIC, {}),
    "parts": (Parts, ROWS, MAPPING, {"custom": PARTS}),
}


def traced(model, custom):
    tracer = QuantizationTracer(*custom) if custom else QuantizationTracer([], [])
    graph = tracer.trace(model)
    return fx.GraphModule(tracer.root, graph), tracer.node_name_to_scope


def with_values(graph, x):
    """Notes what the input is, as ShapeProp does, which runs the model."""
    next(iter(graph.graph.nodes)).meta["val"] = x


def steps(package, graph, scopes, mapping, custom, equalization=None, is_qat=False):
    """What torch.ao's prepare does in front of its step: (matches, QConfigs, equalization)."""
    place = {name: importlib.import_module(f"{package}.{name}") for name in (
        "backend_config", "backend_config.utils", "fx.match_utils", "fx.pattern_utils",
        "fx.qconfig_mapping_utils", "fx.quantize_handler", "fx.utils", "qconfig_mapping",
    )}  # fmt: skip
    backend = place["backend_config"].get_native_backend_config()
    patterns = place["fx.quantize_handler"]._get_pattern_to_quantize_handlers(backend)
    patterns = place["fx.pattern_utils"]._sorted_patterns_dict(patterns)
    roots = place["backend_config.utils"].get_fusion_pattern_to_root_node_getter(backend)
    modules = dict(graph.named_modules(remove_duplicate=False))
    generate = place["fx.qconfig_mapping_utils"]._generate_node_name_to_qconfig
    none = place["qconfig_mapping"].QConfigMapping()
    equal = generate(graph, modules, graph.graph, equalization or none, scopes)
    qconfigs = generate(graph, modules, graph.graph, mapping, scopes)
    found = place["fx.match_utils"]._find_matches(
        graph.graph, modules, patterns, roots, list(custom.standalone_module_names),
        list(custom.standalone_module_classes),
        place["fx.utils"].get_custom_module_class_keys(custom.float_to_observed_mapping),
    )  # fmt: skip
    return {name: (*match, qconfigs[name]) for name, match in found.items()}, qconfigs, equal, backend


def by_hand(graph, scopes, mapping, custom, equalization=None, is_qat=False):
    matches, qconfigs, equal, _ = steps(OURS, graph, scopes, mapping, custom, equalization)
    observed = set()
    result = insert_observers_for_model(
        graph, matches, qconfigs, custom, equal, None, observed, is_qat
    )
    assert result.op == "output" and result.graph is graph.graph
    return graph, observed


@pytest.mark.parametrize("name", CASES)
def test_the_graph_is_that_of_prepare(name):
    kind, x, mapping, options = CASES[name]
    is_qat = options.get("is_qat", False)
    custom, equal = options.get("custom", PrepareCustomConfig()), options.get("equalization")
    pair = []
    for _ in range(2):
        torch.manual_seed(0)
        graph, scopes = traced(kind().train(is_qat), (["alone", "whole"] if kind is Parts else [], []))
        pair.append(fuse(graph, False) if options.get("fused") else graph)
    graph, other = pair
    wanted = prepare(other, mapping, is_qat, scopes, (x,), custom, equal)
    with_values(graph, x)
    made, observed = by_hand(graph, scopes, mapping, custom, equal, is_qat)
    assert made.code == wanted.code and str(made.graph) == str(wanted.graph)
    assert observed == wanted.meta["_observed_graph_module_attrs"].observed_node_names and observed
    for graph in (made, wanted):
        torch.manual_seed(1)
        graph(x)
    for key, value in wanted.state_dict().items():
        assert torch.equal(made.state_dict()[key], value), key
    if not is_qat:
        int8, want = convert(made), convert(wanted)
        assert int8.code == want.code
        x = x if "integers" not in name else torch.zeros(5, 8, dtype=torch.uint8)
        assert torch.equal(int8(x), want(x))


def test_an_exported_graph_is_taken_as_it_is():
    torch.manual_seed(0)
    model = Branches().eval()
    graph = torch.export.export(model, (ROWS,)).module()
    names = [node.name for node in graph.graph.nodes if node.op == "call_function"]
    qconfig, observed = tq.get_default_qconfig("onednn"), set()
    matches = {name: (None, None, None, None, qconfig) for name in names if name != "linear"}
    insert_observers_for_model(graph, matches, {}, PrepareCustomConfig(), {}, None, observed, False)
    assert "linear" not in observed and {"linear_1", "relu", "add"} <= observed
    graph(ROWS)
    int8 = convert(fx.GraphModule(graph, graph.graph))
    assert [n for n in int8.graph.nodes if n.target is torch.ops.aten.linear.default]
    noise = int8(ROWS) - model(ROWS)
    assert 20 * torch.log10(model(ROWS).norm() / noise.norm()) > 25


def test_inputs_say_what_they_are():
    custom = PrepareCustomConfig()
    graph, scopes = traced(Branches().eval(), None)
    matches, qconfigs, equal, _ = steps(OURS, graph, scopes, MAPPING, custom)
    arguments = (matches, qconfigs, custom, equal, None, set())
    with pytest.raises(ValueError, match="must have inputs with meta.*got NoneType for 'x'; run torch.fx"):
        insert_observers_for_model(graph, *arguments, False)
    with pytest.raises(ValueError, match="insert_observers_for_model: .*must be in training mode"):
        insert_observers_for_model(graph, *arguments, True)
    without = {name: match[:4] for name, match in matches.items()}  # as _find_matches gives them
    with pytest.raises(ValueError, match=r"must hold \(last node, .*, QConfig\), got .* for 'sigmoid'"):
        insert_observers_for_model(graph, {"sigmoid": without["sigmoid"]}, *arguments[1:], False)
    with pytest.raises(ValueError, match="insert_observers_for_model: .* must hold a QConfig, got none"):
        insert_observers_for_model(graph, {}, *arguments[1:], False)
    with pytest.raises(TypeError, match="insert_observers_for_model: .*got Branches"):
        insert_observers_for_model(Branches(), *arguments, False)
    equal = dict.fromkeys(matches, _equalize.default_equalization_qconfig)
    with pytest.raises(ValueError, match="'equalization_config_map' must be empty with is_qat"):
        graph.train()
        insert_observers_for_model(graph, matches, qconfigs, custom, equal, None, set(), True)
    graph.eval()
    # As ShapeProp says it, and torch.export.
    known = torch.export.export(Branches().eval(), (ROWS,)).graph_module.graph
    ShapeProp(graph).propagate(ROWS)
    shape = next(iter(graph.graph.nodes)).meta
    fake = next(n for n in known.nodes if n.name == "x").meta
    assert "val" not in shape and "val" in fake
    made = []
    for meta in (shape, {"val": fake["val"]}):
        again, _ = traced(Branches().eval(), None)
        next(iter(again.graph.nodes)).meta = meta
        insert_observers_for_model(again, *arguments, False)
        made.append(fx.GraphModule(again, again.graph).code)  # as torch.ao's prepare goes on
        with pytest.raises(ValueError, match="must not be prepared yet, got a model with observers"):
            insert_observers_for_model(again, *arguments, False)
    assert made[0] == made[1] and made[0].count("self.activation_post_process") >= 6


@pytest.mark.parametrize("name", ["net", "branches", "a layer in float", "mask"])
def test_torch_ao_observes_the_same_layers(name):
    """Of layers; functions have other names in a captured graph."""
    kind, x, mapping, _ = CASES[name]
    torch.manual_seed(0)
    model = kind().eval()
    if kind is Net:
        model.bn = nn.Identity()  # torch.ao folds it before
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = importlib.import_module(f"{THEIRS}.fx.prepare")
        config = importlib.import_module(f"{THEIRS}.fx.custom_config").PrepareCustomConfig()
        peer = importlib.import_module(THEIRS).get_default_qconfig_mapping("onednn")
        if mapping is SECOND_LAYER:
            peer.set_module_name("first", None)
        graph, scopes = traced(model, None)
        matches, qconfigs, equal, backend = steps(THEIRS, graph, scopes, peer, config)
        observed = set()
        theirs.insert_observers_for_model(
            graph, matches, qconfigs, config, equal, backend, observed, False
        )
    layers = {name for name, child in model.named_children() if list(child.parameters())}
    wanted = {n.target for n in graph.graph.nodes if n.name in observed and n.target in layers}
    graph, scopes = traced(model, None)
    with_values(graph, x)
    made, observed = by_hand(graph, scopes, mapping, PrepareCustomConfig())
    stacks = [n.meta["nn_module_stack"].values() for n in made.graph.nodes if n.name in observed]
    found = {path for stack in stacks for path, _ in stack}
    assert found & layers == wanted and len(wanted) == (1 if mapping is SECOND_LAYER else 2)


class Sizes(nn.Module):
    def forward(self, x, mask, n):
        mask = mask.reshape(-1, n).transpose(0, 1)
        y = x.view(n, x.size(1)).masked_fill(mask, 0.0)
        return torch.unsqueeze(torch.transpose(y, 0, n), 1).permute(1, 0, 2) + x


def test_dtypes_are_those_of_torch_ao():
    marks = []
    for package in (OURS, THEIRS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            place = importlib.import_module(f"{package}.fx.prepare")
            qconfig_mapping = importlib.import_module(package).get_default_qconfig_mapping("onednn")
            config = importlib.import_module(f"{package}.fx.custom_config").PrepareCustomConfig()
            graph, scopes = traced(Sizes(), None)
            matches, *_ = steps(package, graph, scopes, qconfig_mapping, config)
        for node in graph.graph.nodes:
            node.meta["target_dtype_info"] = {"input_act_obs_or_fq_ctr": 1, "output_act_obs_or_fq_ctr": 2}
        place.propagate_dtypes_for_known_nodes(graph.graph, matches)
        marks.append({node.name: node.meta["target_dtype_info"] for node in graph.graph.nodes})
    assert marks[0] == marks[1]
    known = {name for name, info in marks[0].items() if info["output_act_obs_or_fq_ctr"] is None}
    assert known == {"mask", "reshape", "transpose", "n", "size"}
    graph = fx.symbolic_trace(Sizes()).graph
    propagate_dtypes_for_known_nodes(graph, {})  # without notes and matches: the arguments alone
    assert {n.name for n in graph.nodes if "target_dtype_info" in n.meta} == {"n", "size", "transpose"}


def test_one_observer_and_the_notes_of_a_graph():
    """As torch.ao's programs call the two."""
    made = []
    for package in (OURS, THEIRS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            place, q = importlib.import_module(f"{package}.fx.prepare"), importlib.import_module(package)
            equalize = importlib.import_module(f"{package}.fx._equalize")
            config = importlib.import_module(f"{package}.fx.custom_config").PrepareCustomConfig()
        model = fx.symbolic_trace(nn.Sequential(nn.Linear(8, 4), nn.ReLU()))
        modules = dict(model.named_modules())
        linear, relu = (n for n in model.graph.nodes if n.op == "call_module")
        for node in (linear, relu):
            call = place._insert_obs_or_fq(node, q.MinMaxObserver(), model, modules, model.graph)
            assert modules[call.target] is model.get_submodule(call.target) and relu not in call.users
        source = linear.args[0]
        look = equalize.default_equalization_qconfig.input_activation()
        place._insert_obs_or_fq(source, look, model, modules, model.graph, torch.device("cpu"))
        model.recompile()
        assert torch.equal(model(ROWS), model.get_submodule("1")(model.get_submodule("0")(ROWS)))
        mapping = q.QConfigMapping()
        place._save_state(model, {"_0": None}, {"_0": ("0", nn.Linear)}, config, {}, mapping, False, {"_0"})
        notes = model.meta["_observed_graph_module_attrs"]
        assert notes.observed_node_names == {"_0"} and notes.qconfig_mapping is mapping
        ranges = [m.max_val for m in model.modules() if isinstance(m, q.MinMaxObserver)]
        made.append(([(n.name, n.op, str(n.target), str(n.args)) for n in model.graph.nodes], len(ranges)))
    assert made[0] == made[1] and made[0][1] == 2


def test_the_reference_graph_under_its_older_name():
    observed = quantize_fx.prepare_fx(Branches().eval(), MAPPING, (ROWS,))
    observed(ROWS)
    graph = quantize_fx._convert_to_reference_decomposed_fx(observed)
    assert graph.code == quantize_fx.convert_to_reference_fx(observed).code
    assert "quantized_decomposed.quantize_per_tensor" in graph.code
