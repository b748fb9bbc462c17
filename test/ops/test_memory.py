"""Every op when the n-th allocation fails, for all n, and with its results against guard pages.

The program build/release/test/csrc/op_memory makes the calls without Python, whose own
allocations would fail instead. It reads them from the samples, so a new op is covered.
"""

import random
import subprocess
from pathlib import Path

import pytest
import torch
from op_cases import ENGINES
from op_samples import all_samples, overload, packs
from op_shapes import another_size, is_tensor
from rnn_layers import make, quantized_side

PROGRAM = Path(__file__).resolve().parents[2] / "build" / "release" / "test" / "csrc" / "op_memory"
NUMBERS = {torch.uint8: 0, torch.int8: 1, torch.float32: 6, torch.bfloat16: 15}


def engines(name):
    """The engines of an op that packs; any other has one way to run."""
    return ENGINES if packs(name) else ("",)


def full(name, call):
    """With the defaults, and dtypes as the numbers that C++ gives them."""
    arguments = overload(name)._schema.arguments
    call = [*call, *[a.default_value for a in arguments[len(call) :]]]
    for i, (a, value) in enumerate(zip(arguments, call, strict=True)):
        if isinstance(value, torch.dtype):
            call[i] = NUMBERS[value]
        elif str(a.type) == "float" and value is not None:
            call[i] = float(value)
        elif is_tensor(value):
            call[i] = value.contiguous().clone()
        elif "Tensor" in str(a.type) and value is not None:
            call[i] = [t.contiguous().clone() for t in value]
    return call


def write_calls(file):
    """All samples under every engine; test/sanitizers/run.py makes them from many threads."""
    calls = [
        (name, engine, full(name, call))
        for name, given in all_samples().items() for engine in engines(name) for call in given
    ]  # fmt: skip
    torch.save(calls, file)


def run(mode, calls, tmp_path):
    assert PROGRAM.exists(), "make test-cpp builds it"
    torch.save(calls, tmp_path / "calls.pt")
    done = subprocess.run([PROGRAM, mode, tmp_path / "calls.pt"], capture_output=True, text=True)
    print(done.stdout, done.stderr[-300:])
    assert done.returncode == 0, done.stderr.splitlines()[-1:]
    return done.stdout.strip().splitlines()[-1]


def test_every_allocation_may_fail(tmp_path):
    calls = []
    for name, given in all_samples().items():
        for engine in engines(name):
            count = 2 if engine in ("", "native") else 1  # a oneDNN primitive takes thousands
            calls += [(name, engine, full(name, call)) for call in given[:count]]
    last = run("fail", calls, tmp_path)
    assert last.endswith(": 0 bad")
    assert int(last.split("ran, ")[1].split()[0]) > 1000


def test_nothing_is_allocated_inside_a_team(tmp_path):
    """Recurrent layers whose steps and projections two threads share, by both rules."""
    layer = make("lstm", 16, 192, proj_size=128)
    call = (torch.randn(8, 4, 16), None, None, None, *quantized_side(layer), 1, False)
    calls = [("lstm", "native", full("lstm", [*call, per_row])) for per_row in (True, False)]
    last = run("team", calls, tmp_path)
    assert "2 of 2 calls ran" in last and last.endswith(": 0 bad")
    assert int(last.split("ran, ")[1].split()[0]) > 50


def test_every_allocation_of_a_process_may_fail(tmp_path):
    """The first call makes engines, primitives, operators and caches, too."""
    calls = []
    for name, given in all_samples().items():
        if len(engines(name)) == 1 or name in ("linear", "linear_dynamic"):
            calls += [(name, e, full(name, given[0])) for e in engines(name)]
    for name in ("conv2d", "conv_transpose2d"):  # a oneDNN primitive takes thousands
        calls += [(name, e, full(name, all_samples()[name][0])) for e in ("native", "xnnpack", "reference")]
    calls += [("lstm", e, full("lstm", all_samples()["lstm"][0])) for e in ("native", "reference")]
    last = run("cold", calls, tmp_path)
    assert last.endswith(": 0 bad")


def test_results_end_at_a_guard_page(tmp_path):
    rng = random.Random(0)
    calls = []
    for name, given in all_samples().items():
        for engine in engines(name):
            found = 0
            for _ in range(200):
                call = another_size(name, given, rng)
                try:
                    overload(name)(*call)
                except (ValueError, IndexError):
                    continue
                calls.append((name, engine, full(name, call)))
                found += 1
                if found == 64:
                    break
            assert found >= 16, name
    last = run("guard", calls, tmp_path)
    assert last.endswith(": 0 bad")


def test_unreadable_file(tmp_path):
    (tmp_path / "calls.pt").write_bytes(b"nothing")
    done = subprocess.run([PROGRAM, "fail", tmp_path / "calls.pt"], capture_output=True)
    assert done.returncode != 0


@pytest.mark.parametrize("mode", ["fail", "guard"])
def test_empty_list(mode, tmp_path):
    assert run(mode, [], tmp_path).endswith("0 of 0 calls ran, 0 failed allocations: 0 bad")
