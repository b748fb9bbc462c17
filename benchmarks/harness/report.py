"""One benchmark's result: JSON for machines, a markdown table for readers.

JSON: {"format": 1, "benchmark", "environment", "roof", "missing", "rows"}; a row
has an "id" that stays the same between runs, so that two files can be compared.
"""

import json
import math
import sys
from pathlib import Path

from benchmarks.harness import environment, quiet
from benchmarks.harness.goals import INFO, MISSED

RESULTS = Path(__file__).resolve().parents[1] / "results"  # git-ignored


class Report:
    def __init__(self, benchmark, roof=None, layout=None):
        self.benchmark, self.layout = benchmark, layout or timing_table
        self.environment = environment.record()
        self.roof = roof or {}
        self.missing = {}
        self.rows = []

    def add(self, id, timings, goals=(), failures=(), foreign_cpus=None, **facts):
        """One row. `failures` are wrong answers: they miss the floor whatever the time was.

        foreign_cpus: what others used meanwhile (harness.quiet); above the limit the row is marked.
        """
        row = {
            "id": id,
            "foreign_cpus": foreign_cpus,
            "noisy": foreign_cpus is not None and foreign_cpus >= quiet.limit(self.environment["threads"]),
            **facts,
            "timings": {name: t.as_dict() for name, t in timings.items()},
            "goals": [g.as_dict() for g in goals],
            "failures": list(failures),
        }
        self.rows.append(row)
        return row

    def missed(self):
        """What makes the exit status non-zero, one line each."""
        lines = []
        for row in self.rows:
            lines += [f"{row['id']}: {text}" for text in row["failures"]]
            lines += [
                f"{label(row)}: {g['name']} {figure(g['got'], g['unit'])}, "
                f"floor {figure(g['floor'], g['unit'])}"
                for g in row["goals"]
                if g["verdict"] == MISSED
            ]
        return lines

    def as_dict(self):
        return {
            "format": 1,
            "benchmark": self.benchmark,
            "environment": self.environment,
            "roof": self.roof,
            "missing": self.missing,
            "rows": self.rows,
        }

    def markdown(self):
        env = self.environment
        lines = [f"# {self.benchmark}", "", f"`{env['command']}`; {environment.describe(env)}", ""]
        if self.roof:
            lines += [roof_line(self.roof), ""]
        for name, reason in self.missing.items():
            lines.append(f"- missing: {name}: {reason}")
        if self.missing:
            lines.append("")
        parts = self.layout(self.rows) + [""] + goal_table(self.rows) + ran_table(self.rows)
        return "\n".join(lines + parts) + "\n"

    def write(self, folder=None):
        """Writes <benchmark>[-<isa cap>].json and .md; returns the markdown's path."""
        folder = Path(folder or RESULTS)
        folder.mkdir(parents=True, exist_ok=True)
        cap = self.environment["environment"].get("TORCH_AO_EXT_MAX_ISA")
        threads = self.environment["threads"]
        stem = self.benchmark + (f"-{cap}" if cap else "") + ("" if threads == 2 else f"-{threads}t")
        (folder / f"{stem}.json").write_text(json.dumps(_json_safe(self.as_dict()), indent=1) + "\n")
        path = folder / f"{stem}.md"
        path.write_text(self.markdown())
        return path


