"""50,000 hostile calls of every overload: no crash, no hang, no wrong result, no other error text.

The calls and the judge are in hostile_calls.py, which replays any of them.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import hostile_calls
import pytest
import torch
from op_samples import all_samples, registered

PROGRAM = Path(__file__).with_name("hostile_calls.py")

# engine, cap, calls
RUNS = [
    ("", "", 20000),
    ("native", "", 6000), ("onednn", "", 5000), ("xnnpack", "", 5000), ("reference", "", 2000),
    ("", "portable", 3000), ("", "avx2", 3000), ("", "avx_vnni", 3000), ("", "avx512", 3000),
]  # fmt: skip


def run(arguments, **variables):
    command = [sys.executable, str(PROGRAM), *arguments]
    return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True)


def test_enough_calls():
    assert sum(count for *_, count in RUNS) >= 50000


def test_every_operator_is_called():
    assert set(hostile_calls.table()) == registered()


@pytest.mark.parametrize(("engine", "level", "count"), RUNS)
def test_hostile_calls(engine, level, count):
    variables = {"TORCH_AO_EXT_MAX_ISA": level} if level else {}
    seed = ["--seed", os.environ["TAE_SEED"]] if "TAE_SEED" in os.environ else []
    done = run(["--calls", str(count), "--engine", engine, *seed], **variables)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, variables
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith(f"hostile calls: {count}, ")
    assert last.endswith(": 0 crashes, 0 hangs, 0 wrong")
    counts = {k: int(n) for k, n in re.findall(r"([a-z' ]+) (\d+)", last)}
    # The run did look at results and errors.
    assert counts[" contract errors"] > count // 4
    assert counts[" returned as the formula"] > count // 8


def test_a_step_without_an_engine_is_no_error_of_the_island(forced):
    """Where one engine is forced."""
    forced("xnnpack")
    inputs, (weight, scale, bias), text = all_samples()["island"][0]
    call = inputs, [weight, scale, torch.full_like(bias, 3.4e38)], text
    with pytest.raises(NotImplementedError, match="(?s)island: .*xnnpack: bias 3.4e"):
        torch.ops.torch_ao.island(*call)
    assert hostile_calls.judge("island", call, "xnnpack") == "no engine"


PLANTED = f"""
import ctypes, sys, time
sys.path[:0] = [{str(PROGRAM.parent)!r}, {str(PROGRAM.parents[2])!r}]
import torch, hostile_calls
from op_shapes import readable
library = torch.library.Library("torch_ao", "FRAGMENT")
kernels = {{
    "crashes": lambda x: ctypes.string_at(8),
    "hangs": lambda x: time.sleep(60),
    "stale": lambda x: torch.ones(3) if x.is_contiguous() else torch.zeros(3),
    "writes": lambda x: (x.add_(1) if readable(x) and not x.requires_grad else torch.ones(3)).clone(),
    "aliases": lambda x: x.view(-1),
    "text": lambda x: torch.empty(3).view(-1, 7),
}}
hostile_calls.HANG_SECONDS = 1
for name, kernel in kernels.items():
    library.define(f"planted_{{name}}(Tensor x) -> Tensor")
    library.impl(f"planted_{{name}}", kernel, "CPU")
    library.impl(f"planted_{{name}}", lambda x: x.new_empty(3), "Meta")
    calls = hostile_calls.Calls(1)
    calls.table, calls.names = {{f"planted_{{name}}": [(torch.randn(3),)]}}, [f"planted_{{name}}"]
    counts, failures = hostile_calls.run(calls, "", 4 if name == "hangs" else 40, 2)
    print(name, "crashes" if counts["crashes"] else "hangs" if counts["hangs"] else "wrong",
          sum(counts[k] for k in ("crashes", "hangs", "wrong")) > 0)
"""


def test_planted_bugs_are_found():
    done = subprocess.run([sys.executable, "-c", PLANTED], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "crashes crashes True", "hangs hangs True", "stale wrong True", "writes wrong True",
        "aliases wrong True", "text wrong True",
    ], (done.stdout, done.stderr)  # fmt: skip
