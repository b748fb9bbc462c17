"""Chains of an fx graph."""

import torch
import torch.nn.functional as F
from pruning_peer import peer
from torch import nn
from torch.fx import symbolic_trace
from torch.nn.utils import parametrize

from torch_ao_ext.pruning._experimental.pruner.match_utils import MatchAllNode, apply_match


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        y = F.relu(self.a(x))
        return self.b(y) + self.c(torch.sigmoid(y))


def graph():
    m = Net()
    parametrize.register_parametrization(m.a, "weight", nn.Identity())
    traced = symbolic_trace(m)
    return dict(traced.named_modules()), {n.name: n for n in traced.graph.nodes}


def names(found):
    return None if found is None else [n.name for n in found]


def test_chains():
    modules, nodes = graph()

    def find(pattern, start):
        return names(apply_match(modules, pattern, nodes[start], []))

    assert find((nn.Linear, F.relu, nn.Linear), "a") == ["a", "relu", "b"]
    assert find((nn.Linear, F.relu, torch.sigmoid, nn.Linear), "a") == ["a", "relu", "sigmoid", "c"]
    assert find((nn.Linear, MatchAllNode, nn.Linear), "a") == ["a", "relu", "b"]
    assert find(nn.Linear, "c") == ["c"] and find((nn.Linear, "output"), "c") is None
    assert find((MatchAllNode, "output"), "add") == ["add", "output"]
    assert find((nn.Linear, nn.ReLU), "a") is None
    assert names(apply_match(modules, (F.relu,), nodes["relu"], [nodes["a"]])) == ["a", "relu"]


def test_straight_chains_match_as_in_torch_ao():
    modules, nodes = graph()
    theirs = peer("_experimental.pruner.match_utils").apply_match
    for pattern in [(nn.Linear, F.relu, nn.Linear), (nn.Linear, "output"), (F.relu,), nn.Linear]:
        for node in nodes.values():
            assert apply_match(modules, pattern, node, []) == theirs(modules, pattern, node, [])
