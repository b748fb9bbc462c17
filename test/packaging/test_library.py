"""What the shared library shows to the process that loads it."""

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import torch_ao_ext

LIBRARY = Path(torch_ao_ext.__file__).parent / "lib" / "libtorch_ao_ext.so"


def run_python(code, **kwargs):
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True,
                            timeout=300, **kwargs)
    assert result.returncode == 0, result.stderr
    return result.stdout


def tool(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_exactly_one_symbol_is_exported():
    lines = tool("nm", "-D", "--defined-only", str(LIBRARY)).splitlines()
    names = {line.split()[-1] for line in lines}
    assert names == {"torch_ao_ext_version"}


def test_needs_libtorch_and_the_c_runtime_only():
    dynamic = tool("readelf", "-d", str(LIBRARY))
    needed = set(re.findall(r"\(NEEDED\).*\[(.+?)\]", dynamic))
    assert {"libtorch_cpu.so", "libc10.so", "libgomp.so.1"} <= needed
    allowed = {"libtorch_cpu.so", "libc10.so", "libgomp.so.1", "libstdc++.so.6", "libm.so.6",
               "libgcc_s.so.1", "libc.so.6", "ld-linux-x86-64.so.2"}
    assert needed <= allowed
    assert re.findall(r"\(RUNPATH\).*\[(.+?)\]", dynamic) == ["$ORIGIN/../../torch/lib"]


def test_stack_is_not_executable():
    headers = tool("readelf", "-lW", str(LIBRARY))
    stack = next(line for line in headers.splitlines() if "GNU_STACK" in line)
    assert "RWE" not in stack


def test_one_openmp_runtime_and_it_is_torchs():
    maps = run_python("""
        import torch, torch_ao_ext
        torch.set_num_threads(2)
        w = torch.randint(-128, 128, (512, 512), dtype=torch.int8)
        torch.ops.torch_ao.linear_dynamic(torch.randn(64, 512), w, torch.ones(1))
        print(open("/proc/self/maps").read())
    """)
    runtimes = {m for m in re.findall(r"\S+/lib(?:gomp|iomp|omp)\S*", maps)}
    assert runtimes == {str(Path(torch.__file__).parent / "lib" / "libgomp.so.1")}


@pytest.mark.parametrize("engine", ["native", "onednn", "xnnpack"])
def test_threads_are_torchs_threads(engine):
    """No engine brings a pool of its own, and torch.set_num_threads is obeyed."""
    counts = run_python(f"""
        import os, torch
        before = len(os.listdir("/proc/self/task"))
        import torch_ao_ext
        after_import = len(os.listdir("/proc/self/task"))
        torch_ao_ext.set_engine("{engine}")
        w = torch.randint(-128, 128, (1024, 1024), dtype=torch.int8)
        x, s = torch.randn(256, 1024), torch.ones(1)
        torch.set_num_threads(1)
        torch.ops.torch_ao.linear_dynamic(x, w, s)
        serial = len(os.listdir("/proc/self/task"))
        torch.set_num_threads(3)
        for _ in range(3):
            torch.ops.torch_ao.linear_dynamic(x, w, s)
        print(before, after_import, serial, len(os.listdir("/proc/self/task")), torch.get_num_threads())
    """)
    before, after_import, serial, three, threads = map(int, counts.split())
    assert after_import == before
    assert serial == before
    assert three == before + 2
    assert threads == 3


def test_import_prints_nothing():
    result = subprocess.run([sys.executable, "-W", "error", "-c", "import torch_ao_ext"], capture_output=True,
                            text=True, timeout=300)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_another_torch_minor_is_one_clear_import_error():
    output = run_python("""
        import torch
        torch.__version__ = torch.torch_version.TorchVersion("2.14.0")
        try:
            import torch_ao_ext
        except ImportError as error:
            print(error)
    """)
    assert "2.13" in output and "2.14.0" in output and "torch_ao_ext" in output


def test_missing_library_is_one_clear_import_error(tmp_path):
    output = run_python("""
        try:
            import torch_ao_ext
        except ImportError as error:
            print(type(error).__name__, error)
    """, env={"TORCH_AO_EXT_LIBRARY": str(tmp_path / "none.so"), "PATH": "/usr/bin:/bin"})
    assert output.startswith("ImportError") and "none.so" in output


def test_library_older_than_the_python_files_is_one_clear_import_error(tmp_path):
    """The package with a fake kernel for an operator that this library does not have yet."""
    package = tmp_path / "torch_ao_ext"
    ignore = shutil.ignore_patterns("lib", "__pycache__")
    shutil.copytree(Path(torch_ao_ext.__file__).parent, package, ignore=ignore)
    with open(package / "ops" / "pool.py", "a") as file:
        file.write('torch.library.register_fake("torch_ao::of_tomorrow")(lambda x: x)\n')
    output = run_python("""
        try:
            import torch_ao_ext
        except ImportError as error:
            print(error)
    """, cwd=tmp_path, env={"TORCH_AO_EXT_LIBRARY": str(LIBRARY), "PATH": "/usr/bin:/bin"})
    assert str(LIBRARY) in output and "torch_ao::of_tomorrow" in output and "build it again" in output
