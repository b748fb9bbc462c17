"""Each public name of torch.ao is in a test, or in a table that a test of tested_in_loops.csv runs."""

import ast
import csv
import fnmatch
import re
from pathlib import Path

import pytest
from torch_ao_modules import loaded, module_names

HERE = Path(__file__).parent
ROWS = list(csv.DictReader((HERE / "tested_in_loops.csv").open()))
# They look whether names are there.
_LISTS = {f"test_package_{what}.py" for what in ("names", "signatures", "codemod")} | {"test_redirect.py"}


def words(tree):
    """Identifiers in the code of a file, and words in its strings, which `getattr` and programs take."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"\w+", node.value)


@pytest.fixture(scope="module")
def untested():
    files = [path for path in HERE.rglob("*.py") if path.name not in _LISTS]
    known = {word for path in files for word in words(ast.parse(path.read_text()))}
    found = {}
    for place in module_names():
        for name in getattr(loaded(place), "__all__", []):
            if name not in known:
                found.setdefault(name, f"{place}.{name}")
    return set(found.values())


def test_each_name_is_in_a_test(untested):
    left = {name for name in untested if not any(fnmatch.fnmatchcase(name, row["names"]) for row in ROWS)}
    assert not left, f"write a test, or name in tested_in_loops.csv the one whose table has it: {left}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["names"])
def test_row(row, untested):
    assert fnmatch.filter(untested, row["names"]), "no name of this row needs it"
    file, function = row["test"].split("::")
    tests = [n for n in ast.parse((HERE / file).read_text()).body if isinstance(n, ast.FunctionDef)]
    assert function in [n.name for n in tests]
