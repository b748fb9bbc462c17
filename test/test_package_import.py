"""Importing the package: what it loads, what it never touches, how it fails."""

import ast
import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import torch_ao_ext
from torch_ao_ext import _loader

PACKAGE = Path(torch_ao_ext.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = ["torch_ao_ext"] + [
    m.name for m in pkgutil.walk_packages([str(PACKAGE)], prefix="torch_ao_ext.")
]


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


# `import torch` itself loads parts of torch.ao, so sys.modules tells nothing: the
# importing module is what counts.
WATCH = """
import builtins, importlib, sys
bad = []
def is_ours(g): return str((g or {}).get("__name__", "")).split(".")[0] == "torch_ao_ext"
def forbidden(name, fromlist=()):
    names = [name] + [f"{name}.{f}" for f in fromlist or ()]
    return any(n.split(".")[0] == "torchao" or f"{n}.".startswith("torch.ao.") for n in names)
real_import, real_module = builtins.__import__, importlib.import_module
def watched_import(name, globals=None, locals=None, fromlist=(), level=0):
    if is_ours(globals) and level == 0 and forbidden(name, fromlist): bad.append(name)
    return real_import(name, globals, locals, fromlist, level)
def watched_module(name, package=None):
    if is_ours(sys._getframe(1).f_globals) and forbidden(name): bad.append(name)
    return real_module(name, package)
builtins.__import__, importlib.import_module = watched_import, watched_module
"""


def test_never_imports_torch_ao():
    code = f"""{WATCH}
for name in {MODULES!r}: real_module(name)
import torch, torch_ao_ext
convert = torch_ao_ext.quantization.quantize_dynamic
model = torch.nn.Sequential(torch.nn.TransformerEncoderLayer(16, 4, 32), torch.nn.Linear(16, 2))
q = convert(model)
q(torch.randn(3, 2, 16))
str(torch_ao_ext.report(q)); str(torch_ao_ext.explain(q)); torch_ao_ext.info.text()
q = convert(model, {{"1": torch_ao_ext.quantization.default_dynamic_qconfig}})
print("bad:", bad)
# The watch itself works: our name in the globals, torch.ao in the statement.
scope = {{"__name__": "torch_ao_ext.fake", "__builtins__": builtins}}
exec("import torch.ao.quantization\\nfrom torch import ao", scope)
exec("import importlib\\nimportlib.import_module('torch.ao')", scope)
print("seen:", bad)
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert "bad: []" in done.stdout
    assert "seen: ['torch.ao.quantization', 'torch', 'torch.ao']" in done.stdout


def test_every_module_imports_without_a_warning():
    code = f"import importlib\nfor name in {MODULES!r}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)}, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr


# Each in a process of its own, which has torch already.
FIRST = """
import importlib, os, sys, traceback, warnings
import torch, torch.ao.quantization
failed = []
for name in {modules!r}:
    child = os.fork()
    if child == 0:
        warnings.simplefilter("error")
        try:
            importlib.import_module(name)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    failed += [name] if os.waitpid(child, 0)[1] else []
print(failed)
"""


def test_files_that_need_each_other_import_in_any_order():
    modules = [m for m in MODULES if re.match(r"torch_ao_ext\.quantization\.(fx\.|quantize|legacy)", m)]
    done = run(FIRST.format(modules=[m for m in modules if "._" not in m]))
    assert done.stdout.strip() == "[]", done.stderr[-3000:]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_source_names_no_torch_ao_and_no_quantized_tensor(path):
    banned = {"torch.ao", "torchao", "torch.ops.quantized", "torch.quantize_per_tensor",
              "torch.quantize_per_channel", "torch.quantization"}  # fmt: skip
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute):
            found.add(ast.unparse(node))
    hits = {f for f in found if any(f == b or f.startswith(b + ".") for b in banned)}
    # Programs of torch.ao hold its packed weights; its own operators unpack them.
    assert not hits - ({"torch.ops.quantized"} if path.name == "_packed.py" else set())


def test_import_prints_nothing_starts_no_thread_and_is_quick():
    done = run(
        "import threading, time, os, torch\n"
        "before = len(os.listdir('/proc/self/task')), torch.get_num_threads()\n"
        "start = time.process_time(); import torch_ao_ext; took = time.process_time() - start\n"
        "assert before == (len(os.listdir('/proc/self/task')), torch.get_num_threads())\n"
        "assert threading.active_count() == 1\n"
        "import sys\n"
        "loaded = [m for m in sys.modules if m.startswith('torch_ao_ext.')]\n"
        "assert not [m for m in loaded if '.nn' in m or 'quantization' in m or 'report' in m], loaded\n"
        "assert took < 0.3, took\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_other_torch_minor_is_one_import_error():
    done = run("import torch; torch.__version__ = '2.14.0a0+git1234'\nimport torch_ao_ext")
    assert done.returncode == 1 and done.stderr.count("Traceback") == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: torch_ao_ext {torch_ao_ext.__version__} needs torch 2.13.*")
    assert "found torch 2.14.0a0+git1234" in last


@pytest.mark.parametrize("version", ["2.12.1", "3.0", "main", "3.13.0+cpu"])
def test_other_torch_versions_are_refused(version, monkeypatch):
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(ImportError, match=r"needs torch 2\.13\.\* and found torch") as error:
        _loader.load()
    assert version in str(error.value)


@pytest.mark.parametrize("version", ["2.13.0", "2.13.1+cpu", "2.13.0a0+gitabc"])
def test_any_patch_of_the_minor_is_accepted(version):
    assert _loader._minor(version) == (2, 13)


def test_missing_library(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_AO_EXT_LIBRARY", str(tmp_path / "none.so"))
    with pytest.raises(ImportError, match="^torch_ao_ext .*no such file: .*none.so") as error:
        _loader.load()
    assert torch.__version__ in str(error.value)


def test_library_that_does_not_load_keeps_the_cause(tmp_path, monkeypatch):
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setenv("TORCH_AO_EXT_LIBRARY", str(broken))
    text = "^torch_ao_ext .*does not load: .*(invalid ELF header|file too short)"
    with pytest.raises(ImportError, match=text) as error:
        _loader.load()
    assert torch.__version__ in str(error.value) and isinstance(error.value.__cause__, OSError)


@pytest.mark.parametrize(
    "name, value",
    [("TORCH_AO_EXT_ENGINE", "fbgemm"), ("TORCH_AO_EXT_MAX_ISA", "mmx")],
)
def test_wrong_setting_is_refused(name, value):
    done = run("import torch_ao_ext", **{name: value})
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and last.startswith("ImportError: torch_ao_ext")
    assert name in last and value in last


def test_info_lists_what_there_is():
    done = subprocess.run(
        [sys.executable, "-m", "torch_ao_ext.info"],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for word in (torch_ao_ext.__version__, torch.__version__, "linear_dynamic", "linear.tensor",
                 "native", "onednn", "xnnpack", "reference", "TORCH_AO_EXT_MAX_ISA"):  # fmt: skip
        assert word in done.stdout
    # Private operators begin with an underscore and are not listed.
    assert not [word for word in done.stdout.split() if word.startswith("_prepack")]


def test_version_is_in_one_file():
    text = (PACKAGE / "version.py").read_text()
    assert f'__version__ = "{torch_ao_ext.__version__}"' in text
    assert re.fullmatch(r"\d+\.\d+\.\d+", torch_ao_ext.__version__)


def test_top_level_names():
    assert set(torch_ao_ext.__all__) <= set(dir(torch_ao_ext))
    for name in torch_ao_ext.__all__:
        assert getattr(torch_ao_ext, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = torch_ao_ext.nothing


@pytest.mark.parametrize("name", MODULES)
def test_public_modules_have_all_and_docstrings(name):
    module = importlib.import_module(name)
    assert module.__doc__
    if any(part.startswith("_") for part in name.split(".")) or name.endswith("version"):
        return
    for public in module.__all__:
        value = getattr(module, public)
        if callable(value) and getattr(value, "__module__", "").startswith("torch_ao_ext"):
            assert value.__doc__, f"{name}.{public}"


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_layers_point_down():
    """quantization -> nn -> ops: nothing imports upwards."""
    order = {"ops": 0, "nn": 1, "quantization": 2}
    for path in SOURCES:
        top = path.relative_to(PACKAGE).parts[0]
        if top not in order:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch_ao_ext."):
                target = node.module.split(".")[1]
                assert order.get(target, 0) <= order[top], f"{path}: {node.module}"
