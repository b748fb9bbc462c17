"""How much CPU others used while we measured, and waiting until they do not.

A thread pool whose worker is pushed off its CPU waits for it at every barrier:
one busy neighbour can cost 10x, and not the same for every candidate. So each
row states the foreign load, and a row measured under load is measured again.
The choice looks at the load only, never at the result.
"""

import os
import time
from pathlib import Path

NOISY_CPUS = 0.15  # CPUs' worth of foreign work, beyond the CPUs that we leave free, that disturbs a row
_TICK = os.sysconf("SC_CLK_TCK")


def _busy_seconds():
    """CPU seconds of everybody so far, stolen time included; None where /proc/stat is absent."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / _TICK


def _own_seconds():
    times = os.times()
    return times.user + times.system


def limit(threads):
    """Foreign CPUs above which a row with `threads` threads is noisy: free CPUs may be used."""
    return max(0, len(os.sched_getaffinity(0)) - threads) + NOISY_CPUS


class ForeignLoad:
    """`with ForeignLoad() as load: ...`, then `load.cpus`: mean CPUs used by others."""

    cpus = None

    def __enter__(self):
        self._start = time.perf_counter(), _busy_seconds(), _own_seconds()
        return self

    def __exit__(self, *_):
        elapsed, busy = time.perf_counter() - self._start[0], _busy_seconds()
        if busy is not None and elapsed > 0:
            foreign = (busy - self._start[1]) - (_own_seconds() - self._start[2])
            self.cpus = max(0.0, foreign / elapsed)


def wait(limit_s, threads, sleep_s=0.5):
    """Sleep until others leave `threads` CPUs alone, at most `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        with ForeignLoad() as load:
            time.sleep(sleep_s)
        if load.cpus is None or load.cpus < limit(threads):
            return
