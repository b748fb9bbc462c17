"""prepare_pt2e: which observers there are, who shares them, what is refused."""

import pytest
import torch
from flow_models import count, export, make, prepared, quantizer
from torch import nn

import torch_ao_ext
from torch_ao_ext.quantization.observer import HistogramObserver, MinMaxObserver, ObserverBase
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
from torch_ao_ext.quantization.quantizer import (
    DerivedQuantizationSpec,
    FixedQParamsQuantizationSpec,
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)

SPEC = QuantizationSpec(torch.uint8, MinMaxObserver, 0, 255, torch.per_tensor_affine)
aten = torch.ops.aten


class Annotate(Quantizer):
    """A quantizer from a function: node -> annotation or None."""

    def __init__(self, rule):
        self.rule = rule

    def annotate(self, model):
        for node in model.graph.nodes:
            if node.op == "call_function":
                annotation = self.rule(node)
                if annotation is not None:
                    node.meta["quantization_annotation"] = annotation
        return model

    def validate(self, model):
        pass


def observers(model):
    return [m for m in model.modules() if isinstance(m, ObserverBase)]


class Sum(nn.Module):
    def forward(self, x, y):
        z = x + y
        return torch.sigmoid(z), z * z


def prepare_sum(rule):
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    return prepare_pt2e(export(Sum(), (x, y)), Annotate(rule)), x, y


def test_observers_see_what_they_stand_behind():
    _, example, ready = prepared("ResidualCnn", calibrate=False)
    with torch.no_grad():
        before = ready(*example)
        assert torch.equal(ready(*example), before)
    assert isinstance(observers(ready)[0], HistogramObserver)
    # 7 weights; the input, what pool, the two blocks and their first convs give, and one
    # operand of the second add. Pooling and flatten share with their inputs.
    assert len(observers(ready)) == 7 + 7
    assert count(ready, "batch_norm") == count(ready, "dropout") == 0


def test_batch_norms_fold(sqnr):
    for name in ("ResidualCnn", "OtherConvs"):
        model, example = make(name)
        ready = prepare_pt2e(export(model, example), quantizer("xnnpack"))
        assert count(ready, "batch_norm") == 0
        with torch.no_grad():
            assert sqnr(model(*example), ready(*example)) > 100


