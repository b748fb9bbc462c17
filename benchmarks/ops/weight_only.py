"""`linear_weight_only` against fp32, int8 dynamic, torch's, onnxruntime's and OpenVINO's kernels, the memory.

    python benchmarks/ops/weight_only.py [--quick] [--only cold]

Shapes: benchmarks/shapes/weight_only.csv. "Cold" runs over so many weights that none is in a cache when
its turn comes, beside reads of the same memory; the other rows over one weight. Answers are compared
with float64 of the dequantized weight. "Outliers" have 4 values of each row 50 times as large. "At its
peak" is the time that the products alone would take in a loop of registers: of two int8 planes
(input_bits 16), of bfloat16, of f32. Exit status 1 when a floor is missed.
"""

import functools
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402

from benchmarks.harness import cli, cold, frame, peers, report, roof, rounds, shapes  # noqa: E402
from benchmarks.harness.accuracy import sqnr_db  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402
from benchmarks.peers import torchao_op_peers, weight_only_peers  # noqa: E402

READ_MB = 128
OUTLIERS, TORCHAO = "8 bit, outliers", "torchao 4 bit g128"
UNCHECKED = ("fp32", "torch int4pack")  # the second has random weights
DB = {16: 80, 8: 42}  # least signal to noise by input bits


class ReadSampler:
    """A candidate that reads memory; read `gbps`, not its timing. Sleeps as roof.Sampler does."""

    def __init__(self, threads):
        self.threads, self.values = threads, []

    def __call__(self):
        time.sleep(0.02)
        self.values.append(roof.library().roof_read_gbps(READ_MB << 20, self.threads, 2))

    @property
    def gbps(self):
        return sorted(self.values)[len(self.values) // 2]


# Loops of harness/roof.cpp, and how many of their products one of x and W takes.
PEAKS = {"two planes": ("avx512_vnni", 2), "bf16": ("avx512_bf16", 1), "f32": ("avx512_f32", 1)}


def peak_samplers(m, threads):
    """Candidates that run the register loops, where this CPU has them."""
    usable = {n: loop for n, (loop, _) in PEAKS.items() if m >= 16 and roof.gops(loop, 1, stretches=1)}
    return {name: roof.Sampler(loop, threads) for name, loop in usable.items()}


@functools.lru_cache(maxsize=1)
def float_weight(n, k):
    return torch.randn(n, k, generator=torch.Generator().manual_seed(0)) * 0.02


def rows8(w):
    from torch_ao_ext.nn.quantized import _weight

    scale = _weight.symmetric_row_scale(w)
    return _weight.quantize_rows(w, scale), scale


@functools.lru_cache(maxsize=4)
def quantized(n, k, group):
    """(data, scale, dequantized weight) in 8 bits per channel (group 0) or 4 bits per group."""
    from torch_ao_ext.nn.quantized import _weight4

    w = float_weight(n, k)
    if group:
        data, scale = _weight4.quantize_groups(w, group)
        return data, scale, _weight4.unpack_groups(data, k) * scale.repeat_interleave(group, 1)
    data, scale = rows8(w)
    return data, scale, data * scale[:, None]


def ours(shape, group, bits, x):
    """A call of the op with its own copy of the weight; (call, packed bytes, dequantized weight)."""
    data, scale, real = quantized(shape.n, shape.k, group)
    data = data.clone()
    call = functools.partial(torch.ops.torch_ao.linear_weight_only.default, x, data, scale, None, group, bits)
    call()
    packed = peers.ours().explain(data).weights["weight"]["states"][0]["packed_bytes"]
    return call, packed, real


def with_outliers(x):
    x = x.clone()
    for row in x:
        row[torch.randperm(len(row))[:4]] *= 50
    return x


def noise_db(call, x, real):
    want = x.double() @ real.double().t()
    return float(10 * torch.log10(want.square().sum() / (call().double() - want).square().sum()))


def torch_call(bits, x, w):
    """torch's own weight-only kernels, which take bfloat16; a weight of its own each time."""
    n, k = w.shape
    x = x.bfloat16()
    if bits == 8:
        data, scale, _ = quantized(n, k, 0)
        call = functools.partial(torch._weight_int8pack_mm, x, data.clone(), scale.bfloat16())
    else:
        packed = torch._convert_weight_to_int4pack_for_cpu(random_4bit(n, k), 1)
        sz = torch.rand(k // 128, n, 2).bfloat16()
        call = functools.partial(torch._weight_int4pack_mm_for_cpu, x, packed, 128, sz)
    call()
    return call


@functools.lru_cache(maxsize=1)
def random_4bit(n, k):
    return torch.randint(0, 16, (n, k), dtype=torch.int32)


def torch_calls(x, w, missing, copies=None):
    """name -> call; copies: {bits: weights in turn}."""
    table = {}
    for bits in (8, 4):
        name = f"torch int{bits}pack"
        with missing.noting(name):
            table[name] = cold.in_turn([torch_call(bits, x, w) for _ in range((copies or {}).get(bits, 1))])
    return table


@functools.lru_cache(maxsize=1)
def folder_of(n, k):
    """Where the files of one weight lie; deleted with the next weight."""
    return tempfile.TemporaryDirectory()


@functools.lru_cache(maxsize=4)
def engine_file(engine, n, k, bits):
    """An engine's file of the weight, written once."""
    write, _ = weight_only_peers.ENGINES[engine]
    return write(float_weight(n, k), bits, Path(folder_of(n, k).name))


def engine_calls(x, w, threads, missing, copies=None):
    """Other engines on the same weight; name -> call; copies: {bits: weights in turn}."""
    table = {}
    for engine, (_, open_file) in weight_only_peers.ENGINES.items():
        for bits in (8, 4):
            name = f"{engine} {bits} bit"
            with missing.noting(name), peers.quiet():
                file = engine_file(engine, *w.shape, bits)
                made = [open_file(file, len(x), bits, threads) for _ in range((copies or {}).get(bits, 1))]
                table[name] = cold.in_turn([functools.partial(call, x) for call in made])
                for _ in made:
                    table[name]()
    return table


def engine_goals(timings):
    """Against onnxruntime and OpenVINO with as many bits."""
    goals = []
    for engine in weight_only_peers.ENGINES:
        for bits, name in ((8, "8 bit"), (4, "4 bit g128")):
            if f"{engine} {bits} bit" in timings:
                ratio = rounds.speedup(timings, name, f"{engine} {bits} bit")
                goals.append(Goal(f"{name} vs {engine} {bits} bit", ratio, 1.0))
    return goals


def cold_row(shape, args, missing, result):
    x, w = torch.randn(shape.m, shape.k), float_weight(shape.n, shape.k)
    kinds = {"8 bit": (0, 8), "4 bit g128": (128, 8), "4 bit g32": (32, 8)}
    table, sizes, failures = {}, {}, []
    for name, (group, bits) in kinds.items():
        call, packed, real = ours(shape, group, bits, x)
        if noise_db(call, x, real) < DB[bits]:
            failures.append(f"{name}: {noise_db(call, x, real):.1f} dB")
        calls = [call] + [ours(shape, group, bits, x)[0] for _ in range(cold.copies(packed) - 1)]
        table[name], sizes[name] = cold.in_turn(calls), packed
    floats = [w] + [w.clone() for _ in range(cold.copies(w.nbytes) - 1)]
    table["fp32"] = cold.in_turn([functools.partial(torch.nn.functional.linear, x, f) for f in floats])
    copies = {bits: cold.copies(w.numel() * bits // 8) for bits in (8, 4)}
    table |= torch_calls(x, w, missing, copies) | engine_calls(x, w, args.threads, missing, copies)
    sampler = ReadSampler(args.threads)
    if roof.library() is not None:
        table["read"] = sampler
    timings, foreign = cli.measure(table, args, sample_s=4e-3)
    goals = []
    if "read" in table:
        for name, floor in (("8 bit", 0.8), ("4 bit g128", None), ("4 bit g32", None)):
            gbps = sizes[name] / timings[name].median / 1e9
            goals.append(Goal(f"{name} of {sampler.gbps:.1f} GB/s", gbps / sampler.gbps, floor, floor))
        del timings["read"]
    goals.append(Goal("4 bit g128 vs 8 bit", rounds.speedup(timings, "4 bit g128", "8 bit"), 1.6, 1.6))
    for name in kinds:
        goals.append(Goal(f"{name} vs fp32", rounds.speedup(timings, name, "fp32"), 1.0, 1.0))
    goals += engine_goals(timings)
    report.print_row(result.add(str(shape), timings, goals, failures, foreign, shape=vars(shape)))


def warm_row(shape, args, missing, result):
    m, x, w = shape.m, torch.randn(shape.m, shape.k), float_weight(shape.n, shape.k)
    kinds = {
        "8 bit": (0, 8), "4 bit g128": (128, 8), "4 bit g32": (32, 8),
        "8 bit, input_bits 16": (0, 16), "4 bit g128, input_bits 16": (128, 16),
    }  # fmt: skip
    table, failures = {}, []
    for name, (group, bits) in kinds.items():
        table[name], _, real = ours(shape, group, bits, x)
        if noise_db(table[name], x, real) < DB[bits]:
            failures.append(f"{name}: {noise_db(table[name], x, real):.1f} dB")
    outliers = with_outliers(x)
    table[OUTLIERS], _, real = ours(shape, 0, 8, outliers)
    if noise_db(table[OUTLIERS], outliers, real) < DB[8]:
        failures.append(f"{OUTLIERS}: {noise_db(table[OUTLIERS], outliers, real):.1f} dB")
    table["fp32"] = functools.partial(torch.nn.functional.linear, x, w)
    data, scale, _ = quantized(shape.n, shape.k, 0)
    table["int8 dynamic"] = functools.partial(torch.ops.torch_ao.linear_dynamic.default, x, data, scale)
    table |= torch_calls(x, w, missing) | engine_calls(x, w, args.threads, missing)
    with missing.noting(TORCHAO):
        table[TORCHAO] = functools.partial(torchao_op_peers.linear_4bit_call(w, 128), x)
    want = x @ w.t()
    sqnr = {name: sqnr_db(want, call().float()) for name, call in table.items() if name not in UNCHECKED}
    sqnr[OUTLIERS] = sqnr_db(outliers @ w.t(), table[OUTLIERS]())
    samplers = peak_samplers(m, args.threads)
    timings, foreign = cli.measure({**table, **samplers}, args)
    goals = []
    for name, sampler in samplers.items():
        del timings[name]
        peak = PEAKS[name][1] * 2e-9 * m * shape.k * shape.n / sampler.gops
        goals.append(Goal(f"{name} at its peak vs int8 dynamic", timings["int8 dynamic"].median / peak, None))
    for name, (group, bits) in kinds.items():
        goals.append(Goal(f"{name} vs fp32", rounds.speedup(timings, name, "fp32"), 1.0, 1.0))
        # input_bits 16 is twice the products of int8 dynamic.
        floor = 0.8 if m >= 16 and bits == 8 and group in (0, 128) else None
        speedup = rounds.speedup(timings, name, "int8 dynamic")
        goals.append(Goal(f"{name} vs int8 dynamic", speedup, 0.8, floor))
    goals.append(Goal(f"{OUTLIERS} vs int8 dynamic", rounds.speedup(timings, OUTLIERS, "int8 dynamic"), 0.8))
    goals += engine_goals(timings)
    if TORCHAO in timings:
        goals.append(Goal(f"4 bit g128 vs {TORCHAO}", rounds.speedup(timings, "4 bit g128", TORCHAO)))
    report.print_row(
        result.add(str(shape), timings, goals, failures, foreign, sqnr_db=sqnr, shape=vars(shape))
    )


def add_rows(args, result, missing):
    peers.ours()
    for shape in shapes.read_weights("weight_only"):
        if args.only in str(shape):
            (cold_row if shape.cold else warm_row)(shape, args, missing, result)


def main():
    p = cli.parser(__doc__, budget_s=2.0)
    p.add_argument("--only", default="", help="rows whose name contains this text")
    return frame.run("weight_only", p.parse_args(), add_rows, probe=False)


if __name__ == "__main__":
    sys.exit(main())
