"""Hostile calls of every registered overload, judged one by one, in forked children.

    python test/ops/hostile_calls.py --calls 50000 [--seed N] [--engine E] [--op NAME]
    python test/ops/hostile_calls.py --seed N --replay I        one call, with its arguments

An overload needs nothing here but a valid call in op_samples.py; its mutations come from
the schema. A call may return or raise:
  returned  equals the reference engine on contiguous copies, equals the independent formula
            of op_reference.py where it has one, has the shape, dtype and strides of the fake
            kernel, shares no memory with an argument, left the arguments as they were;
  raised    torch_ao::op: argument 'x' must <rule>, got <value>, in the right exception type.
Errors of torch's own schema parser and dispatcher come before the library; they are counted.
"""

import argparse
import collections
import faulthandler
import mmap
import os
import random
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import torch_ao_ext  # noqa: E402, F401, I001  (registers the operators that the samples use)
import op_reference  # noqa: E402
from hostile_values import hostile  # noqa: E402
from op_samples import SETTINGS, all_samples, overload, registered  # noqa: E402
from op_shapes import MOST_ELEMENTS, is_tensor, readable  # noqa: E402
from rnn_samples import RNN_GATES  # noqa: E402

ops = torch.ops.torch_ao
BLOCK = 1000
HANG_SECONDS = 60
MEMORY = 2 << 30  # above what the process has

CONTRACT = re.compile(r"^torch_ao::(\w+): argument '(\w+)' must (?P<rule>.+), got (?P<got>.+)$", re.S)
NO_ENGINE = re.compile(r"^torch_ao::(\w+): no engine accepts this call:(\n  \w+: .+)+$", re.S)
# An island whose step is refused so.
OF_STEP = re.compile(r"^torch_ao::island: argument 'inputs' must [^']*, got [^']* step '[^']*' says: ")
PARSER = re.compile(
    r"^torch_ao::\w+\(\) (Expected a value|is missing value|expected at most)|"
    r"^Overflow when unpacking long|^unsupported scalarType$"  # the latter on the way to a fake kernel
)
READING = re.compile(r"^setStorage: sizes ")  # by torch, of an argument without memory
DISPATCHER = re.compile(r"^Could not run 'torch_ao::\w+|^torch_ao\.\w+\.\w+$")  # nested tensors


# Helpers of an op's fake kernel raise in its name.
SPEAKS_FOR = {"_check_island": "island", "_island_plans": "island"}


class Wrong(Exception):
    """A call that broke a rule."""


def from_schema(op):
    """A valid call of an op that takes no data: settings and reports."""
    plain = {"Tensor": torch.ones(3, 4, dtype=torch.int8), "str": "", "bool": False, "int": 0, "float": 1.0}
    return tuple(plain.get(str(a.type)) for a in op._schema.arguments)


def table():
    """name -> valid calls, data ops first."""
    settings = sorted(SETTINGS & registered())
    return {**all_samples(), **{name: [from_schema(overload(name))] for name in settings}}


# --- judging one call ---------------------------------------------------------


def snapshot(a):
    if isinstance(a, (list, tuple)):
        return [snapshot(v) for v in a]
    if not is_tensor(a) or not readable(a):
        return None
    return a.detach().clone(), None if a.is_inference() else a._version


def unchanged(a, before):
    if isinstance(a, (list, tuple)):
        return all(unchanged(v, b) for v, b in zip(a, before, strict=True))
    return before is None or (same(a.detach(), before[0]) and (before[1] is None or a._version == before[1]))


def same(a, b, steps=0):
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.is_floating_point() or a.is_complex():
        if steps:
            a, b = a.float(), b.float()
            usable = b.isfinite() & (b.abs() < 1e30)
            largest = float(b[usable].abs().max()) if usable.any() else 0.0
            return bool(torch.allclose(a[usable], b[usable], rtol=2**-6, atol=2**-10 * largest + 1e-30))
        return bool(((a == b) | (a.isnan() & b.isnan())).all())
    return bool(((a.int() - b.int()).abs() <= steps).all()) if steps else torch.equal(a, b)


def canonical(a):
    """A contiguous copy in memory of its own."""
    if isinstance(a, (list, tuple)):
        return [canonical(v) for v in a]
    if not is_tensor(a):
        return a
    return torch.empty(a.shape, dtype=a.dtype).copy_(a.detach())


# A dtype may come as c10's number for it.
DTYPES = {0: torch.uint8, 1: torch.int8, 6: torch.float32, 15: torch.bfloat16}


