"""Gives mapped pages back to the kernel."""

import ctypes
import mmap
import os

import torch

__all__ = ["release"]

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def release(tensor: torch.Tensor) -> None:
    """Drops the resident pages of a tensor in a private file mapping; a read maps them again.

    Only for memory that nobody has written to: a page with writes would go back to
    what the file holds. Loading calls this before anyone else sees the tensor.
    """
    size = tensor.nbytes
    if size == 0:
        return
    begin = tensor.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    end = -(-(tensor.data_ptr() + size) // mmap.PAGESIZE) * mmap.PAGESIZE
    if _libc.madvise(begin, end - begin, mmap.MADV_DONTNEED) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"load_quantized: madvise: {os.strerror(code)}")
