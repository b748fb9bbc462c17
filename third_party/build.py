#!/usr/bin/env python3
"""Build the engines once per key into the cache and print the install prefix.

The key covers sources.lock, the patches, engines/, the compilers and their flags. A
finished prefix is reused without network, sources or compiler runs. The last line of
standard output is the prefix; everything else goes to standard error.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from fetch import HERE, FetchError, add_arguments, cache_root, from_arguments, locked

STAMP = "engines.stamp"
# Flags from the environment would silently change what a cached build means.
FLAG_VARIABLES = ("CFLAGS", "CXXFLAGS", "CPPFLAGS")


def compilers() -> dict[str, str]:
    """Return the commands of the C and C++ compilers (CC, CXX or the defaults)."""
    found = {"C": os.environ.get("CC") or "cc", "CXX": os.environ.get("CXX") or "c++"}
    for language, command in found.items():
        if shutil.which(command) is None:
            raise FetchError(f"build: {language} compiler {command!r} not found")
    return found


def identity(command: str) -> str:
    """Return what identifies a compiler, whatever name or path it is called by."""
    asked = ("-dumpfullversion", "-dumpversion", "-dumpmachine")
    answers = [subprocess.run([command, option], text=True, capture_output=True).stdout
               for option in asked]
    first = subprocess.run([command, "--version"], text=True, capture_output=True).stdout
    # "g++ (Debian 12.2.0-14) 12.2.0": the first word is the name it was called by.
    return " ".join(answers + first.splitlines()[:1]).replace(Path(command).name, "")


def key(lock: Path, upstream: str | None) -> str:
    """Return the digest of everything that decides the result of the build."""
    state = hashlib.sha256(b"format 1\n")
    files = [lock, *sorted((HERE / "patches").glob("*.patch"))]
    files += sorted(p for p in (HERE / "engines").rglob("*") if p.is_file())
    for path in files:
        state.update(f"{path.name}\n".encode() + path.read_bytes())
    for command in compilers().values():
        state.update(identity(command).encode())
    for name in FLAG_VARIABLES:
        state.update(f"{name}={os.environ.get(name, '')}\n".encode())
    state.update(b"upstream" if upstream else b"tarball")
    return state.hexdigest()[:16]


def command(arguments: list[str], what: str) -> None:
    """Run a build step with its output on standard error."""
    if subprocess.run(arguments, stdout=sys.stderr).returncode != 0:
        raise FetchError(f"build: {what} failed, see the output above")


def build(args: argparse.Namespace, prefix: Path, work: Path) -> None:
    """Fetch, configure and build, then publish the prefix with one rename."""
    start = time.monotonic()
    sources = from_arguments(args).run()
    for tool in ("cmake", "ninja"):
        if shutil.which(tool) is None:
            raise FetchError(f"build: {tool} not found")
    staging = prefix.with_name(f".{prefix.name}.staging")
    shutil.rmtree(staging, ignore_errors=True)
    definitions = [f"-DTAE_SRC_{name.upper()}={path}" for name, path in sources.items()]
    definitions += [f"-DCMAKE_{lang}_COMPILER={shutil.which(path)}"
                    for lang, path in compilers().items()]
    print(f"build: engines into {prefix}", file=sys.stderr)
    command(["cmake", "-G", "Ninja", "-S", str(HERE / "engines"), "-B", str(work),
             "-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_INSTALL_PREFIX={staging}",
             f"-DPython_EXECUTABLE={sys.executable}", *definitions], "configuring the engines")
    jobs = str(args.jobs or os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL")
               or os.cpu_count() or 1)
    command(["cmake", "--build", str(work), "-j", jobs], "building the engines")
    command(["cmake", "--install", str(work)], "installing the engines")
    seconds = time.monotonic() - start
    (staging / STAMP).write_text(f"built in {seconds:.0f} s with -j {jobs}\n")
    shutil.rmtree(prefix, ignore_errors=True)  # without a stamp: not finished
    os.replace(staging, prefix)
    # Kept only after a failure, to look at it and to go on from there.
    shutil.rmtree(work, ignore_errors=True)
    print(f"build: engines ready after {seconds:.0f} s", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("-j", "--jobs", type=int, help="parallel compiler runs "
                        "(or CMAKE_BUILD_PARALLEL_LEVEL; default: all CPUs)")
    parser.add_argument("--where", action="store_true",
                        help="only print where the prefix is or would be")
    args = parser.parse_args(argv)
    try:
        cache = args.cache or cache_root()
        name = key(args.lock, args.upstream)
        prefix = cache / "engines" / name
        if not args.where:
            with locked(cache / "engines" / f"{name}.lock"):
                if not (prefix / STAMP).is_file():
                    build(args, prefix, cache / "build" / name)
    except FetchError as error:
        print(error, file=sys.stderr)
        return 1
    print(prefix)
    return 0


if __name__ == "__main__":
    sys.exit(main())
