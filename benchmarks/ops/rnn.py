"""int8 LSTM, GRU, RNN and cells: fp32 torch, torch.ao dynamic and ours, the shapes of shapes/rnn.csv.

Ours by default and by torch.ao's rule (`per_row=False`), which must not be slower than torch.ao.

    python benchmarks/ops/rnn.py [--only 'LSTM 512'] [--max-isa avx512_vnni]

SQNR is of the output against fp32, with torch's initial weights and normal inputs. Exit status 1
when a floor is missed.
"""

import functools
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402
from torch import nn  # noqa: E402

from benchmarks.harness import cli, frame, peers, report, rounds, shapes  # noqa: E402
from benchmarks.harness.accuracy import sqnr_db  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402

FP32, OURS, OUR_AO = "fp32", "torch_ao_ext", "torch_ao_ext, torch.ao's rule"
AO = tuple(f"torch.ao {engine}" for engine in peers.TORCH_AO_ENGINES)
KINDS = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn": nn.RNN,
    "lstm_cell": nn.LSTMCell,
    "gru_cell": nn.GRUCell,
}


def float_layer(shape):
    kind = KINDS[shape.kind]
    if shape.is_cell:
        return kind(shape.input, shape.hidden).eval()
    return kind(shape.input, shape.hidden, shape.layers, bidirectional=shape.bidirectional).eval()


def torch_ao_layer(layer, engine):
    """torch.ao's default dynamic form; it has none of nn.RNN."""
    made = peers.torch_ao_dynamic(nn.Sequential(layer), engine, (type(layer),))[0]
    if type(made) is type(layer):
        raise NotImplementedError(f"torch.ao quantizes no {type(layer).__name__}")
    return made


def first_output(answer):
    """Of (output, states), (h, c) or h."""
    return answer[0] if isinstance(answer, tuple) else answer


def run_row(shape, args, result, missing):
    torch.manual_seed(0)
    layer = float_layer(shape)
    x = torch.randn(*(() if shape.is_cell else (shape.steps,)), shape.batch, shape.input)
    ours = peers.ours().quantization
    modules = {FP32: layer, OURS: ours.quantize_dynamic(layer)}
    by_rule = {type(layer): ours.default_dynamic_qconfig}
    modules[OUR_AO] = ours.quantize_dynamic(nn.Sequential(layer), by_rule)[0]
    for name, engine in zip(AO, peers.TORCH_AO_ENGINES, strict=True):
        with missing.noting(f"{name}, {shape.kind}"):
            modules[name] = torch_ao_layer(layer, engine)
    answers = {name: first_output(module(x)) for name, module in modules.items()}
    sqnr = {name: sqnr_db(answers[FP32], y) for name, y in answers.items() if name != FP32}
    calls = {name: functools.partial(module, x) for name, module in modules.items()}
    timings, foreign = cli.measure(calls, args)
    goals = []
    best = rounds.best_of(timings, AO)
    for peer, kind in ((best, "ao"), (FP32, "fp32")):
        if peer is not None:
            goals.append(Goal(f"vs {peer}", rounds.speedup(timings, OURS, peer), *shape.goals[kind]))
    if best is not None:
        goals.append(Goal(f"torch.ao's rule vs {best}", rounds.speedup(timings, OUR_AO, best), None, 1.0))
    failures = () if sqnr[OURS] > 20 else (f"SQNR {sqnr[OURS]:.1f} dB",)
    facts = {"sqnr_db": sqnr, "repeat": shape.repeat}
    report.print_row(result.add(str(shape), timings, goals, failures, foreign, **facts))


def add_rows(args, result, missing):
    with torch.no_grad():
        for shape in shapes.read_rnn("rnn"):
            if args.only in str(shape):
                run_row(shape, args, result, missing)


def main():
    p = cli.parser(__doc__, budget_s=3.0)
    p.add_argument("--only", default="", help="rows whose name contains this text")
    return frame.run("rnn", p.parse_args(), add_rows)


if __name__ == "__main__":
    sys.exit(main())
