"""Cost of a call: operators on tensors so small that only the call counts, from Python and from C++.

    python benchmarks/ops/overhead.py [--quick]

Against the same operator on float32, torch.ao's on quantized tensors (x86), the operator of torchao's
lowered graphs, and for inputs quantized at run time the layer that its `quantize_` makes, uncompiled. A row
"from C++" is 100 calls through PyTorch's dispatcher without Python. Exit status 1 when an answer is wrong.
"""

import functools
import sys
import warnings
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402
from torch import nn  # noqa: E402

from benchmarks.harness import cli, dispatch, frame, peers, report, rounds  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402
from benchmarks.peers import torchao_peer  # noqa: E402

OURS, FP32, AO = "torch_ao_ext", "fp32", "torch.ao x86"
LOWERED, DYNAMIC = "torchao lowered", "torchao dynamic"
COUNT = 100  # calls of a row from C++
LIMIT_US, ABOVE_FP32_US = 3.0, 1.0  # wanted
SCALE, ZERO_POINT = 0.05, 128
OUT = (0.1, 120)
UNFUSED = (torch.uint8, "none", [], "")  # last arguments of torchao's operators: no post-op
NEAR = 0.05  # of the largest value: what float answers of 8-bit inputs and weights may differ by


def quantized(x):
    """(uint8 tensor, torch.ao's tensor) of the same numbers."""
    q = torch.quantize_per_tensor(x, SCALE, ZERO_POINT, torch.quint8)
    return q.int_repr(), q


def quantized_weight(w):
    """(int8 tensor, scale of each row, torch.ao's tensor)."""
    scale = w.flatten(1).abs().amax(1) / 127
    zero_points = torch.zeros(len(w), dtype=torch.long)
    q = torch.quantize_per_channel(w, scale.double(), zero_points, 0, torch.qint8)
    return q.int_repr(), scale, q


def zeros(scale):
    """Zero points of a symmetric weight."""
    return torch.zeros(len(scale), dtype=torch.int32)


def linear(missing):
    """1 x 64 -> 32."""
    del missing
    x, w, bias = torch.randn(1, 64), torch.randn(32, 64), torch.randn(32)
    (x_q, x_ao), (w_q, scale, w_ao) = quantized(x), quantized_weight(w)
    packed = torch.ops.quantized.linear_prepack(w_ao, bias)
    onednn = torch.ops.onednn
    qparams = (SCALE, ZERO_POINT, onednn.qlinear_prepack(w_q, [1, 64]), scale, zeros(scale))
    return {
        FP32: functools.partial(torch.ops.aten.linear.default, x, w, bias),
        AO: functools.partial(torch.ops.quantized.linear.default, x_ao, packed, *OUT),
        LOWERED: functools.partial(onednn.qlinear_pointwise.default, x_q, *qparams, bias, *OUT, *UNFUSED),
        OURS: functools.partial(
            torch.ops.torch_ao.linear.default, x_q, SCALE, ZERO_POINT, w_q, scale, None, bias, *OUT
        ),
    }


def linear_dynamic(missing):
    """1 x 64 -> 32, float32 in and out."""
    x, w, bias = torch.randn(1, 64), torch.randn(32, 64), torch.randn(32)
    w_q, scale, w_ao = quantized_weight(w)
    packed = torch.ops.quantized.linear_prepack(w_ao, bias)
    table = {
        FP32: functools.partial(torch.ops.aten.linear.default, x, w, bias),
        AO: functools.partial(torch.ops.quantized.linear_dynamic.default, x, packed, True),
        OURS: functools.partial(torch.ops.torch_ao.linear_dynamic.default, x, w_q, scale, None, bias),
    }
    with missing.noting(DYNAMIC):
        table[DYNAMIC] = torchao_layer(x, w, bias)
    return table


def torchao_layer(x, w, bias):
    """A call of the layer that torchao's quantize_ makes; RuntimeError unless it runs an integer product."""
    layer = nn.Linear(w.shape[1], w.shape[0])
    layer.weight.copy_(w)
    layer.bias.copy_(bias)
    layer = torchao_peer.quantized(nn.Sequential(layer))[0]
    if torchao_peer.integer_products(layer, (x,)).total() != 1:
        raise RuntimeError("no int8 peer: no integer product in its call")
    return lambda: layer(x)


