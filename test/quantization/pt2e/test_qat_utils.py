"""qat_utils: the steps of training beside prepare_qat_pt2e, on annotations of quantizers and of users."""

import copy

import pytest
import torch
from qat_models import NETS, exported, make, quantizer, steps, switch
from torch import nn

from torch_ao_ext.quantization.fake_quantize import FakeQuantizeBase
from torch_ao_ext.quantization.pt2e import move_exported_model_to_eval
from torch_ao_ext.quantization.pt2e._qat import ProductBatchNorm
from torch_ao_ext.quantization.pt2e.prepare import prepare
from torch_ao_ext.quantization.pt2e.qat_utils import _fold_conv_bn_qat, _fuse_conv_bn_qat
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_qat_pt2e
from torch_ao_ext.quantization.quantizer.quantizer import (
    Q_ANNOTATION_KEY,
    QuantizationAnnotation,
    SharedQuantizationSpec,
)

CONV, NORM = torch.ops.aten.conv2d.default, torch.ops.aten.batch_norm.default


def annotated(model, x, kind="channel"):
    graph = exported(model, x)
    quantizer(kind).annotate(graph)
    return graph


def fused(graph):
    return [m for m in graph.modules() if isinstance(m, ProductBatchNorm)]


@pytest.mark.parametrize("name", [n for n in NETS if "plain" in n or "no bias" in n])
def test_steps_are_prepare_qat_pt2e(name):
    """Where the result of the batch norm is that of the pattern, both train and convert alike."""
    model, x = make(name)
    other = copy.deepcopy(model)
    graph = prepare(_fuse_conv_bn_qat(annotated(model, x)), is_qat=True)
    whole = prepare_qat_pt2e(exported(other, x), quantizer("channel"))
    assert len(fused(graph)) == len(fused(whole)) == 1
    assert steps(graph, x) == steps(whole, x)
    folded = _fold_conv_bn_qat(copy.deepcopy(graph))
    assert not fused(folded) and "batch_norm" not in str(folded.graph)
    for trained in (graph, whole):
        move_exported_model_to_eval(trained)
    want = convert_pt2e(whole)(x)
    assert torch.equal(convert_pt2e(graph)(x), want) and torch.equal(convert_pt2e(folded)(x), want)


@pytest.mark.parametrize("name", [n for n in NETS if n != "transposed"])
def test_every_product_has_one_module(name):
    model, x = make(name)
    graph = prepare(_fuse_conv_bn_qat(annotated(model, x)), is_qat=True)
    assert len(fused(graph)) == 1 and NORM not in {n.target for n in graph.graph.nodes}
    steps(graph, x)
    assert model[0].weight.grad.abs().max() > 0 and model[1].bias.grad.abs().max() > 0
    move_exported_model_to_eval(graph)
    switch(graph, "disable_observer")
    with torch.no_grad():
        assert torch.allclose(convert_pt2e(_fold_conv_bn_qat(copy.deepcopy(graph)))(x), graph(x), atol=2e-5)


def test_annotations_of_a_pattern_move():
    """As a quantizer writes them that knows the pattern: on the batch norm, shared by what follows it."""
    model, x = make("conv2d")
    model.append(nn.MaxPool2d(2))
    graph = annotated(model, x)
    by_target = {node.target: node for node in graph.graph.nodes}
    conv, norm = by_target[CONV], by_target[NORM]
    pool = next(node for node in graph.graph.nodes if "max_pool2d" in str(node.target))
    own = conv.meta[Q_ANNOTATION_KEY]
    spec, own.output_qspec = own.input_qspec_map[conv.args[0]], None
    relu = next(iter(norm.users))
    norm.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation({}, spec, _annotated=True)
    relu.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(
        {norm: SharedQuantizationSpec(norm)}, SharedQuantizationSpec((norm, relu)), _annotated=True
    )
    pool.meta.pop(Q_ANNOTATION_KEY, None)
    graph = prepare(_fuse_conv_bn_qat(graph), is_qat=True)
    modules = dict(graph.named_modules())
    called = [modules[n.target] for n in graph.graph.nodes if n.op == "call_module"]
    kinds = [m for m in called if isinstance(m, (ProductBatchNorm, FakeQuantizeBase))]
    assert [isinstance(m, ProductBatchNorm) for m in kinds] == [False, True, False, False]
    assert isinstance(kinds[0], FakeQuantizeBase) and kinds[2] is kinds[3] is not kinds[0]
    graph(x)
    # The float operator between its quantized input and result, the weight's integers in the graph.
    move_exported_model_to_eval(graph)
    assert torch.equal(convert_pt2e(graph)(x), convert_pt2e(_fold_conv_bn_qat(graph))(x))


def test_without_a_spec_the_batch_norm_stays():
    model, x = make("conv2d")
    graph = exported(model, x)
    twin = exported(copy.deepcopy(model), x)
    result = _fuse_conv_bn_qat(graph)
    assert result is graph and not fused(graph) and NORM in {n.target for n in graph.graph.nodes}
    assert torch.equal(graph(x), twin(x))


def test_wrong_arguments():
    for step in (_fuse_conv_bn_qat, _fold_conv_bn_qat):
        with pytest.raises(TypeError, match=f"{step.__name__}: argument 'model'"):
            step(nn.Linear(2, 2))