def spelled_out(call, op):
    """The call with its defaults, each number and dtype in the type that the schema names."""
    arguments = op._schema.arguments
    full = [*call, *[a.default_value for a in arguments[len(call) :]]]
    for i, (a, value) in enumerate(zip(arguments, full, strict=True)):
        if "dtype" in a.name:
            full[i] = DTYPES.get(value & 255) if isinstance(value, int) else value
        elif isinstance(value, (bool, int, float)) and str(a.type) in ("int", "float"):
            full[i] = int(value) if str(a.type) == "int" else float(value)
        elif isinstance(value, bytes):
            full[i] = value.decode()
    return full


def to_meta(a):
    if isinstance(a, (list, tuple)):
        return [to_meta(v) for v in a]
    return torch.empty_strided(a.shape, a.stride(), dtype=a.dtype, device="meta") if is_tensor(a) else a


def flat_tensors(values):
    for v in values:
        if is_tensor(v):
            yield v
        elif isinstance(v, (list, tuple)):
            yield from flat_tensors(v)


def outputs(result):
    return tuple(flat_tensors(result if isinstance(result, (list, tuple)) else (result,)))


def reads_by_itself(op, call):
    """Whether torch reads an argument without memory: as a number, or to print a call that it refuses."""
    for a, kind in zip(call, op._schema.arguments, strict=False):
        if is_tensor(a) and not readable(a) and "Tensor" not in str(kind.type):
            return True
    try:
        op(*[a if not is_tensor(a) or readable(a) else torch.zeros(()) for a in call])
    except Exception as error:
        return bool(PARSER.match(str(error)))
    return False


def larger_than_is_compared(name, op, call):
    """A transposed convolution with large strides takes a minute; beyond memory it is refused at once."""
    if not name.startswith("conv_transpose"):
        return False
    try:
        sizes = [t.numel() for t in outputs(op(*to_meta(call)))]
    except Exception:
        return False  # the call itself says why
    return any(MOST_ELEMENTS <= size < 1 << 33 for size in sizes)


def judge_error(name, error, op, call):
    text, packet = str(error), SPEAKS_FOR.get(name, name.split(".")[0])
    if PARSER.match(text) or READING.match(text) and reads_by_itself(op, call):
        return "refused by torch's schema parser"
    if DISPATCHER.match(text):
        return "refused by torch's dispatcher"
    if NO_ENGINE.match(OF_STEP.sub("", text)):
        if not isinstance(error, NotImplementedError):
            raise Wrong(f"no engine, but {type(error).__name__}")
        return "no engine"
    match = CONTRACT.match(text)
    names = {a.name for a in op._schema.arguments}
    if not match or match[1] != packet or match[2] not in names:
        raise Wrong(f"error text outside the contract: {type(error).__name__}: {text[:400]!r}")
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    if type(error) not in (ValueError, TypeError, IndexError):
        raise Wrong(f"contract text in {type(error).__name__}: {text[:400]!r}")
    return "contract errors"


