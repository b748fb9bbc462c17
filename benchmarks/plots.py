"""Plots of result files: for each row, the speed of every candidate as a multiple of the first one's.

    python -m benchmarks.plots [RESULT.json ...]

Without arguments, of all files in benchmarks/results; each gets a .png beside it. Needs matplotlib.
"""

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import report  # noqa: E402

COLUMNS, HEIGHT = 3, 0.28  # panels side by side; inches a bar
OURS, OTHER, FLOAT = "#1f77b4", "#b0b0b0", "#d9c17c"


def speeds(row):
    """{candidate: speed against the first one's} of a row, both medians; empty without two candidates."""
    timings = row["timings"]
    if len(timings) < 2:
        return {}
    base = next(iter(timings.values()))["median_us"]
    return {name: base / t["median_us"] for name, t in timings.items()}


def colour(name):
    """Ours, other int8 and float stand apart."""
    if name.startswith("torch_ao_ext"):
        return OURS
    return FLOAT if name.startswith(("fp32", "bf16", "openvino f32", "openvino bf16")) else OTHER


def figure_of(result):
    """A matplotlib figure of one result, or None when no row compares candidates."""
    panels = {report.label(row): speeds(row) for row in result["rows"]}
    panels = {name: values for name, values in panels.items() if values}
    if not panels:
        return None
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    most = max(len(values) for values in panels.values())
    figure = Figure(figsize=(6 * columns, lines * (1 + HEIGHT * most)), layout="constrained")
    for axes in figure.subplots(lines, columns, squeeze=False).flat:
        if not panels:
            axes.set_axis_off()
            continue
        name = next(iter(panels))
        values = panels.pop(name)
        bars = axes.barh(list(values), list(values.values()), color=[colour(n) for n in values])
        axes.bar_label(bars, [f"{v:.2f}x" for v in values.values()], padding=2, fontsize=7)
        axes.invert_yaxis()
        axes.tick_params(labelsize=7)
        axes.set_title(name, fontsize=9)
    environment = result["environment"]
    figure.suptitle(f"{result['benchmark']}: speed, first candidate = 1; {environment['date']}", fontsize=10)
    return figure


def main(paths):
    """The command."""
    paths = [Path(path) for path in paths] or sorted(report.RESULTS.glob("*.json"))
    for path in paths:
        figure = figure_of(json.loads(path.read_text()))
        if figure is not None:
            figure.savefig(path.with_suffix(".png"), dpi=110)
            print(f"written: {path.with_suffix('.png')}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
