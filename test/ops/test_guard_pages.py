"""Every tensor ends at an unreadable page, then starts right after one: no access beyond it.

JIT code and XNNPACK's kernels are blind spots of sanitizers, not of the memory manager.
"""

import ctypes
import faulthandler
import mmap
import multiprocessing
import os

import pytest
import torch
from op_cases import ENGINES, random_int
from op_samples import overload, samples

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
    return [guarded(a, at_end) if isinstance(a, torch.Tensor) else a for a in call]


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


EDGES = [1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 130]


def linear_shapes(engine):
    rng = torch.Generator().manual_seed(3)
    ran = 0
    for k in EDGES:
        for n in (1, 3, 15, 16, 17, 33, 64, 65, 130):
            m = [1, 2, 5, 16, 17, 33][int(torch.randint(6, (1,), generator=rng))]
            for at_end in (True, False):
                w, s = guarded(random_int(torch.int8, n, k), at_end), guarded(torch.rand(n) + 0.1, at_end)
                bias = guarded(torch.randn(n), at_end)
                for x in (torch.randn(m, k), torch.randn(m, k).bfloat16()):
                    other = guarded(torch.randn(m, n), at_end)
                    for per_row in (True, False):
                        args = (guarded(x, at_end), w, s, None, bias, per_row)
                        try:
                            ops.linear_dynamic(*args, post_ops="add,relu", other=other)
                            ops.linear_dynamic(*args)
                            ran += 1
                        except NotImplementedError as error:
                            assert f"{engine}: " in str(error)
                for dtype in (torch.uint8, torch.int8):
                    x = guarded(random_int(dtype, m, k), at_end)
                    for out in (torch.uint8, torch.float32, torch.bfloat16):
                        scale = 0.5 if out == torch.uint8 else 1.0
                        try:
                            ops.linear(x, 0.1, 3, w, s, None, bias, scale, 0, out)
                            ran += 1
                        except NotImplementedError as error:
                            assert f"{engine}: " in str(error)
    assert ran > 300


@pytest.mark.parametrize("engine", ENGINES)
def test_linear_stays_inside_its_tensors(engine, forced):
    forced(engine)
    assert in_child(linear_shapes, engine) == 0


def every_op():
    for name, calls in samples().items():
        for call in calls:
            for at_end in (True, False):
                overload(name)(*guard_all(call, at_end))
    for count in EDGES:
        for at_end in (True, False):
            x = guarded(torch.randn(3, count), at_end)
            scales, points = guarded(torch.rand(count) + 0.1, at_end), torch.zeros(count).long()
            q = guarded(ops.quantize_per_tensor(x, 0.1, 3, 0, 255, torch.uint8), at_end)
            ops.dequantize_per_tensor(q, 0.1, 3, torch.bfloat16)
            q = guarded(ops.quantize_per_channel(x, scales, points, 1, 0, 255, torch.uint8), at_end)
            ops.dequantize_per_channel(q, scales, None, 1)
            ops.choose_qparams(x, 0, 255)
            ops.choose_qparams_per_token(guarded(x.bfloat16(), at_end), 0, 255)


def test_all_ops_stay_inside_their_tensors():
    assert in_child(every_op) == 0
