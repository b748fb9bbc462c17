"""The probed limits that figures are held against (roof.cpp, built at run time).

The library is cached outside the checkout, keyed by its source and compiler.
"""

import ctypes
import functools
import hashlib
import itertools
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.harness import environment

SOURCE = Path(__file__).with_name("roof.cpp")
SHARED = "TORCH_AO_EXT_ROOF"  # environment variable: a file that `probe` answers from, for 1 and 2 threads
LOOPS = ("amx", "avx512_vnni", "avx_vnni", "avx2")  # of int8, best first
# One timed stretch: long against the start of a thread (about 50 us).
_ITERATIONS = {"amx": 40_000}
_USUAL_ITERATIONS = 2_000_000


def cache_folder():
    """Where what benchmarks build is kept, outside the checkout."""
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
    target = cache_folder() / f"roof-{stamp}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            fresh = Path(folder) / "roof.so"
            subprocess.run([compiler, *flags, str(SOURCE), "-o", str(fresh)], check=True)
            fresh.replace(target)
    lib = ctypes.CDLL(str(target))
    lib.roof_gops.restype = lib.roof_read_gbps.restype = ctypes.c_double
    lib.roof_gops.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_int64]
    lib.roof_read_gbps.argtypes = [ctypes.c_int64, ctypes.c_int, ctypes.c_int64]
    lib.roof_random_mrows.restype = ctypes.c_double
    lib.roof_handover_ns.restype = lib.roof_region_ns.restype = ctypes.c_double
    lib.roof_handover_ns.argtypes = [ctypes.c_double]
    lib.roof_region_ns.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_double]
    lib.roof_random_mrows.argtypes = [
        ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int,
    ]  # fmt: skip
    return lib


def _gops(loop, threads):
    return library().roof_gops(loop.encode(), threads, _ITERATIONS.get(loop, _USUAL_ITERATIONS))


def gops(loop, threads, stretches=7):
    """Median GOPS (multiply and add are two) of `loop`; None where it cannot run."""
    if library() is None:
        return None
    values = [_gops(loop, threads) for _ in range(stretches)]
    return statistics.median(values) if min(values) > 0 else None


def read_gbps(kilobytes, threads, stretches=5):
    """GB/s of streaming over so many kilobytes, each thread over its share."""
    passes = max(1, (512 << 10) // kilobytes)
    lib = library()
    return statistics.median(lib.roof_read_gbps(kilobytes << 10, threads, passes) for _ in range(stretches))


def read_sizes(caches):
    """{level: (KB, whether each thread has so many)}: half of a cache, for DRAM far more than the last one.

    Args:
        caches: environment.cache_sizes().
    """
    l2, l3 = (_kilobytes(caches.get(level), default) for level, default in (("L2", 1024), ("L3", 32768)))
    l3 = min(l3, 64 << 10)  # of a large shared one a guest gets a part
    return {"L2": (l2 // 2, True), "L3": (l3 // 2, False), "DRAM": (max(256 << 10, 4 * l3), False)}


def _kilobytes(text, default):
    """'1024K' or '32M' of the kernel."""
    if not text:
        return default
    return int(text[:-1]) * {"K": 1, "M": 1024}[text[-1]]


def random_mrows(threads, row_bytes=64, table_mb=256, stretches=5):
    """Million rows of one cache line a second, at random places of a table in memory."""
    rows = (table_mb << 20) // row_bytes
    table = torch.ones(rows, row_bytes, dtype=torch.uint8)
    sampler = RowSampler(table, torch.randint(rows, (stretches << 18,)), threads, stretches)
    for _ in range(stretches):
        sampler()
    return sampler.mrows


def fork_join_us(threads=2, stretches=5):
    """{'handover': of one word to another core and back, 'OpenMP': an empty region of torch's runtime}."""
    found = {"handover": [library().roof_handover_ns(0.02) / 1e3 for _ in range(stretches)]}
    parallel = _gomp_parallel()
    if parallel:
        times = (library().roof_region_ns(parallel, threads, 0.02) / 1e3 for _ in range(stretches))
        found["OpenMP"] = list(times)
    return {name: statistics.median(values) for name, values in found.items()}


def _gomp_parallel():
    """Address of GOMP_parallel in the OpenMP runtime of this process, or None."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    for path in sorted({line.split()[-1] for line in maps if "gomp" in line.split()[-1]}):
        return ctypes.cast(ctypes.CDLL(path).GOMP_parallel, ctypes.c_void_p).value
    return None


def best_loop(cap=None):
    """The fastest loop this CPU runs and the ISA cap allows, or None."""
    # avx512 without VNNI has no loop of its own; AVX-VNNI is below it in the order.
    allowed = {None: LOOPS, "avx512": LOOPS[2:]}.get(cap) or LOOPS[LOOPS.index(cap) :]
    for loop in allowed:
        if gops(loop, 1, stretches=1):
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
        self.values.append(_gops(self.loop, self.threads))

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
    """All limits, JSON-ready.

    GOPS per loop and thread count, GB/s from caches and memory, million random rows of a cache line a
    second, microseconds of starting and ending work on two cores. One run of several benchmarks probes once
    and hands the file on (SHARED).
    """
    if os.environ.get(SHARED):
        return json.loads(Path(os.environ[SHARED]).read_text())
    if library() is None:
        return {}
    int8 = {loop: {str(t): gops(loop, t) for t in threads} for loop in LOOPS}
    reads = {}
    for level, (kilobytes, each) in read_sizes(environment.cache_sizes()).items():
        size = f"{kilobytes} KB" if kilobytes < 1024 else f"{kilobytes >> 10} MB"
        name = f"{level} {size}{' a thread' if each else ''}"
        reads[name] = {str(t): read_gbps(kilobytes * (t if each else 1), t) for t in threads}
    return {
        "int8_gops": {k: v for k, v in int8.items() if all(v.values())},
        "read_gbps": reads,
        "random_mrows": {str(t): random_mrows(t) for t in threads},
        "fork_join_us": fork_join_us(),
    }
