"""Sphinx reference of the public modules, made from their docstrings: `make reference`."""

import importlib
import inspect
import pkgutil
import warnings
from pathlib import Path

import torch_ao_ext

project = "torch_ao_ext"
release = version = torch_ao_ext.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "alabaster"
html_theme_options = {"page_width": "1100px", "nosidebar": False}
exclude_patterns = []
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False  # docstrings of torch have marks of their own
napoleon_google_docstring = True
napoleon_numpy_docstring = False

HERE = Path(__file__).parent
_PAGES = HERE / "modules"


def _is_private(name):
    return any(part.startswith("_") and part != "_experimental" for part in name.split("."))


def _public_modules():
    """Names of public modules -> the public names whose page is theirs.

    A class or function is on the page of its own module; one of a private module, and a constant, on that of
    the innermost public module which hands it on.
    """
    pages, handed = {}, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for found in pkgutil.walk_packages(torch_ao_ext.__path__, "torch_ao_ext."):
            if _is_private(found.name) or found.name.endswith(("lightning", "callbacks", "data_sparsity")):
                continue
            module = importlib.import_module(found.name)
            pages[found.name] = []
            for name in getattr(module, "__all__", []):
                home = _home(module, name)
                if home == found.name:
                    pages[home].append(name)
                elif home == "" or home.startswith("torch_ao_ext.") and _is_private(home):
                    key = (home, name, id(getattr(module, name)))
                    handed.setdefault(key, []).append(found.name)
    for (_, name, _), places in handed.items():
        pages[max(places, key=lambda place: place.count("."))].append(name)
    return {page: names for page, names in pages.items() if names}


def _home(module, name):
    """Module of a class or function; "" for a constant."""
    value = getattr(module, name)
    return value.__module__ or "" if isinstance(value, type) or inspect.isroutine(value) else ""


def _is_function(value):
    return inspect.isfunction(value) or inspect.isbuiltin(value)


def _page(name, names):
    lines = [name, "=" * len(name), "", f".. automodule:: {name}", ""]
    for public in sorted(names):
        value = getattr(importlib.import_module(name), public)
        kind = "autofunction" if _is_function(value) else "py:data"
        kind = "autoclass" if isinstance(value, type) else kind
        lines += [f".. {kind}:: {name}.{public}"]
        lines += ["   :members:", ""] if kind == "autoclass" else [""]
    return "\n".join(lines)


def _write_pages(app):
    _PAGES.mkdir(exist_ok=True)
    for old in _PAGES.glob("*.rst"):
        old.unlink()
    for name, names in _public_modules().items():
        (_PAGES / f"{name}.rst").write_text(_page(name, names))


def setup(app):
    """Pages first, then Sphinx reads them."""
    app.connect("builder-inited", _write_pages)
