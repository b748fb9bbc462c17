"""One model by eager mode, FX graph mode and pt2e: speed of the result, and int8 layers.

    python benchmarks/models/flows.py [--threads 1]

ResNet-18 and a digits network with calibrated layers, MiniLM with inputs quantized at run time. Eager and FX
have the same qconfig, pt2e its quantizer's default; all in one interleaved run. All are frozen TorchScript,
traced or (MiniLM's graphs, whose free sizes torch.jit.trace does not take) scripted. Exit status 1 when a
floor is missed: the slowest flow within 5 % of the fastest.
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
from benchmarks.models import eager, minilm_model  # noqa: E402

FP32, EAGER, FX, PT2E = "fp32", "eager", "fx", "pt2e"
FLOWS = (EAGER, FX, PT2E)


def resnet(tq, functional):
    """Model, fused names, calibration batches, input."""
    model = eager.make(tq, functional)
    return model, eager.groups(model), [eager.images(1, 100 + i) for i in range(4)], eager.images(1)


def digits(tq, functional):
    """Two convolutions and a linear layer on images of 8 x 8."""
    del functional
    torch.manual_seed(0)
    model = tq.QuantWrapper(nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 10),
    )).eval()  # fmt: skip
    groups = [["module.0", "module.1", "module.2"], ["module.3", "module.4", "module.5"]]
    batches = [torch.rand(64, 1, 8, 8) for _ in range(5)]
    return model, groups, batches[:4], batches[4]


class Encoder(nn.Module):
    """MiniLM with positional inputs."""

    def __init__(self):
        super().__init__()
        self.bert = minilm_model.load("eager")
        self.bert.pooler = None  # not part of the answer

    def forward(self, ids, mask):
        return minilm_model.hidden(self.bert, ids, mask)


def quantizer(dynamic):
    """X86InductorQuantizer with its default config."""
    from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86

    config = x86.get_default_x86_inductor_quantization_config(is_dynamic=dynamic)
    return x86.X86InductorQuantizer().set_global(config)


def by_graphs(ao, model, mapping, batches, dynamic):
    """The model by FX graph mode and by pt2e."""
    from torch_ao_ext.quantization.quantize_fx import convert_fx, prepare_fx
    from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e

    traced = prepare_fx(model, mapping, batches[0])
    exported = prepare_pt2e(torch.export.export(model, batches[0]).module(), quantizer(dynamic))
    for batch in batches:
        traced(*batch), exported(*batch)
    return {FX: convert_fx(traced), PT2E: ao.lower(convert_pt2e(exported), batches[0], islands=False)}


def static(ao, make):
    """fp32 and the three flows, and the input."""
    tq = ao.quantization
    model, groups, batches, x = make(tq, ao.nn.quantized.FloatFunctional)
    qconfig = tq.get_default_qconfig("onednn")
    observed = tq.fuse_modules(model, groups)
    observed.qconfig = qconfig
    observed = tq.prepare(observed)
    for batch in batches:
        observed(batch)
    flows = {EAGER: tq.convert(observed)}
    mapping = tq.QConfigMapping().set_global(qconfig)
    flows |= by_graphs(ao, model, mapping, [(batch,) for batch in batches], False)
    return {FP32: model, **flows}, (x,)


def dynamic(ao):
    """MiniLM: fp32 and the three flows, and the input."""
    from torch_ao_ext.quantization.observer import RowPlaceholderObserver

    tq = ao.quantization
    model, inputs = Encoder().eval(), minilm_model.inputs(8, 32)
    # What X86InductorQuantizer does: one scale for the tensor, 8 bits.
    activation = RowPlaceholderObserver.with_args(per_row=False)
    qconfig = tq.QConfig(activation=activation, weight=tq.default_per_channel_weight_observer)
    flows = {EAGER: tq.quantize_dynamic(model, {nn.Linear: qconfig})}
    mapping = tq.QConfigMapping().set_object_type(nn.Linear, qconfig)
    return {FP32: model, **flows, **by_graphs(ao, model, mapping, [inputs], True)}, inputs


def layers(ao, model):
    """How many layers run in int8."""
    return sum(1 for row in ao.report(model).rows if row.status == "int8" and row.macs)


def scripted(model, inputs):
    del inputs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        return torch.jit.freeze(torch.jit.script(model).eval())


def run(name, made, graphs, ao, args, result):
    models, inputs = made
    want = models[FP32](*inputs)
    counts = {flow: layers(ao, models[flow]) for flow in FLOWS}
    sqnr = {flow: sqnr_db(want, models[flow](*inputs)) for flow in FLOWS}
    frozen = {FP32: eager.frozen, EAGER: eager.frozen, FX: graphs, PT2E: graphs}
    calls = {flow: frozen[flow](model, inputs) for flow, model in models.items()}
    # Warm: else the last one, which runs twice in a row, has its weights in the caches and the first has not.
    candidates = {n: functools.partial(c, *inputs) for n, c in calls.items()}
    timings, foreign = cli.measure(candidates, args, warm=True)
    slow = max(FLOWS, key=lambda flow: timings[flow].median)
    fast = min(FLOWS, key=lambda flow: timings[flow].median)
    goals = [
        Goal(f"slowest flow ({slow}) vs fastest ({fast})", speedup(timings, slow, fast), None, 0.95),
        Goal("flows with as many int8 layers as eager", list(counts.values()).count(counts[EAGER]), None, 3),
    ]
    report.print_row(result.add(name, timings, goals, (), foreign, sqnr_db=sqnr, int8_layers=counts))


def add_rows(args, result, missing):
    del missing
    ao = peers.ours()
    with torch.no_grad():
        run("ResNet-18 B1", static(ao, resnet), eager.frozen, ao, args, result)
        run("digits B64", static(ao, digits), eager.frozen, ao, args, result)
        run("MiniLM 8x32", dynamic(ao), scripted, ao, args, result)


def main():
    return frame.run("flows", cli.parser(__doc__, budget_s=8.0).parse_args(), add_rows)


if __name__ == "__main__":
    sys.exit(main())
