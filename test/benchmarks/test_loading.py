"""Loading: what a second process says is read, and limits are on ratios."""

from types import SimpleNamespace

import pytest
import torch

from benchmarks.models import load, serve
from benchmarks.models.table import FP32

MB = 1 << 20


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    load.peers.ours().save_quantized(load.model_of([(64, 128), (128, 64)]), path)
    return path


def test_a_second_process_loads_and_calls(saved):
    facts = load.second_process(saved, 1)
    assert set(facts) == {"import_s", "second_load_s", "first_call_s", "later_call_s"}
    assert all(0 < seconds < 60 for seconds in facts.values())
    assert facts["import_s"] > facts["later_call_s"]


def test_packed_bytes_are_those_of_the_packed_weights(saved):
    ext = load.peers.ours()
    model = ext.load_quantized(saved, dtype=None)
    assert [load.packed_bytes(layer.qweight) for layer in model] == [0, 0]
    with torch.no_grad():
        ext.prepack(model)
    assert all(load.packed_bytes(layer.qweight) >= layer.qweight.nbytes for layer in model)


def test_limits_of_loading():
    facts = {
        "loaded_rss": 120 * MB, "packed_bytes": 100 * MB, "int8_bytes": 100 * MB, "one_pss": 300 * MB,
        "workers_pss": [50 * MB] * 4, "process_s": 1.0, "digest_s": 0.01, "load_s": 0.1, "pack_gb_per_s": 5.0,
        "copy_gb_per_s": 20.0, "import_s": 0.9, "second_load_s": 0.1, "first_call_s": 1e-3,
        "later_call_s": 6e-4,
    }  # fmt: skip
    goals = {goal.name: goal for goal in load.goals_of(facts)}
    assert goals["RSS after load / packed bytes"].got == 1.2
    assert goals["RSS after load / packed bytes"].verdict == "below target"
    assert goals["first call / later ones"].verdict == "target met"
    assert goals["load in a second process"].got == pytest.approx(100)


def test_first_calls_of_served_files_have_a_limit():
    workload = SimpleNamespace(name="a")
    result = SimpleNamespace(rows=[{"id": f"a, {FP32}", "rss_bytes": 50 * MB}])
    facts = {"rss_bytes": 60 * MB, "first_call_s": 0.03, "steady_s": 0.01}
    first, rss = serve.goals_of(facts, result, workload, "torch_ao_ext pt2e traced")
    assert (first.got, first.verdict) == (pytest.approx(3), "below target")
    assert rss.verdict == "FLOOR MISSED"
    assert serve.goals_of(facts, result, workload, "onnxruntime QDQ") == []
    alone = serve.goals_of(facts, SimpleNamespace(rows=[]), workload, "torch_ao_ext dynamic")
    assert [goal.name for goal in alone] == [first.name]
