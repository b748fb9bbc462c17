"""Settings from the environment, the dispatch log, info and explain."""

import json
import os
import subprocess
import sys

import pytest
import torch
from op_cases import ENGINES, random_int

ops = torch.ops.torch_ao

RUN = """
import torch, torch_ao_ext
ops = torch.ops.torch_ao
w, s = torch.ones(8, 64, dtype=torch.int8), torch.ones(8)
ops.linear_dynamic(torch.ones(2, 64), w, s)
ops.linear_dynamic(torch.ones(3, 64), w, s)
print(ops._explain(w))
"""


def run(code, **variables):
    env = {**os.environ, **variables}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_variable(engine):
    done = run(RUN, TORCH_AO_EXT_ENGINE=engine)
    problem = {e["name"]: e["problem"] for e in json.loads(ops._info())["engines"]}[engine]
    if problem:  # not usable at this instruction set: said so, never replaced silently
        assert done.returncode != 0
        assert "NotImplementedError: torch_ao::linear_dynamic: no engine" in done.stderr
        assert f"  {engine}: {problem}" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    (state,) = json.loads(done.stdout)["states"]
    assert state["engine"] == engine
    assert state["refused"] == []
    assert done.stderr == ""


BAD_VARIABLES = [
    ("TORCH_AO_EXT_ENGINE", "mkl", "native, onednn, xnnpack, reference"),
    ("TORCH_AO_EXT_DETERMINISTIC", "yes", "0 or 1"),
    ("TORCH_AO_EXT_CHECK_WEIGHTS", "2", "0 or 1"),
    ("TORCH_AO_EXT_LOG", "all", "'dispatch'"),
    ("TORCH_AO_EXT_MAX_ISA", "sse9", "avx512_vnni"),
]


def run_without_package(code, **variables):
    """As a program does that loads the library and not the package."""
    library = os.environ.get("TORCH_AO_EXT_LIBRARY") or os.path.join(
        os.path.dirname(sys.modules["torch_ao_ext"].__file__), "lib", "libtorch_ao_ext.so"
    )
    return run(f"import torch; torch.ops.load_library({library!r})\n{code}", **variables)


@pytest.mark.parametrize(("variable", "value", "valid"), BAD_VARIABLES)
def test_bad_variable_is_reported(variable, value, valid):
    """By _init_error, which import raises, and by the first packing for programs without Python."""
    done = run_without_package(RUN.split("\n", 2)[2], **{variable: value})
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ValueError: ")
    assert variable in last and valid in last and value in last


EVERY_FAMILY = """
ops = torch.ops.torch_ao
x, w, s = torch.ones(1, 4), torch.ones(4, 4, dtype=torch.int8), torch.ones(4)
image, kernel = torch.ones(1, 4, 3, 3, dtype=torch.uint8), torch.ones(4, 4, 1, 1, dtype=torch.int8)
calls = [
    lambda: ops.linear(x.byte(), 1.0, 0, w, s, None, None, 1.0, 0),
    lambda: ops.linear_weight_only(x, w, s),
    lambda: ops.conv2d(image, 1.0, 0, kernel, s, None, None, 1.0, 0),
    lambda: ops.sparse_linear_dynamic(
        x, torch.ones(1, 1, 4, dtype=torch.int8), torch.tensor([0, 1, 1, 1, 1], dtype=torch.int32),
        torch.tensor([0], dtype=torch.int32), [4, 4], s),
    lambda: ops.lstm_cell(x, None, None, w, s, w[:, :1].contiguous(), s),
    lambda: ops.matmul(x.byte(), 1.0, 0, x.t().byte(), 1.0, 0),
    lambda: ops.attention(x.byte(), 1.0, 0, x.byte(), 1.0, 0, x.byte(), 1.0, 0),
]
for call in calls:
    try:
        call()
    except ValueError as error:
        print(str(error).splitlines()[0])
"""


def test_no_family_runs_under_a_wrong_setting():
    done = run_without_package(EVERY_FAMILY, TORCH_AO_EXT_ENGINE="mkl")
    lines = done.stdout.splitlines()
    assert len(lines) == 7 and all("TORCH_AO_EXT_ENGINE" in line for line in lines), done
    assert run_without_package(EVERY_FAMILY).stdout == ""


