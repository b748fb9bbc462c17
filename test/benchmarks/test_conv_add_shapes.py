"""Rows of conv_add.csv that name a network are the convolutions in front of its sums."""

from collections import Counter

import pytest
import torch
from torch.fx.passes.shape_prop import ShapeProp

from benchmarks.harness import shapes
from benchmarks.models import convnet_models


def sums(network):
    """Counter of (channels in, size, channels out, post-ops) of the 1x1 convolutions that a sum follows."""
    graph = torch.fx.symbolic_trace(convnet_models.make(network))
    ShapeProp(graph).propagate(convnet_models.images(1))
    modules, found = dict(graph.named_modules()), Counter()
    for node in graph.graph.nodes:
        if node.op != "call_function" or node.target.__name__ != "add":
            continue
        relu = any(isinstance(modules.get(user.target), torch.nn.ReLU) for user in node.users)
        bodies = [x.args[0] for x in node.all_input_nodes if x.op == "call_module"]
        products = [x for x in bodies if isinstance(modules.get(x.target), torch.nn.Conv2d)]
        # The block's input may come from a convolution too: it stands in front.
        conv = [x for x in products if "shortcut" not in x.target][-1]
        _, channels, *size = conv.args[0].meta["tensor_meta"].shape
        if modules[conv.target].kernel_size == (1, 1):
            key = channels, tuple(size), modules[conv.target].out_channels, "add,relu" if relu else "add"
            found[key] += 1
    return found


def named(network):
    return [s for s in shapes.read_conv("conv_add") if s.layer.split(" at ")[0] == network]


@pytest.mark.parametrize("network, rows", [("resnet50", 3), ("mobilenetv2", 5), ("mobilenetv3-large", 1)])
def test_rows_are_layers_of_their_network(network, rows):
    found, listed = sums(network), named(network)
    assert len(listed) == rows
    for s in listed:
        assert found[s.channels, s.size, s.out, s.post_ops] == s.repeat, s
        assert (s.kernel, s.stride, s.groups, s.batch) == ((1, 1), (1, 1), 1, 1)


def test_every_row_has_a_sum_and_most_a_network():
    layers = [s.layer for s in shapes.read_conv("conv_add")]
    others = {"24 to 24 at 112", "96 to 24 at 56", "efficientnet-b0 at 28"}
    known = {s.layer for network in convnet_models.MAKERS for s in named(network)}
    assert set(layers) == known | others
    assert len(set(layers)) == len(layers)
    assert {s.post_ops for s in shapes.read_conv("conv_add")} == {"add", "add,relu"}
    assert {s.post_ops for s in shapes.read_conv("conv")} == {""}
