"""Operators between int8 layers (arithmetic, pooling, norms, resizing) against torch.ao's kernels.

    python benchmarks/ops/between.py [--max-isa avx2] [--quick] [--only norm]

Both sides take the same uint8 integers and give uint8. The roof is a copy of as many bytes as the
operator reads and writes, measured in the same rounds; it counts for rows that are larger than L2. Rows
"beyond every cache" are: two CPUs may have an L3 each, where a copy of 64 MB still finds much of it. Each
sample comes after untimed calls of its own: the three do not share buffers, and what the one before left in
L3 is no property of an operator. Answers are compared in the same run: a step apart at most. Exit status 1
when a floor is missed or an answer is wrong.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from benchmarks.harness import cli, frame, peers, report, rounds, shapes  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402

OURS, THEIRS, ROOF = "torch_ao_ext", "torch.ao", "copy"
SCALE, POINT, OUT_SCALE, OUT_POINT = 0.05, 120, 0.07, 110
L2_BYTES = 2 << 20


def integers(shape, seed):
    x = torch.randint(0, 256, shape.sizes, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return x.to(memory_format=torch.channels_last) if shape.layout == "nhwc" else x


def quantized(x):
    """The same integers as torch's quantized tensor, in x's memory order."""
    q = torch._make_per_tensor_quantized_tensor(x, SCALE, POINT)
    return q if x.is_contiguous() else q.contiguous(memory_format=torch.channels_last)


def calls(shape):
    """(our call, torch.ao's), each without arguments."""
    torch.manual_seed(0)
    ours, theirs = torch.ops.torch_ao, torch.ops.quantized
    x, y = integers(shape, 1), integers(shape, 2)
    qx, qy = quantized(x), quantized(y)
    channels = shape.sizes[-1] if shape.layout == "rows" else shape.sizes[1]
    weight, bias, mean, var = (torch.rand(channels) + 0.5 for _ in range(4))
    a, b, out = (x, SCALE, POINT), (y, SCALE, POINT), (OUT_SCALE, OUT_POINT)
    same, half = (SCALE, POINT, None), [2 * n for n in shape.sizes[2:]]
    window = ([3, 3], [2, 2], [1, 1])
    table = {
        "add": (lambda: ours.add(*a, *b, *out), lambda: theirs.add(qx, qy, *out)),
        "add_relu": (lambda: ours.add(*a, *b, *out, None, "relu"), lambda: theirs.add_relu(qx, qy, *out)),
        "mul": (lambda: ours.mul(*a, *b, *out), lambda: theirs.mul(qx, qy, *out)),
        "relu": (lambda: ours.requantize(*a, *same, "relu"), lambda: torch.relu(qx)),
        "sigmoid": (
            lambda: ours.requantize(*a, 1 / 256, 0, None, "sigmoid"), lambda: theirs.sigmoid(qx, 1 / 256, 0)
        ),
        "max_pool2d": (lambda: ours.max_pool2d(x, *window), lambda: torch.max_pool2d(qx, 3, 2, 1)),
        "avg_pool2d": (
            lambda: ours.avg_pool2d(*a, *same, [2, 2], [2, 2]), lambda: F.avg_pool2d(qx, 2, 2)
        ),
        "adaptive_avg_pool2d": (
            lambda: ours.adaptive_avg_pool2d(*a, *same, [1, 1]), lambda: F.adaptive_avg_pool2d(qx, 1)
        ),
        "layer_norm": (
            lambda: ours.layer_norm(*a, weight, bias, 0.03, 120, None, [channels]),
            lambda: theirs.layer_norm(qx, [channels], weight, bias, 1e-5, 0.03, 120),
        ),
        "group_norm": (
            lambda: ours.group_norm(*a, weight, bias, 0.03, 120, None, 32),
            lambda: theirs.group_norm(qx, 32, weight, bias, 1e-5, 0.03, 120),
        ),
        "instance_norm": (
            lambda: ours.instance_norm(*a, weight, bias, 0.03, 120, None),
            lambda: theirs.instance_norm(qx, weight, bias, 1e-5, 0.03, 120),
        ),
        "batch_norm": (
            lambda: ours.batch_norm(*a, mean, var, weight, bias, *out, None),
            lambda: theirs.batch_norm2d(qx, weight, bias, mean, var, 1e-5, *out),
        ),
        "cat": (
            lambda: ours.cat([x, y], [SCALE, SCALE], [POINT, POINT], 1, *out),
            lambda: theirs.cat([qx, qy], 1, *out),
        ),
        "interpolate nearest": (
            lambda: ours.interpolate(*a, *same, half), lambda: F.interpolate(qx, scale_factor=2)
        ),
        "interpolate bilinear": (
            lambda: ours.interpolate(*a, *same, half, "bilinear"),
            lambda: F.interpolate(qx, scale_factor=2, mode="bilinear", align_corners=False),
        ),
    }  # fmt: skip
    read = 2 if shape.op in ("add", "add_relu", "mul", "cat") else 1
    return *table[shape.op], read * x.numel()


def steps_apart(ours, theirs):
    return (ours.int() - theirs.int_repr().int()).abs().max().item()


def run_row(shape, args, missing, result):
    ours, theirs, read = calls(shape)
    candidates, failures = {OURS: ours}, []
    y = ours()
    with missing.noting(f"{THEIRS} {shape.op}"):
        apart = steps_apart(y, theirs())
        candidates[THEIRS] = theirs
        if apart > 1:
            failures.append(f"{apart} steps from {THEIRS}'s answer")
    moved = read + y.numel()
    source, target = (torch.ones(moved // 2, dtype=torch.uint8) for _ in range(2))
    candidates[ROOF] = lambda: target.copy_(source)
    timings, foreign = cli.measure(candidates, args, warm=True)
    goals = []
    if THEIRS in timings:
        goals.append(Goal(f"vs {THEIRS}", rounds.speedup(timings, OURS, THEIRS), 1.5, 1.0))
    if moved > 2 * L2_BYTES:
        share = 100 * rounds.speedup(timings, OURS, ROOF)
        goals.append(Goal("of the copy's rate", share, 70.0, 50.0, "%"))
    row = result.add(str(shape), timings, goals, failures, foreign, shape=vars(shape), bytes=moved)
    report.print_row(row)


def parse(argv=None):
    p = cli.parser(__doc__, budget_s=2.0)
    p.add_argument("--only", help="rows whose id contains this text, e.g. norm")
    return p.parse_args(argv)


def add_rows(args, result, missing):
    peers.ours()
    with torch.no_grad():
        for shape in shapes.read_between("between"):
            if not args.only or args.only in str(shape):
                run_row(shape, args, missing, result)


def main():
    return frame.run("between", parse(), add_rows, probe=False)


if __name__ == "__main__":
    sys.exit(main())
