"""The same bits at every instruction set, in every exact engine, for any number of threads."""

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from op_samples import overload, samples

LEVELS = ("portable", "avx2", "avx_vnni", "avx512", "avx512_vnni", "amx")


def digest(engine, threads):
    """One hash over the outputs of all ops, and whether the engine ran."""
    import test_linear
    import test_linear_dynamic

    ops = torch.ops.torch_ao
    ops._set_engine(engine)
    ops._set_deterministic(True)
    torch.set_num_threads(threads)
    torch.manual_seed(7)
    rng = random.Random(7)
    seen = hashlib.sha256()

    def add(result):
        for t in result if isinstance(result, tuple) else (result,):
            seen.update(t.contiguous().view(torch.uint8).numpy().tobytes())

    for name, calls in samples().items():
        if name.startswith("_") or "linear" in name:
            continue
        for call in calls:
            add(overload(name)(*call))
    posts = ["", "relu", "silu", "gelu", "gelu_tanh", "hardswish", "hardsigmoid", "sigmoid", "tanh"]
    for i in range(150):
        post_ops = posts[i % len(posts)]
        add(ops.linear(*test_linear.random_call(rng), post_ops))
        add(ops.linear_dynamic(*test_linear_dynamic.random_call(rng), post_ops))
    return seen.hexdigest()


def run(level, engine, threads):
    """The digest in a process of its own; None with the reason where the engine refuses."""
    here = str(Path(__file__).parent)
    code = (
        f"import sys; sys.path[:0] = [{here!r}, {os.getcwd()!r}]\n"
        "import json, torch, torch_ao_ext, test_isa_levels as t\n"
        "ran = json.loads(torch.ops.torch_ao._info())['best_isa']\n"
        "try:\n"
        f"    print(json.dumps([ran, t.digest({engine!r}, {threads}), '']))\n"
        "except NotImplementedError as error:\n"
        "    print(json.dumps([ran, None, str(error)]))\n"
    )
    env = {**os.environ, "TORCH_AO_EXT_MAX_ISA": level}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def expected():
    return run("portable", "reference", 1)[1]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("engine", ["native", "onednn", ""])
def test_same_bits(level, engine, expected):
    for threads in (1, 3):
        ran, seen, reason = run(level, engine, threads)
        if seen is None:
            assert engine == "onednn" and "onednn: " in reason, reason
            pytest.skip(f"{ran}: {reason}")
        assert seen == expected, f"level {ran}, {threads} threads"
