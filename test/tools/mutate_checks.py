"""Deletes each argument check of csrc in turn; some test must notice.

    make mutate-checks [FILES='csrc/ops/linear.cpp ...'] [MUTATE_SECONDS=600]

What a check is: check_sites.py. One library holds all mutants (mutant_library.py): a word that all
processes of a test share names the check that does nothing. The tests run once and note the checks
that raise in each (fired_checks.py). A deleted check can only be noticed where it raised: of
these tests the quickest run first, in a forked child that may crash or hang, which is noticing,
too. What notices must pass alone with every check in place.

Results are kept in build/mutants by the text of the check and its file, so a run goes on where it
stopped; --seconds ends it after that time; remove the folder to begin anew. Checks that no call
reaches are listed in unreachable_checks.csv with the reason. Ends in a plain count line; exit code
1 with survivors, 2 with mutants that still wait.
"""

import argparse
import csv
import json
import sys
import time
from collections import Counter
from pathlib import Path

from fired_checks import HOSTILE, digest, hostile_passes, in_child, load, pytest_passes, record
from mutant_library import LIBRARY, ROOT, WORK, build

UNREACHABLE = Path(__file__).with_name("unreachable_checks.csv")
FIRST_SECONDS, FIRST_TESTS = 1.0, 6  # of the first child
MOST_SECONDS, MOST_TESTS = 30.0, 60  # of all tests for one check
MOST_HOSTILE = 8


def batches_of(number, fired):
    """Lists of steps in which the check raised, the quickest first."""
    steps = sorted((seconds, step) for step, (seconds, found) in fired.items() if number in found)
    tests = [s for s in steps if not s[1].startswith(HOSTILE)]
    first, rest, total = [], [], 0.0
    for seconds, step in tests[:MOST_TESTS]:
        total += seconds
        if total > MOST_SECONDS and rest:
            break
        early = not first or (total <= FIRST_SECONDS and len(first) < FIRST_TESTS)
        (first if early else rest).append((seconds, step))
    calls = [[s] for s in steps if s[1].startswith(HOSTILE)]
    return [b for b in (first, rest, *calls[:MOST_HOSTILE]) if b]


def run(batch):
    """How a child ends that makes all steps of a batch."""
    steps = [step for _, step in batch]
    seconds = 20 + 10 * sum(seconds for seconds, _ in batch)
    if steps[0].startswith(HOSTILE):
        return in_child(lambda: hostile_passes(steps[0].removeprefix(HOSTILE)), seconds)
    return in_child(lambda: pytest_passes(steps), seconds)


class Kills:
    """What each deleted check was noticed by, in a file that a next run reads."""

    def __init__(self, switch, fired):
        self.switch, self.fired = switch, fired
        self.tests = digest(LIBRARY, json.dumps(sorted(fired.items())).encode())
        self.file = WORK / "results.json"
        self.found = json.loads(self.file.read_text()) if self.file.exists() else {}

    def put(self, key, value):
        self.found[key] = value
        self.file.write_text(json.dumps(self.found))

    def key(self, site):
        return f"{site.number} {digest(ROOT / site.path)}"

    def how(self, site):
        """'killed', 'survived' these tests, or 'waiting'."""
        found = self.found.get(self.key(site))
        if found is None or (found["by"] is None and found["tests"] != self.tests):
            return "waiting"
        return "killed" if found["by"] else "survived"

    def by_hostile_calls(self, site):
        return HOSTILE in self.found[self.key(site)]["by"]

    def passes_alone(self, batch):
        """With every check in place, as the batch is run with one deleted."""
        key = digest(LIBRARY, json.dumps([step for _, step in batch]).encode())
        if key not in self.found:
            self.put(key, run(batch) == "passed")
        return self.found[key]

    def kill(self, site):
        """Finds out about one site; what noticed that it was deleted, or None."""
        by = None
        for batch in batches_of(site.number, self.fired):
            self.switch.delete(site.number)
            try:
                how = run(batch)
            finally:
                self.switch.delete(0)
            if how != "passed" and self.passes_alone(batch):
                by = f"{how}: {batch[0][1]}" + f" and {len(batch) - 1} more" * (len(batch) > 1)
                break
        self.put(self.key(site), {"by": by, "tests": self.tests})
        return by


def unreachable(sites):
    """{(path, text)} of the table; each must be a site."""
    with open(UNREACHABLE, newline="") as file:
        rows = {(r["path"], r["check"]) for r in csv.DictReader(file)}
    missing = rows - {(s.path, s.text) for s in sites}
    if missing:
        sys.exit(f"{UNREACHABLE.name}: no such check: {sorted(missing)}")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="*", help="sources of csrc; default all")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    WORK.mkdir(parents=True, exist_ok=True)
    sites = build()
    listed = unreachable(sites)
    switch = load()
    fired, complete = record(switch, end)
    if not complete:
        print("mutated checks: the tests are not recorded yet; run again")
        return 2
    sites = [s for s in sites if not options.files or s.path in options.files]
    kills = Kills(switch, fired)
    counts, lines = Counter(), []
    for site in sites:
        if kills.how(site) == "waiting" and time.monotonic() < end:
            begin = time.monotonic()
            by = kills.kill(site)
            print(f"{site}: {site.head}: {by or 'SURVIVED'} ({time.monotonic() - begin:.1f} s)", flush=True)
        how = kills.how(site)
        if (site.path, site.text) in listed:
            if how == "killed":
                lines.append(f"{site}: listed as unreachable, but noticed")
                counts["wrongly listed"] += 1
                continue
            how = "unreachable" if how == "survived" else how
        if how == "survived":
            raised = sum(site.number in found for _, found in fired.values())
            lines.append(f"{site}: survived, raised in {raised} steps: {site.text[:160]}")
        counts[how] += 1
        counts["alone"] += how == "killed" and kills.by_hostile_calls(site)
    print(*lines, sep="\n")
    words = ("survived", "unreachable", "wrongly listed", "waiting")
    killed = f"{counts['killed']} killed ({counts['alone']} by hostile calls alone)"
    print(f"mutated checks: {len(sites)}: {killed}, " + ", ".join(f"{counts[w]} {w}" for w in words))
    return 1 if counts["survived"] or counts["wrongly listed"] else 2 if counts["waiting"] else 0


if __name__ == "__main__":
    sys.exit(main())
