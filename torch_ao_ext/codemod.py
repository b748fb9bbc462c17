"""`python -m torch_ao_ext.codemod [--check] PATH ...` rewrites programs from torch.ao to torch_ao_ext.

Imports and dotted names change, through `import torch.nn as nn` and `getattr(torch, "quantization")` too, and
module names in the strings that `patch` and `import_module` take. Other strings and comments stay. What has
no counterpart is listed with file and line and left as it is.
"""

import argparse
import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from torch_ao_ext._old_names import MOVED, PACKAGES

__all__ = ["main", "rewrite"]

_NAMES = MOVED | PACKAGES  # the longer ones first

# Modules that hold what changes and what does not: names bound to them are followed.
_ROOTS = ("torch", "torch.ao", "torch.nn")
# They make or take torch's quantized tensors, which this library's modules do not.
_TENSORS = ("torch.ops.quantized", "torch.quantize_per_tensor", "torch.quantize_per_channel")
# Functions whose first argument is the name of a module or of something in one.
_BY_NAME = ("patch", "import_module", "__import__", "importorskip", "resolve_name")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


class _Edit(NamedTuple):
    begin: int  # bytes
    end: int
    text: str


def _renamed(name: str) -> str | None:
    for old, new in _NAMES.items():
        if name == old or name.startswith(old + "."):
            return new + name[len(old) :]
    return None


def _is_theirs(name: str) -> bool:
    return name.startswith("torch.ao.") or _renamed(name) is not None


def _exists(module: str, name: str | None = None) -> bool:
    try:
        found = importlib.import_module(module)
    except ImportError:
        return False
    return name in (None, "*") or hasattr(found, name) or _exists(f"{module}.{name}")


def _imports_torch(node: ast.AST) -> bool:
    """Whether it is an import from torch or a part of it."""
    if isinstance(node, ast.Import):
        return any(alias.name.split(".")[0] == "torch" for alias in node.names)
    return isinstance(node, ast.ImportFrom) and not node.level and f"{node.module}.".startswith("torch.")


def _import_as(alias: ast.alias, name: str) -> str:
    return name if alias.asname is None else f"{name} as {alias.asname}"


