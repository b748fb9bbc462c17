"""Engine choice and the helpers' folder for the op tests."""

import random
import sys
from pathlib import Path

import pytest
import torch

import torch_ao_ext  # noqa: F401  (registers the operators)

sys.path.insert(0, str(Path(__file__).parent))  # op_cases.py, op_reference.py


@pytest.fixture(autouse=True)
def exact_engines():
    """Automatic choice among the engines that follow the numeric rule exactly."""
    torch.ops.torch_ao._set_deterministic(True)
    yield
    torch.ops.torch_ao._set_deterministic(False)


@pytest.fixture
def forced():
    """forced(name) makes one engine the only candidate until the test ends.

    Skips with the engine's own reason where it cannot run at this instruction set.
    """

    def force(name):
        ops = torch.ops.torch_ao
        ops._set_engine(name)
        ops._set_deterministic(name != "xnnpack")
        try:
            ops.linear_dynamic(torch.ones(1, 4), torch.ones(4, 4, dtype=torch.int8), torch.ones(1))
        except NotImplementedError as refusal:
            pytest.skip(str(refusal))

    yield force
    torch.ops.torch_ao._set_engine("")


@pytest.fixture
def rng():
    return random.Random(0)


@pytest.fixture
def on_threads():
    """on_threads(call): the result, after the check that 1, 2 and 3 threads agree."""
    before = torch.get_num_threads()

    def run(call):
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            result = call()
            results.append(result if isinstance(result, tuple) else (result,))
        for threads, other in ((2, results[1]), (3, results[2])):
            for a, b in zip(results[0], other, strict=True):
                assert a.dtype == b.dtype and torch.equal(a, b), f"{threads} threads"
        return result

    yield run
    torch.set_num_threads(before)
