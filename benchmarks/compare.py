"""Two result files of one benchmark: what became slower, faster or less accurate.

    python -m benchmarks.compare OLD.json NEW.json [--against fp32] [--limit 5]

Times are compared as they are when both files come from the same CPU features and number of threads;
otherwise, and whenever days differ, `--against` divides each by another candidate's time of its own run.
Rows without times (sizes, memory, loading) are compared by their figures. Noisy rows are shown and not
judged. Exit status 1 when a time or figure became worse by more than the limit, when the SQNR fell by more
than 0.5 dB, or when a row, candidate or figure is gone.
"""

import argparse
import json
import math
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks.harness.report import duration, figure, table  # noqa: E402

SQNR_LIMIT_DB = 0.5
SLOWER, GONE, INACCURATE, WORSE = "SLOWER", "GONE", "LESS ACCURATE", "WORSE"
FASTER, BETTER, SAME, NOISY, NEW = "faster", "better", "", "noisy", "new"
BAD = (SLOWER, GONE, INACCURATE, WORSE)


def load(path):
    """A result file; SystemExit says what is wrong with it."""
    try:
        result = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise SystemExit(f"compare: {path}: {error}") from None
    if not isinstance(result, dict) or result.get("format") != 1 or not isinstance(result.get("rows"), list):
        raise SystemExit(f"compare: {path}: must be a result file of format 1")
    return result


def check_comparable(old, new, against):
    """SystemExit unless the two files can be compared."""
    if old["benchmark"] != new["benchmark"]:
        raise SystemExit(f"compare: must be of one benchmark, got {old['benchmark']} and {new['benchmark']}")
    for key in ("cpu_features", "threads"):
        a, b = (result["environment"].get(key) for result in (old, new))
        if a != b and (key == "threads" or against is None):
            raise SystemExit(f"compare: '{key}' must be equal (or use --against), got {a} and {b}")


def time_of(row, name, against):
    """Median in us, or the ratio to the reference's median; None when not measured."""
    timing, base = row["timings"].get(name), row["timings"].get(against) if against else None
    if timing is None or (against and base is None):
        return None
    return timing["median_us"] / (base["median_us"] if base else 1)


def figures(row):
    """{name: (value, text, whether larger is better)} of a row without times.

    Its goals, and its facts in seconds, bytes and things a second by the end of their name.
    """
    if row["timings"]:
        return {}
    found = {}
    for name, value in row.items():
        if isinstance(value, int | float) and name.endswith("_per_s"):
            found[name] = (value, f"{value:.1f}", True)
        elif isinstance(value, int | float) and name.endswith("_s"):
            found[name] = (value, duration(value * 1e6), False)
        elif isinstance(value, int | float) and name.endswith("_bytes"):
            found[name] = (value, figure(value / 2**20, "MB"), False)
    for goal in row.get("goals", []):
        value = float(goal["got"])
        found[goal["name"]] = (value, figure(value, goal["unit"]), goal["larger_is_better"])
    return found


def compare_figures(before, after, limit, noisy):
    """Lines of two rows without times."""
    lines, a, b = [], figures(before), figures(after)
    for name in dict.fromkeys([*a, *b]):
        if name not in a or name not in b:
            texts = (a.get(name, b.get(name))[1], "-") if name in a else ("-", b[name][1])
            lines.append([before["id"], name, *texts, "", GONE if name in a else NEW])
            continue
        (old, old_text, larger), (new, new_text, _) = a[name], b[name]
        word, change = SAME, ""
        if old > 0 and new > 0:  # a difference may be negative: shown, not judged
            change = f"{100 * (new / old - 1):+.1f} %"
            word = verdict(1 / old, 1 / new, limit, noisy) if larger else verdict(old, new, limit, noisy)
        word = {SLOWER: WORSE, FASTER: BETTER}.get(word, word)
        lines.append([before["id"], name, old_text, new_text, change, word])
    return lines


def verdict(before, after, limit, noisy):
    """One word on a pair of times."""
    if after is None:
        return GONE
    if before is None:
        return NEW
    if noisy:
        return NOISY
    change = after / before
    return SLOWER if change > 1 + limit else FASTER if change < 1 / (1 + limit) else SAME


def compare(old, new, against=None, limit=0.05):
    """Lines [row, candidate, old, new, change, verdict] of two results."""

    def shown(value):
        return "-" if value is None else f"{value:.3f}x" if against else duration(value)

    lines = []
    rows = {row["id"]: row for row in new["rows"]}
    empty = {"timings": {}, "noisy": False}
    for before in old["rows"]:
        after = rows.pop(before["id"], empty)
        noisy = before["noisy"] or after["noisy"]
        for name in dict.fromkeys([*before["timings"], *after["timings"]]):
            if name == against:
                continue
            a, b = time_of(before, name, against), time_of(after, name, against)
            if a is None and b is None:
                continue
            change = "" if a is None or b is None else f"{100 * (b / a - 1):+.1f} %"
            lines.append([before["id"], name, shown(a), shown(b), change, verdict(a, b, limit, noisy)])
        if against is None:
            lines += compare_figures(before, after, limit, noisy)
        for name, db in before.get("sqnr_db", {}).items():
            now = after.get("sqnr_db", {}).get(name)
            if now is not None and float(now) < float(db) - SQNR_LIMIT_DB:
                texts = (f"{float(value):.1f} dB" for value in (db, now))
                lines.append([before["id"], name, *texts, "", INACCURATE])
    for row in rows.values():
        for name in row["timings"]:
            if name != against:
                lines.append([row["id"], name, "-", shown(time_of(row, name, against)), "", NEW])
        if against is None:
            lines += compare_figures({"id": row["id"], "timings": {}}, row, limit, False)
    return lines


def main(arguments=None):
    """The command."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("old")
    p.add_argument("new")
    p.add_argument("--against", metavar="CANDIDATE", help="compare ratios to this candidate's time")
    p.add_argument("--limit", type=float, default=5.0, metavar="%", help="change that is reported")
    args = p.parse_args(arguments)
    if not math.isfinite(args.limit) or args.limit <= 0:
        p.error(f"argument --limit: must be a positive number, got {args.limit}")
    old, new = load(args.old), load(args.new)
    check_comparable(old, new, args.against)
    lines = compare(old, new, args.against, args.limit / 100)
    if not lines:
        raise SystemExit("compare: no row has the candidates to compare")
    print("\n".join(table(["row", "candidate", "old", "new", "change", "verdict"], lines)))
    found = {word: sum(line[-1] == word for line in lines) for word in (*BAD, FASTER, BETTER, NEW, NOISY)}
    summary = ", ".join(f"{count} {word.lower()}" for word, count in found.items() if count)
    print(f"\n{summary or 'no change'}")
    return int(any(line[-1] in BAD for line in lines))


if __name__ == "__main__":
    sys.exit(main())
