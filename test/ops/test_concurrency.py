"""Threads, forks, signals, process exits and a changed float environment, for every op.

The race of a weight's first use is in test_weight_races.py.
"""

import ctypes
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from op_cases import random_int
from op_samples import all_samples, overload

ops = torch.ops.torch_ao
DATA_OPS = [n for n in all_samples() if not n.startswith("_")]


def as_tuple(result):
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(as_tuple(a), as_tuple(b), strict=True))


def expected_calls():
    """(op, arguments, result) of every sample."""
    return [
        (overload(name), call, overload(name)(*call)) for name in DATA_OPS for call in all_samples()[name]
    ]


def test_mixed_calls_while_the_number_of_threads_changes():
    """32 threads x all ops; one thread flips set_num_threads 1..4."""
    threads, rounds = 32, 400
    calls = expected_calls()
    large = torch.randn(64, 1024)  # enough for a parallel region
    weight, scale = random_int(torch.int8, 256, 1024), torch.rand(256) + 0.01
    expected = ops.linear_dynamic(large, weight, scale)
    calls += [(ops.linear_dynamic.default, (large, weight, scale), expected)] * 20
    before, stop, failures = torch.get_num_threads(), threading.Event(), []

    def flip():
        while not stop.is_set():
            for n in (1, 2, 3, 4):
                torch.set_num_threads(n)

    def work(seed):
        rng = random.Random(seed)
        try:
            for _ in range(rounds):
                op, call, expected = rng.choice(calls)
                if not equal(op(*call), expected):
                    failures.append(f"{op}: another result")
        except BaseException as error:
            failures.append(repr(error))

    flipper = threading.Thread(target=flip)
    workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for t in (flipper, *workers):
        t.start()
    for t in workers:
        t.join(timeout=300)
    stop.set()
    flipper.join()
    torch.set_num_threads(before)
    assert not any(t.is_alive() for t in workers)
    assert not failures, failures[:5]
    print(f"mixed calls: {threads} threads x {rounds}: 0 wrong")


FORKS = """
import os, sys, time, random
sys.path[:0] = [TESTS, ROOT]
import torch, torch_ao_ext
from test_concurrency import expected_calls, as_tuple
torch.set_num_threads(2)
calls = expected_calls()
x, w, s = torch.randn(256, 512), torch.randint(-128, 128, (512, 512), dtype=torch.int8), torch.rand(512)
linear = torch.ops.torch_ao.linear_dynamic.default
packed, unpacked = (linear, (x, w, s), linear(x, w, s)), (linear, (x, w.clone(), s), linear(x, w, s))
hung = bad = 0
for i in range(50):
    pid = os.fork()
    if pid == 0:
        rng = random.Random(i)
        # numpy compares: torch's own parallel regions would hang here.
        for op, call, expected in [*rng.sample(calls, 20), packed, unpacked]:
            for a, b in zip(as_tuple(op(*call)), as_tuple(expected)):
                a, b = a.float().contiguous().numpy(), b.float().contiguous().numpy()
                if not ((a == b) | ((a != a) & (b != b))).all(): os._exit(1)
        os._exit(0)
    end = time.monotonic() + 10
    while (done := os.waitpid(pid, os.WNOHANG))[0] == 0 and time.monotonic() < end: time.sleep(0.002)
    if done[0] == 0:
        os.kill(pid, 9); os.waitpid(pid, 0); hung += 1
    elif done[1] != 0:
        bad += 1
print(f"forks after use by 2 threads: 50, {hung} hung, {bad} wrong")
sys.exit(hung + bad)
"""


def python(code, timeout=120, **variables):
    tests = os.path.dirname(os.path.abspath(__file__))
    root = os.path.dirname(os.path.dirname(tests))
    code = code.replace("TESTS", repr(tests)).replace("ROOT", repr(root))
    env = {**os.environ, "PYTHONPATH": root, **variables}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout)


