"""`sparse_linear` on 1x4 and 8x1 blocks against our dense `linear` and torch's sparse::qlinear.

    python benchmarks/ops/sparse_linear.py [--quick]

Every row: all candidates interleaved in this process, called from C++ (harness/dispatch.cpp),
answers compared bit by bit with the dense op. Exit status 1 when a floor is missed.
"""

import functools
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402

from benchmarks.harness import cli, dispatch, environment, peers, report, roof, rounds  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402

SPARSE, DENSE, TORCH = "sparse", "dense", "torch sparse::qlinear"
SIZES = ((1024, 1024), (3072, 768))  # K, N
# (M, block, % zeros) -> (target, floor) against our dense op.
GOALS = {
    (64, (1, 4), 80): (1.8, 1.4),
    (64, (1, 4), 90): (3.5, 2.5),
    (64, (1, 4), 95): (6.0, 4.0),
    (1, (8, 1), 90): (2.5, 1.5),
}
PEER_GOAL = (3.0, 2.0)
CALLS = 50  # of C++ for one from Python


def weight(n, k, block, zeros):
    """int8 [n, k] with this percentage of zero blocks, at random places."""
    generator = torch.Generator().manual_seed(n * 31 + k + zeros)
    keep = torch.rand(n // block[0], k // block[1], generator=generator) >= zeros / 100
    keep = keep.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    return torch.where(keep, torch.randint(-128, 128, (n, k), generator=generator), 0).to(torch.int8)


def calls(m, k, n, block, zeros, missing):
    """name -> call; all with the same operands."""
    dense = weight(n, k, block, zeros)
    blocks = peers.ours().ops.to_block_sparse(dense, block)
    x = torch.randint(0, 128, (m, k), dtype=torch.uint8)  # torch's kernel needs 7 bits
    scale, bias = torch.full((n,), 0.01), torch.randn(n)
    ops = torch.ops.torch_ao
    table = {
        SPARSE: functools.partial(ops.sparse_linear.default, x, 0.1, 3, *blocks, scale, bias, 2.0, 9),
        DENSE: functools.partial(ops.linear.default, x, 0.1, 3, dense, scale, None, bias, 2.0, 9),
    }
    if block == (1, 4):
        with missing.noting(TORCH), peers.quantized_engine("fbgemm"):
            zero = torch.zeros(n, dtype=torch.long)
            q = torch._make_per_channel_quantized_tensor(dense, scale.double(), zero, 0)
            packed = torch.ops.sparse.qlinear_prepack(q, bias, *block)
            qx = torch._make_per_tensor_quantized_tensor(x, 0.1, 3)
            table[TORCH] = functools.partial(torch.ops.sparse.qlinear.default, qx, packed, 2.0, 9)
            table[TORCH]()
    return table


def measure(table, args):
    """(timings of one call, foreign CPUs)"""
    timings, foreign = cli.measure(
        {name: dispatch.from_cpp(call, CALLS) for name, call in table.items()}, args
    )
    for timing in timings.values():
        timing.seconds = [seconds / CALLS for seconds in timing.seconds]
        timing.calls_per_round *= CALLS
    return timings, foreign


def run_row(key, size, args, missing, result):
    (m, block, zeros), (k, n) = key, size
    table = calls(m, k, n, block, zeros, missing)
    failures = [] if torch.equal(table[SPARSE](), table[DENSE]()) else ["differs from dense"]
    timings, foreign = measure(table, args)
    goals = [Goal("vs dense", rounds.speedup(timings, SPARSE, DENSE), *GOALS[key])]
    if TORCH in timings:
        goals.append(Goal("vs torch", rounds.speedup(timings, SPARSE, TORCH), *PEER_GOAL))
    name = f"M={m} K={k} N={n} {block[0]}x{block[1]} {zeros}%"
    report.print_row(result.add(name, timings, goals, failures, foreign))


def main():
    args = cli.parser(__doc__, budget_s=1.0).parse_args()
    if args.max_isa:
        return environment.rerun_capped(args.max_isa)
    environment.set_threads(args.threads)
    result = report.Report("sparse_linear", roof.probe((1, args.threads)))
    print(environment.describe(result.environment))
    missing = peers.Missing()
    for key in GOALS:
        for size in SIZES:
            run_row(key, size, args, missing, result)
    result.missing = missing.as_dict()
    for name, reason in result.missing.items():
        print(f"missing: {name}: {reason}")
    return report.conclude(result, args.output)


if __name__ == "__main__":
    sys.exit(main())
