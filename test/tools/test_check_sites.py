"""What make mutate-checks takes for a check; its table names checks that are there."""

import csv
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

from check_sites import sites_of  # noqa: E402

SOURCE = """
void check_size(int64_t n);
void run(int64_t n) {
  // check_size(n);
  check_size(n);
  const char* text = "check_size(n);";
  const auto scale = check_scale(n, ")");
  TAE_CHECK_VALUE(n > 0, arg,
                  "be positive", n);
}
"""


def test_sites_of_a_source(tmp_path):
    path = tmp_path / "source.cpp"
    path.write_text(SOURCE)
    assert [(s.line, s.text, s.statement) for s in sites_of(path, tmp_path)] == [
        (5, "check_size(n)", True),
        (7, 'check_scale(n, ")")', False),
        (8, 'TAE_CHECK_VALUE(n > 0, arg, "be positive", n)', True),
    ]


def test_every_unreachable_check_is_there():
    with open(HERE / "unreachable_checks.csv", newline="") as file:
        rows = [(r["path"], r["check"]) for r in csv.DictReader(file)]
    assert rows
    for path, check in rows:
        assert check in {s.text for s in sites_of(ROOT / path, ROOT)}, (path, check)