def test_a_batch_norm_that_cannot_fold_stays():
    class AfterRelu(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            return self.norm(torch.relu(self.conv(x)))

    model, x = AfterRelu().eval(), torch.randn(1, 3, 4, 4)
    ready = prepare_pt2e(export(model, (x,)), quantizer("x86"))
    assert count(ready, "batch_norm") == 1
    assert torch.equal(ready(x), model(x))


class InPlace(nn.Module):
    """relu_ changes what the sum reads, too; what it returns is not used."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.a(x)
        torch.relu_(x)
        y = self.b(x)
        y += x
        return torch.nn.functional.relu(y, inplace=True)


def test_in_place_operators(sqnr):
    model, x = InPlace().eval(), torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        expected = model(x)
        ready = prepare_pt2e(export(model, (x,)), quantizer("x86"))
        assert torch.equal(ready(x), expected)
        quantized = convert_pt2e(ready)
        assert sqnr(expected, quantized(x)) > 35
        lowered = torch_ao_ext.lower(quantized, islands=False)
        assert sqnr(expected, lowered(x)) > 35
    assert count(lowered, "torch_ao.conv2d") == 2 and count(lowered, "relu") == 0


def test_edges_of_one_tensor_share_and_can_refuse_to():
    for sharing, expected in ((True, 1), (False, 2)):

        def rule(node, sharing=sharing):
            if node.target in (aten.sigmoid.default, aten.mul.Tensor):
                return QuantizationAnnotation(
                    input_qspec_map={node.args[0]: SPEC}, allow_implicit_sharing=sharing
                )

        ready, _, _ = prepare_sum(rule)
        assert len(observers(ready)) == expected


def test_shared_spec():
    def rule(node):
        if node.target is aten.add.Tensor:
            x, y = node.args
            return QuantizationAnnotation({x: SPEC, y: SharedQuantizationSpec((x, node))}, output_qspec=SPEC)

    ready, x, y = prepare_sum(rule)
    assert len(observers(ready)) == 2
    ready(x, y)
    shared = observers(ready)[0]
    assert shared.min_val == min(x.min(), y.min()) and shared.max_val == max(x.max(), y.max())


def test_circle_of_shared_specs():
    def rule(node):
        if node.target is aten.add.Tensor:
            x, y = node.args
            edges = ((x, node), (y, node))
            return QuantizationAnnotation(
                {x: SharedQuantizationSpec(edges[1]), y: SharedQuantizationSpec(edges[0])}
            )

    with pytest.raises(ValueError, match="must end at a tensor with another spec, got a circle"):
        prepare_sum(rule)


def test_shared_spec_of_a_tensor_without_one():
    def rule(node):
        if node.target is aten.add.Tensor:
            return QuantizationAnnotation({node.args[0]: SharedQuantizationSpec(node.args[1])})

    with pytest.raises(ValueError, match="must name an annotated tensor, got node 'y'"):
        prepare_sum(rule)


def test_fixed_and_derived_specs():
    def rule(node):
        if node.target is aten.sigmoid.default:
            fixed = FixedQParamsQuantizationSpec(torch.uint8, 1 / 256, 0, 0, 255)
            return QuantizationAnnotation({node.args[0]: SPEC}, output_qspec=fixed)
        if node.target is aten.mul.Tensor:
            source = node.args[0]
            edge = (source, next(u for u in source.users if u.target is aten.sigmoid.default))

            def twice(found):
                scale, zero_point = found[0].calculate_qparams()
                return scale * 2, zero_point

            derived = DerivedQuantizationSpec([edge], twice, torch.int32, -(2**31), 2**31 - 1)
            return QuantizationAnnotation(output_qspec=derived)

    ready, x, y = prepare_sum(rule)
    ready(x, y)
    graph = convert_pt2e(ready).graph
    quantize = [n.args for n in graph.nodes if "decomposed.quantize_per_tensor" in str(n.target)]
    scales = {args[5]: args[1] for args in quantize if "sigmoid" not in args[0].name}
    assert (1 / 256, 0) in [args[1:3] for args in quantize]
    assert scales[torch.int32] == pytest.approx(2 * scales[torch.uint8])


def test_foreign_node_in_an_annotation():
    def rule(node):
        if node.target is aten.sigmoid.default:
            return QuantizationAnnotation({node.args[0].args[0]: SPEC})

    with pytest.raises(ValueError, match="node 'sigmoid'.*must name its own inputs, got 'x'"):
        prepare_sum(rule)


def test_callback_may_replace_an_observer():
    class Replace(Annotate):
        def prepare_obs_or_fq_callback(self, model, edge_or_node_to_obs_or_fq):
            for key in edge_or_node_to_obs_or_fq:
                edge_or_node_to_obs_or_fq[key] = HistogramObserver()

    def rule(node):
        return QuantizationAnnotation({node.args[0]: SPEC}) if node.target is aten.sigmoid.default else None

    x = torch.randn(3, 4)
    ready = prepare_pt2e(export(Sum(), (x, x + 1)), Replace(rule))
    assert [type(m) for m in observers(ready)] == [HistogramObserver]


def test_what_is_refused():
    model, example = make("ResidualCnn")
    graph = export(model, example)
    with pytest.raises(TypeError, match="'model' must be an exported graph module.*got ResidualCnn"):
        prepare_pt2e(model, quantizer("x86"))
    with pytest.raises(TypeError, match="'quantizer' must be a torch_ao_ext.*Quantizer, got builtins.str"):
        prepare_pt2e(graph, "x86")
    with pytest.raises(ValueError, match="must annotate a node of the model, got none from Annotate"):
        prepare_pt2e(graph, Annotate(lambda node: None))
    ready = prepare_pt2e(graph, quantizer("x86"))
    with pytest.raises(ValueError, match="must not be prepared yet"):
        prepare_pt2e(ready, quantizer("x86"))
    with pytest.raises(NotImplementedError, match="move_exported_model_to_eval"):
        ready.eval()
    training = export(model.train(), example)
    with pytest.raises(ValueError, match=r"got training mode at node 'batch_norm' in module 'bn' \(File "):
        prepare_pt2e(training, quantizer("x86"))


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32])
def test_wide_integers(dtype):
    """Observers of 16 and 32 bits: the converted graph rounds to them, `lower` leaves the operator float."""
    info = torch.iinfo(dtype)
    spec = QuantizationSpec(dtype, MinMaxObserver, info.min, info.max, torch.per_tensor_symmetric)

    def rule(node):
        return QuantizationAnnotation({node.args[0]: spec}) if node.target is aten.sigmoid.default else None

    ready, x, y = prepare_sum(rule)
    with torch.no_grad():
        ready(x, y)
        quantized = convert_pt2e(ready)
        call = next(n for n in quantized.graph.nodes if "quantize_per_tensor" in str(n.target))
        scale = call.args[1]
        assert call.args[2:] == (0, info.min, info.max, dtype)
        exact = 2 * float((x + y).abs().max()) / (info.max - info.min)
        assert scale == pytest.approx(max(exact, torch.finfo(torch.float32).eps), rel=1e-3)
        rounded = ((x + y) / scale).round().clamp(info.min, info.max) * scale
        assert (quantized(x, y)[0] - torch.sigmoid(rounded)).abs().max() < 1e-6
        with pytest.warns(UserWarning, match="must hold an operator of quantized tensors"):
            lowered = torch_ao_ext.lower(quantized)
        assert torch.equal(lowered(x, y)[0], quantized(x, y)[0])
