"""Shapes are data: benchmarks/shapes/<name>.csv, `#` starts a comment line.

Every file has the columns layer and repeat, how often one forward pass runs the row.
"""

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
    repeat: int

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
    repeat: int
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
    repeat: int
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
    goals = {
        peer: (_number(row[f"{peer}_target"]), _number(row[f"{peer}_floor"])) for peer in ("ao", "fp32")
    }
    sizes = (int(row[key]) for key in ("input", "hidden", "layers"))
    both = row["bidirectional"] == "1"
    counts = (int(row[key]) for key in ("steps", "batch", "repeat"))
    return RnnShape(row["layer"], row["kind"], *sizes, both, *counts, goals)


def read_bags(name):
    """Rows of shapes/<name>.csv with the fields of BagShape."""
    keys = ("rows", "dim", "pooling", "batch", "repeat")
    return [
        BagShape(r["layer"], *(int(r[k]) for k in keys), r["indices"])
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
    repeat: int
    target: float | None
    floor: float | None
    post_ops: str = ""  # of conv_add: with a sum

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
    goals = (_number(row[key]) for key in ("target", "floor"))
    size, kernel, stride, padding, dilation = (numbers(row[key]) for key in names)
    return ConvShape(
        row["layer"], row["kind"] == "transposed", int(row["batch"]), int(row["in"]), size, int(row["out"]),
        kernel, stride, padding, dilation, int(row["groups"]), int(row["repeat"]), *goals,
        row.get("post_ops", ""),
    )  # fmt: skip


def read_linear(name):
    """Rows of shapes/<name>.csv with the columns layer, M, K, N, repeat."""
    return [
        LinearShape(r["layer"], int(r["M"]), int(r["K"]), int(r["N"]), int(r["repeat"])) for r in _read(name)
    ]


@dataclass(frozen=True)
class WeightShape:
    """A linear layer on few bits."""

    layer: str
    m: int
    k: int
    n: int
    repeat: int
    cold: bool

    def __str__(self):
        return f"M={self.m} K={self.k} N={self.n}{' cold' if self.cold else ''}"


def read_weights(name):
    """[WeightShape] of shapes/<name>.csv."""
    keys = ("M", "K", "N", "repeat")
    return [WeightShape(r["layer"], *(int(r[k]) for k in keys), r["weights"] == "cold") for r in _read(name)]


@dataclass(frozen=True)
class SparseShape:
    """A linear layer whose weight has zero blocks; goals are (target, floor)."""

    layer: str
    m: int
    k: int
    n: int
    block: tuple
    zeros: int  # %
    repeat: int
    dense_goal: tuple
    peer_goal: tuple

    def __str__(self):
        return f"M={self.m} K={self.k} N={self.n} {self.block[0]}x{self.block[1]} {self.zeros}%"


def read_sparse(name):
    """[SparseShape] of shapes/<name>.csv."""
    return [
        SparseShape(
            r["layer"], int(r["M"]), int(r["K"]), int(r["N"]), _sizes(r["block"]),
            int(r["zeros"]), int(r["repeat"]), (_number(r["target"]), _number(r["floor"])),
            (_number(r["peer_target"]), _number(r["peer_floor"])),
        )
        for r in _read(name)
    ]  # fmt: skip


@dataclass(frozen=True)
class BetweenShape:
    """A tensor of an operator between two layers."""

    op: str
    layer: str
    sizes: tuple
    repeat: int
    layout: str  # nhwc, nchw, rows

    def __str__(self):
        return f"{self.op}, {self.layer} {'x'.join(map(str, self.sizes))} {self.layout}"


def read_between(name):
    """[BetweenShape] of shapes/<name>.csv."""
    return [
        BetweenShape(row["op"], row["layer"], _sizes(row["sizes"]), int(row["repeat"]), row["layout"])
        for row in _read(name)
    ]


def _sizes(text):
    """'8x128' as (8, 128)."""
    return tuple(map(int, text.split("x")))


def _number(text):
    """A float, None of an empty cell."""
    return float(text) if text else None


def _read(name):
    with open(FOLDER / f"{name}.csv", newline="") as file:
        lines = [line for line in file if line.strip() and not line.startswith("#")]
    return list(csv.DictReader(lines))