def test_fifty_forks_after_parallel_use():
    done = python(FORKS, timeout=600)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == "forks after use by 2 threads: 50, 0 hung, 0 wrong"


ORDERS = [
    "import numpy, torch, torch_ao_ext",
    "import torch, torch_ao_ext, numpy",
    "import torch, numpy; import torch_ao_ext",
    "import concurrent.futures, multiprocessing, numpy, torch; import torch_ao_ext",
    "import torch; torch.ones(512, 512) @ torch.ones(512, 512); import torch_ao_ext",
]
EXIT = """
{order}
import threading
w, s = torch.ones(64, 256, dtype=torch.int8), torch.ones(64)
x = torch.randn(64, 256)
def use():
    for _ in range(5): torch.ops.torch_ao.linear_dynamic(x, w, s)
threads = [threading.Thread(target=use) for _ in range(4)]
for t in threads: t.start()
use()
for t in threads: t.join()
with open("/proc/self/maps") as maps:
    runtimes = {line.split()[-1] for line in maps if "libgomp" in line or "libomp" in line or "iomp" in line}
assert len(runtimes) == 1, runtimes
"""


@pytest.mark.parametrize("order", ORDERS)
def test_import_orders_and_exits(order):
    """Exit code 0, no output, one OpenMP runtime."""
    done = python(EXIT.replace("{order}", order))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture(name="interruptible")
def _interruptible():
    """A shell starts its background jobs with SIGINT ignored, and Python leaves it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interrupt_during_a_long_call():
    """SIGINT is seen when the call returns; the next call is right and nothing stays locked."""
    weight, scale = random_int(torch.int8, 1024, 1024), torch.rand(1024) + 0.01
    x = torch.randn(4096, 1024)
    expected = ops.linear_dynamic(x, weight, scale)
    seen = 0
    for _ in range(10):
        timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT))
        fresh = weight.clone()
        timer.start()
        try:
            while True:
                ops.linear_dynamic(x, fresh, scale)
        except KeyboardInterrupt:
            seen += 1
        timer.join()
        assert torch.equal(ops.linear_dynamic(x, fresh, scale), expected)
    assert seen == 10


LIBM = ctypes.CDLL("libm.so.6")


@pytest.fixture(params=["up", "down", "zero", "flush"])
def float_environment(request):
    if request.param == "flush":
        assert torch.set_flush_denormal(True)
    else:
        assert LIBM.fesetround({"up": 0x800, "down": 0x400, "zero": 0xC00}[request.param]) == 0
    yield request.param
    LIBM.fesetround(0)
    torch.set_flush_denormal(False)


@pytest.fixture(name="plain_results")
def _plain_results():
    return expected_calls()


def test_float_environment_of_another_library(plain_results, float_environment):
    """Another rounding mode or flush-to-zero in the calling thread changes no bit of any op."""
    torch.set_num_threads(1)
    wrong = []
    for op, call, expected in plain_results:
        got = op(*[a.clone() if isinstance(a, torch.Tensor) else a for a in call])  # packs again, too
        mode = LIBM.fegetround()
        if not equal(got, expected):
            wrong.append(str(op))
        assert float_environment == "flush" or mode != 0, "the caller's mode was lost"
    assert not wrong, sorted(set(wrong))


def test_a_packing_does_not_stop_calls_on_other_weights():
    big, small = random_int(torch.int8, 4096, 4096), random_int(torch.int8, 8, 16)
    scale, x = torch.ones(1), torch.randn(1, 16)
    ops.linear_dynamic(x, small, scale)
    packer = threading.Thread(target=lambda: ops.linear_dynamic(torch.randn(1, 4096), big, scale))
    packer.start()
    begin = time.monotonic()
    for _ in range(100):
        ops.linear_dynamic(x, small, scale)
    spent = time.monotonic() - begin
    packer.join()
    assert spent < 5
