"""Which checks raise in which test: one run of the tests over the library of mutants.

Everything runs in forked children of one process that has loaded torch and the library, with one
thread and a limit of memory.
"""

import gc
import hashlib
import json
import mmap
import os
import resource
import signal
import struct
import sys
import time

from mutant_library import LIBRARY, ROOT, WORK

SWITCH = WORK / "switch.bin"
MOST_FIRED = 4096  # as in check_sites.cpp
TESTS = ["test/ops", "test/quantization/test_fake_quantize.py",
         "test/quantization/test_histogram_observer.py"]  # fmt: skip
# Valid calls, in which no check raises, calls of another library (test_memory.py), and those of
# hostile_calls.py, which are steps of their own.
LEFT_OUT = ["test_concurrency.py", "test_conv_engines.py", "test_guard_pages.py", "test_hostile_calls.py",
            "test_isa_levels.py", "test_memory.py", "test_opcheck.py", "test_runtimes.py"]  # fmt: skip
HOSTILE_CALLS = 1000  # of one operator
FILE_SECONDS = 600
MEMORY = 6 << 30  # above what the process has

# Steps are node ids of pytest, or this and an operator's name.
HOSTILE = "hostile calls of "


class Switch:
    """The words of check_sites.cpp, shared with all children."""

    def __init__(self):
        SWITCH.write_bytes(bytes(4 * (2 + MOST_FIRED)))
        with open(SWITCH, "r+b") as file:
            self.words = mmap.mmap(file.fileno(), 0)
        os.environ["TAE_MUTANTS"] = str(SWITCH)

    def delete(self, number):
        struct.pack_into("I", self.words, 0, number)

    def clear(self):
        struct.pack_into("I", self.words, 4, 0)

    def fired(self):
        count = min(struct.unpack_from("I", self.words, 4)[0], MOST_FIRED)
        return sorted(set(struct.unpack_from(f"{count}I", self.words, 8)))


def load():
    """Everything that children need, once."""
    switch = Switch()
    os.environ["TORCH_AO_EXT_LIBRARY"] = str(LIBRARY)
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # a second of each child, and no test needs them
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT / "test"), str(ROOT / "test" / "ops")]
    import torch

    torch.set_num_threads(1)
    import hostile_calls
    import pytest  # noqa: F401
    import torch._dynamo  # noqa: F401  (seconds, which most children would spend again)

    hostile_calls.warm_up(hostile_calls.Calls(1))
    gc.collect()
    gc.freeze()  # pytest collects garbage at its end
    return switch


def in_child(work, seconds):
    """'passed' when work() returned true in a forked child; else 'failed', 'crash' or 'hang'."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        with open(WORK / "output.txt", "w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        code = 1
        try:
            with open("/proc/self/statm") as statm:
                most = int(statm.read().split()[0]) * mmap.PAGESIZE + MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            code = 0 if work() else 1
        finally:
            sys.stdout.flush()
            os._exit(code)
    end = time.monotonic() + seconds
    how = "hang"
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            how = "crash" if os.WIFSIGNALED(status) else "failed" if status else "passed"
            break
        time.sleep(0.01)
    try:
        os.killpg(pid, signal.SIGKILL)  # and what it started
    except ProcessLookupError:
        pass
    if how == "hang":
        os.waitpid(pid, 0)
    return how


def pytest_passes(nodes, *plugins):
    import pytest

    return pytest.main(["-q", "-x", "--tb=line", "-p", "no:cacheprovider", *nodes], plugins=plugins) == 0


def hostile_passes(name):
    """Calls of one operator from a fixed seed, all in their rules."""
    import hostile_calls

    calls = hostile_calls.Calls(1, name)
    hostile_calls.BLOCK, hostile_calls.HANG_SECONDS = HOSTILE_CALLS // 4, 10
    return not hostile_calls.run(calls, "", HOSTILE_CALLS, 1, most_bad=1)[1]


class Recorder:
    """A plugin of pytest: a line for each test that passes, with its seconds and what fired."""

    def __init__(self, switch, file):
        self.switch, self.file = switch, file

    def pytest_runtest_logstart(self, nodeid, location):
        self.switch.clear()
        self.begin, self.passed = time.monotonic(), False

    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            self.passed = report.passed

    def pytest_runtest_logfinish(self, nodeid, location):
        if self.passed:
            write(self.file, nodeid, time.monotonic() - self.begin, self.switch.fired())


def write(file, step, seconds, fired):
    with open(file, "a") as out:
        out.write(json.dumps([step, round(seconds, 3), fired]) + "\n")


def test_files():
    found = set()
    for name in TESTS:
        path = ROOT / name
        found.update(path.rglob("test_*.py") if path.is_dir() else [path])
    return sorted(p for p in found if p.name not in LEFT_OUT)


def digest(*parts):
    state = hashlib.sha256()
    for part in parts:
        state.update(part if isinstance(part, bytes) else part.read_bytes())
    return state.hexdigest()[:24]


def record(switch, end):
    """{step: (seconds, fired checks)}, and whether all was recorded before `end`.

    A test file is run again when it, a helper of the tests or the library has changed.
    """
    import hostile_calls

    helpers = [p for p in sorted((ROOT / "test").rglob("*.py")) if not p.name.startswith("test_")]
    state = digest(LIBRARY, *helpers).encode()
    folder = WORK / "fired"
    folder.mkdir(exist_ok=True)
    jobs = [(p, folder / digest(state, str(p).encode(), p)) for p in test_files()]
    jobs += [(n, folder / digest(state, n.encode())) for n in sorted(hostile_calls.table())]
    for old in set(folder.iterdir()) - {file for _, file in jobs}:
        old.unlink()
    for what, file in jobs:
        if file.exists():
            continue
        if time.monotonic() > end:
            return {}, False
        unfinished = WORK / "unfinished.txt"
        unfinished.write_text("")
        begin = time.monotonic()
        if isinstance(what, str):
            switch.clear()
            how = in_child(lambda what=what: hostile_passes(what), FILE_SECONDS)
            if how == "passed":
                write(unfinished, HOSTILE + what, time.monotonic() - begin, switch.fired())
        else:
            recorder = Recorder(switch, unfinished)
            nodes = [str(what.relative_to(ROOT)), "--maxfail=100000"]
            how = in_child(lambda n=nodes, r=recorder: pytest_passes(n, r), FILE_SECONDS)
        name = what if isinstance(what, str) else what.relative_to(ROOT)
        print(f"recorded {name}: {how} ({time.monotonic() - begin:.0f} s)", flush=True)
        unfinished.rename(file)
    lines = [json.loads(line) for _, file in jobs for line in file.read_text().splitlines()]
    return {step: (seconds, fired) for step, seconds, fired in lines}, True