def conv2d(missing):
    """3x3, 8 -> 8 channels at 8x8, channels last."""
    del missing
    last = torch.channels_last
    x, w, bias = torch.randn(1, 8, 8, 8).to(memory_format=last), torch.randn(8, 8, 3, 3), torch.randn(8)
    (x_q, x_ao), (w_q, scale, w_ao) = quantized(x), quantized_weight(w)
    packed = torch.ops.quantized.conv2d_prepack(w_ao, bias, [1, 1], [1, 1], [1, 1], 1)
    ours, onednn, place = torch.ops.torch_ao.conv2d.default, torch.ops.onednn, ([1, 1], [1, 1], [1, 1], 1)
    ready = onednn.qconv_prepack(w_q, scale, SCALE, ZERO_POINT, *place, [1, 8, 8, 8])
    qparams = (SCALE, ZERO_POINT, ready, scale, zeros(scale), bias)
    return {
        FP32: functools.partial(torch.ops.aten.conv2d.default, x, w, bias, [1, 1], [1, 1]),
        AO: functools.partial(torch.ops.quantized.conv2d.new, x_ao, packed, *OUT),
        LOWERED: functools.partial(
            onednn.qconv_pointwise.default, x_q, *qparams, *place, *OUT, *UNFUSED
        ),
        OURS: functools.partial(
            ours, x_q, SCALE, ZERO_POINT, w_q, scale, None, bias, *OUT, None, [1, 1], [1, 1]
        ),
    }


def add(missing):
    """1 x 64, twice."""
    del missing
    x, y = torch.randn(1, 64), torch.randn(1, 64)
    (x_q, x_ao), (y_q, y_ao) = quantized(x), quantized(y)
    ours = torch.ops.torch_ao.add.default
    return {
        FP32: functools.partial(torch.ops.aten.add.Tensor, x, y),
        AO: functools.partial(torch.ops.quantized.add.default, x_ao, y_ao, *OUT),
        OURS: functools.partial(ours, x_q, SCALE, ZERO_POINT, y_q, SCALE, ZERO_POINT, *OUT),
    }


def relu(missing):
    """1 x 64, the scale kept."""
    del missing
    x = torch.randn(1, 64)
    x_q, x_ao = quantized(x)
    kept = (SCALE, ZERO_POINT, SCALE, ZERO_POINT)
    return {
        FP32: functools.partial(torch.ops.aten.relu.default, x),
        AO: functools.partial(torch.ops.aten.relu.default, x_ao),
        OURS: functools.partial(torch.ops.torch_ao.requantize.default, x_q, *kept, None, "relu"),
    }


def answer_failures(table):
    """What is far from ours: more than a step, or more than NEAR of a float answer."""
    answers = {name: call() for name, call in table.items()}
    answers = {name: y.int_repr() if y.is_quantized else y for name, y in answers.items()}
    ours, found = answers[OURS].double(), []
    integer = not answers[OURS].is_floating_point()
    for name in set(answers) - ({OURS, FP32} if integer else {OURS}):
        off = (answers[name].double() - ours).abs().max().item()
        if off > (1 if integer else NEAR * ours.abs().max().item()):
            found.append(f"{name} is {off:.3g} away")
    return found


def run_row(make, count, args, missing, result):
    """`count` None: one call from Python."""
    table = make(missing)
    where, calls, failures = "Python", 1, answer_failures(table)
    if count:
        where, calls = f"C++, {count} calls", count
        with missing.noting("calls from C++"):
            operators = {name: c for name, c in table.items() if isinstance(c, functools.partial)}
            table = {name: dispatch.from_cpp(call, count) for name, call in operators.items()}
        if "calls from C++" in missing.as_dict():
            return
    timings, foreign = cli.measure(table, args)
    ours, fp32 = (timings[name].median * 1e6 / calls for name in (OURS, FP32))
    goals = [
        Goal("a call", ours, LIMIT_US, None, "us", larger_is_better=False),
        Goal("more than fp32", ours - fp32, ABOVE_FP32_US, None, "us", larger_is_better=False),
        Goal(f"vs {AO}", rounds.speedup(timings, OURS, AO), 1.0),
        *(Goal(f"vs {n}", rounds.speedup(timings, OURS, n)) for n in (LOWERED, DYNAMIC) if n in timings),
    ]
    title = f"{make.__name__}: {make.__doc__.rstrip('.')}, from {where}"
    report.print_row(result.add(title, timings, goals, failures, foreign))


def add_rows(args, result, missing):
    warnings.simplefilter("ignore")  # torch warns of the end of its quantized tensors
    torch.manual_seed(0)
    torch.backends.quantized.engine = "x86"
    peers.ours()
    with torch.no_grad():
        for count in (None, COUNT):
            for make in (linear, linear_dynamic, conv2d, add, relu):
                run_row(make, count, args, missing, result)


def main():
    return frame.run("overhead", cli.parser(__doc__, budget_s=1.0).parse_args(), add_rows, probe=False)


if __name__ == "__main__":
    sys.exit(main())