class _File:
    """One source: what to change, and what to do by hand."""

    def __init__(self, source: str) -> None:
        self.data = source.encode()
        self.tree = ast.parse(source)
        lines = self.data.splitlines(keepends=True)
        self.starts = [0]
        for line in lines:
            self.starts.append(self.starts[-1] + len(line))
        self.edits: list[_Edit] = []
        self.notes: list[tuple[int, str]] = []
        self.used: set[str] = set()
        plain = [node for node in ast.walk(self.tree) if isinstance(node, ast.Import)]
        self.imported = {alias.name for node in plain for alias in node.names if alias.asname is None}
        self.roots = {"torch": "torch"}
        for node in ast.walk(self.tree):
            self._bind(node)
        bound = [node for node in self.tree.body if _imports_torch(node)]
        self.torch_import = bound[0] if bound else None

    def _bind(self, node: ast.AST) -> None:
        """Names that an import gives to one of the roots."""
        if isinstance(node, ast.Import):
            found = [(alias.asname, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found = [(alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names]
        else:
            return
        self.roots.update({name: whole for name, whole in found if name and whole in _ROOTS})

    def _dotted(self, node: ast.AST) -> str | None:
        """The name that an expression stands for, beginning with torch; None for others."""
        if isinstance(node, ast.Name):
            return self.roots.get(node.id)
        if isinstance(node, ast.Call):
            called, arguments = node.func, node.args
            if not isinstance(called, ast.Name) or called.id != "getattr" or len(arguments) != 2:
                return None
            owner, leaf = arguments[0], getattr(arguments[1], "value", None)
        elif isinstance(node, ast.Attribute):
            owner, leaf = node.value, node.attr
        else:
            return None
        inner = self._dotted(owner)
        return None if inner is None or not isinstance(leaf, str) else f"{inner}.{leaf}"

    def _put(self, node: ast.stmt | ast.expr, text: str) -> None:
        begin = self.starts[node.lineno - 1] + node.col_offset
        self.edits.append(_Edit(begin, self.starts[node.end_lineno - 1] + node.end_col_offset, text))

    def _note(self, node: ast.AST, name: str) -> None:
        self.notes.append((node.lineno, f"{name} has no counterpart"))

    def _statements(self, node: ast.stmt, parts: list[str]) -> None:
        line = self.data[self.starts[node.lineno - 1] :][: node.col_offset]
        separator = "; " if line.strip() else "\n" + line.decode()
        self._put(node, separator.join(parts))

    def _import(self, node: ast.Import) -> None:
        names, changed = [], False
        for alias in node.names:
            new = _renamed(alias.name)
            if _is_theirs(alias.name) and (new is None or not _exists(new)):
                self._note(node, alias.name)
                new = None
            names.append(_import_as(alias, new or alias.name))
            changed = changed or new is not None
            # `import torch.ao.x` binds torch.
            if new is not None and alias.asname is None and "torch" not in self.imported:
                names.insert(0, "torch")
                self.imported.add("torch")
        if changed:
            self._put(node, "import " + ", ".join(dict.fromkeys(names)))

    def _import_from(self, node: ast.ImportFrom) -> None:
        if node.module is None or node.level:
            return
        kept, moved = [], {}
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            whole = _renamed(name)
            module = None if whole is None else whole.rpartition(".")[0]
            if _is_theirs(name) and (module is None or not _exists(module, alias.name)):
                self._note(node, name)
                module = None
            if module is None:
                kept.append(_import_as(alias, alias.name))
            else:
                moved.setdefault(module, []).append(_import_as(alias, alias.name))
        if len(moved) == 1 and not kept:
            begin = self.starts[node.lineno - 1] + node.col_offset
            module = re.compile(rb"from\s+([\w.]+)").match(self.data, begin)
            self.edits.append(_Edit(*module.span(1), next(iter(moved))))
        elif moved:
            parts = [f"from {node.module} import {', '.join(kept)}"] if kept else []
            parts += [f"from {module} import {', '.join(names)}" for module, names in moved.items()]
            self._statements(node, parts)

    def _attribute(self, node: ast.Attribute | ast.Call, whole: str) -> None:
        name = self._dotted(node)
        if name in _NAMES:
            if not _has(_renamed(whole)):
                self._note(node, whole)
                return
            self._put(node, _NAMES[name])
            self.used.add(_module_of(_renamed(whole)))
        elif name in _TENSORS:
            self._note(node, whole)

    def _string(self, node: ast.Constant, names_module: bool) -> None:
        """A string that is the name of something in torch.ao."""
        if not _DOTTED.fullmatch(node.value) or _renamed(node.value) is None:
            return
        new = _renamed(node.value)
        if not names_module:
            self.notes.append((node.lineno, f"the string {node.value!r} stays"))
        elif not _has(new):
            self._note(node, node.value)
        else:
            begin = self.starts[node.lineno - 1] + node.col_offset
            place = self.data.index(node.value.encode(), begin)
            self.edits.append(_Edit(place, place + len(node.value.encode()), new))

    def _default(self, node: ast.Call) -> None:
        """Notes getattr with a default, and hasattr: they do not fail without torch.ao."""
        called = node.func.id if isinstance(node.func, ast.Name) else None
        if (called, len(node.args)) not in (("getattr", 3), ("hasattr", 2)):
            return
        owner, leaf = self._dotted(node.args[0]), getattr(node.args[1], "value", None)
        if owner is not None and _renamed(f"{owner}.{leaf}") is not None:
            self.notes.append((node.lineno, f"{ast.unparse(node)} stays"))

    def _strings(self) -> None:
        known = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and node.args:
                name = node.func.attr if isinstance(node.func, ast.Attribute) else None
                name = node.func.id if isinstance(node.func, ast.Name) else name
                first = node.args[0]
                if name in _BY_NAME and isinstance(first, ast.Constant) and isinstance(first.value, str):
                    self._string(first, True)
                    known.add(first)
            elif isinstance(node, ast.Expr):
                known.add(node.value)  # a docstring
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in known:
                self._string(node, False)

    def read(self) -> None:
        """Finds all edits."""
        longest: dict[ast.AST, str] = {}
        for node in ast.walk(self.tree):  # outer attributes come before inner ones
            if isinstance(node, ast.Import):
                self._import(node)
            elif isinstance(node, ast.ImportFrom):
                self._import_from(node)
            elif isinstance(node, (ast.Attribute, ast.Call)):
                if isinstance(node, ast.Call):
                    self._default(node)
                whole = longest.get(node) or self._dotted(node)
                if whole is not None and whole.startswith("torch."):
                    longest[node.value if isinstance(node, ast.Attribute) else node.args[0]] = whole
                    self._attribute(node, whole)
        self._strings()
        self._missing_imports()

    def _missing_imports(self) -> None:
        wanted = sorted(self.used - {_renamed(name) or name for name in self.imported})
        if self.torch_import is None:
            self.notes += [(1, f"add: import {name}") for name in wanted]
        elif wanted:
            end = self.starts[self.torch_import.end_lineno]
            line_end = "\r\n" if self.data[:end].endswith(b"\r\n") else "\n"
            self.edits.append(_Edit(end, end, "".join(f"import {name}{line_end}" for name in wanted)))

    def result(self) -> str:
        """The new source."""
        data = self.data
        for edit in sorted(self.edits, reverse=True):
            data = data[: edit.begin] + edit.text.encode() + data[edit.end :]
        return data.decode()


def _has(name: str) -> bool:
    """Whether a dotted name of ours exists; attributes of classes and values are not looked into."""
    parts = name.split(".")
    for size in range(len(parts), 0, -1):
        module = ".".join(parts[:size])
        if _exists(module):
            return size == len(parts) or hasattr(importlib.import_module(module), parts[size])
    return False


def _module_of(name: str) -> str:
    """The module that must be imported for a dotted name of ours."""
    package, *parts = name.split(".")
    for part in parts:
        value = getattr(importlib.import_module(package), part, None)
        if value is not None and not isinstance(value, ModuleType) or not _exists(f"{package}.{part}"):
            break
        package = f"{package}.{part}"
    return package


def rewrite(source: str) -> tuple[str, list[tuple[int, str]]]:
    """New source of a program, and what to do by hand.

    Args:
        source: Python source that uses torch.ao.

    Returns:
        The source with this library's names; (line, text) of each name that stays.

    Raises:
        SyntaxError: it is not Python.

    Example:
        >>> from torch_ao_ext.codemod import rewrite
        >>> rewrite("from torch.ao.quantization import prepare")
        ('from torch_ao_ext.quantization import prepare', [])
    """
    file = _File(source)
    file.read()
    return file.result(), sorted(file.notes)


def _sources(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def main(arguments: list[str] | None = None) -> int:
    """The command; 1 when --check finds something to rewrite, or a file cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m torch_ao_ext.codemod", description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path, help="files, or folders with .py files")
    parser.add_argument("--check", action="store_true", help="only say what would change")
    options = parser.parse_args(arguments)
    status = 0
    for path in _sources(options.paths):
        try:
            source = path.read_bytes().decode()
            new, notes = rewrite(source)
        except (OSError, SyntaxError, UnicodeDecodeError) as error:
            print(f"{path}: not rewritten: {error}", file=sys.stderr)
            status = 1
            continue
        for line, text in notes:
            print(f"{path}:{line}: {text}")
        if new != source:
            print(f"{path}: {'would be ' if options.check else ''}rewritten")
            if options.check:
                status = 1
            else:
                path.write_bytes(new.encode())
    return status


if __name__ == "__main__":
    sys.exit(main())
