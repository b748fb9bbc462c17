"""Calibration: our observers against torch.ao's and torchao's, one fed two tensors, then its qparams;
and a step of quantization-aware training, a fused fake quantizer forward and backward.

    python benchmarks/ops/observer.py [--threads 1]

Exit status 1 when a floor is missed.
"""

import sys
import warnings
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402

from benchmarks.harness import cli, frame, peers, report, rounds  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402

OURS, AO, TORCHAO = "torch_ao_ext", "torch.ao", "torchao pt2e"
OBSERVERS = (
    "HistogramObserver", "MinMaxObserver", "MovingAverageMinMaxObserver", "PerChannelMinMaxObserver",
    "MovingAveragePerChannelMinMaxObserver",
)  # fmt: skip
HISTOGRAM_FLOOR = 10.0
SMALL_HISTOGRAM_FLOOR = 5.0  # of few values: making the observer and its qparams takes as long
FAKES = {
    "default_fused_act_fake_quant": (4, 64, 56, 56),
    "default_fused_per_channel_wt_fake_quant": (512, 512, 3, 3),
}
SHAPES = {"2 x 1M": (1000, 1000), "2 x 10x1x320x320": (10, 1, 320, 320), "2 x 64x768": (64, 768)}


def calibrate(factory, data):
    """A call that makes an observer, feeds it and asks for its qparams."""

    def call():
        observer = factory()
        for x in data:
            observer(x)
        return observer.calculate_qparams()

    return call


def training_step(factory, x):
    """A call that observes x, rounds it and passes a gradient back; (the values, the gradient)."""
    fake, x = factory(), x.clone().requires_grad_()
    gradient = torch.ones_like(x)

    def call():
        x.grad = None
        y = fake(x)
        y.backward(gradient)
        return y.detach(), x.grad

    return call


def libraries(missing):
    """name -> module with the observers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch.ao.quantization as ao

        found = {AO: ao}
        with missing.noting(TORCHAO):
            import torchao.quantization.pt2e as torchao

            found[TORCHAO] = torchao
    return found | {OURS: peers.ours().quantization}


def far(calls, what="qparams"):
    """Whose answers are not ours."""
    answers = {label: call() for label, call in calls.items()}

    def same(theirs):
        return all(
            torch.allclose(a.double(), b.double()) for a, b in zip(answers[OURS], theirs, strict=True)
        )

    return [f"{what} of {label} differ" for label, theirs in answers.items() if not same(theirs)]


def fake_rows(modules, args, result):
    for name, shape in FAKES.items():
        torch.manual_seed(0)
        x = torch.randn(shape)
        calls = {label: training_step(getattr(m.fake_quantize, name), x) for label, m in modules.items()}
        failures = far(calls, "values or gradients")
        timings, foreign = cli.measure(calls, args)
        others = [label for label in timings if label != OURS]
        goals = [Goal(f"vs {label}", rounds.speedup(timings, OURS, label), 1.0) for label in others]
        title = f"{name} {'x'.join(map(str, shape))}, forward and backward"
        report.print_row(result.add(title, timings, goals, failures, foreign))


def add_rows(args, result, missing):
    modules = libraries(missing)
    fake_rows(modules, args, result)
    for name in OBSERVERS:
        for title, shape in SHAPES.items():
            torch.manual_seed(0)
            data = [torch.randn(shape), torch.randn(shape) * 1.1]
            calls = {label: calibrate(getattr(m, name), data) for label, m in modules.items()}
            failures = far(calls)
            timings, foreign = cli.measure(calls, args)
            floor = 0.9
            if name == "HistogramObserver":
                floor = HISTOGRAM_FLOOR if data[0].numel() > 1 << 19 else SMALL_HISTOGRAM_FLOOR
            goals = [Goal("vs torch.ao", rounds.speedup(timings, OURS, AO), None, floor)]
            if TORCHAO in timings:
                goals.append(Goal(f"vs {TORCHAO}", rounds.speedup(timings, OURS, TORCHAO)))
            report.print_row(result.add(f"{name} {title}", timings, goals, failures, foreign))


def main():
    return frame.run("observer", cli.parser(__doc__, budget_s=4.0).parse_args(), add_rows)


if __name__ == "__main__":
    sys.exit(main())
