"""The probed limits that figures are held against (roof.cpp, built at run time).

The library is cached outside the checkout, keyed by its source and compiler.
"""

import ctypes
import functools
import hashlib
import itertools
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

SOURCE = Path(__file__).with_name("roof.cpp")
LOOPS = ("amx", "avx512_vnni", "avx_vnni", "avx2")  # best first
# One timed stretch: long against the start of a thread (about 50 us).
_ITERATIONS = {"amx": 40_000, "avx512_vnni": 2_000_000, "avx_vnni": 2_000_000, "avx2": 2_000_000}


def _cache_folder():
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "torch_ao_ext" / "benchmarks"


@functools.cache
def library():
    """The loaded probe, compiled when it is not cached; None without a C++ compiler."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        return None
    flags = ["-O2", "-std=c++17", "-shared", "-fPIC", "-pthread"]
    stamp = hashlib.sha256(SOURCE.read_bytes() + " ".join([compiler, *flags]).encode()).hexdigest()[:16]
    target = _cache_folder() / f"roof-{stamp}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            fresh = Path(folder) / "roof.so"
            subprocess.run([compiler, *flags, str(SOURCE), "-o", str(fresh)], check=True)
            fresh.replace(target)
    lib = ctypes.CDLL(str(target))
    lib.roof_int8_gops.restype = lib.roof_read_gbps.restype = ctypes.c_double
    lib.roof_int8_gops.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_int64]
    lib.roof_read_gbps.argtypes = [ctypes.c_int64, ctypes.c_int, ctypes.c_int64]
    lib.roof_random_mrows.restype = ctypes.c_double
    lib.roof_random_mrows.argtypes = [
        ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int,
    ]  # fmt: skip
    return lib


def int8_gops(loop, threads, stretches=7):
    """Median GOPS (multiply and add are two) of `loop`; None where it cannot run."""
    lib = library()
    if lib is None:
        return None
    values = [lib.roof_int8_gops(loop.encode(), threads, _ITERATIONS[loop]) for _ in range(stretches)]
    return statistics.median(values) if min(values) > 0 else None


def read_gbps(megabytes, threads, stretches=5):
    lib = library()
    if lib is None:
        return None
    passes = max(1, 512 // megabytes)
    return statistics.median(lib.roof_read_gbps(megabytes << 20, threads, passes) for _ in range(stretches))


def best_loop(cap=None):
    """The fastest loop this CPU runs and the ISA cap allows, or None."""
    # avx512 without VNNI has no loop of its own; AVX-VNNI is below it in the order.
    allowed = {None: LOOPS, "avx512": LOOPS[2:]}.get(cap) or LOOPS[LOOPS.index(cap) :]
    for loop in allowed:
        if int8_gops(loop, 1, stretches=1):
            return loop
    return None


class Sampler:
    """A candidate for `rounds.measure` that runs the register loop between the others.

    So the roof feels the same neighbours and the same clock as they do. It
    sleeps first: an OpenMP worker spins for milliseconds after a parallel
    region and would hold one of the CPUs. Read `gops`, not its timing.
    """

    def __init__(self, loop, threads):
        self.loop, self.threads, self.values = loop, threads, []

    def __call__(self):
        time.sleep(0.02)
        self.values.append(library().roof_int8_gops(self.loop.encode(), self.threads, _ITERATIONS[self.loop]))

    @property
    def gops(self):
        return statistics.median(self.values)


class RowSampler:
    """The same for random rows: reads a table (a uint8 tensor) at int64 indices, nothing else.

    Every call reads another part of the indices, so that no row is still in the cache.
    Read `mrows`, million rows a second.
    """

    def __init__(self, table, indices, threads, parts=8):
        self.table, self.threads, self.values = table, threads, []
        self.parts = itertools.cycle(indices.flatten().chunk(parts))

    def __call__(self):
        time.sleep(0.02)
        part = next(self.parts)
        row_bytes = self.table.shape[1]
        rate = library().roof_random_mrows(
            self.table.data_ptr(), row_bytes, part.data_ptr(), part.numel(), self.threads
        )
        self.values.append(rate)

    @property
    def mrows(self):
        return statistics.median(self.values)


def probe(threads=(1, 2)):
    """All limits, JSON-ready: GOPS per loop and thread count, GB/s from cache and memory."""
    if library() is None:
        return {}
    int8 = {loop: {str(t): int8_gops(loop, t) for t in threads} for loop in LOOPS}
    reads = {f"{mb} MB": {str(t): read_gbps(mb, t) for t in threads} for mb in (1, 16, 256)}
    return {
        "int8_gops": {k: v for k, v in int8.items() if all(v.values())},
        "read_gbps": reads,
    }
