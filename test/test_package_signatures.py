"""Calls that torch.ao's functions, constructors and methods take, ours take too."""

import csv
import fnmatch
import importlib
import inspect
import warnings
from pathlib import Path

import pytest
from torch_ao_modules import loaded, module_names

ROWS = list(csv.DictReader((Path(__file__).parent / "other_signatures.csv").open()))
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
FIRST_BY_PLACE = ("from_float", "from_reference", "from_observed", "from_dict")
PLACED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)


def parameters(function):
    try:
        found = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    generic = any(p.kind is p.VAR_POSITIONAL for p in found)
    return None if generic else [p for p in found if p.name != "self"]


def difference(theirs, ours, first_by_place=False):
    """What a call that theirs takes meets in ours; "" if nothing. Generic signatures say nothing.

    The one module or dict of `from_*` is passed by place, under a name of each class in torch.ao.
    """
    theirs, ours = parameters(theirs), parameters(ours)
    if theirs is None or ours is None:
        return ""
    if first_by_place:
        theirs, ours = theirs[1:], ours[1:]
    known = {p.name for p in theirs}
    own = {p.name for p in ours if p.kind in NAMED}
    if not any(p.kind is p.VAR_KEYWORD for p in ours):
        lacks = [p.name for p in theirs if p.kind in NAMED and p.name not in own]
        if lacks:
            return f"lacks {lacks}"
    wants = [p.name for p in ours if p.kind in NAMED and p.default is p.empty and p.name not in known]
    if wants:
        return f"wants {wants}"
    places = [[p.name for p in side if p.kind in PLACED] for side in (theirs, ours)]
    if places[1][: len(places[0])] != places[0]:
        return f"order {places[1]}, not {places[0]}"
    return ""


def pairs():
    """(path, theirs, ours) of every public function, class and public method both have."""
    seen = set()
    for name in module_names():
        theirs, ours = loaded(name), loaded(name.replace("torch.ao", "torch_ao_ext", 1))
        if theirs is None or ours is None:
            continue
        for key, value in vars(theirs).items():
            public = not key.startswith("_") and getattr(value, "__module__", "").startswith("torch.ao")
            if not public or not callable(value) or id(value) in seen or not hasattr(ours, key):
                continue
            seen.add(id(value))
            path, other = f"{name}.{key}", getattr(ours, key)
            yield path, value, other
            if inspect.isclass(value):
                for method in vars(value):
                    if not method.startswith("_") and callable(getattr(value, method)):
                        yield f"{path}.{method}", getattr(value, method), getattr(other, method, None)


@pytest.fixture(scope="module")
def found():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("torch.ao.quantization")
        compared = list(pairs())
    assert len(compared) > 500
    wrong = {}
    for path, theirs, ours in compared:
        by_place = path.endswith(FIRST_BY_PLACE)
        said = "is missing" if ours is None else difference(theirs, ours, by_place)
        if said:
            wrong[path] = said
    return wrong


def row_of(path):
    return next((row for row in ROWS if fnmatch.fnmatchcase(path, row["path"])), None)


def test_signatures_are_compatible_or_listed(found):
    unlisted = {path: said for path, said in found.items() if row_of(path) is None}
    assert not unlisted, f"take these calls, or list them in other_signatures.csv: {unlisted}"


def test_no_row_is_out_of_date(found):
    used = {row["path"] for row in map(row_of, found) if row}
    assert {row["path"] for row in ROWS} == used
    assert all(row["reason"].strip() for row in ROWS)


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        (lambda x, scale=1.0: 0, ""),
        (lambda x, scale=1.0, more=2: 0, ""),
        (lambda input, scale=1.0: 0, "lacks ['x']"),
        (lambda x: 0, "lacks ['scale']"),
        (lambda x, scale, axis: 0, "wants ['axis']"),
        (lambda scale, x: 0, "order ['scale', 'x'], not ['x', 'scale']"),
    ],
)
def test_difference(ours, said):
    assert difference(lambda x, scale=1.0: 0, ours) == said