def test_dispatch_log_is_on_stderr_only():
    done = run(RUN, TORCH_AO_EXT_LOG="dispatch", TORCH_AO_EXT_ENGINE="reference")
    assert done.returncode == 0
    json.loads(done.stdout)
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("torch_ao_ext: ") for line in lines)
    assert "pack linear_dynamic weight=[8, 64] f32->f32" in lines[0]
    assert "engine=reference" in lines[0]
    assert "run linear_dynamic m=2 k=64 n=8 engine=reference" in lines[1]
    assert "m=3" in lines[2]


def test_deterministic_leaves_out_xnnpack():
    done = run(RUN, TORCH_AO_EXT_ENGINE="xnnpack", TORCH_AO_EXT_DETERMINISTIC="1")
    assert done.returncode != 0
    assert "NotImplementedError: torch_ao::linear_dynamic: no engine accepts this call:" in done.stderr
    assert "xnnpack: may round differently; deterministic mode is on" in done.stderr


def test_deterministic_at_run_time():
    try:
        for k, n in ((64, 8), (768, 768), (3072, 768), (33, 1000)):
            w, s = random_int(torch.int8, n, k), torch.rand(n) + 0.01
            for enabled in (False, True):
                ops._set_deterministic(enabled)
                ops.linear_dynamic(torch.randn(2, k), w, s)
                state = json.loads(ops._explain(w))["states"][0]
                assert not enabled or state["engine"] != "xnnpack"
    finally:
        ops._set_deterministic(False)


def test_info():
    info = json.loads(ops._info())
    assert [e["name"] for e in info["engines"]] == ["native", "onednn", "xnnpack", "reference"]
    assert all(e["version"] for e in info["engines"])
    assert [e["problem"] for e in info["engines"] if e["name"] in ("native", "reference")] == ["", ""]
    assert info["torch_built"].startswith("2.13.")
    assert info["l1_bytes"] >= 16384 and info["l2_bytes"] > info["l1_bytes"]
    assert set(info["cpu_features"]) >= {"sse4.1"}


def test_refusals_are_explained():
    """No engine but the reference takes a K beyond the exact accumulator."""
    w = torch.ones(4, 300000, dtype=torch.int8)
    ops.linear_dynamic(torch.zeros(1, 300000), w, torch.ones(1))
    state = json.loads(ops._explain(w))["states"][0]
    assert state["engine"] == "reference"
    refused = dict(state["refused"])
    assert set(refused) == {"native", "onednn", "xnnpack"}
    assert all(reason for reason in refused.values())


def test_states_are_found_across_threads_settings_do_not_leak(forced):
    forced("reference")
    w, s = random_int(torch.int8, 8, 16), torch.ones(1)
    ops.linear_dynamic(torch.randn(1, 16), w, s)
    forced("")
    ops.linear_dynamic(torch.randn(1, 16), w, s)
    assert len(json.loads(ops._explain(w))["states"]) == 1


def test_service_ops_take_meta_and_bad_weights_with_an_error():
    for op in (ops._explain, ops._repack, ops._pack_count):
        with pytest.raises(TypeError, match="argument 'weight' must be a dense CPU tensor, got"):
            op(torch.empty(3, device="meta"))


def test_crc32():
    text = torch.tensor(list(b"123456789"), dtype=torch.uint8)
    assert ops._crc32(text) == 0xCBF43926
    assert ops._crc32(text[4:], ops._crc32(text[:4])) == 0xCBF43926
    assert ops._crc32(torch.stack([text, text], -1)[:, 0]) == 0xCBF43926
    assert ops._crc32(text[:0], 5) == 5
    for bad in (-1, 2**32, 2**63 - 1):
        with pytest.raises(ValueError, match=rf"_crc32: argument 'start' must be in .*, got {bad}"):
            ops._crc32(text, bad)
    with pytest.raises(TypeError, match="_crc32: argument 'data' must have dtype uint8, got int8"):
        ops._crc32(text.to(torch.int8))
    with pytest.raises(TypeError, match="_crc32: argument 'data' must be a dense CPU tensor"):
        ops._crc32(text.to("meta"))
