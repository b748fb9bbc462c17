"""`embedding_bag` and `embedding` on 8- and 4-bit rows against fp32, torch, FBGEMM and torchao.

    python benchmarks/ops/embedding.py [--max-isa avx2] [--quick] [--only zipf] [--sizes]

Each side works on the table that its own prepack operator makes: ours asks the system
for huge pages, torch's does not. "ours, torch's table" is our operator on torch's
tensor. Every call of a row that is not hot has new indices, and each candidate walks
through them at another place. --sizes adds poolings and batches
(shapes/embedding_sizes.csv). Answers are checked in the same run. Exit status 1 when a
floor is missed or an answer is wrong.
"""

import functools
import itertools
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from benchmarks.harness import cli, frame, peers, report, roof, rounds, shapes  # noqa: E402
from benchmarks.harness.accuracy import sqnr_db  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402
from benchmarks.peers import fbgemm_peer, torchao_op_peers  # noqa: E402

OURS, TORCHAO = "torch_ao_ext", "torchao 8 bit, one scale"
BITS = (8, 4)
SETS = 128  # of indices: 1.3 million rows of the large shapes
# Against torch's operator: (bits, hot) -> (target, floor).
GOALS = {(8, True): (1.4, 1.1), (4, True): (2.5, 1.5), (8, False): (1.2, 1.0), (4, False): (1.5, 1.1)}
ROOF_TARGET = 80.0  # % of the rate at which the rows alone can be read
BOTH_CORES = 1.3  # least gain of a second thread on few long bags


class Fresh:
    """Calls `call` with the next indices each time."""

    def __init__(self, call, sets, start):
        self.call = call
        self.sets = itertools.islice(itertools.cycle(sets), start, None)

    def __call__(self):
        return self.call(next(self.sets))


def index_sets(shape):
    """The indices of successive calls."""
    generator = torch.Generator().manual_seed(shape.dim + shape.batch)
    count = 1 if shape.indices == "hot" else SETS
    if shape.indices == "zipf":
        u = torch.rand(count, shape.count, generator=generator, dtype=torch.float64)
        ranks = (shape.rows**u).long() - 1
        return ranks * 7919 % shape.rows  # neighbours in rank are not neighbours in memory
    return torch.randint(shape.rows, (count, shape.count), generator=generator)


def torch_operator(kind, bits):
    return getattr(torch.ops.quantized, kind.format({8: "byte", 4: "4bit"}[bits]))


@functools.lru_cache(maxsize=1)
def float_table(rows, dim):
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(dim))


@functools.lru_cache(maxsize=len(BITS))
def packed_tables(rows, dim, bits):
    """({name: table in the form of that side}, reasons of those that are missing); the same for every row."""
    weight, missing, packed = float_table(rows, dim), peers.Missing(), {}
    with missing.noting(f"torch {bits} bit"):
        packed[f"torch {bits} bit"] = torch_operator("embedding_bag_{}_prepack", bits)(weight)
    name = f"fbgemm TBE {bits} bit"
    with missing.noting(name):
        tables = fbgemm_peer.Tables([weight], bits)
        if tables.kinds != {f"int{bits}"}:
            raise RuntimeError(f"no {bits}-bit peer: tables of {tables.kinds}")
        packed[name] = tables.bags
    if bits == 8:
        with missing.noting(TORCHAO):
            packed[TORCHAO] = torchao_op_peers.int8_table(weight)
    with missing.noting(f"{OURS} {bits} bit"):
        peers.ours()
        packed[f"{OURS} {bits} bit"] = torch.ops.torch_ao.embedding_prepack(weight, bits)
    return packed, missing.as_dict()


def calls(shape, weight, missing):
    """name -> call(indices), and the tables."""
    offsets = torch.arange(0, shape.count, shape.pooling)
    ends = torch.cat([offsets, torch.tensor([shape.count])])
    lookup = shape.indices == "lookup"
    if lookup:
        table = {"fp32": lambda i: F.embedding(i, weight)}
    else:
        table = {"fp32": lambda i: F.embedding_bag(i, weight, offsets, mode="sum")}
    packed = {}
    for bits in BITS:
        tables, reasons = packed_tables(shape.rows, shape.dim, bits)
        packed |= tables
        missing.reasons |= reasons
        name = f"torch {bits} bit"
        if name in tables:
            operator = torch_operator("embedding_bag_{}_rowwise_offsets", bits).default
            bags = torch.arange(shape.count) if lookup else offsets
            table[name] = lambda i, op=operator, rows=tables[name], bags=bags: op(rows, i, bags)
        name = f"fbgemm TBE {bits} bit"
        if name in tables and not lookup:
            table[name] = lambda i, bags=tables[name]: bags(i, ends)
        if TORCHAO in tables and not lookup:
            table[TORCHAO] = torchao_op_peers.embedding_bag_call(tables[TORCHAO], ends)
        name = f"{OURS} {bits} bit"
        if name not in tables:
            continue
        own, ops = tables[name], torch.ops.torch_ao
        bag, single = ops.embedding_bag.default, ops.embedding.default
        for label, rows in ((name, own), (f"{name}, torch's table", tables.get(f"torch {bits} bit"))):
            if rows is None or (lookup and rows is not own):
                continue
            if lookup:
                table[label] = lambda i, op=single, rows=rows, bits=bits: op(rows, i, bits)
            else:
                table[label] = lambda i, op=bag, rows=rows, bits=bits: op(rows, i, offsets, bits)
    return table, packed


