"""What prepare notes of a graph (ObservedGraphModuleAttrs), beside torch.ao."""

import copy
import importlib
import pickle
import warnings

import pytest
import torch
from torch import fx, nn

from torch_ao_ext import quantization as tq
from torch_ao_ext.quantization.fx import _equalize
from torch_ao_ext.quantization.fx.custom_config import PrepareCustomConfig
from torch_ao_ext.quantization.fx.prepare import prepare
from torch_ao_ext.quantization.fx.tracer import QuantizationTracer
from torch_ao_ext.quantization.fx.utils import ObservedGraphModuleAttrs
from torch_ao_ext.quantization.quantize_fx import convert_fx, prepare_fx

KEY = "_observed_graph_module_attrs"
X = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.fc, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        y = self.body(x).mean((2, 3))
        return self.last(self.fc(y) + y)


def mapping_of(library, is_qat=False):
    make = library.get_default_qat_qconfig_mapping if is_qat else library.get_default_qconfig_mapping
    return make("onednn").set_module_name("last", None)


@pytest.fixture(scope="module")
def theirs():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("torch.ao.quantization.quantize_fx")
        return importlib.import_module("torch.ao.quantization")


def by_module(attrs):
    """Name of each layer -> class, whether a node in it has a qconfig, whether one is observed."""
    found = {}
    for name, (path, kind) in attrs.node_name_to_scope.items():
        if path:
            seen = found.setdefault(path, [kind.__name__, False, False])
            seen[1] |= attrs.node_name_to_qconfig.get(name) is not None
            seen[2] |= name in attrs.observed_node_names
    return found


@pytest.mark.parametrize("is_qat", [False, True])
def test_notes_are_those_of_torch_ao(theirs, is_qat):
    warnings.simplefilter("ignore")
    model = Model().train(is_qat)
    name = "prepare_qat_fx" if is_qat else "prepare_fx"
    mapping = mapping_of(tq, is_qat)
    ours = getattr(tq.quantize_fx, name)(model, mapping, (X,))
    other = getattr(theirs.quantize_fx, name)(model, mapping_of(theirs, is_qat), (X,))
    attrs, want = ours.meta[KEY], other.meta[KEY]
    assert isinstance(attrs, ObservedGraphModuleAttrs) and attrs.is_qat == want.is_qat == is_qat
    assert {f: type(v).__name__ for f, v in vars(attrs).items()} == {
        f: type(v).__name__ for f, v in vars(want).items()
    }
    got, wanted = by_module(attrs), by_module(want)
    for path in ("fc", "last"):
        assert got[path][0] == "Linear" == wanted[path][0].removeprefix("qat.")
        assert got[path][1:] == wanted[path][1:] == [path == "fc"] * 2
    assert got["body.0"][1:] == wanted["body.0"][1:] == [True, True]
    assert {"mean", "add"} <= attrs.observed_node_names & want.observed_node_names
    assert attrs.node_name_to_qconfig["linear"] == mapping.global_qconfig
    assert attrs.qconfig_mapping.module_name_qconfigs == {"last": None}
    names = {n.name for n in ours.graph.nodes}
    assert attrs.observed_node_names < set(attrs.node_name_to_qconfig) < names
    assert not any("post_process" in n or "guards" in n for n in attrs.node_name_to_qconfig)
    ours(X)
    assert KEY not in convert_fx(ours).meta and KEY in ours.meta


def test_notes_keep_what_prepare_was_given():
    mapping, custom = mapping_of(tq), PrepareCustomConfig().set_input_quantized_indexes([0])
    attrs = prepare_fx(Model().eval(), mapping, (X,), custom).meta[KEY]
    mapping.set_global(None)
    custom.set_input_quantized_indexes([])
    assert attrs.qconfig_mapping.global_qconfig is not None
    assert attrs.prepare_custom_config.input_quantized_indexes == [0]


