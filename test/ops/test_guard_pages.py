"""Every tensor ends at an unreadable page, then starts right after one: no access beyond it.

64 shapes for each op, at each level, under each engine, made from the samples by op_shapes.py; 8 for
published names on the kernel of another op.

JIT code and XNNPACK's kernels are blind spots of sanitizers, not of the memory manager.
"""

import ctypes
import faulthandler
import functools
import json
import mmap
import multiprocessing
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from op_cases import ENGINES
from op_samples import all_samples, overload, packs
from op_shapes import another_size

ops = torch.ops.torch_ao
PAGE = mmap.PAGESIZE
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
PROT_NONE, PROT_RW, PRIVATE_ANONYMOUS = 0, 3, 0x22


def guarded(t, at_end):
    """A contiguous copy of t beside an unreadable page; never unmapped (a child of one test)."""
    t = t.contiguous()
    size = t.numel() * t.element_size()
    if size == 0:
        return t
    body = -(-size // PAGE) * PAGE
    base = LIBC.mmap(None, body + 2 * PAGE, PROT_NONE, PRIVATE_ANONYMOUS, -1, 0)
    assert LIBC.mprotect(base + PAGE, body, PROT_RW) == 0
    start = base + PAGE + (body - size if at_end else 0)
    ctypes.memmove(start, t.data_ptr(), size)
    memory = (ctypes.c_uint8 * size).from_address(start)
    return torch.frombuffer(memory, dtype=t.dtype).view(t.shape)


def guard_all(call, at_end):
    """The call with every tensor guarded, those in lists, too."""
    return [
        guard_all(a, at_end) if isinstance(a, list)
        else guarded(a, at_end) if isinstance(a, torch.Tensor)
        else a
        for a in call
    ]  # fmt: skip


def in_child(work, *args):
    """Runs work in a forked child; the exit code, -11 for a fault."""

    def body():
        torch.set_num_threads(1)
        work(*args)
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=body)
    child.start()
    child.join(timeout=300)
    if child.exitcode is None:
        child.kill()
    return child.exitcode


def test_a_guard_page_catches_one_byte():
    def read_past(at_end):
        faulthandler.disable()  # this fault is meant
        t = guarded(torch.ones(100, dtype=torch.uint8), at_end)
        ctypes.string_at(t.data_ptr() + (100 if at_end else -1), 1)

    assert in_child(read_past, True) == -11
    assert in_child(read_past, False) == -11


SHAPES = 64
FEW = 8  # of names whose kernel another name has, too
LEVELS = ("portable", "avx2", "avx_vnni", "avx512", "avx512_vnni", "amx")


def shapes_wanted(name):
    thin = any(part in name for part in ("_bn", "_relu", "_add", "_tanh"))
    return FEW if thin and name.startswith(("conv", "linear")) else SHAPES


def shapes_of(name, engine, report):
    """Valid calls of the op, each at both ends; `report` gets how many ran and were refused."""
    wanted = shapes_wanted(name)
    rng = random.Random(f"{name} {engine}")
    ran = refused = 0
    for attempt in range(12 * wanted):
        given = samples_once()[name]
        call = another_size(name, given, rng) if attempt >= len(given) else rng.choice(given)
        try:
            for at_end in (True, False):
                result = overload(name)(*guard_all(call, at_end))
            # An empty result asks no engine.
            ran += not isinstance(result, torch.Tensor) or result.numel() > 0
        except NotImplementedError as error:
            assert "no engine accepts" in str(error)
            refused += 1
        except (ValueError, IndexError):  # sizes that depend on each other in another way
            continue
        if ran >= wanted or (refused == wanted and not ran):
            break
    report[:] = [ran, refused]


@functools.cache
def samples_once():
    torch.manual_seed(0)
    return all_samples()


def run_level(only=None):
    """All ops under all engines at this process's instruction set; prints a line for each failure."""
    totals, bad = [0, 0, 0], 0
    for engine in ("", *ENGINES):
        ops._set_engine(engine)
        ops._set_deterministic(engine != "xnnpack")
        for name in samples_once():
            if packs(name) != bool(engine) or (only and name != only):
                continue
            report = multiprocessing.Array("q", 2)
            code = in_child(shapes_of, name, engine, report)
            ran, refused = report
            totals = [totals[0] + ran, totals[1] + refused, totals[2] + 1]
            unusable = refused and not ran and engine not in ("native", "reference")
            if code != 0 or (ran < shapes_wanted(name) and not unusable):
                bad += 1
                print(f"{name}, engine {engine or '-'}: exit code {code}, {ran} ran, {refused} refused")
    level = json.loads(ops._info())["best_isa"]
    print(f"guard pages: isa {level}, {totals[2]} ops x engines, {totals[0]} shapes x 2 ends, "
          f"{totals[1]} refused: {bad} bad")
    return bad


@pytest.mark.parametrize("level", LEVELS)
def test_every_op_stays_inside_its_tensors(level):
    here = str(Path(__file__).parent)
    code = (
        f"import sys; sys.path[:0] = [{here!r}, {os.getcwd()!r}]\n"
        "import json, torch, torch_ao_ext, test_guard_pages as t\n"
        f"if json.loads(torch.ops.torch_ao._info())['best_isa'] != {level!r}: sys.exit(77)\n"
        "sys.exit(t.run_level() > 0)\n"
    )
    env = {**os.environ, "TORCH_AO_EXT_MAX_ISA": level}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip(f"this CPU has no {level}: the level below is what runs")
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert done.stdout.strip().endswith(": 0 bad")
