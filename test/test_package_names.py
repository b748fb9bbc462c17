"""Every public name of torch.ao is here under the same path, or in missing_names.csv with a reason."""

import csv
import fnmatch
from pathlib import Path

import pytest
from torch_ao_modules import loaded, module_names

ROWS = list(csv.DictReader((Path(__file__).parent / "missing_names.csv").open()))


def missing(name):
    """Names of a module of torch.ao that ours does not have; ["*"] when there is no such module."""
    theirs = loaded(name)
    if theirs is None:  # it imports what the wheel no longer has
        return []
    ours = loaded(name.replace("torch.ao", "torch_ao_ext", 1))
    if ours is None:
        return ["*"]
    own = [n for n, value in vars(theirs).items() if n[0] != "_" and getattr(value, "__module__", "") == name]
    return [n for n in getattr(theirs, "__all__", own) if not hasattr(ours, n)]


def listed(name):
    """Names in the first row that fits a module."""
    rows = [row for row in ROWS if fnmatch.fnmatchcase(name, row["module"])]
    return set(rows[0]["names"].split()) if rows else set()


@pytest.fixture(scope="module")
def names():
    found = module_names()
    assert len(found) > 100
    return found


def test_names_are_here_or_listed(names):
    wrong = {n: set(missing(n)) - listed(n) for n in names if "*" not in listed(n)}
    wrong = {n: left for n, left in wrong.items() if left}
    assert not wrong, f"add them, or list them in missing_names.csv: {wrong}"


def test_list_is_not_stale(names):
    for row in ROWS:
        gone = set().union(*(missing(n) for n in names if fnmatch.fnmatchcase(n, row["module"])))
        here = set(row["names"].split()) - gone
        assert not here, f"{row['module']}: here by now: {here}"
        assert row["reason"]