def test_copies_and_pickles_have_notes():
    graph = prepare_fx(Model().eval(), mapping_of(tq), (X,))
    attrs = graph.meta[KEY]
    for again in (copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        notes = again.meta[KEY]
        assert notes.node_name_to_scope == attrs.node_name_to_scope
        assert notes.observed_node_names == attrs.observed_node_names
        assert notes.node_name_to_qconfig.keys() == attrs.node_name_to_qconfig.keys()
        made = notes.node_name_to_qconfig["linear"].weight()
        assert type(made) is type(attrs.node_name_to_qconfig["linear"].weight())
        assert torch.equal(again(X), graph(X))


def test_a_pickle_leaves_out_notes_that_do_not_pickle(monkeypatch):
    qconfig = tq.QConfig(lambda: tq.MinMaxObserver(), tq.default_weight_observer)
    graph = prepare_fx(Model().eval(), tq.QConfigMapping().set_global(qconfig), (X,))
    with pytest.warns(UserWarning, match=f"{KEY}'. of a graph is left out, it cannot be pickled"):
        data = pickle.dumps(graph)
    again = pickle.loads(data)
    assert KEY not in again.meta and torch.equal(again(X), graph(X))

    block = type("Block", (nn.Sigmoid,), {"__module__": __name__})
    monkeypatch.setitem(globals(), "Block", block)
    graph = prepare_fx(nn.Sequential(nn.Linear(4, 4), block()).eval(), mapping_of(tq), (X,))
    assert graph.meta[KEY].node_name_to_scope["sigmoid"] == ("1", block)
    data = pickle.dumps(graph)
    monkeypatch.delitem(globals(), "Block")
    with pytest.warns(UserWarning, match="cannot be loaded: .*Block"):
        again = pickle.loads(data)
    assert KEY not in again.meta and torch.equal(again(X), graph(X))


def test_standalone_modules(theirs):
    warnings.simplefilter("ignore")

    def attrs_of(library):
        inner = importlib.import_module(f"{library.__name__}.fx.custom_config").PrepareCustomConfig()
        inner.set_input_quantized_indexes([0]).set_output_quantized_indexes([0])
        custom = type(inner)().set_standalone_module_name("0", None, (X,), inner, None)
        model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 1)), nn.Conv2d(3, 2, 1)).eval()
        make = importlib.import_module(f"{library.__name__}.quantize_fx").prepare_fx
        graph = make(model, library.get_default_qconfig_mapping("onednn"), (X,), custom)
        (part,) = [m for m in graph.modules() if KEY in getattr(m, "meta", {}) and m is not graph]
        return graph.meta[KEY], part.meta[KEY]

    whole, part = attrs_of(tq)
    their_whole, their_part = attrs_of(theirs)
    fields = [f for f in vars(part) if "standalone" in f]
    assert len(fields) == 3
    assert [getattr(part, f) for f in fields] == [getattr(their_part, f) for f in fields] == [True, [0], [0]]
    assert [getattr(whole, f) for f in fields] == [getattr(their_whole, f) for f in fields]
    assert len(whole.observed_node_names) == 2  # the module, and the convolution behind it


def test_equalized_nodes():
    config = tq.QConfigMapping().set_global(_equalize.default_equalization_qconfig)
    model = nn.Sequential(nn.Linear(4, 4), nn.Softmax(1)).eval()
    attrs = prepare_fx(model, tq.get_default_qconfig_mapping("onednn"), (X[:, 0, 0],), None, config).meta[KEY]
    found = {n: q for n, q in attrs.equalization_node_name_to_qconfig.items() if q is not None}
    assert found == {"linear": _equalize.default_equalization_qconfig}
    assert attrs.equalization_node_name_to_qconfig.keys() == attrs.node_name_to_qconfig.keys()


def test_graphs_of_torch_fx_keep_their_scopes():
    tracer = QuantizationTracer([], [])
    model = Model().eval()
    graph = tracer.trace(model)
    graph = fx.GraphModule(tracer.root, graph)
    scopes = tracer.node_name_to_scope
    observed = prepare(graph, mapping_of(tq), False, scopes, (X,), is_standalone_module=True)
    attrs = observed.meta[KEY]
    assert attrs.is_observed_standalone_module and attrs.standalone_module_input_quantized_idxs == []
    assert attrs.node_name_to_scope["linear"] == ("fc", nn.Linear)
    assert attrs.node_name_to_qconfig["linear"] is not None and attrs.node_name_to_qconfig["linear_1"] is None
