"""Fixtures of all Python tests: warnings are errors, one seed."""

import sys
import warnings
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent))  # torch_ao_modules.py


@pytest.fixture(autouse=True)
def _fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    """Every warning fails a test, but for deprecations inside torch's own tools."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # torch.jit tells every caller that TorchScript is deprecated.
        warnings.filterwarnings("ignore", message=r".*torch\.jit\..*", category=DeprecationWarning)
        # torch 2.13's own export and AOTInductor code uses deprecated names.
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
        yield


def sqnr(reference: torch.Tensor, value: torch.Tensor) -> float:
    """Signal to quantization noise in dB."""
    reference, value = reference.detach(), value.detach()
    noise = (reference - value).double().square().sum()
    signal = reference.double().square().sum()
    return float(10 * torch.log10(signal / noise.clamp_min(1e-300)))


@pytest.fixture(name="sqnr")
def _sqnr():
    return sqnr
