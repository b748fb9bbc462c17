"""MiniLM sentence encoder: fp32, torch.ao, torchao, onnxruntime and ours, eager and compiled.

    python benchmarks/models/minilm.py [--max-isa avx512_vnni] [--no-compile] [--quick]

Rows per size (batch x tokens): the whole model, and its Linear layers alone on
caught inputs. Exit status 1 when a floor is missed.
"""

import functools
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402

from benchmarks.harness import cli, frame, peers, report, rounds  # noqa: E402
from benchmarks.harness.accuracy import sqnr_db  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402
from benchmarks.models import minilm_model, variants  # noqa: E402
from benchmarks.models.variants import (  # noqa: E402
    AO,
    FP32,
    FP32_COMPILED,
    ORT,
    OURS,
    OURS_COMPILED,
    TORCHAO,
    TORCHAO_TUNED,
)

# Eager quantize_dynamic against the better torch.ao engine: target, floor.
EAGER_GOALS = {(1, 32): (1.25, 1.1), (8, 32): (1.25, 1.1), (8, 128): (1.12, 1.05)}
LINEARS_FLOOR = 1.3
COMPILED_FLOOR = 1.0  # against torchao + compile
SQNR_GAIN_DB = 2.0  # above torchao in the same run


def build(args, missing):
    """name -> call for the whole model, and name -> module for the Linear layers alone."""
    model = minilm_model.load()
    calls, modules = {FP32: variants.eager(model)}, {FP32: model}
    for name, engine in zip(AO, peers.TORCH_AO_ENGINES, strict=True):
        with missing.noting(name):
            modules[name] = peers.torch_ao_dynamic(model, engine)
            calls[name] = variants.eager(modules[name])
    with missing.noting(OURS):
        modules[OURS] = variants.our_model(model)
        calls[OURS] = variants.eager(modules[OURS])
    with missing.noting(ORT):
        calls[ORT] = variants.onnxruntime_call(model, args.threads)
    if args.compile:
        calls[FP32_COMPILED] = variants.compiled(model)
        with missing.noting(TORCHAO):
            calls[TORCHAO] = variants.compiled_torchao(variants.torchao_model(model))
        if args.autotune:
            with missing.noting(TORCHAO_TUNED):
                calls[TORCHAO_TUNED] = variants.compiled_frozen(variants.torchao_model(model))
        else:
            missing.reasons[TORCHAO_TUNED] = "not run (--autotune): the stronger peer at small sizes"
        if OURS in modules:
            calls[OURS_COMPILED] = variants.compiled(modules[OURS])
    return calls, modules


def first_calls(calls, ids, mask, missing):
    """Answers and seconds of the first call (packing, compiling); drops what fails."""
    answers, seconds = {}, {}
    for name in list(calls):
        start = time.perf_counter()
        with missing.noting(name):
            answers[name] = calls[name](ids, mask)
            seconds[name] = time.perf_counter() - start
        if name not in answers:
            del calls[name]
        print(f"  first call {name}: {seconds.get(name, float('nan')):.2f} s", flush=True)
    return answers, seconds


def model_goals(timings, sqnr, size):
    goals = []
    if OURS in timings:
        best = rounds.best_of(timings, AO)
        if best:
            goals.append(Goal(f"eager vs {best}", rounds.speedup(timings, OURS, best), *EAGER_GOALS[size]))
        goals.append(Goal("eager vs fp32", rounds.speedup(timings, OURS, FP32), None, 1.0))
    if OURS_COMPILED in timings:
        best = rounds.best_of(timings, (TORCHAO, TORCHAO_TUNED))
        if best:
            ratio = rounds.speedup(timings, OURS_COMPILED, best)
            goals.append(Goal(f"compiled vs {best}", ratio, None, COMPILED_FLOOR))
        if ORT in timings:
            goals.append(Goal(f"compiled vs {ORT}", rounds.speedup(timings, OURS_COMPILED, ORT)))
    torchao = [sqnr[n] for n in (TORCHAO, TORCHAO_TUNED) if n in sqnr]
    if OURS in sqnr and torchao:
        goals.append(Goal("SQNR above torchao", sqnr[OURS] - max(torchao), None, SQNR_GAIN_DB, "dB"))
    return goals


def run_model(calls, size, args, missing, result):
    ids, mask = minilm_model.inputs(*size)
    answers, seconds = first_calls(calls, ids, mask, missing)
    reference = answers[FP32]
    embedding = minilm_model.embed(reference, mask)
    sqnr = {n: sqnr_db(reference, y) for n, y in answers.items() if n not in (FP32, FP32_COMPILED)}
    sqnr_embedding = {n: sqnr_db(embedding, minilm_model.embed(answers[n], mask)) for n in sqnr}
    timings, foreign = cli.measure({n: functools.partial(call, ids, mask) for n, call in calls.items()}, args)
    failures = []
    if (
        OURS in answers
        and OURS_COMPILED in answers
        and not torch.equal(answers[OURS], answers[OURS_COMPILED])
    ):
        # The float part (layer norm, gelu) is fused by Inductor; int8 layers are ours in both.
        gap = sqnr_db(answers[OURS], answers[OURS_COMPILED])
        if gap < sqnr[OURS]:
            failures.append(f"compiled differs from eager: {gap:.1f} dB")
    row = result.add(
        f"MiniLM {size[0]}x{size[1]}",
        timings,
        model_goals(timings, sqnr, size),
        failures,
        foreign,
        shape={"batch": size[0], "tokens": size[1]},
        sqnr_db=sqnr,
        sqnr_embedding_db=sqnr_embedding,
        first_call_s=seconds,
    )
    report.print_row(row)


def run_linears(modules, size, args, result):
    """The 37 Linear layers in sequence: what the kernels and the call cost, without attention."""
    ids, mask = minilm_model.inputs(*size)
    caught = variants.linear_inputs(modules[FP32], ids, mask)
    timings, foreign = cli.measure({n: variants.run_linears(m, caught) for n, m in modules.items()}, args)
    goals = []
    if OURS in timings:
        best = rounds.best_of(timings, AO)
        if best:
            goals.append(Goal(f"linears vs {best}", rounds.speedup(timings, OURS, best), None, LINEARS_FLOOR))
        goals.append(Goal("linears vs fp32", rounds.speedup(timings, OURS, FP32), None, 1.0))
        goals.append(
            Goal(
                "int8 share of multiplies", 100 * variants.int8_share(modules[OURS], caught), None, 100.0, "%"
            )
        )
    row = result.add(f"MiniLM {size[0]}x{size[1]} linears", timings, goals, (), foreign, layers=len(caught))
    report.print_row(row)


def parse(argv=None):
    p = cli.parser(__doc__, budget_s=10.0)
    p.add_argument("--no-compile", dest="compile", action="store_false", help="eager candidates only")
    p.add_argument(
        "--autotune",
        action="store_true",
        help="torchao with freezing and max-autotune too (2 minutes a size)",
    )
    return p.parse_args(argv)


def add_rows(args, result, missing):
    with torch.no_grad():
        calls, modules = build(args, missing)
        for size in minilm_model.SIZES:
            run_model(calls, size, args, missing, result)
            run_linears(modules, size, args, result)


def main():
    return frame.run("minilm", parse(), add_rows, needed=OURS)


if __name__ == "__main__":
    sys.exit(main())
