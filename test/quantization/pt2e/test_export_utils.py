"""Switches of exported graphs keep every number; passes; the operators without PyTorch's own."""

import subprocess
import sys

import pytest
import torch
from flow_models import converted, count, export
from torch import nn

import torch_ao_ext
from torch_ao_ext.quantization.pt2e import (
    allow_exported_model_train_eval,
    export_utils,
    graph_utils,
    lowering,
    move_exported_model_to_eval,
    move_exported_model_to_train,
    utils,
)
from torch_ao_ext.quantization.pt2e.duplicate_dq_pass import DuplicateDQPass
from torch_ao_ext.quantization.pt2e.port_metadata_pass import PortNodeMetaForQDQ


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=1e-3, momentum=0.03)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        return self.drop(self.norm(self.conv(x)))


def numbers(graph):
    """(p, training) of the dropout and (training, momentum, eps) of the batch norm."""
    for node in graph.graph.nodes:
        if "batch_norm" in str(node.target):
            norm = node.args[5:8]
        if "dropout" in str(node.target):
            drop = node.args[1:3]
    return (*drop, *norm)


def test_switches_keep_eps_momentum_and_p():
    x = torch.randn(64, 3, 8, 8)
    graph = export(Net().eval(), (x,))
    evaluated = graph(x)
    assert numbers(graph) == (0.1, False, False, 0.03, 1e-3)
    move_exported_model_to_train(graph)
    assert numbers(graph) == (0.1, True, True, 0.03, 1e-3)
    zeros = (graph(x) == 0).float().mean().item()
    assert 0.08 < zeros < 0.12
    assert graph.norm.running_mean.abs().sum() > 0
    move_exported_model_to_eval(graph)
    assert numbers(graph) == (0.1, False, False, 0.03, 1e-3)
    assert not torch.equal(graph(x), evaluated)  # the statistics moved
    allow_exported_model_train_eval(graph)
    assert numbers(graph.train())[1] is True and numbers(graph.eval())[1] is False
    assert numbers(graph.train(False))[2] is False


def test_folding_by_hand():
    model, x = Net().eval(), torch.randn(2, 3, 4, 4)
    model.norm.running_mean.normal_()
    graph = export(model, (x,))
    norm = next(n for n in graph.graph.nodes if "batch_norm" in str(n.target))
    conv = norm.args[0]
    weight = utils._get_tensor_constant_from_node(conv.args[1], graph)
    assert torch.equal(weight, model.conv.weight)
    assert utils._get_tensor_constant_from_node(None, graph) is None
    with pytest.raises(ValueError, match="node 'conv2d' must be a get_attr, got call_function"):
        utils._get_tensor_constant_from_node(conv, graph)
    utils.fold_bn_weights_into_conv_node(conv, conv.args[1], conv.args[2], norm, graph)
    assert count(graph, "batch_norm") == 0
    assert torch.allclose(graph(x), model(x), atol=1e-5)
    training = export(Net().train(), (x,))
    norm = next(n for n in training.graph.nodes if "batch_norm" in str(n.target))
    with pytest.raises(ValueError, match="'bn_node' must be a batch norm in evaluation mode"):
        utils.fold_bn_weights_into_conv_node(norm.args[0], norm.args[0].args[1], None, norm, training)


def test_overloads_become_packets():
    quantized = converted("ResidualCnn", "x86 dynamic")[2]
    utils.remove_tensor_overload_for_qdq_ops(quantized)
    kinds = {type(n.target).__name__ for n in quantized.graph.nodes if "quantize_per" in str(n.target)}
    assert kinds == {"OpOverloadPacket"}


def test_sequences_of_source_modules():
    traced, _ = torch._dynamo.export(Net().eval(), aten_graph=False)(torch.randn(2, 3, 4, 4))
    found = graph_utils.find_sequential_partitions(traced, [nn.Conv2d, nn.BatchNorm2d])
    assert [[p.source for p in sequence] for sequence in found] == [[nn.Conv2d, nn.BatchNorm2d]]
    assert graph_utils.find_sequential_partitions(traced, [nn.BatchNorm2d, nn.Conv2d]) == []
    with pytest.raises(ValueError, match="must name each type once"):
        graph_utils.find_sequential_partitions(traced, [nn.Conv2d, torch.nn.functional.conv2d])
    before = [set(group) for group in graph_utils.get_equivalent_types()]
    graph_utils.update_equivalent_types_dict([{nn.Conv2d, nn.Linear}])
    assert graph_utils.get_equivalent_types() == [{nn.Conv2d, nn.Linear}]
    graph_utils.update_equivalent_types_dict(before)
    with pytest.raises(ValueError, match="must be a list of sets, got None"):
        graph_utils.update_equivalent_types_dict()


