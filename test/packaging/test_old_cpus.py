"""The same file on CPUs without AVX-512, and without AVX: qemu-user stands in for them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import torch_ao_ext

QEMU = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
SMOKE = Path(__file__).with_name("old_cpu_smoke.py")


def smoke(how, file, *prefix):
    # A machine may choose kernels for its own CPU (OPENBLAS_CORETYPE), which the old one lacks.
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")}
    env = {**kept, "PYTHONPATH": str(Path(torch_ao_ext.__file__).parents[1])}
    command = [*prefix, sys.executable, str(SMOKE), how, str(file)]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """Every overload's sample calls and their results on this CPU."""
    file = tmp_path_factory.mktemp("old_cpus") / "calls.pt"
    smoke("write", file)
    return file


@pytest.mark.parametrize("cpu, isa", [("Nehalem", "portable"), ("Haswell", "avx2")])
def test_every_op_gives_the_same_on(cpu, isa, calls):
    # make test installs qemu; a machine without it must not pass in silence.
    assert QEMU, "qemu-x86_64-static is missing: run third_party/system_packages.sh test"
    seen = json.loads(smoke("check", calls, QEMU, "-cpu", cpu))
    assert seen["isa"] == isa and seen["ops"] >= 21
