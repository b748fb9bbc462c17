"""Size of the wheel and of what is installed, ours and the peers'; with --build the time of a clean build.

    python benchmarks/packages.py [--build]

Sizes are those of the installed files, without what a package depends on. --build compiles the library from
nothing (engines from their cache, no compiler cache) and makes the wheel.
"""

import argparse
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from benchmarks.harness import cli, environment, peers, report  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402

PEERS = ("torch", "torchao", "onnxruntime", "openvino", "nncf", "executorch", "ctranslate2", "fbgemm-gpu-cpu")
MB = 1 << 20


def installed_bytes(package):
    """Bytes of a distribution's files, or None when it is not there."""
    try:
        files = importlib.metadata.distribution(package).files or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = (Path(file.locate()) for file in files)
    return sum(path.stat().st_size for path in paths if path.exists())


def own_bytes():
    """Bytes of the package in this checkout, and of its library."""
    package = ROOT / "torch_ao_ext"
    library = next(package.glob("lib/*.so")).stat().st_size
    sources = sum(path.stat().st_size for path in package.rglob("*.py"))
    return library + sources, library


def size(name, count):
    """A figure of so many bytes."""
    return Goal(name, count / MB, unit="MB", larger_is_better=False)


def build_wheel(folder):
    """(seconds, bytes of the wheel) of a clean build."""
    clean = dict(os.environ, CCACHE_DISABLE="1", TORCH_AO_EXT_BUILD_DIR=str(Path(folder) / "build"))
    source = Path(folder) / "source"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True)
    start = time.perf_counter()
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps"]
    subprocess.run([*command, "-w", folder, str(source)], check=True, env=clean)
    return time.perf_counter() - start, next(Path(folder).glob("*.whl")).stat().st_size


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", action="store_true", help="time a clean build, too: minutes")
    cli.add_output(p)
    args = p.parse_args()
    environment.set_threads(2)  # part of the result's file name
    result, missing = report.Report("packages"), peers.Missing()
    total, library = own_bytes()
    goals = [size("installed", total), size("library", library)]
    if args.build:
        with missing.noting("wheel and build time"), tempfile.TemporaryDirectory() as folder:
            seconds, wheel = build_wheel(folder)
            goals += [size("wheel", wheel), Goal("clean build", seconds, unit="s", larger_is_better=False)]
    else:
        missing.reasons["wheel and build time"] = "not run (--build)"
    result.add("torch_ao_ext", {}, goals)
    for package in PEERS:
        count = installed_bytes(package)
        if count is None:
            missing.reasons[package] = "not installed"
        else:
            version = environment.version_of(package)
            result.add(f"{package} {version}", {}, [size("installed", count)])
    for row in result.rows:
        report.print_row(row)
    result.missing = missing.as_dict()
    status = report.conclude(result, args.output, args.label)
    return status or int(args.build and "wheel and build time" in missing.reasons)


if __name__ == "__main__":
    sys.exit(main())
