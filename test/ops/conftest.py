"""Engine choice and the helpers' folder for the op tests."""

import random
import sys
from pathlib import Path

import pytest
import torch

import torch_ao_ext  # noqa: F401  (registers the operators)

sys.path.insert(0, str(Path(__file__).parent))  # op_cases.py, op_reference.py


@pytest.fixture
def forced():
    """forced(name) makes one engine the only candidate until the test ends."""
    yield torch.ops.torch_ao._set_engine
    torch.ops.torch_ao._set_engine("")


@pytest.fixture
def rng():
    return random.Random(0)
