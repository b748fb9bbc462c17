"""`conv1d` to `conv3d` and the transposed ones on 61 shapes: fp32, torch.ao's engines and ours.

    python benchmarks/ops/conv.py [--threads 1] [--only stem,crepe] [--skip depthwise]

uint8 in and out, int8 weights per channel, relu; channels last everywhere. Transposed: weights
per tensor, as torch.ao has nothing else. The answers are compared
with float64 in this run. Exit status 1 when a floor is missed.
Rows of CREPE: onnxruntime's QLinearConv too, in its own layout and in channels last, without
relu. 3x3 of ResNet-50: the share of the register loop of int8 products, timed in the same rounds.
Rows "residual" (benchmarks/shapes/conv_add.csv): ours with the sum of a uint8 tensor, and relu
where the network has one, against ours without both, against torch.ao's convolution with its relu
alone, and its conv2d_add_relu or conv2d_add.
"""

import functools
import sys
import tempfile
import warnings
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402

from benchmarks.harness import cli, frame, peers, report, roof, rounds, shapes  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402
from benchmarks.peers import conv_peers  # noqa: E402

FP32, OURS = "fp32", "torch_ao_ext"
AO = tuple(f"torch.ao {engine}" for engine in peers.TORCH_AO_ENGINES)
ORT = ("onnxruntime", "onnxruntime channels last")
SLOWEST = 1 / 1.1  # against fp32, on every shape
ROOF_SHARE = 70  # percent, of the register loop
ALONE = "conv"
MOST_WITH_SUM = 1.1  # times the convolution alone
S_X, Z_X, S_Y, Z_Y, S_OTHER, Z_OTHER = 0.05, 128, 0.2, 3, 0.1, 100


