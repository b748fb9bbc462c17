"""Interleaved timing of several candidates in one process.

One round runs every candidate once (ABC, then CBA, then ABC ...), so that a
slow second of the machine hits all of them, and a ratio is taken inside each
round before the median over rounds is.
"""

import itertools
import statistics
import time
from dataclasses import dataclass, field

from benchmarks.harness import quiet

# An OpenMP worker spins after its last region: 300 000 pauses, 16 ms where a pause takes 140 cycles.
SETTLE_S = 0.02
WARM_S = 0.02


@dataclass
class Timing:
    """Seconds per call of one candidate, one entry per round."""

    seconds: list = field(default_factory=list)
    calls_per_round: int = 1

    @property
    def median(self):
        return statistics.median(self.seconds)

    @property
    def p10(self):
        return percentile(self.seconds, 10)

    @property
    def p90(self):
        return percentile(self.seconds, 90)

    def as_dict(self):
        return {
            "median_us": self.median * 1e6,
            "p10_us": self.p10 * 1e6,
            "p90_us": self.p90 * 1e6,
            "rounds": len(self.seconds),
            "calls_per_round": self.calls_per_round,
        }


def percentile(values, percent):
    """Linear interpolation between the two nearest ranks (as numpy's default)."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("percentile: values must not be empty")
    position = (len(ordered) - 1) * percent / 100
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def speedup(timings, ours, peer):
    """How many times faster `ours` is: median over rounds of peer / ours."""
    pairs = zip(timings[peer].seconds, timings[ours].seconds, strict=True)
    return statistics.median(theirs / mine for theirs, mine in pairs)


def best_of(timings, names):
    """The name with the smallest median among those measured, or None."""
    present = [n for n in names if n in timings]
    return min(present, key=lambda n: timings[n].median) if present else None


def _timed(call, repeats, clock):
    start = clock()
    for _ in itertools.repeat(None, repeats):
        call()
    return (clock() - start) / repeats


def _calls_per_round(call, sample_s, clock):
    """Warm up (packing, JIT, caches) and find how many calls fill a sample."""
    for _ in range(3):
        call()
    repeats = 1
    while True:
        seconds = _timed(call, repeats, clock)
        if seconds * repeats >= sample_s or repeats >= 1 << 16:
            break
        repeats = max(repeats * 2, min(int(sample_s / max(seconds, 1e-9)), 1 << 16))
    return max(1, min(repeats, round(sample_s / max(seconds, 1e-9))))


def _run_for(seconds, call, clock):
    """At least one call, and calls until so much time is over."""
    end = clock() + seconds
    call()
    while clock() < end:
        call()


def measure(
    candidates, *, min_rounds=30, budget_s=3.0, hard_s=None, sample_s=1e-3, warm=False,
    clock=time.perf_counter, pause=time.sleep,
):  # fmt: skip
    """Time `candidates` (name -> call without arguments), interleaved.

    Runs at least `min_rounds` rounds and goes on until `budget_s` is used. Only
    when `hard_s` (default 4 budgets) would be passed does it stop below
    `min_rounds`; the number of rounds is part of every result. With `warm`, each
    sample comes after SETTLE_S of silence, in which the thread pool of the candidate
    before stops spinning, and after WARM_S of untimed calls, so that the candidate's
    own threads are awake on CPUs of their own and its weights in the caches.

    Returns:
        name -> Timing, in the order of `candidates`.
    """
    if not candidates:
        raise ValueError("measure: candidates must not be empty")
    hard_s = hard_s if hard_s is not None else 4 * budget_s
    timings = {
        name: Timing(calls_per_round=_calls_per_round(call, sample_s, clock))
        for name, call in candidates.items()
    }
    order = list(candidates)
    start = clock()
    for done in itertools.count():
        elapsed = clock() - start
        enough = elapsed >= budget_s if done >= min_rounds else elapsed >= hard_s and done >= 5
        if enough:
            return timings
        # Alternating direction: nobody always runs after the same neighbour.
        for name in order if done % 2 == 0 else reversed(order):
            timing = timings[name]
            if warm:
                pause(SETTLE_S)
                _run_for(WARM_S, candidates[name], clock)
            timing.seconds.append(_timed(candidates[name], timing.calls_per_round, clock))


def measure_quietly(candidates, *, threads, attempts=3, wait_s=0.0, **options):
    """`measure`, repeated while others use the machine; the quietest attempt.

    Args:
        threads: how many threads the candidates use.
        attempts: how often at most.
        wait_s: seconds to wait for a quiet machine before each attempt.

    Returns:
        (timings, mean foreign CPUs during them or None)
    """
    best = None
    for _ in range(attempts):
        quiet.wait(wait_s, threads)
        with quiet.ForeignLoad() as load:
            timings = measure(candidates, **options)
        if best is None or (load.cpus or 0) < (best[1] or 0):
            best = timings, load.cpus
        if load.cpus is None or load.cpus < quiet.limit(threads):
            break
    return best