def differ(got, expected):
    """The first elements that differ, for a message."""
    for a, b in zip(got, expected, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"{a.dtype} {list(a.shape)} against {b.dtype} {list(b.shape)}"
        at = (a != b) & ~((a != a) & (b != b))
        if at.any():
            return f"{int(at.sum())} of {a.numel()}: {a[at][:5].tolist()} against {b[at][:5].tolist()}"
    return "nothing"


def plain_numbers(op, call):
    """Whether numpy can follow: finite values, no size beyond memory (beside a size of 0)."""
    for a, v in zip(op._schema.arguments, call, strict=False):
        if isinstance(v, torch.dtype) and "dtype" not in a.name:  # torch takes it as a number
            return False
    return all(
        max(t.shape, default=0) < 1 << 31 and (not t.is_floating_point() or bool(t.isfinite().all()))
        for t in flat_tensors(call)
    )


def described(tensors):
    return [(t.shape, t.dtype, t.stride()) for t in tensors]


def fake_outputs(op, call):
    """What the fake kernel gives; None where a size is a value that meta tensors do not have."""
    try:
        return outputs(op(*to_meta(call)))
    except RuntimeError as error:
        recurrent = op.name().removeprefix("torch_ao::") in RNN_GATES
        if recurrent and call[1] is not None and "data-dependent shape" in str(error):
            return None  # the first of batch_sizes
        raise


def judge_result(name, op, call, result, engine):
    got = outputs(result)
    inputs = list(flat_tensors(call))
    if any(t.device.type == "meta" for t in inputs):
        if any(t.device.type != "meta" for t in got):
            raise Wrong("a meta argument gave a result in memory: uninitialized")
        return "returned on meta"
    if not got:
        return "returned nothing to compare"
    if any(t.numel() >= MOST_ELEMENTS for t in got):  # of a large dilation or stride
        return "returned more than is compared"
    if not all(readable(t) for t in (*inputs, *got)):
        if not any(t.numel() for t in got):
            return "returned nothing to compare"  # an empty result needs no element of it
        raise Wrong("returned for an argument that cannot be read")
    mine = {t.untyped_storage().data_ptr() for t in inputs if t.untyped_storage().nbytes()}
    if any(t.untyped_storage().nbytes() and t.untyped_storage().data_ptr() in mine for t in got):
        raise Wrong("the result shares memory with an argument")
    fake = fake_outputs(op, call)
    if fake is not None and described(got) != described(fake):
        raise Wrong(f"the fake kernel gives {described(fake)}")
    if name == "island" and engine == "xnnpack":
        return "returned with XNNPACK's step in an operator, scaled by the next"
    plain = canonical(call)
    ops._set_engine("reference")
    try:
        expected = outputs(op(*plain))
    finally:
        ops._set_engine(engine)
    got = [t.detach() for t in got]
    if not all(same(a, b.detach(), steps=engine == "xnnpack") for a, b in zip(got, expected, strict=True)):
        raise Wrong(f"not the reference engine's result: {differ(got, expected)}")
    rule = op_reference.FORMULAS.get(name)
    if rule is None or not plain_numbers(op, plain):
        return "returned as the reference engine"
    formula = rule(spelled_out(plain, op))
    if formula is None:
        return "returned as the reference engine"
    if not all(same(a, b) for a, b in zip(expected, outputs(formula), strict=True)):
        raise Wrong(f"not the formula's result: {differ(expected, outputs(formula))}")
    return "returned as the formula"


def judge(name, call, engine):
    """How the call ended; Wrong when it broke a rule."""
    op = overload(name)
    if larger_than_is_compared(name, op, call):
        return "more than is compared"
    before = snapshot(call)
    try:
        result = op(*call)
    except Exception as error:
        outcome = judge_error(name, error, op, call)
    else:
        outcome = judge_result(name, op, call, result, engine)
    if not unchanged(call, before):
        raise Wrong("an argument was written to")
    if name in SETTINGS:
        ops._set_dispatch_log(False)
        ops._set_deterministic(engine != "xnnpack")
        ops._set_engine(engine)
    return outcome


# --- the calls of a run -------------------------------------------------------


class Calls:
    """Call i of a seed, the same in every process."""

    def __init__(self, seed, only=None):
        self.seed, self.table = seed, table()
        names = [n for n in sorted(self.table) if only in (None, n)]
        self.names = names if only else [n for n in names for _ in range(1 if n in SETTINGS else 12)]

    def name(self, i):
        return random.Random(f"{self.seed}:{i}").choice(self.names)

    def __getitem__(self, i):
        rng = random.Random(f"{self.seed}:{i}")
        name = rng.choice(self.names)
        return name, hostile(rng, self.table[name], overload(name)._schema.arguments)


def show(a):
    if is_tensor(a):
        if not readable(a):
            return f"{type(a).__name__}({list(a.shape)}, {a.dtype}, {a.layout}, {a.device})"
        return f"{a.dtype} {list(a.shape)} stride {a.stride()} offset {a.storage_offset()}: {a.flatten()[:8]}"
    if isinstance(a, (list, tuple)):
        return "[" + ", ".join(map(show, a)) + "]"
    return repr(a)[:200]


def prepare(engine):
    torch.set_num_threads(1)
    ops._set_engine(engine)
    ops._set_deterministic(engine != "xnnpack")
    warnings.simplefilter("ignore")


def warm_up(calls):
    """Imports of torch that come with the first meta call; once, before the forks."""
    torch.set_num_threads(1)
    for name in calls.names:
        try:
            overload(name)(*to_meta(calls.table[name][0]))
        except (NotImplementedError, TypeError):  # service ops have no meta kernel
            continue


def limit_memory():
    """So that a claim of 2^40 elements fails at once, wherever it is asked for."""
    with open("/proc/self/maps") as maps:
        if "libasan" in maps.read():
            return
    with open("/proc/self/statm") as statm:
        now = int(statm.read().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))