def last(x):
    """Channels last memory."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


class Problem:
    """Operands of one shape, and the calls on them."""

    def __init__(self, shape):
        g = torch.Generator().manual_seed(0)
        self.shape = shape
        size = (shape.batch, shape.channels, *shape.size)
        first, second = shape.out, shape.channels // shape.groups
        if shape.transposed:
            first, second = shape.channels, shape.out // shape.groups
        # 7 bits: torch.ao's engines saturate above on CPUs without VNNI.
        self.x = last(torch.randint(64, 192, size, generator=g, dtype=torch.uint8))
        self.w = torch.randint(-64, 65, (first, second, *shape.kernel), generator=g, dtype=torch.int8)
        self.scale = torch.rand(shape.out, generator=g) * 0.01 + 0.001
        if shape.transposed:  # torch.ao has no scales per channel for these
            self.scale.fill_(self.scale[0].item())
        self.bias = torch.randn(shape.out, generator=g)
        self.generator = g

    def _numbers(self):
        s = self.shape
        if s.transposed:
            return s.stride, s.padding, (0,) * s.rank, s.groups, s.dilation
        return s.stride, s.padding, s.dilation, s.groups

    def operations(self):
        """Multiplications and additions."""
        s, pixels = self.shape, self._real_values()[0, 0].numel()
        return 2 * s.batch * pixels * s.out * s.channels // s.groups * self.w[0, 0].numel()

    def _name(self):
        return f"conv{'_transpose' if self.shape.transposed else ''}{self.shape.rank}d"

    def _real_weight(self, dtype):
        s = self.shape
        if not s.transposed:
            return self.w.to(dtype) * self.scale.to(dtype).view(-1, 1, *[1] * s.rank)
        grouped = self.w.to(dtype).view(s.groups, -1, *self.w.shape[1:])
        return (grouped * self.scale.to(dtype).view(s.groups, 1, -1, *[1] * s.rank)).view(self.w.shape)

    def _real_values(self):
        f = getattr(torch.nn.functional, self._name())
        x = (self.x.double() - Z_X) * S_X
        return f(x, self._real_weight(torch.float64), self.bias.double(), *self._numbers())

    def expected(self):
        """Integers of the rule in float64; a step off at a rounding boundary."""
        return _rounded(self._real_values().relu())

    def fp32(self):
        f = getattr(torch.nn.functional, self._name())
        x, w = last((self.x.float() - Z_X) * S_X), last(self._real_weight(torch.float32))
        return lambda: f(x, w, self.bias, *self._numbers()).relu_()

    def ours(self, post_ops="relu", **named):
        op = getattr(torch.ops.torch_ao, self._name()).default
        qparams = (S_X, Z_X, self.w, self.scale, None, self.bias, S_Y, Z_Y, None)
        return functools.partial(op, self.x, *qparams, *self._numbers(), post_ops, **named)

    def summed(self):
        """The call with a sum and relu, and its expected integers."""
        y = self._real_values()
        self.other = last(torch.randint(0, 256, y.shape, generator=self.generator, dtype=torch.uint8))
        post_ops = self.shape.post_ops
        call = self.ours(post_ops, other=self.other, other_scale=S_OTHER, other_zero_point=Z_OTHER)
        y = y + (self.other.double() - Z_OTHER) * S_OTHER
        return call, _rounded(y.relu() if "relu" in post_ops else y)

    def torch_ao_summed(self):
        """torch.ao's convolution with the sum, of its engine onednn; it writes over the other tensor."""
        relu = "relu" in self.shape.post_ops
        alone = self.torch_ao("onednn", relu)
        x, packed = alone.args[:2]
        other = torch._make_per_tensor_quantized_tensor(self.other.clone(), S_OTHER, Z_OTHER)
        run = torch.ops.quantized.conv2d_add_relu if relu else torch.ops.quantized.conv2d_add
        return alone, functools.partial(run, x, other, packed, S_Y, Z_Y)

    def torch_ao(self, engine, relu=True):
        """torch.ao's operator; raises for what it does not have. A transposed one has relu always."""
        s = self.shape
        if s.rank == 1:
            raise NotImplementedError("its conv1d is a conv2d of one line")
        with warnings.catch_warnings(), peers.quantized_engine(engine):
            warnings.simplefilter("ignore")
            zeros = torch.zeros(s.out, dtype=torch.long)
            if s.transposed:
                w = torch._make_per_tensor_quantized_tensor(self.w, self.scale[0].item(), 0)
            else:
                w = torch._make_per_channel_quantized_tensor(self.w, self.scale.double(), zeros, 0)
            x = torch._make_per_tensor_quantized_tensor(self.x, S_X, Z_X)
            ops = torch.ops.quantized
            if s.transposed:
                prepack = getattr(ops, f"{self._name()}_prepack")
                packed = prepack(w, self.bias, s.stride, s.padding, (0,) * s.rank, s.dilation, s.groups)
                run = getattr(ops, self._name())

                def call():
                    return torch.relu(run(x, packed, S_Y, Z_Y))

            else:
                prepack = getattr(ops, f"{self._name()}_prepack")
                packed = prepack(w, self.bias, s.stride, s.padding, s.dilation, s.groups)
                name = f"{self._name()}{'_relu' if relu else ''}"
                call = functools.partial(getattr(ops, name), x, packed, S_Y, Z_Y)
            call()
        return call

    def onnxruntime(self, channels_last, threads, folder):
        """onnxruntime's QLinearConv of the same integers."""
        s = self.shape
        bias = torch.round(self.bias.double() / (S_X * self.scale.double())).to(torch.int32)
        return conv_peers.onnxruntime_call(
            self.x, (S_X, Z_X), self.w, self.scale, bias, (S_Y, Z_Y), s, channels_last, threads, folder
        )


def _rounded(y):
    return (torch.round(y / S_Y) + Z_Y).clamp(0, 255)


def _integers(y):
    return (y.int_repr() if y.is_quantized else y).double()


def add_onnxruntime(problem, calls, threads, missing):
    for name in ORT:
        try:
            with tempfile.TemporaryDirectory() as folder:
                calls[name] = problem.onnxruntime("last" in name, threads, Path(folder))
        except Exception as error:
            missing.setdefault(name, []).append(f"{problem.shape.layer}: {str(error).splitlines()[0]}"[:100])


