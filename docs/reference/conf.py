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


def _public_modules():
    """Names of modules with public names of their own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for found in pkgutil.walk_packages(torch_ao_ext.__path__, "torch_ao_ext."):
            private = any(part.startswith("_") and part != "_experimental" for part in found.name.split("."))
            if private or found.name.endswith(("lightning", "callbacks", "data_sparsity")):
                continue
            module = importlib.import_module(found.name)
            own = [n for n in getattr(module, "__all__", []) if _home(module, n) == found.name]
            if own:
                yield found.name, own


def _home(module, name):
    value = getattr(module, name)
    return getattr(value, "__module__", module.__name__)


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
    for name, names in _public_modules():
        (_PAGES / f"{name}.rst").write_text(_page(name, names))


def setup(app):
    """Pages first, then Sphinx reads them."""
    app.connect("builder-inited", _write_pages)
