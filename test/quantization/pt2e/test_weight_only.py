"""Weight-only configs of both quantizers: int8 weights of linears, nothing else, no calibration."""

import io

import pytest
import torch
from flow_models import count, export, make, targets
from torch import nn

import torch_ao_ext
from torch_ao_ext.quantization.observer import PerChannelMinMaxObserver
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e, prepare_qat_pt2e
from torch_ao_ext.quantization.quantizer import (
    QuantizationSpec,
    X86InductorQuantizer,
    XNNPACKQuantizer,
    utils,
)
from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86
from torch_ao_ext.quantization.quantizer import xnnpack_quantizer as xnnpack

X86, XNNPACK = x86.get_x86_inductor_weight_only_config(), xnnpack.get_symmetric_weight_only_config()
HOW = {
    "x86": lambda: X86InductorQuantizer().set_global(X86),
    "xnnpack": lambda: XNNPACKQuantizer().set_global(XNNPACK),
    "xnnpack tensor": lambda: XNNPACKQuantizer().set_global(
        xnnpack.get_symmetric_weight_only_config(is_per_channel=False)
    ),
}


def flow(name, how, **kwargs):
    """(float model, example, converted, lowered); nothing is calibrated."""
    model, example = make(name)
    with torch.no_grad():
        quantized = convert_pt2e(prepare_pt2e(export(model, example), how))
        return model, example, quantized, torch_ao_ext.lower(quantized, strict=True, **kwargs)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", ["ResidualCnn", "Encoder", "Reused"])
def test_linears_alone(name, how, sqnr):
    model, example, quantized, lowered = flow(name, HOW[how](), islands=False)
    linears = count(export(model, example), "linear")
    assert count(quantized, "quantize_per_tensor.default") == linears * (how == "xnnpack tensor")
    assert count(quantized, "dequantize_per_channel") == linears * (how != "xnnpack tensor")
    assert [t for t in targets(lowered) if "torch_ao." in t] == [
        "torch_ao.linear_weight_only.default"
    ] * linears
    assert torch_ao_ext.report(lowered).int8["linear_weight_only"] == linears
    with torch.no_grad():
        expected = quantized(*example)
        assert sqnr(expected, lowered(*example)) > 60  # inputs in 16 bits
        assert sqnr(model(*example), expected) > (20 if how == "xnnpack tensor" else 30)
        merged = torch_ao_ext.lower(quantized)
        assert torch.equal(merged(*example), lowered(*example))


@pytest.mark.parametrize("how", ["x86", "xnnpack"])
def test_beside_a_static_config(how, sqnr):
    """The head keeps float inputs, the rest is int8 in and out."""
    model, example = make("MobileCnn")
    if how == "x86":
        quantizer = X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
        quantizer.set_module_name_qconfig("head", X86)
    else:
        quantizer = XNNPACKQuantizer().set_global(xnnpack.get_symmetric_quantization_config(True))
        quantizer.set_module_name("head", XNNPACK)
    with torch.no_grad():
        ready = prepare_pt2e(export(model, example), quantizer)
        ready(*example)
        quantized = convert_pt2e(ready)
        lowered = torch_ao_ext.lower(quantized, strict=True)
        assert sqnr(quantized(*example), lowered(*example)) > 40
    report = torch_ao_ext.report(lowered)
    assert (report.int8["conv2d"], report.int8["linear_weight_only"], report.int8["linear"]) == (6, 1, 0)


def test_inputs_that_are_integers_already_stay_so():
    """The pooling before the head is int8 by the convs' config: no float product of integers."""
    model, example = make("ResidualCnn")
    quantizer = X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    quantizer.set_module_name_qconfig("head", X86)
    with torch.no_grad():
        ready = prepare_pt2e(export(model, example), quantizer)
        ready(*example)
        lowered = torch_ao_ext.lower(convert_pt2e(ready), strict=True)
    assert torch_ao_ext.report(lowered).int8["linear"] == 1


def test_convolutions_stay_float():
    _, _, _, lowered = flow("ResidualCnn", HOW["x86"](), islands=False)
    assert count(lowered, "aten.conv2d") + count(lowered, "conv2d.default") == 6
    assert not any("dequantize" in t for t in targets(lowered))


def test_every_runtime(sqnr):
    _, example, _, lowered = flow("ResidualCnn", HOW["x86"]())
    with torch.no_grad():
        expected = lowered(*example)
        traced = torch.jit.freeze(torch.jit.trace(lowered, example).eval())
        assert torch.equal(traced(*example), expected)
        saved = io.BytesIO()
        torch.export.save(torch.export.export(lowered, example), saved)
        saved.seek(0)
        assert torch.equal(torch.export.load(saved).module()(*example), expected)
        low = flow("ResidualCnn", HOW["x86"](), float_dtype=torch.bfloat16)[3]
        assert sqnr(expected, low(*example)) > 25


def test_training(sqnr):
    model, x = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(6, 8)
    quantizer = X86InductorQuantizer().set_global(x86.get_x86_inductor_weight_only_config(is_qat=True))
    ready = prepare_qat_pt2e(torch.export.export(model, (x,)).module(), quantizer)
    ready(x).square().sum().backward()
    assert all(p.grad is not None for p in ready.parameters())
    with torch.no_grad():
        expected, lowered = ready(x), torch_ao_ext.lower(convert_pt2e(ready), islands=False)
        assert count(lowered, "linear_weight_only") == 2 and sqnr(expected, lowered(x)) > 60


def test_weights_with_zero_points_stay_float():
    spec = QuantizationSpec(
        torch.int8, PerChannelMinMaxObserver, -128, 127, torch.per_channel_affine, ch_axis=0
    )
    config = utils.QuantizationConfig(None, None, spec, None)
    model, x = nn.Linear(8, 4).eval(), torch.randn(2, 8)
    with torch.no_grad():
        quantized = convert_pt2e(prepare_pt2e(export(model, (x,)), XNNPACKQuantizer().set_global(config)))
        with pytest.warns(UserWarning, match="must hold an operator of quantized tensors"):
            lowered = torch_ao_ext.lower(quantized)
        assert torch.equal(lowered(x), quantized(x))
    row = torch_ao_ext.report(lowered).rows[0]
    assert (row.status, row.reason) == ("float", "its input is not quantized, and its weight has zero points")


def test_integer_representation_keeps_the_float_product(sqnr):
    model, example = make("Reused")
    with torch.no_grad():
        ready = prepare_pt2e(export(model, example), HOW["x86"]())
        written = convert_pt2e(ready, use_reference_representation=True)
        assert sqnr(convert_pt2e(ready)(*example), written(*example)) > 100
    assert not any("torch_ao" in t or "quantized_decomposed" in t for t in targets(written))
