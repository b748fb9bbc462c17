"""Every instruction set the CPU has, each in a process of its own.

The random cases against the reference run at each, and the same digest comes out of
each, in every exact engine and for any number of threads.
"""

import functools
import hashlib
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from op_cases import ENGINES
from op_samples import overload, rnn_samples, samples

LEVELS = ("portable", "avx2", "avx_vnni", "avx512", "avx512_vnni", "amx")
HERE = Path(__file__).parent

# At least 500 random cases of each op and engine, compared with op_reference.py.
RANDOM = (
    "test_exact or test_random_exact or test_random_choose_qparams or xnnpack"
    " or test_random_cases or test_random_problems"
)
FILES = (
    "test_conv.py",
    "test_conv_dynamic.py",
    "test_conv_post_ops.py",
    "test_conv_engines.py",
    "test_batch_norm.py",
    "test_linear.py",
    "test_linear_dynamic.py",
    "test_linear_weight_only.py",
    "test_matmul.py",
    "test_quantize.py",
    "test_softmax.py",
    "test_attention.py",
    "test_scaled_dot_product_attention.py",
)


def digest(engine, threads):
    """One hash over the outputs of all ops."""
    import test_conv
    import test_conv_post_ops
    import test_linear
    import test_linear_dynamic
    import test_linear_weight_only

    ops = torch.ops.torch_ao
    ops._set_engine(engine)
    ops._set_deterministic(engine != "xnnpack")
    torch.set_num_threads(threads)
    torch.manual_seed(7)
    rng = random.Random(7)
    seen = hashlib.sha256()

    def add(result):
        for t in result if isinstance(result, tuple) else (result,):
            seen.update(t.clone(memory_format=torch.contiguous_format).view(torch.uint8).numpy().tobytes())

    def add_convolutions():
        for i in range(60):
            rank, transposed = i % 2 + 1, i % 4 < 2
            x, w, groups, _, numbers = test_conv.random_case(rng, rank, transposed)
            call = (x, 0.03, 7, w, torch.tensor([0.01]), None, None, 0.5, 3, None)
            op = getattr(ops, test_conv.op_name(rank, transposed))
            try:
                add(op(*call, groups=groups, **numbers))
            except NotImplementedError:  # not every convolution has every engine
                ops._set_engine("native")
                add(op(*call, groups=groups, **numbers))
                ops._set_engine(engine)

    if engine == "xnnpack":
        add_convolutions()
        # Its float results depend on FMA; its integers must not depend on anything.
        for _ in range(400):
            call = test_linear.random_call(rng)
            if not call[9].is_floating_point and call[5] is None:
                add(ops.linear(*call, rng.choice(["", "relu"])))
        return seen.hexdigest()
    for name, calls in samples().items():
        if name.startswith("_") or "linear" in name:
            continue
        for call in calls:
            try:
                add(overload(name)(*call))
            except NotImplementedError:  # not every convolution has every engine
                ops._set_engine("")
                add(overload(name)(*call))
                ops._set_engine(engine)
    if engine == "onednn":
        ops._set_engine("")  # it has neither recurrent nor weight-only layers
    for sizes in ({}, {"h": 20, "k": 33}, {"h": 130, "k": 64}):
        for name, calls in rnn_samples(**sizes).items():
            for call in calls if not name.startswith("_") else ():
                add(overload(name)(*call))
    for i in range(60):
        n, k, m = rng.choice((1, 64, 130)), rng.choice((3, 33, 260)), rng.choice((1, 2, 40))
        args = test_linear_weight_only.problem(rng, n, k, (0, 32, 64, 128)[i % 4])
        x = test_linear_weight_only.with_outliers(torch.randn(m, k), rng)
        add(ops.linear_weight_only(x, *args, (8, 16)[i // 4 % 2]))
    ops._set_engine(engine)
    add_convolutions()
    posts = ["", "relu", "silu", "gelu", "gelu_tanh", "hardswish", "hardsigmoid", "sigmoid", "tanh"]
    for i in range(150):
        post_ops = posts[i % len(posts)]
        add(ops.linear(*test_linear.random_call(rng), post_ops))
        add(ops.linear_dynamic(*test_linear_dynamic.random_call(rng), post_ops))
    if engine == "onednn":
        ops._set_engine("")
    for i in range(90):
        operator, call, named, _ = test_conv_post_ops.random_call(rng, posts[i % len(posts)], [])
        add(operator(*call, **named))
    return seen.hexdigest()


def digests():
    """Engine -> [digest on 1 thread, on 3 threads], or the reason why it does not run."""
    results = {}
    for engine in (*ENGINES, ""):
        if engine == "reference" and json.loads(torch.ops.torch_ao._info())["best_isa"] != "portable":
            continue  # slow, and it knows no instruction set
        try:
            results[engine] = [digest(engine, threads) for threads in (1, 3)]
        except NotImplementedError as error:
            results[engine] = str(error)
    return results


def environment(level):
    return {**os.environ, "TORCH_AO_EXT_MAX_ISA": level, "PYTHONPATH": os.pathsep.join(sys.path)}


@functools.cache
def run(level):
    """The level that ran, which is lower on a CPU without this one, and its digests."""
    code = (
        "import json, torch, torch_ao_ext, test_isa_levels as t\n"
        "print(json.dumps([json.loads(torch.ops.torch_ao._info())['best_isa'], t.digests()]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(level), cwd=HERE, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def digests_at(level):
    ran, results = run(level)
    if ran != level:
        pytest.skip(f"this CPU runs {ran}")
    return results


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("engine", ["native", "onednn", ""])
def test_same_bits(level, engine):
    seen = digests_at(level)[engine]
    if isinstance(seen, str):
        assert engine == "onednn" and "onednn: " in seen, seen
        pytest.skip(seen)
    assert seen == run("portable")[1]["reference"], "1 thread, 3 threads"


@pytest.mark.parametrize("level", LEVELS)
def test_xnnpack_gives_the_same_integers(level):
    assert digests_at(level)["xnnpack"] == run("portable")[1]["xnnpack"], "1 thread, 3 threads"


@pytest.mark.parametrize("level", LEVELS)
def test_random_cases(level):
    digests_at(level)
    if level == json.loads(torch.ops.torch_ao._info())["best_isa"]:
        pytest.skip("this process runs them itself")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "--no-fold-skipped", "-p", "no:cacheprovider",
         "-k", RANDOM, *FILES],
        env=environment(level), cwd=HERE, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 40
    # oneDNN refuses below VNNI. Nothing else may be left out.
    for name, reason in re.findall(r"^SKIPPED (.*?) - .*\n *(.*)$", done.stdout, re.M):
        assert "onednn" in name and reason.startswith("onednn: ISA level"), (name, reason)
