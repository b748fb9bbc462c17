"""The package imports without warnings and offers torch.ao's names."""

import subprocess
import sys

import pytest
from pruning_peer import peer

import torch_ao_ext.pruning as ours

MODULES = [
    "",
    "scheduler.base_scheduler",
    "scheduler.cubic_scheduler",
    "scheduler.lambda_scheduler",
    "sparsifier.base_sparsifier",
    "sparsifier.nearly_diagonal_sparsifier",
    "sparsifier.utils",
    "sparsifier.weight_norm_sparsifier",
    "_experimental.activation_sparsifier.activation_sparsifier",
    "_experimental.data_scheduler",
    "_experimental.data_sparsifier",
    "_experimental.pruner",
    "_experimental.pruner.match_utils",
    "_experimental.pruner.prune_functions",
]


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_of_torch_ao_exists(name):
    theirs = peer(name)
    module = __import__("torch_ao_ext.pruning" + (f".{name}" if name else ""), fromlist=["_"])
    defined = {
        key
        for key, value in vars(theirs).items()
        if not key.startswith("_") and str(getattr(value, "__module__", "")).startswith(theirs.__name__)
    }
    assert defined, "the oracle module is empty"
    assert [key for key in sorted(defined) if not hasattr(module, key)] == []


def test_all_is_importable():
    assert [name for name in ours.__all__ if not hasattr(ours, name)] == []


def test_imports_under_warnings_as_errors_without_torch_ao_pruning():
    code = (
        "import sys\n"
        "import torch_ao_ext.pruning._experimental.pruner\n"
        "import torch_ao_ext.pruning._experimental.data_scheduler\n"
        "import torch_ao_ext.pruning._experimental.activation_sparsifier.activation_sparsifier\n"
        "import torch_ao_ext\n"
        "assert torch_ao_ext.pruning.WeightNormSparsifier\n"
        "assert not [m for m in sys.modules if m.startswith('torch.ao.pruning')]\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
