"""Finds and loads libtorch_ao_ext.so, or says in one ImportError why it cannot."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from torch_ao_ext.version import __version__

# The library is compiled against one torch minor: the C++ ABI of another one
# differs and loading would abort the process or resolve wrong symbols.
TORCH_MINOR = (2, 13)

# Development only: load this file instead of the installed one.
LIBRARY_VARIABLE = "TORCH_AO_EXT_LIBRARY"


def _import_error(cause: str) -> ImportError:
    need = ".".join(map(str, TORCH_MINOR))
    return ImportError(
        f"torch_ao_ext {__version__} needs torch {need}.* and found torch {torch.__version__}: "
        f"{cause}; install a torch_ao_ext built for this torch, or torch {need}"
    )


def library_path() -> Path:
    """Path of the shared library that import loads."""
    override = os.environ.get(LIBRARY_VARIABLE)
    if override:
        return Path(override)
    return Path(__file__).parent / "lib" / "libtorch_ao_ext.so"


def _minor(version: str) -> tuple[int, ...]:
    """(2, 13) of '2.13.0a0+gitabc'; () when it does not read as a version."""
    try:
        return tuple(int(part) for part in version.split("+")[0].split(".")[:2])
    except ValueError:
        return ()


def load() -> None:
    """Checks torch's version, then registers torch.ops.torch_ao.

    Raises:
        ImportError: other torch minor, missing library, a library that does not
            load, or a wrong environment variable; the text names both versions and
            the original cause.
    """
    if _minor(str(torch.__version__)) != TORCH_MINOR:
        raise _import_error("the C++ ABI changes with every torch minor")
    path = library_path()
    if not path.is_file():
        raise _import_error(f"no such file: {path}")
    try:
        torch.ops.load_library(str(path))
    except Exception as error:  # OSError from dlopen, RuntimeError from a registration
        # torch wraps dlopen's OSError in one that only names the path.
        cause = error.__cause__ or error
        raise _import_error(f"{path} does not load: {cause}") from error
    # A setting that cannot be honoured must not be ignored.
    problem = torch.ops.torch_ao._init_error()
    if problem:
        raise ImportError(
            f"torch_ao_ext {__version__} (torch {torch.__version__}) refuses its settings: {problem}"
        )


@contextmanager
def fake_kernels() -> Iterator[None]:
    """Around the registration of fake kernels, which must find every operator.

    Raises:
        ImportError: the library lacks an operator: it was built from older sources, as in
            an editable install after an update.
    """
    try:
        yield
    except RuntimeError as error:
        if "torch_ao::" not in str(error) or "does not exist" not in str(error):
            raise
        raise ImportError(
            f"torch_ao_ext {__version__}: {library_path()} is older than the Python files: {error}; "
            "build it again (in a checkout: make build, or pip install --no-build-isolation -e .)"
        ) from error