def _json_safe(value):
    """JSON has no inf and NaN: they become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {k: _json_safe(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_json_safe(v) for v in value]
    return value


def duration(microseconds):
    if microseconds >= 10_000:
        return f"{microseconds / 1000:.1f} ms"
    return f"{microseconds:.0f} us" if microseconds >= 100 else f"{microseconds:.2f} us"


def figure(value, unit=""):
    if value is None:
        return "-"
    digits = 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}{unit if unit in ('', 'x', '%') else ' ' + unit}"


def roof_line(roof):
    gops = ", ".join(f"{k} {'/'.join(f'{v:.0f}' for v in t.values())}" for k, t in roof["int8_gops"].items())
    reads = ", ".join(f"{k} {'/'.join(f'{v:.0f}' for v in t.values())}" for k, t in roof["read_gbps"].items())
    text = f"Roof, 1/2 threads: int8 GOPS {gops}; read GB/s {reads}"
    if "random_mrows" in roof:  # results from before have none
        rows = "/".join(f"{v:.0f}" for v in roof["random_mrows"].values())
        joins = ", ".join(f"{name} {us:.2f}" for name, us in roof["fork_join_us"].items())
        text += f"; random rows of 64 B, M/s {rows}; fork and join, us: {joins}"
    return text + "."


def label(row):
    return row["id"] + (f" (noisy: others used {row['foreign_cpus']:.1f} CPUs)" if row["noisy"] else "")


def table(head, rows):
    def line(cells):
        return "| " + " | ".join(cells) + " |"

    return [line(head), line(["---"] * len(head)), *(line([str(c) for c in r]) for r in rows)]


def _cell(row, name):
    """Median, p10 in brackets; SQNR after it when measured."""
    t, db = row["timings"].get(name), row.get("sqnr_db", {}).get(name)
    text = f"{duration(t['median_us'])} ({duration(t['p10_us'])})" if t else ""
    return text + (f", {db:.1f} dB" if text and db is not None else "")


def _names(rows):
    return list(dict.fromkeys(name for row in rows for name in row["timings"]))


def timing_table(rows):
    """One line a row, candidates across."""
    names = _names(rows)
    body = [[label(row), *(_cell(row, name) for name in names)] for row in rows]
    return table(["row", *names], body) if names else []


def candidate_table(rows):
    """One line a candidate, rows across: for many candidates."""
    names = _names(rows)
    body = [[name, *(_cell(row, name) for row in rows)] for name in names]
    return table(["candidate", *map(label, rows)], body) if names else []


def ran_table(rows):
    """What candidates said that they run, and the seconds of their building and first call, where asked."""
    body = [
        [row["id"], name, text, _seconds(row, "build_s", name), _seconds(row, "first_call_s", name)]
        for row in rows
        for name, text in row.get("ran", {}).items()
    ]
    return ["", *table(["row", "candidate", "ran", "built in", "first call"], body)] if body else []


def _seconds(row, key, name):
    value = row.get(key, {}).get(name)
    return "" if value is None else duration(value * 1e6) if value < 1 else f"{value:.1f} s"


def goal_table(rows):
    body = [
        [
            row["id"],
            g["name"],
            figure(g["target"], g["unit"]),
            figure(g["floor"], g["unit"]),
            figure(g["got"], g["unit"]),
            g["verdict"] + (f" ({g['note']})" if g["note"] else ""),
        ]
        for row in rows
        for g in row["goals"]
    ]
    body += [[row["id"], "answer", "", "correct", text, MISSED] for row in rows for text in row["failures"]]
    return table(["row", "figure", "target", "floor", "got", "verdict"], body) if body else []


def print_row(row):
    """One row on the terminal, as it is measured."""
    print(label(row))
    for name, t in row["timings"].items():
        db = row.get("sqnr_db", {}).get(name)
        print(
            f"  {name:<24} {duration(t['median_us']):>10}  p10 {duration(t['p10_us']):>10}"
            + (f"  SQNR {db:5.1f} dB" if db is not None else "")
        )
    for g in row["goals"]:
        print(
            f"    {g['name']:<32} target {figure(g['target'], g['unit']):>6}"
            f"  floor {figure(g['floor'], g['unit']):>7}  got {figure(g['got'], g['unit']):>8}"
            f"  {g['verdict']}"
        )
    for text in row["failures"]:
        print(f"    WRONG: {text}")
    sys.stdout.flush()


def conclude(report, folder=None, label=None):
    """Write as <benchmark>[-<label>], print where, list what was missed; the process' exit status."""
    report.benchmark += f"-{label}" if label else ""
    path = report.write(folder)
    print(f"\nwritten: {path} and {path.with_suffix('.json').name}")
    missed = report.missed()
    judged = sum(g["verdict"] != INFO for row in report.rows for g in row["goals"])
    if missed:
        print(f"{len(missed)} of {judged} below the floor:", *missed, sep="\n  ")
    else:
        print(f"no floor missed ({judged} judged)")
    return 1 if missed else 0
