"""fixtures.csv: what is easily forgotten of torch.ao, with the tests that hold it or why it is missing."""

import ast
import csv
from pathlib import Path

HERE = Path(__file__).parent
ROWS = list(csv.DictReader((HERE / "fixtures.csv").open()))


def test_every_row_has_tests_that_exist_or_a_reason():
    assert len(ROWS) > 20 and len({row["what"] for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row["tests"] or row["missing"], row["what"]
        for name in row["tests"].split():
            file, function = name.split("::")
            tree = ast.parse((HERE / file).read_text())
            assert function in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}, name
