"""Operators called from C++, so that a figure holds no Python (dispatch.cpp, built at run time).

The extension is cached outside the checkout, keyed by its source and torch's version.
"""

import functools
import hashlib
from pathlib import Path

import torch

from benchmarks.harness import roof

SOURCE = Path(__file__).with_name("dispatch.cpp")


@functools.cache
def extension():
    """The loaded module; compiling takes about a minute the first time. Raises where there is no compiler."""
    from torch.utils import cpp_extension

    stamp = hashlib.sha256(SOURCE.read_bytes() + torch.__version__.encode()).hexdigest()[:16]
    folder = roof.cache_folder() / f"dispatch-{stamp}"
    folder.mkdir(parents=True, exist_ok=True)
    return cpp_extension.load("dispatch", [str(SOURCE)], extra_cflags=["-O2"], build_directory=str(folder))


def from_cpp(call, count):
    """A call of no arguments that runs `call` so many times in C++.

    Args:
        call: functools.partial of an overload, such as torch.ops.aten.relu.default.
        count: calls each time.
    """
    name, _, overload = call.func.name().partition(".")
    inner = extension().Call(name, overload, *call.args, **call.keywords)
    return functools.partial(inner.repeat, count)
