"""Shapes are data: benchmarks/shapes/<name>.csv, `#` starts a comment line."""

import csv
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "shapes"


@dataclass(frozen=True)
class LinearShape:
    layer: str
    m: int
    k: int
    n: int
    repeat: int  # how often one forward pass runs this shape

    @property
    def ops(self):
        return 2 * self.m * self.k * self.n

    def __str__(self):
        return f"M={self.m} {self.k}->{self.n}"


def read_linear(name):
    """Rows of shapes/<name>.csv with the columns layer, M, K, N, repeat."""
    with open(FOLDER / f"{name}.csv", newline="") as file:
        lines = [line for line in file if line.strip() and not line.startswith("#")]
    rows = csv.DictReader(lines)
    return [LinearShape(r["layer"], int(r["M"]), int(r["K"]), int(r["N"]), int(r["repeat"])) for r in rows]
