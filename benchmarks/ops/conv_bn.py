"""Convolution, batch norm and ReLU: one operator, folded by hand, and step by step.

    python benchmarks/ops/conv_bn.py [--quick] [--compile]

`conv2d_bn_relu` takes the statistics as arguments; "folded" is `conv2d_relu` on a weight that they were
multiplied into; "steps" is `conv2d` to float32, then torch's batch norm, ReLU and `quantize_per_tensor`.
--compile adds torch.compile's float32 with frozen weights. Exit status 1 when a floor is missed or an
answer is wrong.
"""

import functools
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from benchmarks.harness import cli, frame, peers, report, rounds, shapes  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402
from benchmarks.peers import torch_peers  # noqa: E402

FUSED, FOLDED, STEPS, FP32 = "conv2d_bn_relu", "folded", "steps", "fp32"
COMPILED = "fp32 + compile"
LAYERS = ("resnet50 3x3 at 56", "resnet50 1x1 at 28", "resnet stem", "mobilenetv2 depthwise 56")
SCALE, ZERO_POINT, EPS = 0.03, 128, 1e-5


def compiled(shape, x, conv_weight, **norm):
    """A call of the layer as modules under torch.compile; norm: parameters and buffers of BatchNorm2d."""
    sizes = (shape.channels, shape.out, shape.kernel, shape.stride, shape.padding, shape.dilation)
    conv = nn.Conv2d(*sizes, shape.groups, bias=False)
    layer = nn.Sequential(conv, nn.BatchNorm2d(shape.out, EPS), nn.ReLU()).eval().requires_grad_(False)
    conv.weight.copy_(conv_weight)
    for name, tensor in norm.items():
        getattr(layer[1], name).copy_(tensor)
    return functools.partial(torch_peers.compiled_now(layer, (x,)), x)


def calls(shape, compiles=False):
    """name -> call."""
    g = torch.Generator().manual_seed(shape.channels + shape.out)
    x = torch.randn(shape.batch, shape.channels, *shape.size, generator=g)
    x = x.to(memory_format=torch.channels_last)
    w = torch.randn(shape.out, shape.channels // shape.groups, *shape.kernel, generator=g)
    mean, var = torch.randn(shape.out, generator=g), torch.rand(shape.out, generator=g) + 0.5
    gamma, beta = torch.rand(shape.out, generator=g) + 0.5, torch.randn(shape.out, generator=g)
    place = (shape.stride, shape.padding, shape.dilation, shape.groups)
    y = F.relu(F.batch_norm(F.conv2d(x, w, None, *place), mean, var, gamma, beta, False, 0.0, EPS))
    out = (y.max().item() / 255, 0)
    ops = torch.ops.torch_ao
    q = ops.quantize_per_tensor(x, SCALE, ZERO_POINT, 0, 255, torch.uint8)
    w_scale = w.flatten(1).abs().amax(1) / 127
    w_q = (w / w_scale[:, None, None, None]).round().to(torch.int8)
    factor = gamma / (var + EPS).sqrt()  # above zero: the folded weight has the same integers
    shift = beta - mean * factor

    def steps():
        z = ops.conv2d(q, SCALE, ZERO_POINT, w_q, w_scale, None, None, 1.0, 0, torch.float32, *place)
        z = F.relu(F.batch_norm(z, mean, var, gamma, beta, False, 0.0, EPS))
        return ops.quantize_per_tensor(z, *out, 0, 255, torch.uint8)

    given = (q, SCALE, ZERO_POINT, w_q)
    table = {
        FP32: lambda: F.relu(
            F.batch_norm(F.conv2d(x, w, None, *place), mean, var, gamma, beta, False, 0.0, EPS)
        ),
        STEPS: steps,
        FOLDED: functools.partial(
            ops.conv2d_relu.default, *given, w_scale * factor, None, shift, *out, None, *place
        ),
        FUSED: functools.partial(
            ops.conv2d_bn_relu.default, *given, w_scale, None, None, mean, var, gamma, beta, EPS, *out, None,
            *place,
        ),
    }  # fmt: skip
    if compiles:
        norm = {"running_mean": mean, "running_var": var, "weight": gamma, "bias": beta}
        table[COMPILED] = compiled(shape, x, w, **norm)
    return table


def run_row(shape, args, result):
    table = calls(shape, args.compile)
    answers = {name: table[name]().int() for name in (FUSED, FOLDED, STEPS)}
    off = {name: (answers[FUSED] - y).abs().max().item() for name, y in answers.items()}
    failures = [f"{name} is {steps} steps away" for name, steps in off.items() if steps > 1]
    if COMPILED in table:
        real = table[FP32]()
        error = (table[COMPILED]() - real).abs().max() / real.max()
        failures += [f"{COMPILED} is {error:.1e} away"] if error > 1e-4 else []
    timings, foreign = cli.measure(table, args)
    goals = [
        Goal("vs folded", rounds.speedup(timings, FUSED, FOLDED), None, 0.95),
        Goal("vs steps", rounds.speedup(timings, FUSED, STEPS), None, 1.0),
        Goal("vs fp32", rounds.speedup(timings, FUSED, FP32), None, 1.0),
    ]
    if COMPILED in timings:
        goals.append(Goal(f"vs {COMPILED}", rounds.speedup(timings, FUSED, COMPILED)))
    report.print_row(result.add(shape.layer, timings, goals, failures, foreign))


def add_rows(args, result, missing):
    if not args.compile:
        missing.reasons[COMPILED] = "not run (--compile)"
    peers.ours()
    with torch.no_grad():
        for shape in shapes.read_conv("conv"):
            if shape.layer in LAYERS:
                run_row(shape, args, result)


def main():
    parser = cli.parser(__doc__, budget_s=1.0)
    parser.add_argument("--compile", action="store_true", help="float32 under torch.compile, too")
    return frame.run("conv_bn", parser.parse_args(), add_rows)


if __name__ == "__main__":
    sys.exit(main())
