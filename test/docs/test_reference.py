"""The API reference builds without a warning, and has every public module."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import torch_ao_ext

DOCS = Path(__file__).parents[2] / "docs" / "reference"


def test_reference(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-E", "-b", "html"]
    done = subprocess.run([*command, DOCS, tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = {path.stem for path in (tmp_path / "modules").glob("*.html")}
    for found in pkgutil.walk_packages(torch_ao_ext.__path__, "torch_ao_ext."):
        if "._" in found.name or ".lightning" in found.name:
            continue
        module = importlib.import_module(found.name)
        names = [getattr(module, name) for name in getattr(module, "__all__", [])]
        if any(getattr(value, "__module__", None) == found.name for value in names):
            assert found.name in pages, found.name
    text = (tmp_path / "modules" / "torch_ao_ext.quantization.quantize_fx.html").read_text()
    assert "prepare_custom_config" in text and "Captures a model" in text
    assert "linear_dynamic" in (tmp_path / "index.html").read_text()  # the table of operators
