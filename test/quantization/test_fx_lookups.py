"""fx.qconfig_mapping_utils beside torch.ao's."""

import importlib
import warnings
from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from torch_ao_ext import quantization as tq
from torch_ao_ext.quantization.fx import qconfig_mapping_utils as utils
from torch_ao_ext.quantization.fx.tracer import QuantizationTracer


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.weight = nn.Linear(4, 4), nn.Parameter(torch.ones(4, 4))

    def forward(self, x):
        return F.linear(F.linear(self.first(x), self.weight), self.weight).relu()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.inner, self.act = nn.Linear(4, 4), nn.Linear(4, 4), Inner(), nn.ReLU()

    def forward(self, x):
        return self.inner(self.act(self.b(self.a(x)))) + torch.add(x, x)


# Stands for a QConfig: lookups do not look into it.
Rule = namedtuple("Rule", "name")  # noqa: PYI024
RULES = {
    "global": lambda m: m,
    "class": lambda m: m.set_object_type(nn.Linear, Rule("linear")).set_object_type(Inner, Rule("inner")),
    "function": lambda m: m.set_object_type(F.linear, Rule("function")).set_object_type(
        "relu", Rule("method")
    ),
    "pattern": lambda m: m.set_module_name_regex("inn.*", Rule("pattern")).set_object_type(
        nn.Linear, Rule("linear")
    ),
    "name": lambda m: m.set_module_name("inner", Rule("name")).set_module_name_regex(".*", Rule("pattern")),
    "none": lambda m: m.set_module_name("inner", None).set_object_type(nn.Linear, Rule("linear")),
    "order": lambda m: m.set_module_name_object_type_order("inner", F.linear, 1, Rule("second"))
    .set_module_name_object_type_order("", nn.Linear, 1, Rule("other"))
    .set_module_name("a", Rule("a")),
}


def traced():
    tracer = QuantizationTracer([], [])
    graph = tracer.trace(Net())
    return fx.GraphModule(tracer.root, graph), tracer.node_name_to_scope


@pytest.mark.parametrize("name", RULES)
def test_nodes(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = importlib.import_module("torch.ao.quantization.fx.qconfig_mapping_utils")
    mapping = RULES[name](tq.QConfigMapping().set_global(Rule("global")))
    found = []
    for module in (utils, theirs):
        graph, scopes = traced()
        modules = dict(graph.named_modules())
        made = module._generate_node_name_to_qconfig(graph, modules, graph.graph, mapping, scopes)
        found.append((made, {key: getattr(m, "qconfig", "") for key, m in modules.items()}))
    assert found[0][0] == found[1][0] and len(found[0][0]) == 12
    assert found[0][1] == found[1][1]  # of the modules that it calls
    assert utils._get_flattened_qconfig_dict(mapping) == dict(theirs._get_flattened_qconfig_dict(mapping))


def test_lookups():
    mapping = tq.QConfigMapping().set_module_name("a.b", 1).set_module_name("a", None)
    mapping.set_module_name_regex("a.c.*", 2).set_object_type(nn.ReLU, 3)
    assert utils._get_module_name_qconfig(mapping, "a.b.c", 0) == 1
    assert utils._get_module_name_qconfig(mapping, "a.c", 0) is None
    assert utils._get_module_name_qconfig(mapping, "c", 0) == 0
    assert utils._get_module_name_regex_qconfig(mapping, "a.c", 0) == 2
    assert utils._get_object_type_qconfig(mapping, nn.ReLU, 0) == 3
    for name, want in (("a.b.x", 1), ("a.c", None), ("x", 3)):
        assert utils._maybe_adjust_qconfig_for_module_type_or_name(mapping, nn.ReLU, name, 0) == want
