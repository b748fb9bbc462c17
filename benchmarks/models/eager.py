"""ResNet-18 in eager mode: calls, calibrated forwards and training steps against torch.ao and pt2e.

    python benchmarks/models/eager.py [--threads 1]

Random weights with lively batch norms, stubs and FloatFunctional sums, so that torch.ao runs the
same model. Exit status 1 when a floor is missed.
"""

import functools
import sys
import warnings
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402
from torch import nn  # noqa: E402

from benchmarks.harness import cli, frame, peers, report  # noqa: E402
from benchmarks.harness.accuracy import sqnr_db  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402
from benchmarks.harness.rounds import speedup  # noqa: E402
from benchmarks.models import convnet_models  # noqa: E402

FP32, OURS, TRACED, LOWERED, PEER, PEER_TRACED = (
    "fp32", "torch_ao_ext", "torch_ao_ext traced", "torch_ao_ext pt2e traced", "torch.ao x86",
    "torch.ao x86 traced",
)  # fmt: skip
CALIBRATION = 8


class Block(nn.Module):
    """Two 3x3 convolutions and a sum."""

    def __init__(self, functional, inputs, planes, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False), nn.BatchNorm2d(planes)
        self.relu, self.sum = nn.ReLU(), functional()
        self.down = None
        if stride != 1 or inputs != planes:
            shortcut = nn.Conv2d(inputs, planes, 1, stride, bias=False)
            self.down = nn.Sequential(shortcut, nn.BatchNorm2d(planes))

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.sum.add_relu(y, x if self.down is None else self.down(x))


class ResNet18(nn.Module):
    """He et al. 2016, table 1, with stubs."""

    def __init__(self, stubs, functional):
        super().__init__()
        self.quant, self.dequant = stubs.QuantStub(), stubs.DeQuantStub()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()
        self.pool = nn.MaxPool2d(3, 2, 1)
        sizes = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
        self.layers = nn.Sequential(*[
            block for inputs, planes, stride in sizes
            for block in (Block(functional, inputs, planes, stride), Block(functional, planes, planes, 1))
        ])  # fmt: skip
        self.average, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(512, 1000)

    def forward(self, x):
        x = self.layers(self.pool(self.relu(self.bn(self.conv(self.quant(x))))))
        return self.dequant(self.fc(torch.flatten(self.average(x), 1)))


def groups(model):
    """Names that fuse."""
    found = [["conv", "bn", "relu"]]
    for i, block in enumerate(model.layers):
        found += [[f"layers.{i}.conv1", f"layers.{i}.bn1", f"layers.{i}.relu"]]
        found += [[f"layers.{i}.conv2", f"layers.{i}.bn2"]]
        if block.down is not None:
            found.append([f"layers.{i}.down.0", f"layers.{i}.down.1"])
    return found


def make(stubs, functional):
    torch.manual_seed(0)
    return convnet_models.with_lively_norms(ResNet18(stubs, functional))


def images(batch, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, 224, 224, generator=g)


def observed(stubs, functional, backend):
    model = make(stubs, functional)
    model = stubs.fuse_modules(model, groups(model))
    model.qconfig = stubs.get_default_qconfig(backend)
    return stubs.prepare(model)


def calibrated(stubs, functional, backend):
    model = observed(stubs, functional, backend)
    with torch.no_grad():
        for i in range(CALIBRATION):
            model(images(1, seed=100 + i))
    return stubs.convert(model)


def frozen(model, x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        return torch.jit.freeze(torch.jit.trace(model, x).eval())


def lowered(ao, model, x):
    from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(torch.export.export(model, (x,)).module(), quantizer)
    for i in range(CALIBRATION):
        prepared(images(1, seed=100 + i))
    return frozen(ao.lower(convert_pt2e(prepared), (x,)), x)


def trained(stubs, functional):
    """In training mode with fake quantization."""
    model = make(stubs, functional).train()
    model = stubs.fuse_modules_qat(model, groups(model))
    model.qconfig = stubs.get_default_qat_qconfig("x86")
    return stubs.prepare_qat(model)


def step(model, x):
    loss = model(x).square().mean()
    model.zero_grad()
    loss.backward()
    return loss


def torch_ao():
    warnings.simplefilter("ignore")  # it warns of its end at every call
    import torch.ao.nn.quantized as modules
    import torch.ao.quantization as stubs

    torch.backends.quantized.engine = "x86"
    return stubs, modules.FloatFunctional


def run_calls(ao, args, result):
    tq, functional = ao.quantization, ao.nn.quantized.FloatFunctional
    x = images(1)
    with torch.no_grad():
        model = make(tq, functional)
        int8 = calibrated(tq, functional, "onednn")
        calls = {FP32: model, OURS: int8, TRACED: frozen(int8, x), LOWERED: lowered(ao, model, x)}
        calls[PEER] = calibrated(*torch_ao(), "x86")
        calls[PEER_TRACED] = frozen(calls[PEER], x)
        for call in calls.values():
            for _ in range(3):
                call(x)
        want = model(x)
        sqnr = {key: sqnr_db(want, call(x)) for key, call in calls.items() if key != FP32}
        timings, foreign = cli.measure({n: functools.partial(c, x) for n, c in calls.items()}, args)
    goals = [
        Goal(f"vs {FP32}", speedup(timings, TRACED, FP32), None, 1.0),
        Goal(f"vs {PEER}", speedup(timings, OURS, PEER), 1.0, 0.9),
        Goal(f"traced vs {PEER_TRACED}", speedup(timings, TRACED, PEER_TRACED), None, 1.0),
        Goal(f"vs {LOWERED}", speedup(timings, TRACED, LOWERED), None, 0.95),
    ]
    report.print_row(result.add("ResNet-18 B1", timings, goals, (), foreign, sqnr_db=sqnr))


def run_calibration(ao, args, result):
    tq, functional = ao.quantization, ao.nn.quantized.FloatFunctional
    x = images(1)
    with torch.no_grad():
        calls = {FP32: make(tq, functional), OURS: observed(tq, functional, "x86")}
        calls[PEER] = observed(*torch_ao(), "x86")
        timings, foreign = cli.measure({n: functools.partial(c, x) for n, c in calls.items()}, args)
    goals = [Goal(f"share of {FP32}", speedup(timings, OURS, FP32), 1 / 1.15, 1 / 1.3)]
    report.print_row(result.add("calibrated forward B1", timings, goals, (), foreign))


def run_training(ao, args, result):
    tq, functional = ao.quantization, ao.nn.quantized.FloatFunctional
    x = images(4)
    calls = {FP32: make(tq, functional).train(), OURS: trained(tq, functional), PEER: trained(*torch_ao())}
    timings, foreign = cli.measure({n: functools.partial(step, c, x) for n, c in calls.items()}, args)
    goals = [Goal(f"share of {FP32}", speedup(timings, OURS, FP32), 1 / 1.3, 1 / 1.5)]
    report.print_row(result.add("training step B4", timings, goals, (), foreign))


def add_rows(args, result, missing):
    del missing
    ao = peers.ours()
    for run in (run_calls, run_calibration, run_training):
        run(ao, args, result)


def main():
    return frame.run("eager", cli.parser(__doc__, budget_s=8.0).parse_args(), add_rows)


if __name__ == "__main__":
    sys.exit(main())
