"""The wheel and `pip install .`: tag, content, and that they run away from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w",
                    str(folder), str(ROOT)], check=True, capture_output=True, timeout=900)
    (file,) = folder.iterdir()
    return file


def test_tag_knows_no_python_version(wheel):
    assert wheel.name.endswith("-py3-none-linux_x86_64.whl")


def test_content(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert [n for n in names if n.endswith(".so")] == ["torch_ao_ext/lib/libtorch_ao_ext.so"]
    assert not [n for n in names if n.endswith((".cpp", ".h", ".a", ".cmake"))]
    assert not [n for n in names if n.startswith(("test", "benchmarks", "third_party"))]


def test_licences_of_everything_linked_in_are_shipped(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    licences = {n.split("/")[2].lower() for n in names if n.startswith("torch_ao_ext/licenses/")}
    assert {"onednn", "xnnpack", "pthreadpool", "fxdiv", "fp16"} <= licences


CONVERT = """
import torch, torch_ao_ext
q = torch_ao_ext.quantization.quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(64, 32)))
print(torch_ao_ext.__file__, q(torch.randn(2, 64)).shape)
"""


def check_runs(python, folder, cwd, **env):
    """No compiler, no checkout."""
    options = {
        "cwd": cwd, "env": {**os.environ, "PATH": "/usr/bin:/bin", "CXX": "/bin/false", **env},
        "capture_output": True, "text": True, "timeout": 300,
    }  # fmt: skip
    result = subprocess.run([python, "-c", CONVERT], **options)
    assert result.returncode == 0, result.stderr
    assert str(folder) in result.stdout and "[2, 32]" in result.stdout
    info = subprocess.run([python, "-m", "torch_ao_ext.info"], **options)
    assert info.returncode == 0 and "onednn" in info.stdout and "xnnpack" in info.stdout


def test_runs_from_its_own_folder(wheel, tmp_path):
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True, timeout=300)
    check_runs(sys.executable, site, tmp_path, PYTHONPATH=str(site))


def test_pip_install_of_the_checkout(tmp_path):
    """`pip install --no-build-isolation .`; this Python and its build folder are used again."""
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*install, "--target", str(site), "."], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (site / "torch_ao_ext" / "lib" / "libtorch_ao_ext.so").exists()
    assert list(site.glob("torch_ao_ext-*.dist-info"))
    check_runs(sys.executable, site, tmp_path, PYTHONPATH=str(site))
