"""convert_pt2e: the graph of quantize and dequantize, and what is refused."""

import copy

import pytest
import torch
from flow_models import converted, count, export, make, prepared, quantizer
from torch import nn

from torch_ao_ext.quantization.observer import PlaceholderObserver
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
from torch_ao_ext.quantization.quantizer import QuantizationAnnotation, QuantizationSpec
from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86


def test_qparams_and_integers():
    model, (x,), ready = prepared("Reused")
    quantized = convert_pt2e(ready)
    state = quantized.state_dict()
    weight = model.linear.weight.detach()
    scale = (weight.abs().amax(1) / 127.5).clamp_min(2**-12)
    assert torch.allclose(state["linear.weight_scale"], scale)
    expected = torch.clamp(torch.round(weight / scale[:, None]), -128, 127)
    assert (state["linear.qweight"].float() - expected).abs().max() <= 1
    assert state["linear.qweight"].dtype == torch.int8
    assert "linear.weight" not in state and torch.equal(state["linear.bias"], model.linear.bias)
    first = next(n for n in quantized.graph.nodes if "quantize_per_tensor" in str(n.target))
    low, high = x.min().item(), x.max().item()
    assert first.args[1] == pytest.approx((high - low) / 255, rel=0.02)
    assert first.args[3:] == (0, 255, torch.uint8)


def test_each_reader_has_a_dequantize_of_its_own():
    quantized = converted("ResidualCnn")[2]
    pairs = [n for n in quantized.graph.nodes if "dequantize_per_tensor" in str(n.target)]
    assert pairs and all(len(n.users) == 1 for n in pairs)


def test_weights_stay_float_on_request():
    model, example, ready = prepared("ResidualCnn")
    with torch.no_grad():
        folded, unfolded = convert_pt2e(ready), convert_pt2e(ready, fold_quantize=False)
        assert torch.equal(folded(*example), unfolded(*example))
    assert count(unfolded, "quantized_decomposed.quantize_per_channel") == 7
    assert count(folded, "quantized_decomposed.quantize_per_channel") == 0
    assert all(t.dtype != torch.int8 for t in unfolded.state_dict().values())


def test_dynamic_input():
    quantized = converted("Reused", "x86 dynamic")[2]
    assert count(quantized, "choose_qparams.tensor") == 4
    assert count(quantized, "quantize_per_tensor.tensor") == 2 * 4


def test_nodes_keep_module_and_line():
    quantized = converted("ResidualCnn")[2]
    for node in quantized.graph.nodes:
        if "quantized_decomposed" in str(node.target):
            assert node.meta["nn_module_stack"], node
    weight = next(n for n in quantized.graph.nodes if "dequantize_per_channel" in str(n.target))
    assert list(weight.meta["nn_module_stack"].values())[-1][0] == "head"


def test_copies_and_exports():
    _, example, quantized = converted("MobileCnn")
    with torch.no_grad():
        expected = quantized(*example)
        assert torch.equal(copy.deepcopy(quantized)(*example), expected)
        assert torch.equal(export(quantized, example)(*example), expected)


def test_compiles_without_lowering(sqnr):
    _, example, quantized = converted("Reused")
    with torch.no_grad():
        assert sqnr(quantized(*example), torch.compile(quantized)(*example)) > 40


def test_float16_weights():
    model, example = make("Reused")
    how = quantizer("x86").set_global(None)
    how.set_global(x86.get_x86_inductor_linear_dynamic_fp16_config())
    ready = prepare_pt2e(export(model, example), how)
    with torch.no_grad():
        ready(*example)
        quantized = convert_pt2e(ready)
        model.linear.weight.copy_(model.linear.weight.half().float())
        assert torch.equal(quantized(*example), model(*example))


def test_uncalibrated():
    _, example, ready = prepared("ResidualCnn", calibrate=False)
    with pytest.raises(ValueError, match=r"must be calibrated.*nothing reached node 'x'.* and \d+ more"):
        convert_pt2e(ready)
    with torch.no_grad():  # the prepared model is as before
        ready(*example)
    assert count(convert_pt2e(ready), "conv2d") == 6


def test_what_is_refused():
    _, _, ready = prepared("Reused")
    with pytest.raises(TypeError, match="'model' must be an exported graph module"):
        convert_pt2e(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="'fold_quantize' must be a bool, got 1"):
        convert_pt2e(ready, fold_quantize=1)
    quantized = convert_pt2e(ready)
    with pytest.warns(UserWarning, match="must hold observers of tensors to quantize, got none"):
        convert_pt2e(quantized)
    with pytest.raises(ValueError, match="must hold observers"):
        convert_pt2e(quantized, strict=True)
    for mode in (quantized.train, quantized.eval):
        with pytest.raises(NotImplementedError, match="exported graph"):
            mode()


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (torch.int64, "dtype must be int8, uint8, int16 or int32"),
        (torch.int8, "must be dynamic or have a float dtype"),
    ],
)
def test_observers_that_cannot_be_converted(dtype, message):
    class Placeholders(type(quantizer("x86"))):
        def annotate(self, model):
            spec = QuantizationSpec(dtype, PlaceholderObserver, is_dynamic=dtype is torch.int64)
            for node in model.graph.nodes:
                if node.op == "call_function":
                    node.meta["quantization_annotation"] = QuantizationAnnotation({node.args[0]: spec})
            return model

    model, example = make("Reused")
    ready = prepare_pt2e(export(model, example), Placeholders())
    with torch.no_grad():
        ready(*example)
    with pytest.raises(ValueError, match=message):
        convert_pt2e(ready)
