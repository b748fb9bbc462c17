"""The old imports for programs that cannot be edited: torch.ao's module names mean this library's modules."""

import contextlib
import importlib
import pkgutil
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType

from torch_ao_ext._old_names import MOVED, PACKAGES

__all__ = ["redirect_imports"]

_OURS = "torch_ao_ext"
_stayed: list[str] | None = None


def _modules(package: str) -> Iterator[str]:
    """Importable modules in a package, itself first; what fails to import is left out."""
    yield package
    path = getattr(importlib.import_module(package), "__path__", [])
    for found in pkgutil.walk_packages(path, f"{package}.", onerror=lambda name: None):
        with contextlib.suppress(ImportError):
            importlib.import_module(found.name)
            yield found.name


def _place(name: str, module: ModuleType) -> None:
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    # A parent of ours that has the attribute already keeps what it is.
    if not sys.modules[parent].__name__.startswith(_OURS) or not hasattr(sys.modules[parent], last):
        setattr(sys.modules[parent], last, module)


def redirect_imports() -> list[str]:
    """Makes `torch.ao.quantization`, `.nn`, `.ns`, `.pruning` and the older names mean this library.

    For this process, from now on; what a program has imported before keeps its meaning, so call it first
    (before threads that import).
    Names that torch has deleted (`torch.ao.quantization.quantize_pt2e`) are there again, and
    `torch.load(..., weights_only=False)` makes this library's modules of torch.ao's pickled ones.

    Returns:
        Modules of torch.ao that have no counterpart here and stay torch.ao's (configs of
        other backends, internals of `fx`): what they make does not fit this library.

    Example:
        >>> from torch_ao_ext.quantization import legacy
        >>> "torch.ao.quantization.fx._decomposed" in legacy.redirect_imports()  # doctest: +SKIP
        True
        >>> from torch.ao.quantization.quantize_pt2e import prepare_pt2e    # doctest: +SKIP
    """
    global _stayed
    if _stayed is not None:
        return list(_stayed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about the names that it will delete
        # torch's own compiler imports some: they must be there before their package changes.
        theirs = set(_modules("torch.ao"))
        before = {name for old in PACKAGES for name in _modules(old)}
        pairs = PACKAGES | MOVED
        ours = [(old, new, name) for old, new in pairs.items() for name in _modules(new)]
    for old, new, name in ours:
        _place(old + name.removeprefix(new), sys.modules[name])
    for name in sorted(before):  # what has no counterpart stays where it was
        _place(name, sys.modules[name])
    importlib.import_module(f"{_OURS}.quantization._legacy_pickle").install()
    others = theirs - {"torch.ao"}
    _stayed = sorted(name for name in others if not sys.modules[name].__name__.startswith(_OURS))
    return list(_stayed)
