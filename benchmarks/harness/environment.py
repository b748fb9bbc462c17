"""Where a figure was measured: the machine by its features, never by its name."""

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import torch

# What decides which int8 kernels can run, in /proc/cpuinfo spelling.
ISA_FLAGS = (
    "avx2",
    "fma",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
)
PACKAGES = (
    "torch", "torch_ao_ext", "torchao", "onnxruntime", "onnx", "openvino", "nncf", "executorch",
    "ctranslate2", "fbgemm-gpu-cpu", "transformers", "tokenizers", "numpy",
)  # fmt: skip
# oneDNN's name for each cap of ours; it also reaches the oneDNN inside torch.
ONEDNN_ISA = {
    "avx2": "AVX2",
    "avx_vnni": "AVX2_VNNI",
    "avx512": "AVX512_CORE",
    "avx512_vnni": "AVX512_CORE_VNNI",
    "amx": "AVX512_CORE_AMX",
}


def cpu_features():
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return []
    match = re.search(r"^flags\s*:\s*(.*)$", text, re.MULTILINE)
    flags = set(match.group(1).split()) if match else set()
    return [f for f in ISA_FLAGS if f in flags]


def cache_sizes():
    """Caches of CPU 0 as the kernel names them, e.g. {'L1d': '48K', 'L2': '2048K'}."""
    sizes = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind = (folder / "level").read_text().strip(), (folder / "type").read_text().strip()
        if kind != "Instruction":
            name = f"L{level}" + ("d" if level == "1" else "")
            sizes[name] = (folder / "size").read_text().strip()
    return sizes


def version_of(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def onednn_version():
    match = re.search(r"MKL-DNN v?([\d.]+)", torch.__config__.show())
    return match.group(1) if match else None


def set_threads(count):
    """One place for the number of threads: torch's pool, which ours obeys."""
    torch.set_num_threads(count)
    if torch.get_num_threads() != count:
        raise RuntimeError(f"set_threads: torch runs {torch.get_num_threads()} threads, wanted {count}")


def record():
    """Everything a reader needs to judge or repeat the figures (JSON-ready)."""
    environment_variables = (
        "TORCH_AO_EXT_MAX_ISA",
        "TORCH_AO_EXT_ENGINE",
        "TORCH_AO_EXT_DETERMINISTIC",
        "ONEDNN_MAX_CPU_ISA",
        "ATEN_CPU_CAPABILITY",
        "OMP_NUM_THREADS",
        "KMP_AFFINITY",
    )
    script = os.path.relpath(sys.argv[0]) if sys.argv and sys.argv[0] else ""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join(["python", script, *sys.argv[1:]]),
        "cpu_features": cpu_features(),
        "cpu_caches": cache_sizes(),
        "cpus": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "aten_capability": torch.backends.cpu.get_cpu_capability(),
        "torch_onednn": onednn_version(),
        "python": platform.python_version(),
        "packages": {p: version_of(p) for p in PACKAGES},
        "environment": {v: os.environ[v] for v in environment_variables if v in os.environ},
        "load_average": os.getloadavg()[0],
    }


def describe(env):
    """One line for a table's head."""
    caches = ", ".join(f"{k} {v}" for k, v in env["cpu_caches"].items())
    cap = env["environment"].get("TORCH_AO_EXT_MAX_ISA")
    packages = ", ".join(f"{k} {v}" for k, v in env["packages"].items() if v)
    return (
        f"{env['date']}; {env['cpus']} CPUs ({', '.join(env['cpu_features'])}; {caches}); "
        f"ISA cap {cap or 'none'}; {env['threads']} threads; load {env['load_average']:.1f}; {packages}; "
        f"torch's oneDNN {env['torch_onednn']}"
    )


def rerun_capped(isa):
    """Run this very command again in a child capped at `isa`; returns its exit status.

    Both switches are read when a library is loaded, so the cap cannot be set in
    this process. ONEDNN_MAX_CPU_ISA caps torch's oneDNN as well, on purpose: on
    an AMX machine this shows what a CPU without AMX would do, for both sides.
    """
    if isa not in ONEDNN_ISA:
        raise ValueError(f"--max-isa must be one of {sorted(ONEDNN_ISA)}, got {isa}")
    env = dict(os.environ, TORCH_AO_EXT_MAX_ISA=isa, ONEDNN_MAX_CPU_ISA=ONEDNN_ISA[isa])
    if isa in ("avx2", "avx_vnni"):
        env["ATEN_CPU_CAPABILITY"] = "avx2"  # torch's own float kernels
    arguments = []
    skip = False
    for a in sys.argv:
        if skip or a.startswith("--max-isa="):
            skip = False
        elif a == "--max-isa":
            skip = True
        else:
            arguments.append(a)
    return subprocess.run([sys.executable, *arguments], env=env, check=False).returncode
