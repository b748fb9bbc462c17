"""The API reference builds without a warning, and has every public module."""

import importlib
import pkgutil
import re
import subprocess
import sys
from inspect import isroutine
from pathlib import Path

import torch_ao_ext

DOCS = Path(__file__).parents[2] / "docs" / "reference"


def test_reference(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-E", "-b", "html"]
    done = subprocess.run([*command, DOCS, tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    text = "".join(path.read_text() for path in tmp_path.rglob("*.html"))
    described = {found.rpartition(".")[2] for found in re.findall(r'id="(torch_ao_ext\.[\w.]+)"', text)}
    pages = {path.stem for path in (tmp_path / "modules").glob("*.html")}
    for found in pkgutil.walk_packages(torch_ao_ext.__path__, "torch_ao_ext."):
        if "._" in found.name or ".lightning" in found.name:
            continue
        module = importlib.import_module(found.name)
        values = {name: getattr(module, name) for name in getattr(module, "__all__", [])}
        homes = {name: str(getattr(value, "__module__", "")) for name, value in values.items()}
        if found.name in homes.values():
            assert found.name in pages, found.name
        own = {name for name, home in homes.items() if home.startswith("torch_ao_ext")}
        assert own <= described, f"{found.name}: {own - described}"
    own = {name for name in torch_ao_ext.__all__ if isroutine(getattr(torch_ao_ext, name))}
    index = (tmp_path / "index.html").read_text()
    assert own and not {name for name in own if f'id="torch_ao_ext.{name}"' not in index}
    # Names of private modules are on the page of the innermost public module that hands them on.
    for page, name in (
        ("quantization.fx.prepare", "insert_observers_for_model"), ("quantization.fx.utils", "NodeInfo"),
        ("nn.quantized.modules.linear", "LinearPackedParams"), ("quantization.quantize", "prepare"),
    ):  # fmt: skip
        text = (tmp_path / "modules" / f"torch_ao_ext.{page}.html").read_text()
        assert f'id="torch_ao_ext.{page}.{name}"' in text, f"{page}.{name}"
    text = (tmp_path / "modules" / "torch_ao_ext.quantization.quantize_fx.html").read_text()
    assert "prepare_custom_config" in text and "Captures a model" in text
    assert "linear_dynamic" in (tmp_path / "index.html").read_text()  # the table of operators
