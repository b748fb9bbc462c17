"""Cost of a call: operators on tensors so small that only the call counts, from Python and from C++.

    python benchmarks/ops/overhead.py [--quick]

Against the same operator on float32 and torch.ao's on quantized tensors (x86). A row "from C++" is 100
calls through PyTorch's dispatcher without Python.
"""

import functools
import sys
import warnings
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402

from benchmarks.harness import cli, dispatch, frame, peers, report, rounds  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402

OURS, FP32, AO = "torch_ao_ext", "fp32", "torch.ao x86"
COUNT = 100  # calls of a row from C++
LIMIT_US, ABOVE_FP32_US = 3.0, 1.0  # wanted
SCALE, ZERO_POINT = 0.05, 128
OUT = (0.1, 120)


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


def linear():
    """1 x 64 -> 32."""
    x, w, bias = torch.randn(1, 64), torch.randn(32, 64), torch.randn(32)
    (x_q, x_ao), (w_q, scale, w_ao) = quantized(x), quantized_weight(w)
    packed = torch.ops.quantized.linear_prepack(w_ao, bias)
    return {
        FP32: functools.partial(torch.ops.aten.linear.default, x, w, bias),
        AO: functools.partial(torch.ops.quantized.linear.default, x_ao, packed, *OUT),
        OURS: functools.partial(
            torch.ops.torch_ao.linear.default, x_q, SCALE, ZERO_POINT, w_q, scale, None, bias, *OUT
        ),
    }


def linear_dynamic():
    """1 x 64 -> 32, float32 in and out."""
    x, w, bias = torch.randn(1, 64), torch.randn(32, 64), torch.randn(32)
    w_q, scale, w_ao = quantized_weight(w)
    packed = torch.ops.quantized.linear_prepack(w_ao, bias)
    return {
        FP32: functools.partial(torch.ops.aten.linear.default, x, w, bias),
        AO: functools.partial(torch.ops.quantized.linear_dynamic.default, x, packed, True),
        OURS: functools.partial(torch.ops.torch_ao.linear_dynamic.default, x, w_q, scale, None, bias),
    }


def conv2d():
    """3x3, 8 -> 8 channels at 8x8, channels last."""
    last = torch.channels_last
    x, w, bias = torch.randn(1, 8, 8, 8).to(memory_format=last), torch.randn(8, 8, 3, 3), torch.randn(8)
    (x_q, x_ao), (w_q, scale, w_ao) = quantized(x), quantized_weight(w)
    packed = torch.ops.quantized.conv2d_prepack(w_ao, bias, [1, 1], [1, 1], [1, 1], 1)
    ours = torch.ops.torch_ao.conv2d.default
    return {
        FP32: functools.partial(torch.ops.aten.conv2d.default, x, w, bias, [1, 1], [1, 1]),
        AO: functools.partial(torch.ops.quantized.conv2d.new, x_ao, packed, *OUT),
        OURS: functools.partial(
            ours, x_q, SCALE, ZERO_POINT, w_q, scale, None, bias, *OUT, None, [1, 1], [1, 1]
        ),
    }


def add():
    """1 x 64, twice."""
    x, y = torch.randn(1, 64), torch.randn(1, 64)
    (x_q, x_ao), (y_q, y_ao) = quantized(x), quantized(y)
    ours = torch.ops.torch_ao.add.default
    return {
        FP32: functools.partial(torch.ops.aten.add.Tensor, x, y),
        AO: functools.partial(torch.ops.quantized.add.default, x_ao, y_ao, *OUT),
        OURS: functools.partial(ours, x_q, SCALE, ZERO_POINT, y_q, SCALE, ZERO_POINT, *OUT),
    }


def relu():
    """1 x 64, the scale kept."""
    x = torch.randn(1, 64)
    x_q, x_ao = quantized(x)
    kept = (SCALE, ZERO_POINT, SCALE, ZERO_POINT)
    return {
        FP32: functools.partial(torch.ops.aten.relu.default, x),
        AO: functools.partial(torch.ops.aten.relu.default, x_ao),
        OURS: functools.partial(torch.ops.torch_ao.requantize.default, x_q, *kept, None, "relu"),
    }


def run_row(make, count, args, missing, result):
    """`count` None: one call from Python."""
    table = make()
    where, calls = "Python", 1
    if count:
        where, calls = f"C++, {count} calls", count
        with missing.noting("calls from C++"):
            table = {name: dispatch.from_cpp(call, count) for name, call in table.items()}
        if "calls from C++" in missing.as_dict():
            return
    timings, foreign = cli.measure(table, args)
    ours, fp32 = (timings[name].median * 1e6 / calls for name in (OURS, FP32))
    goals = [
        Goal("a call", ours, LIMIT_US, None, "us", larger_is_better=False),
        Goal("more than fp32", ours - fp32, ABOVE_FP32_US, None, "us", larger_is_better=False),
        Goal(f"vs {AO}", rounds.speedup(timings, OURS, AO), 1.0),
    ]
    title = f"{make.__name__}: {make.__doc__.rstrip('.')}, from {where}"
    report.print_row(result.add(title, timings, goals, (), foreign))


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
