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


@dataclass(frozen=True)
class BagShape:
    layer: str
    rows: int
    dim: int
    pooling: int
    batch: int
    indices: str  # hot, uniform, zipf; lookup: no bags, uniform

    @property
    def count(self):
        return self.pooling * self.batch

    def __str__(self):
        bags = "" if self.indices == "lookup" else f" x {self.pooling}"
        return f"{self.rows} x {self.dim}, {self.batch}{bags} {self.indices}"


@dataclass(frozen=True)
class RnnShape:
    layer: str
    kind: str  # lstm, gru, rnn, lstm_cell, gru_cell
    input: int
    hidden: int
    layers: int
    bidirectional: bool
    steps: int
    batch: int
    goals: dict  # "ao" and "fp32" -> (target, floor), None where there is none

    @property
    def is_cell(self):
        return self.kind.endswith("_cell")

    def __str__(self):
        return f"{self.layer} B{self.batch}"


def read_rnn(name):
    """[RnnShape] of shapes/<name>.csv."""
    return [_rnn_shape(row) for row in _read(name)]


def _rnn_shape(row):
    def goal(key):
        return float(row[key]) if row[key] else None

    goals = {peer: (goal(f"{peer}_target"), goal(f"{peer}_floor")) for peer in ("ao", "fp32")}
    sizes = (int(row[key]) for key in ("input", "hidden", "layers"))
    both = row["bidirectional"] == "1"
    return RnnShape(row["layer"], row["kind"], *sizes, both, int(row["steps"]), int(row["batch"]), goals)


def read_bags(name):
    """Rows of shapes/<name>.csv with the fields of BagShape."""
    return [
        BagShape(r["layer"], *(int(r[k]) for k in ("rows", "dim", "pooling", "batch")), r["indices"])
        for r in _read(name)
    ]


@dataclass(frozen=True)
class ConvShape:
    layer: str
    transposed: bool
    batch: int
    channels: int
    size: tuple
    out: int
    kernel: tuple
    stride: tuple
    padding: tuple
    dilation: tuple
    groups: int
    target: float | None
    floor: float | None

    @property
    def rank(self):
        return len(self.size)

    def __str__(self):
        def text(values):
            return "x".join(map(str, values))

        kind = "transposed " if self.transposed else ""
        groups = f" g{self.groups}" if self.groups > 1 else ""
        return f"{kind}{self.channels}x{text(self.size)} -> {self.out}, {text(self.kernel)}{groups}"


def read_conv(name):
    """Rows of shapes/<name>.csv; one number stands for every dimension."""
    return [_conv_shape(row) for row in _read(name)]


def _conv_shape(row):
    rank = row["size"].count("x") + 1

    def numbers(text):
        values = tuple(map(int, text.split("x")))
        return values * rank if len(values) == 1 else values

    names = ("size", "kernel", "stride", "padding", "dilation")
    goals = (float(row[key]) if row[key] else None for key in ("target", "floor"))
    size, kernel, stride, padding, dilation = (numbers(row[key]) for key in names)
    return ConvShape(
        row["layer"], row["kind"] == "transposed", int(row["batch"]), int(row["in"]), size, int(row["out"]),
        kernel, stride, padding, dilation, int(row["groups"]), *goals,
    )  # fmt: skip


def read_linear(name):
    """Rows of shapes/<name>.csv with the columns layer, M, K, N, repeat."""
    return [
        LinearShape(r["layer"], int(r["M"]), int(r["K"]), int(r["N"]), int(r["repeat"])) for r in _read(name)
    ]


def _read(name):
    with open(FOLDER / f"{name}.csv", newline="") as file:
        lines = [line for line in file if line.strip() and not line.startswith("#")]
    return list(csv.DictReader(lines))