def test_names_of_the_package():
    from torch_ao_ext import quantization

    assert quantization.prepare_pt2e is quantization.quantize_pt2e.prepare_pt2e
    assert quantization.convert_pt2e is quantization.quantize_pt2e.convert_pt2e
    assert quantization.move_exported_model_to_eval is move_exported_model_to_eval
    assert quantization.quantizer.X86InductorQuantizer.__module__.endswith("x86_inductor_quantizer")
    assert all(getattr(quantization, name) is not None for name in quantization.__all__)
    assert quantization.prepare_qat_pt2e is quantization.quantize_pt2e.prepare_qat_pt2e
    with pytest.raises(AttributeError, match="no attribute 'prepare_nothing'"):
        _ = quantization.prepare_nothing


def test_published_name_of_lower():
    _, example, quantized = converted("ResidualCnn")
    with torch.no_grad():
        expected = torch_ao_ext.lower(quantized)(*example)
        assert torch.equal(lowering.lower_pt2e_quantized_to_x86(quantized, example)(*example), expected)


def test_only_exported_graphs():
    for function in (
        move_exported_model_to_eval,
        move_exported_model_to_train,
        allow_exported_model_train_eval,
    ):
        with pytest.raises(TypeError, match=f"{function.__name__}: argument 'model' must be an exported"):
            function(Net())
    assert export_utils.model_is_exported(export(Net().eval(), (torch.randn(1, 3, 2, 2),)))
    assert not export_utils.model_is_exported(torch.fx.symbolic_trace(Net()))


def test_passes_change_nothing_the_second_time():
    quantized = converted("ResidualCnn")[2]
    assert not DuplicateDQPass()(quantized).modified
    assert not PortNodeMetaForQDQ()(quantized).modified


SCRIPT = """
import importlib, sys, types

class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("torch.ao.quantization.fx._decomposed") and BLOCK[0]:
            raise ModuleNotFoundError(name, name=name)

BLOCK = [True]
sys.meta_path.insert(0, Gone())
import torch
from torch_ao_ext.quantization import _decomposed

ours = _decomposed.operators()
torch.manual_seed(0)
x = torch.randn(5, 6)
scale, zero_point = torch.rand(5) + 0.01, torch.randint(-5, 5, (5,))
tensor = (torch.tensor([0.03]), torch.tensor([7]))
range8 = (-128, 127, torch.int8)


def run(ops):
    q = ops.quantize_per_tensor.default(x, 0.03, 7, *range8)
    channel = ops.quantize_per_channel.default(x, scale, zero_point, 0, *range8)
    return [
        q, ops.dequantize_per_tensor.default(q, 0.03, 7, *range8),
        ops.quantize_per_tensor.tensor(x, *tensor, *range8),
        ops.dequantize_per_tensor.tensor(q, *tensor, *range8),
        channel, ops.dequantize_per_channel.default(channel, scale, zero_point, 0, *range8),
        *(v.double() for v in ops.choose_qparams.tensor(x, 0, 255, 1e-6, torch.uint8)),
        *(v.double().reshape(-1)
          for v in ops.choose_qparams_symmetric.tensor(x, -127, 127, 1e-6, torch.int8)),
        *rows(ops),
    ]


def rows(ops):
    scales, points = ops.choose_qparams_per_token_asymmetric.default(x, torch.int8)
    q = ops.quantize_per_token.default(x, scales, points, *range8)
    return [scales, points, q, ops.dequantize_per_token.default(q, scales, points, *range8, torch.float32)]


schemas = {n: str(getattr(getattr(ours, n.split(".")[0]), n.split(".")[1])._schema) for n in (
    "quantize_per_tensor.default", "quantize_per_tensor.tensor", "dequantize_per_tensor.default",
    "dequantize_per_tensor.tensor", "quantize_per_channel.default", "dequantize_per_channel.default",
    "choose_qparams.tensor", "choose_qparams_symmetric.tensor",
    "choose_qparams_per_token_asymmetric.default", "quantize_per_token.default",
    "dequantize_per_token.default")}
found = run(ours)
for library in _decomposed._KEEP:
    library._destroy()
BLOCK[0] = False
import torch.ao.quantization.fx._decomposed
core = torch._ops._OpNamespace("quantized_decomposed")
for a, b in zip(found, run(core), strict=True):
    assert a.dtype == b.dtype and torch.allclose(a.double(), b.double(), rtol=1e-6, atol=1e-7), (a, b)
for name, schema in schemas.items():
    packet, overload = name.split(".")
    theirs = str(getattr(getattr(core, packet), overload)._schema)
    assert theirs == schema, (theirs, schema)
print("equal")
"""


def test_operators_without_pytorchs_own():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        capture_output=True,
        text=True,
        check=False,
        env={**__import__("os").environ, "PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout.strip() == "equal", done.stderr[-3000:]
