"""Convolutions of each engine by name: the random cases of test_conv.py, and what packing promises."""

import contextlib
import json
import random

import pytest
import torch
from op_cases import random_int
from test_conv import CASES, OPS, accumulators, ops, quantized, run_case

# What an engine may refuse, as its reasons say it.
LACKS = {"onednn": ("asymmetric weights", "depthwise multiplier", "oneDNN chose")}
S_X, Z_X, S_Y, Z_Y = 0.1, 7, 0.5, 9
S_W = torch.tensor([0.01])  # one tensor: another would be another packing


@contextlib.contextmanager
def forced(engine):
    """Skips where the engine does not run at this ISA level."""
    ops._set_engine(engine)
    try:
        yield
    except NotImplementedError as error:
        reason = str(error).splitlines()[-1].strip()
        if "ISA level" not in reason:
            raise
        pytest.skip(reason)
    finally:
        ops._set_engine("")


def run(op, x, w, **numbers):
    return getattr(ops, op)(x, S_X, Z_X, w, S_W, None, None, S_Y, Z_Y, **numbers)


def expected(op, x, w, groups=1, **numbers):
    acc = accumulators(2, "transpose" in op, x, Z_X, w, None, groups, **numbers)
    return quantized(acc, S_X, S_W, None, S_Y, Z_Y, x.dtype, False)


def engines_of(w):
    return [state["engine"] for state in json.loads(ops._explain(w))["states"]]


@pytest.mark.parametrize(("rank", "transposed"), OPS)
@pytest.mark.parametrize("engine", LACKS)
def test_random_cases_of_the_engine(engine, rank, transposed):
    torch.manual_seed(rank)
    rng = random.Random(f"{engine} {rank} {transposed}")
    done = 0
    with forced(engine):
        for _ in range(8 * CASES):
            try:
                run_case(rng, rank, transposed)
                done += 1
            except NotImplementedError as error:
                reason = str(error).splitlines()[-1].strip()
                if not any(reason.startswith(f"{engine}: {lack}") for lack in LACKS[engine]):
                    raise
            if done == CASES:
                return
    pytest.fail(f"{engine} took {done} of {8 * CASES} cases")


@pytest.mark.parametrize("engine", ["native", "onednn"])
@pytest.mark.parametrize(
    ("op", "shape", "groups"),
    [("conv2d", (48, 32, 3, 3), 1), ("conv2d", (32, 1, 3, 3), 32), ("conv_transpose2d", (32, 24, 3, 3), 1)],
)
def test_what_every_network_has(engine, op, shape, groups):
    x, w = random_int(torch.uint8, 1, 32, 20, 20), random_int(torch.int8, *shape)
    numbers = {"stride": [2, 2], "padding": [1, 1], "groups": groups}
    with forced(engine):
        y = run(op, x, w, **numbers)
    assert torch.equal(y, expected(op, x, w, **numbers))
    assert engines_of(w) == [engine]


@pytest.mark.parametrize("engine", ["native", "onednn"])
@pytest.mark.parametrize("channels", [16, 512])
def test_a_new_size_does_not_pack_again(engine, channels):
    w = random_int(torch.int8, 512, channels, 3, 3)
    with forced(engine):
        for size in (14, 7, 30, 14, 1, 65, 2, 3, 4, 5):
            x = random_int(torch.uint8, 1, channels, size, 3)
            assert torch.equal(run("conv2d", x, w, padding=[1, 1]), expected("conv2d", x, w, padding=[1, 1]))
    assert engines_of(w) == [engine]


def test_weights_for_one_size_meet_another():
    """Sizes for which oneDNN wants another layout, and would take a kernel that saturates instead."""
    w = random_int(torch.int8, 68, 29, 2, 3, 2)
    scale = torch.tensor([1.0])
    for size in ((6, 7, 81), (2, 9, 82), (12, 5, 40)):
        x = random_int(torch.uint8, 1, 29, *size)
        numbers = {"stride": [2, 2, 3], "dilation": [1, 2, 2]}
        with forced("onednn"):
            y = ops.conv3d(x, 1.0, 185, w, scale, None, None, 1.0, 0, torch.float32, **numbers)
        assert torch.equal(
            y.double(), accumulators(3, False, x, 185, w, None, 1, padding=[0, 0, 0], **numbers)
        )


@pytest.mark.parametrize("engine", ["native", "onednn"])
@pytest.mark.parametrize(("shape", "groups"), [((70, 64, 3, 3), 1), ((64, 1, 3, 3), 64)])
def test_threads_share_a_weight(engine, shape, groups):
    x, w = random_int(torch.int8, 2, 64, 20, 20), random_int(torch.int8, *shape)
    before = torch.get_num_threads()
    want = expected("conv2d", x, w, groups)
    try:
        with forced(engine):
            for threads in (2, 1, 3):
                torch.set_num_threads(threads)
                assert torch.equal(run("conv2d", x, w, groups=groups), want)
    finally:
        torch.set_num_threads(before)
    assert engines_of(w) == [engine]
