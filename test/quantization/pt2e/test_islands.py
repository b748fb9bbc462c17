"""Lowered graphs whose neighbouring operators are one: same bits, same report, every runtime."""

import copy
import io
import json
import pickle
import shutil

import pytest
import torch
from flow_models import converted, count, export
from test_flows import ROWS

import torch_ao_ext
from torch_ao_ext._island import Island

IDS = [f"{r['model']}-{r['quantizer'].replace(' ', '-')}" for r in ROWS]


def islands_of(model):
    return [module for module in model.children() if isinstance(module, Island)]


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_same_bits_and_report(row):
    _, example, quantized = converted(row["model"], row["quantizer"])
    plain, merged = torch_ao_ext.lower(quantized, islands=False), torch_ao_ext.lower(quantized)
    with torch.no_grad():
        expected, actual = plain(*example), merged(*example)
    assert torch.equal(actual, expected) and actual.stride() == expected.stride()
    before, after = torch_ao_ext.report(plain), torch_ao_ext.report(merged)
    assert after.int8 == before.int8 and after.float == before.float
    assert after.macs == before.macs and after.parameters == before.parameters
    assert {r.fqn for r in after.rows if r.macs} == {r.fqn for r in before.rows if r.macs}
    assert sorted(r.engine for r in after.rows) == sorted(r.engine for r in before.rows)


def test_a_whole_network_is_one_operator():
    _, example, quantized = converted("ResidualCnn", "x86")
    merged = torch_ao_ext.lower(quantized, example)
    assert len(islands_of(merged)) == 1 and count(merged, "conv2d") == 0
    assert count(merged, "torch_ao.") == 0 and "operators" in repr(islands_of(merged)[0])


def test_no_path_leaves_an_island():
    """Float operators between int8 ones: each side is an island of its own."""
    _, example, quantized = converted("Encoder", "x86")
    merged = torch_ao_ext.lower(quantized)
    merged.graph.lint()
    assert len(islands_of(merged)) > 1
    seen = set()
    for node in merged.graph.nodes:
        assert set(node.all_input_nodes) <= seen
        seen.add(node)


@pytest.mark.parametrize(("model", "how"), [("ResidualCnn", "x86"), ("Encoder", "x86 dynamic")])
def test_every_runtime(model, how, tmp_path):
    _, example, quantized = converted(model, how)
    merged = torch_ao_ext.lower(quantized, example)
    with torch.no_grad():
        expected = merged(*example)
        assert torch.equal(copy.deepcopy(merged)(*example), expected)
        assert torch.equal(pickle.loads(pickle.dumps(merged))(*example), expected)
        assert torch.equal(export(merged, example)(*example), expected)
        traced = torch.jit.trace(merged, example)
        assert torch.equal(torch.jit.freeze(traced.eval())(*example), expected)
        scripted = torch.jit.script(merged)
        buffer = io.BytesIO()
        torch.jit.save(scripted, buffer)
        buffer.seek(0)
        assert torch.equal(torch.jit.load(buffer)(*example), expected)
        torch._dynamo.reset()
        # the float operators outside are the compiler's own
        torch.testing.assert_close(torch.compile(merged)(*example), expected, rtol=1e-3, atol=1e-3)
    assert torch_ao_ext.report(export(merged, example)).int8 == torch_ao_ext.report(merged).int8


def test_aot_inductor(tmp_path):
    assert shutil.which("g++"), "AOTInductor needs g++, as the build of this library does"
    _, example, quantized = converted("ResidualCnn", "x86")
    merged = torch_ao_ext.lower(quantized, example)
    program = torch.export.export(merged, example)
    path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "m.pt2"))
    with torch.no_grad():
        assert torch.equal(torch._inductor.aoti_load_package(path)(*example), merged(*example))


def test_free_batch():
    model, example, _ = converted("ResidualCnn", "x86")
    from flow_models import quantizer

    from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e

    dims = {0: torch.export.Dim("n", min=2, max=64)}
    two = (torch.cat([example[0]] * 2),) if example[0].shape[0] == 1 else example
    graph = torch.export.export(model, two, dynamic_shapes=(dims,)).module()
    prepared = prepare_pt2e(graph, quantizer("x86"))
    prepared(*two)
    quantized = convert_pt2e(prepared)
    plain, merged = torch_ao_ext.lower(quantized, islands=False), torch_ao_ext.lower(quantized)
    for n in (2, 5):
        x = torch.randn(n, *two[0].shape[1:])
        with torch.no_grad():
            assert torch.equal(merged(x), plain(x))


def test_names_of_constants_are_told_apart():
    values = [torch.full((2,), float(i)) for i in range(4)]
    names = ["a_b", "a_b", "program", "forward"]
    program = "torch_ao.island 1 inputs=1 constants=4\naten::add.Tensor %0 @0\naten::add.Tensor %1 @1\n"
    island = Island(list(zip(names, values, strict=True)), program + "return %2")
    assert all(a is b for a, b in zip(island.constants, values, strict=True))
    assert len(island.state_dict()) == 4
    assert torch.equal(island(torch.zeros(2))[0], torch.ones(2))


def test_argument():
    _, _, quantized = converted("Reused", "x86")
    with pytest.raises(TypeError, match="lower: argument 'islands' must be a bool, got 1"):
        torch_ao_ext.lower(quantized, islands=1)


def test_explain_shows_the_plan():
    _, example, quantized = converted("ResidualCnn", "x86")
    merged = torch_ao_ext.lower(quantized)
    with torch.no_grad():
        merged(*example)
    explained = torch_ao_ext.explain(merged)
    plan = explained.islands["island"]["plans"][-1]
    assert 0 < plan["block_bytes"] < plan["separate_bytes"]
    assert len(explained.weights) == 7 and "operators in one call" in str(explained)
    assert f"{plan['results']} results, those inside in {plan['block_bytes']} bytes" in str(explained)


def test_profile(tmp_path):
    _, example, quantized = converted("ResidualCnn", "x86")
    merged = torch_ao_ext.lower(quantized, example)
    trace = tmp_path / "trace.json"
    profile = torch_ao_ext.profile(merged, *example, runs=3, trace=trace)
    convs = [row for row in profile.rows if row.op == "torch_ao::conv2d"]
    assert sum(row.calls for row in convs) == 6 and {"stem", "layers.0.c1"} <= {row.fqn for row in convs}
    assert all(row.microseconds > 0 for row in profile.rows)
    assert 0 < sum(row.microseconds for row in profile.rows) < profile.microseconds
    assert "layers.0.c1" in str(profile) and "between operators" in str(profile)
    names = {event["name"] for event in json.loads(trace.read_text())["traceEvents"] if "name" in event}
    assert {"torch_ao::conv2d", "layers.0.c1"} <= names


def test_profile_refuses():
    with pytest.raises(TypeError, match="profile: argument 'model' must be callable, got int"):
        torch_ao_ext.profile(3)
    for runs in (0, True, 1.5):
        with pytest.raises(ValueError, match="profile: argument 'runs' must be an integer of at least 1"):
            torch_ao_ext.profile(torch.relu, torch.randn(2), runs=runs)
