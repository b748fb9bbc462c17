"""What it costs to quantize the rows of an input at run time, beside the product that they are for.

    python benchmarks/ops/quantize.py [--quick]

A row's minimum and maximum, its scale and its 8-bit values, for M rows of K: our operators one by one,
`linear_dynamic` against static `linear` on the same integers (the difference is what the fused pass
costs), and the peers' ways: torch.ao and onnxruntime have one scale for all rows, torchao one for each,
symmetric. Exit status 1 when an answer is wrong.
"""

import functools
import sys
import tempfile
import warnings
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402

from benchmarks.harness import cli, frame, peers, report, rounds  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402
from benchmarks.peers import quantize_peers  # noqa: E402

SHAPES = ((16, 768, 3072), (128, 768, 3072), (512, 768, 3072), (128, 3072, 768))  # M, K, N
STEPS, FUSED, STATIC, AO = "choose and quantize", "linear_dynamic", "linear", "torch.ao quantize"
ORT, TORCHAO = "onnxruntime quantize", "torchao quantize"
SHARE = 10.0  # % of the product, wanted for M >= 16


def calls(m, k, n, threads, missing):
    """name -> call, and what is wrong."""
    g = torch.Generator().manual_seed(m + k)
    x = torch.randn(m, k, generator=g)
    weight = torch.randint(-127, 128, (n, k), generator=g).to(torch.int8)
    scale, ops = torch.full((n,), 1e-3), torch.ops.torch_ao

    def steps():
        scales, zero_points = ops.choose_qparams_per_token(x, 0, 255)
        return ops.quantize_per_token(x, scales, zero_points, 0, 255, torch.uint8), scales, zero_points

    q, scales, zero_points = steps()
    real = (q.double() - zero_points.double()) * scales.double()
    want = real @ weight.double().t() * 1e-3
    table = {
        STEPS: steps,
        FUSED: functools.partial(ops.linear_dynamic.default, x, weight, scale),
        STATIC: functools.partial(
            ops.linear.default, q, 0.03, 128, weight, scale, None, None, 1.0, 0, torch.float32
        ),
        AO: lambda: torch.quantize_per_tensor_dynamic(x, torch.quint8, False),
    }
    with missing.noting(ORT), tempfile.TemporaryDirectory() as folder:
        table[ORT] = quantize_peers.onnxruntime_call(x, threads, Path(folder))
    with missing.noting(TORCHAO):
        table[TORCHAO] = quantize_peers.torchao_call(x)
    failures = [f"{name} is {off:.2f} steps off" for name, off in steps_off(table, x).items() if off > 1]
    off = ((table[FUSED]().double() - want).abs().max() / want.abs().max()).item()
    failures += [f"linear_dynamic is {off:.1e} from its rows' product"] if off > 1e-4 else []
    return table, failures


def steps_off(table, x):
    """Most steps between x and what a way makes of it: half a step, up to one at an end of the range."""
    found = {}
    for name in (STEPS, ORT, TORCHAO):
        if name in table:
            q, scale, zero_point = table[name]()
            found[name] = (((q.double() - zero_point) * scale - x.double()) / scale).abs().max().item()
    return found


def run_row(m, k, n, args, missing, result):
    table, failures = calls(m, k, n, args.threads, missing)
    timings, foreign = cli.measure(table, args)
    product = timings[STATIC].median
    fused = 100 * (timings[FUSED].median - product) / product
    goals = [
        Goal("fused, of the product", fused, SHARE, None, "%", larger_is_better=False),
        Goal("as operators, of the product", 100 * timings[STEPS].median / product, None, None, "%"),
        *(Goal(f"vs {p}", rounds.speedup(timings, STEPS, p)) for p in (AO, ORT, TORCHAO) if p in timings),
    ]
    report.print_row(result.add(f"M={m} K={k} N={n}", timings, goals, failures, foreign))


def add_rows(args, result, missing):
    warnings.simplefilter("ignore")  # torch warns of the end of its quantized tensors
    peers.ours()
    with torch.no_grad():
        for shape in SHAPES:
            run_row(*shape, args, missing, result)


def main():
    return frame.run("quantize", cli.parser(__doc__, budget_s=1.0).parse_args(), add_rows)


if __name__ == "__main__":
    sys.exit(main())
