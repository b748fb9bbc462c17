"""Resemblyzer's speaker encoder (3 x 256 LSTM, 160 steps): fp32, torch.ao, onnxruntime and ours.

    python benchmarks/models/resemblyzer.py [--threads 1]

SQNR is of the embeddings against fp32, the mean of 4 draws, on mels of synthetic voices, on uniform ones
in [0, 0.1] and on log-normal ones, 0.15 e^N(0, 1). On the latter the peers come nearest to the figures that
the floors were stated beside (torch.ao 10 dB and 28 to 29 per channel, onnxruntime 24 to 27, torch in
bfloat16 35). Exit status 1 when a floor is missed.
"""

import copy
import functools
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402
from torch import nn  # noqa: E402

from benchmarks.harness import cli, frame, peers, report, rounds  # noqa: E402
from benchmarks.harness.accuracy import sqnr_db  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402
from benchmarks.models import resemblyzer_model  # noqa: E402
from benchmarks.peers import case, onnxruntime_peer  # noqa: E402

FP32, OURS, ORT = "fp32", "torch_ao_ext", "onnxruntime int8"
# Other weights of the LSTM than those of quantize_dynamic.
OURS_BY_WEIGHTS = {
    "torch_ao_ext int8 weights": "row_dynamic_qconfig",
    "torch_ao_ext bf16 weights": "bfloat16_dynamic_qconfig",
}
TORCH_BF16 = "torch bf16"
DRAWS = 4
AO = tuple(f"torch.ao {engine}" for engine in peers.TORCH_AO_ENGINES)
ORT_GOALS = (2.0, 1.3)  # target, floor
SQNR_GOALS = {1: (30.0, 29.0), 8: (29.0, 28.0)}


def onnxruntime_call(model, mels, threads):
    """onnxruntime's dynamic int8 of the exported file; raises unless its LSTMs run on integers."""
    workload = SimpleNamespace(make=lambda: model, samples=lambda seed: (mels,), onnx_by_dynamo=False)
    with tempfile.TemporaryDirectory() as folder, peers.quiet():
        built = onnxruntime_peer.dynamic(case.Case(workload, threads, folder))
    if "3 DynamicQuantizeLSTM" not in built.ran:
        raise RuntimeError(f"no int8 peer: {built.ran}")
    return built.call


def mels_of(kind, batch, seed):
    """Inputs `[batch, 160, 40]`."""
    if kind == "voices":
        return resemblyzer_model.inputs(batch, seed)
    g, sizes = torch.Generator().manual_seed(seed), (batch, resemblyzer_model.STEPS, 40)
    if kind == "uniform":
        return 0.1 * torch.rand(sizes, generator=g)
    return 0.15 * torch.randn(sizes, generator=g).exp()


def accuracy(calls, kind, batch):
    """Name -> dB, the mean of the draws."""
    found = {name: [] for name in calls if name != FP32}
    for seed in range(DRAWS):
        mels = mels_of(kind, batch, seed)
        want = calls[FP32](mels)
        for name, values in found.items():
            values.append(sqnr_db(want, calls[name](mels)))
    return {name: sum(values) / DRAWS for name, values in found.items()}


def run_batch(model, batch, args, result, missing):
    mels = resemblyzer_model.inputs(batch)
    ours = peers.ours().quantization
    low = copy.deepcopy(model).to(torch.bfloat16)
    calls = {
        FP32: model,
        OURS: ours.quantize_dynamic(model),
        TORCH_BF16: lambda x: low(x.to(torch.bfloat16)).float(),
    }
    for name, qconfig in OURS_BY_WEIGHTS.items():
        spec = {nn.LSTM: getattr(ours, qconfig), nn.Linear: ours.row_dynamic_qconfig}
        calls[name] = ours.quantize_dynamic(model, spec)
    for name, engine in zip(AO, peers.TORCH_AO_ENGINES, strict=True):
        with missing.noting(name):
            calls[name] = peers.torch_ao_dynamic(model, engine, (nn.LSTM, nn.Linear))
    with missing.noting(ORT):
        calls[ORT] = onnxruntime_call(model, mels, args.threads)
    more = dict(calls)
    for name, engine in zip(AO, peers.TORCH_AO_ENGINES, strict=True):
        with missing.noting(f"{name}, per channel"):
            made = peers.torch_ao_dynamic(model, engine, (nn.LSTM, nn.Linear), per_channel=True)
            more[f"{name}, per channel"] = made
    sqnr = accuracy(more, "voices", batch)
    others = {kind: accuracy(more, kind, batch) for kind in ("uniform", "log-normal")}
    timings, foreign = cli.measure({n: functools.partial(call, mels) for n, call in calls.items()}, args)
    goals = [Goal(f"vs {FP32}", rounds.speedup(timings, OURS, FP32), None, 1.0)]
    if ORT in timings:
        goals.append(Goal(f"vs {ORT}", rounds.speedup(timings, OURS, ORT), *ORT_GOALS))
    for name in (OURS, *OURS_BY_WEIGHTS):
        if name != OURS and ORT in timings:
            goals.append(Goal(f"{name} vs {ORT}", rounds.speedup(timings, name, ORT), None, None))
        wanted = SQNR_GOALS[batch] if name == OURS else (None, None)
        goals.append(Goal(f"{name}, SQNR of voices", sqnr[name], *wanted, "dB"))
        for kind, found in others.items():
            goals.append(Goal(f"{name}, SQNR of {kind} mels", found[name], *wanted, "dB"))
    for name in more:
        for kind, found in others.items():
            if name not in (FP32, OURS, *OURS_BY_WEIGHTS):
                goals.append(Goal(f"{name}, SQNR of {kind} mels", found[name], None, None, "dB"))
        if name not in calls:
            goals.append(Goal(f"{name}, SQNR of voices", sqnr.pop(name), None, None, "dB"))
    report.print_row(result.add(f"Resemblyzer B{batch}", timings, goals, (), foreign, sqnr_db=sqnr))


def add_rows(args, result, missing):
    with torch.no_grad():
        model = resemblyzer_model.load()
        for batch in SQNR_GOALS:
            run_batch(model, batch, args, result, missing)


def main():
    return frame.run("resemblyzer", cli.parser(__doc__, budget_s=8.0).parse_args(), add_rows)


if __name__ == "__main__":
    sys.exit(main())
