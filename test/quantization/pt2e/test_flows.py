"""Every row of fixtures.csv: export, prepare, calibrate, convert, lower, report."""

import copy
import csv
import io
import pickle
from pathlib import Path

import pytest
import torch
from flow_models import converted, count, export

import torch_ao_ext

ROWS = list(csv.DictReader((Path(__file__).parent / "fixtures.csv").open()))
# The quantized model against the float one, in dB; uncalibrated noise would give 10.
LEAST_SQNR = 30


def counts(text):
    return {op: int(n) for op, n in (entry.split() for entry in text.split(";") if entry)}


@pytest.mark.parametrize("row", ROWS, ids=[f"{r['model']}-{r['quantizer'].replace(' ', '-')}" for r in ROWS])
def test_fixture(row, sqnr):
    model, example, quantized = converted(row["model"], row["quantizer"])
    lowered = torch_ao_ext.lower(quantized)
    report = torch_ao_ext.report(lowered)
    assert dict(report.int8) == counts(row["int8"])
    assert dict(report.float) == counts(row["float"])
    assert all(r.reason for r in report.rows if r.status == "float")
    with torch.no_grad():
        expected, reference, actual = model(*example), quantized(*example), lowered(*example)
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    assert sqnr(expected, actual) > LEAST_SQNR
    # The operators compute what the graph of quantize and dequantize does, but for values
    # next to a rounding boundary: 43.5 dB and more with random examples. The weights of attention have
    # steps of their own, which are no coarser.
    if "attention" in report.int8:
        assert sqnr(reference, actual) > 36
        assert sqnr(expected, actual) > sqnr(expected, reference) - 0.5
    else:
        assert sqnr(reference, actual) > 40
    assert sum(report.mac_percent.values()) == pytest.approx(100)


@pytest.mark.parametrize("row", ROWS, ids=[f"{r['model']}-{r['quantizer'].replace(' ', '-')}" for r in ROWS])
def test_no_pair_left_beside_a_product(row):
    if row["quantizer"] == "embedding":
        pytest.skip("rows are packed")
    lowered = torch_ao_ext.lower(converted(row["model"], row["quantizer"])[2])
    assert count(lowered, "quantized_decomposed") == 0


@pytest.mark.parametrize(
    ("model", "how"), [("ResidualCnn", "x86"), ("Encoder", "x86 dynamic"), ("Attention", "x86 matmul")]
)
def test_every_runtime_gives_the_same(model, how):
    _, example, quantized = converted(model, how)
    lowered = torch_ao_ext.lower(quantized, example)
    with torch.no_grad():
        expected = lowered(*example)
        assert torch.equal(copy.deepcopy(lowered)(*example), expected)
        assert torch.equal(pickle.loads(pickle.dumps(lowered))(*example), expected)
        again = export(lowered, example)
        assert torch.equal(again(*example), expected)
        buffer = io.BytesIO()
        torch.export.save(torch.export.export(lowered, example), buffer)
        buffer.seek(0)
        assert torch.equal(torch.export.load(buffer).module()(*example), expected)
        traced = torch.jit.freeze(torch.jit.trace(lowered, example).eval())
        assert torch.equal(traced(*example), expected)
        if model == "ResidualCnn":  # Inductor compiles float attention in its own way
            compiled = torch.compile(lowered, fullgraph=True)
            assert torch.equal(compiled(*example), expected)


def test_dynamic_batch():
    from flow_models import make, quantizer

    from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e

    model, (x,) = make("ResidualCnn")
    graph = export(model, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    ready = prepare_pt2e(graph, quantizer("x86"))
    with torch.no_grad():
        ready(x)
        lowered = torch_ao_ext.lower(convert_pt2e(ready))
        whole = lowered(torch.cat([x, x, x[:1]]))
        assert torch.equal(whole[:2], lowered(x))
        assert whole.shape == (5, 10)


def test_steps_leave_their_inputs_alone():
    from flow_models import make, quantizer, targets

    from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e

    model, example = make("MobileCnn")
    graph = export(model, example)
    names = targets(graph)
    with torch.no_grad():
        expected = graph(*example)
        ready = prepare_pt2e(graph, quantizer("x86"))
        assert targets(graph) == names and torch.equal(graph(*example), expected)
        observed = ready(*example)
        quantized = convert_pt2e(ready)
        assert torch.equal(ready(*example), observed)
        first = quantized(*example)
        torch_ao_ext.lower(quantized)
        assert torch.equal(quantized(*example), first)
        assert torch.equal(convert_pt2e(ready)(*example), first)  # a second time


def test_report_tells_a_converted_model_that_was_not_lowered():
    quantized = converted("ResidualCnn")[2]
    report = torch_ao_ext.report(quantized)
    assert {row.reason for row in report.rows} == {"not lowered; call torch_ao_ext.lower"}
    assert sum(row.macs > 0 for row in report.rows) == 7 and report.functions["relu"] == 5