def check(table, packed, indices, weight):
    """SQNR against fp32, and what is wrong: other bytes or other sums than torch's."""
    reference = table["fp32"](indices)
    answers = {name: call(indices) for name, call in table.items()}
    sqnr = {name: sqnr_db(reference, y) for name, y in answers.items() if name != "fp32"}
    failures = []
    for bits in BITS:
        ours, theirs = f"{OURS} {bits} bit", f"torch {bits} bit"
        if ours not in packed or theirs not in packed:
            continue
        if not torch.equal(packed[ours], packed[theirs]):
            failures.append(f"{bits} bit: the tables differ")
        error = (answers[ours] - answers[theirs]).abs().max().item()
        if error > 1e-4 * max(1.0, reference.abs().max().item()):
            failures.append(f"{bits} bit: {error} from torch's answer")
    return sqnr, failures


def row_goals(timings, shape, samplers):
    goals = []
    for bits in BITS:
        ours, theirs = f"{OURS} {bits} bit", f"torch {bits} bit"
        if ours not in timings:
            continue
        large = shape.layer == "recommender"
        if theirs in timings:
            limits = GOALS[bits, shape.indices == "hot"] if large else (None, None)
            goals.append(Goal(f"{bits} bit vs {theirs}", rounds.speedup(timings, ours, theirs), *limits))
        if f"fbgemm TBE {bits} bit" in timings:
            target = 1.15 if large or shape.layer == "other sizes" else None
            ratio = rounds.speedup(timings, ours, f"fbgemm TBE {bits} bit")
            goals.append(Goal(f"{bits} bit vs fbgemm TBE", ratio, target))
        if TORCHAO in timings and bits == 8:
            goals.append(Goal(f"{bits} bit vs torchao", rounds.speedup(timings, ours, TORCHAO)))
        floor = 1.0 if shape.indices == "lookup" and bits == 8 else None
        goals.append(Goal(f"{bits} bit vs fp32", rounds.speedup(timings, ours, "fp32"), None, floor))
        if bits in samplers:
            rate = 100 * shape.count / timings[ours].median / 1e6 / samplers[bits].mrows
            goals.append(Goal(f"{bits} bit of the random-row rate", rate, ROOF_TARGET, None, "%"))
        if "1 thread" in timings and bits == 8:
            gain = rounds.speedup(timings, ours, "1 thread")
            goals.append(Goal("gain of a second thread", gain, None, BOTH_CORES))
    if all(f"{OURS} {bits} bit" in timings for bits in BITS) and shape.layer == "recommender":
        ratio = rounds.speedup(timings, f"{OURS} 4 bit", f"{OURS} 8 bit")
        goals.append(Goal("4 bit vs 8 bit", ratio, None, 1.0))
    return goals


def on_one_thread(call, threads):
    def run():
        torch.set_num_threads(1)
        try:
            return call()
        finally:
            torch.set_num_threads(threads)

    return run


def run_row(shape, args, missing, result):
    weight = float_table(shape.rows, shape.dim)
    table, packed = calls(shape, weight, missing)
    sets = index_sets(shape)
    samplers = {}
    with torch.no_grad():
        sqnr, failures = check(table, packed, sets[0], weight)
        step = max(1, len(sets) // len(table))
        candidates = {
            name: Fresh(call, list(sets), k * step) for k, (name, call) in enumerate(table.items())
        }
        if shape.layer == "few long bags" and f"{OURS} 8 bit" in table:
            candidates["1 thread"] = on_one_thread(candidates[f"{OURS} 8 bit"], args.threads)
        for bits in BITS if shape.indices in ("uniform", "zipf") and roof.library() else ():
            if f"{OURS} {bits} bit" in packed:
                samplers[bits] = roof.RowSampler(packed[f"{OURS} {bits} bit"], sets, args.threads)
                candidates[f"roof {bits}"] = samplers[bits]
        timings, foreign = cli.measure(candidates, args)
    for bits in samplers:
        timings.pop(f"roof {bits}")
    row = result.add(
        str(shape),
        timings,
        row_goals(timings, shape, samplers),
        failures,
        foreign,
        shape=vars(shape),
        sqnr_db=sqnr,
        random_mrows={bits: s.mrows for bits, s in samplers.items()},
    )
    report.print_row(row)


def parse(argv=None):
    p = cli.parser(__doc__, budget_s=3.0)
    p.add_argument("--only", help="rows whose id contains this text, e.g. 'x 64, 256' or zipf")
    p.add_argument("--sizes", action="store_true", help="more poolings and batches")
    return p.parse_args(argv)


def add_rows(args, result, missing):
    rows = shapes.read_bags("embedding")
    rows += shapes.read_bags("embedding_sizes") if args.sizes else []
    order = [(shape.rows, shape.dim) for shape in rows]
    for shape in sorted(rows, key=lambda row: order.index((row.rows, row.dim))):  # each table is packed once
        if not args.only or args.only in str(shape):
            run_row(shape, args, missing, result)


def main():
    return frame.run("embedding", parse(), add_rows, probe=False, needed=OURS)


if __name__ == "__main__":
    sys.exit(main())