def run_child(calls, engine, begin, end, progress, log):
    """Never returns. `progress` holds the index of the call that is running."""
    os.dup2(log.fileno(), 2)
    faulthandler.enable(log)
    prepare(engine)
    limit_memory()
    counts, wrong = collections.Counter(), []
    for i in range(begin, end):
        struct.pack_into("q", progress, 0, i)
        name, call = calls[i]
        try:
            counts[judge(name, call, engine)] += 1
        except Exception as error:
            where = "" if isinstance(error, Wrong) else f" at {traceback.extract_tb(error.__traceback__)[-1]}"
            wrong.append(f"call {i}: {name}: {error!r}{where}")
    log.seek(0)
    log.truncate()
    log.write(repr((dict(counts), wrong)))
    log.flush()
    os._exit(0)


class Block:
    """A forked child that makes the calls [begin, end)."""

    def __init__(self, calls, engine, begin, end):
        self.begin, self.end = begin, end
        self.progress = mmap.mmap(-1, 8)
        self.log = tempfile.TemporaryFile("w+")
        self.seen, self.seen_at = -1, time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            run_child(calls, engine, begin, end, self.progress, self.log)

    def current(self):
        return struct.unpack_from("q", self.progress)[0]

    def poll(self):
        """None while it runs; 'ok', or how it died."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            if os.WIFEXITED(status):
                code = os.WEXITSTATUS(status)
                return "ok" if code == 0 else f"crash: exit code {code}"
            return f"crash: {signal.Signals(os.WTERMSIG(status)).name}"
        if self.current() != self.seen:
            self.seen, self.seen_at = self.current(), time.monotonic()
        elif time.monotonic() - self.seen_at > HANG_SECONDS:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            return "hang"
        return None

    def text(self):
        self.log.seek(0)
        return self.log.read()


def single(calls, engine, i):
    """Call i alone in a child: how it ends."""
    block = Block(calls, engine, i, i + 1)
    while (end := block.poll()) is None:
        time.sleep(0.001)
    return end


def run(calls, engine, count, jobs, most_bad=None):
    """Counts and failures of the calls [0, count); ends early behind `most_bad` failures."""
    counts, failures = collections.Counter(), []
    todo = [(b, min(b + BLOCK, count)) for b in range(0, count, BLOCK)][::-1]
    running = []
    while todo or running:
        if most_bad is not None and len(failures) >= most_bad:
            todo = []
        while todo and len(running) < jobs:
            running.append(Block(calls, engine, *todo.pop()))
        time.sleep(0.002)
        for block in list(running):
            end = block.poll()
            if end is None:
                continue
            running.remove(block)
            if end == "ok":
                seen, wrong = eval(block.text())  # written by run_child
                counts.update(seen)
                counts["wrong"] += len(wrong)
                failures += wrong
                continue
            i = block.current()
            counts["hangs" if end == "hang" else "crashes"] += 1
            again = single(calls, engine, i)
            alone = "also alone" if again == end else f"alone: {again}, so replay from {block.begin} on"
            failures.append(f"call {i}: {calls.name(i)}: {end} ({alone})\n{block.text()[-2000:]}")
            todo.append((block.begin, i))  # its results are lost with it
            todo.append((i + 1, block.end))
            todo = [t for t in todo if t[0] < t[1]]
            if counts["crashes"] + counts["hangs"] >= 20:
                return counts, failures
    return counts, failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=50000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--engine", default="")
    parser.add_argument("--op", default=None, help="one overload only")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--replay", type=int, default=None, help="make call I of the seed in this process")
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(2**31)
    warnings.simplefilter("ignore")
    calls = Calls(seed, args.op)
    if args.replay is not None:
        faulthandler.enable()
        prepare(args.engine)
        name, call = calls[args.replay]
        for argument, value in zip(overload(name)._schema.arguments, call, strict=False):
            print(f"  {argument.name} = {show(value)}")
        print(name, "...", flush=True)
        print(judge(name, call, args.engine))
        return 0
    warm_up(calls)
    counts, failures = run(calls, args.engine, args.calls, args.jobs)
    for failure in failures[:30]:
        print(failure)
    again = f"python {sys.argv[0]} --seed {seed}"
    again += f" --engine {args.engine}" * bool(args.engine) + f" --op {args.op}" * bool(args.op)
    if failures:
        print(f"replay one: {again} --replay CALL")
    bad = {k: counts.pop(k, 0) for k in ("crashes", "hangs", "wrong")}
    print(f"replay all: {again} --calls {args.calls}")
    level = re.search(r'"best_isa": "(\w+)"', ops._info())[1]
    print(
        f"hostile calls: {args.calls}, overloads {len(set(calls.names))}, "
        f"engine {args.engine or 'automatic'}, isa {level}, seed {seed}: "
        + ", ".join(f"{k} {n}" for k, n in sorted(counts.items()))
        + ": "
        + ", ".join(f"{n} {k}" for k, n in bad.items())
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