def run_row(shape, args, loop, missing, result):
    problem = Problem(shape)
    calls = {FP32: problem.fp32(), OURS: problem.ours()}
    for name, engine in zip(AO, peers.TORCH_AO_ENGINES, strict=True):
        try:
            calls[name] = problem.torch_ao(engine)
        except Exception as error:  # many shapes have no such kernel
            missing.setdefault(name, []).append(f"{shape.layer}: {str(error).splitlines()[0]}"[:100])
    if shape.layer.startswith("crepe"):
        add_onnxruntime(problem, calls, args.threads, missing)
    expected, failures = problem.expected(), []
    for name, call in calls.items():
        if name != FP32:
            answer = _integers(call())
            if name in ORT:
                answer = answer.clamp(min=Z_Y)  # the relu that it does without
            off = (answer - expected).abs().max().item()
            if off > 1:
                failures.append(f"{name} is {off:.0f} steps off")
    sampler = None
    if loop is not None and shape.layer.startswith("resnet50 3x3"):
        calls["roof"] = sampler = roof.Sampler(loop, args.threads)
    timings, foreign = cli.measure(calls, args)
    timings.pop("roof", None)
    goals = [Goal(f"vs {FP32}", rounds.speedup(timings, OURS, FP32), None, SLOWEST)]
    best = rounds.best_of(timings, ORT)
    if best is not None:
        goals.append(Goal("vs onnxruntime", rounds.speedup(timings, OURS, best), None, 1.0))
    if sampler is not None:
        gops = problem.operations() / timings[OURS].median / 1e9
        goals.append(Goal("of the register-loop roof", 100 * gops / sampler.gops, None, ROOF_SHARE, "%"))
    best = rounds.best_of(timings, AO)
    if best is not None:
        goals.append(Goal("vs torch.ao", rounds.speedup(timings, OURS, best), shape.target, shape.floor))
    mine = [f for f in failures if f.startswith(OURS)]
    name = f"{shape.layer}: {shape}"
    report.print_row(result.add(name, timings, goals, mine, foreign, repeat=shape.repeat))


def run_summed_row(shape, args, missing, result):
    problem = Problem(shape)
    relu = ",relu" if "relu" in shape.post_ops else ""
    with_sum = f"{ALONE},add{relu}"
    ao_alone, ao_with_sum = f"torch.ao {ALONE}{relu}", f"torch.ao {with_sum}"  # of its engine onednn
    summed, expected = problem.summed()
    calls = {ALONE: problem.ours(""), with_sum: summed}
    try:
        calls[ao_alone], calls[ao_with_sum] = problem.torch_ao_summed()
    except Exception as error:
        missing.setdefault(ao_with_sum, []).append(f"{shape.layer}: {str(error).splitlines()[0]}"[:100])
    failures = []
    for name in (with_sum, ao_with_sum):
        if name in calls and (off := (_integers(calls[name]()) - expected).abs().max().item()) > 1:
            failures.append(f"{name} is {off:.0f} steps off")
    timings, foreign = cli.measure(calls, args)
    ratio = rounds.speedup(timings, ALONE, with_sum)
    goals = [Goal(f"time vs {ALONE}", ratio, MOST_WITH_SUM, larger_is_better=False)]
    if ao_with_sum in timings:
        goals.append(
            Goal(f"time vs {ao_alone}", rounds.speedup(timings, ao_alone, with_sum), larger_is_better=False)
        )
        goals.append(Goal(f"vs {ao_with_sum}", rounds.speedup(timings, with_sum, ao_with_sum)))
    name = f"residual {shape.layer}: {shape}"
    report.print_row(result.add(name, timings, goals, failures, foreign, repeat=shape.repeat))


def add_rows(args, result, missing):
    peers.ours()
    reasons, loop = {}, roof.best_loop()

    def wanted(name):
        left_out = args.skip and any(text in name for text in args.skip.split(","))
        return any(text in name for text in args.only.split(",")) and not left_out

    for shape in shapes.read_conv("conv"):
        if wanted(shape.layer):
            run_row(shape, args, loop, reasons, result)
    with peers.quantized_engine("onednn"):  # conv2d_add_relu asks for it in each call
        for shape in shapes.read_conv("conv_add"):
            if wanted(f"residual {shape.layer}"):
                run_summed_row(shape, args, reasons, result)
    missing.reasons |= {n: f"{len(rows)} shapes, the first: {rows[0]}" for n, rows in reasons.items()}


def main():
    parser = cli.parser(__doc__, budget_s=0.25)
    parser.add_argument("--only", default="", help="rows whose layer holds one of these texts")
    parser.add_argument("--skip", default="", help="rows whose layer holds none of these")
    return frame.run("conv", parser.parse_args(), add_rows)


if __name__ == "__main__":
    sys.exit(main())
