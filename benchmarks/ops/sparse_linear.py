"""`sparse_linear` on 1x4 and 8x1 blocks against dense `linear` and torch's sparse and dense ones.

    python benchmarks/ops/sparse_linear.py [--quick] [--only M=32]

Shapes: benchmarks/shapes/sparse_linear.csv.
Every row: all candidates interleaved in this process, called from C++ (harness/dispatch.cpp), OpenVINO's
sparse weights from Python, answers compared bit by bit with the dense op. Exit status 1 when a floor is
missed.
"""

import functools
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402

from benchmarks.harness import cli, dispatch, frame, peers, report, rounds, shapes  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402
from benchmarks.peers import sparse_peers  # noqa: E402

SPARSE, DENSE, TORCH = "sparse", "dense", "torch sparse::qlinear"
TORCH_DENSE, OPENVINO = "torch quantized::linear", "openvino sparse"
CALLS = 50  # of C++ for one from Python


def weight(n, k, block, zeros):
    """int8 [n, k] with this percentage of zero blocks, at random places."""
    generator = torch.Generator().manual_seed(n * 31 + k + zeros)
    keep = torch.rand(n // block[0], k // block[1], generator=generator) >= zeros / 100
    keep = keep.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    return torch.where(keep, torch.randint(-128, 128, (n, k), generator=generator), 0).to(torch.int8)


def calls(shape, threads, missing):
    """name -> call; all with the same operands."""
    dense = weight(shape.n, shape.k, shape.block, shape.zeros)
    blocks = peers.ours().ops.to_block_sparse(dense, shape.block)
    x = torch.randint(0, 128, (shape.m, shape.k), dtype=torch.uint8)  # torch's kernel needs 7 bits
    scale, bias = torch.full((shape.n,), 0.01), torch.randn(shape.n)
    ops = torch.ops.torch_ao
    table = {
        SPARSE: functools.partial(ops.sparse_linear.default, x, 0.1, 3, *blocks, scale, bias, 2.0, 9),
        DENSE: functools.partial(ops.linear.default, x, 0.1, 3, dense, scale, None, bias, 2.0, 9),
    }
    zero = torch.zeros(shape.n, dtype=torch.long)
    q = torch._make_per_channel_quantized_tensor(dense, scale.double(), zero, 0)
    qx = torch._make_per_tensor_quantized_tensor(x, 0.1, 3)
    if shape.block == (1, 4):
        with missing.noting(TORCH), peers.quantized_engine("fbgemm"):
            packed = torch.ops.sparse.qlinear_prepack(q, bias, *shape.block)
            table[TORCH] = functools.partial(torch.ops.sparse.qlinear.default, qx, packed, 2.0, 9)
            table[TORCH]()
    with missing.noting(TORCH_DENSE), peers.quantized_engine("x86"):
        packed = torch.ops.quantized.linear_prepack(q, bias)
        table[TORCH_DENSE] = functools.partial(torch.ops.quantized.linear.default, qx, packed, 2.0, 9)
        table[TORCH_DENSE]()
    if OPENVINO not in missing.reasons:  # it is the CPU that does not have it
        with missing.noting(OPENVINO), tempfile.TemporaryDirectory() as folder:
            table[OPENVINO] = sparse_peers.openvino_call(
                x, (0.1, 3), dense, scale, bias, (2.0, 9), threads, Path(folder)
            )
    return table


def repeated(call):
    """CALLS calls, from C++ where it is an operator."""
    if isinstance(call, functools.partial):
        return dispatch.from_cpp(call, CALLS)

    def run():
        for _ in range(CALLS):
            call()

    return run


def measure(table, args):
    """(timings of one call, foreign CPUs)"""
    timings, foreign = cli.measure({name: repeated(call) for name, call in table.items()}, args)
    for timing in timings.values():
        timing.seconds = [seconds / CALLS for seconds in timing.seconds]
        timing.calls_per_round *= CALLS
    return timings, foreign


def answer_failures(table):
    """What differs from the dense operator: ours in no bit, a peer by a step at most."""
    answers = {name: call() for name, call in table.items()}
    found = [] if torch.equal(answers[SPARSE], answers[DENSE]) else [f"{SPARSE} differs from {DENSE}"]
    for name in (TORCH, TORCH_DENSE, OPENVINO):
        if name in answers:
            y = answers[name]
            y = y.int_repr() if y.is_quantized else y
            off = (y.int() - answers[DENSE].int()).abs().max().item()
            found += [f"{name} is {off} steps off"] if off > 1 else []
    return found


def run_row(shape, args, missing, result):
    table = calls(shape, args.threads, missing)
    failures = answer_failures(table)
    timings, foreign = measure(table, args)
    goals = [Goal("vs dense", rounds.speedup(timings, SPARSE, DENSE), *shape.dense_goal)]
    if TORCH in timings:
        goals.append(Goal("vs torch", rounds.speedup(timings, SPARSE, TORCH), *shape.peer_goal))
    if TORCH_DENSE in timings:
        goals.append(Goal(f"vs {TORCH_DENSE}", rounds.speedup(timings, SPARSE, TORCH_DENSE)))
    if OPENVINO in timings:
        goals.append(Goal(f"vs {OPENVINO}", rounds.speedup(timings, SPARSE, OPENVINO)))
    report.print_row(result.add(str(shape), timings, goals, failures, foreign, shape=vars(shape)))


def add_rows(args, result, missing):
    for shape in shapes.read_sparse("sparse_linear"):
        if args.only in str(shape):
            run_row(shape, args, missing, result)


def main():
    p = cli.parser(__doc__, budget_s=1.0)
    p.add_argument("--only", default="", help="rows whose name contains this text")
    return frame.run("sparse_linear", p.parse_args(), add_rows)


if __name__ == "__main__":
    sys.exit(main())
