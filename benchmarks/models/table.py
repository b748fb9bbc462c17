"""A table of workloads x everything a user could run: floats, int8 inside PyTorch, other engines, ours.

    python benchmarks/models/table.py convnets [--threads 1] [--compile] [--workloads resnet18] [--peers onnx]

Tables: layers, convnets, transformers, recurrent, recsys and, of our own ways to one model, frontends
(models/workloads.py). Every candidate says what it really runs; an int8 candidate that runs in float is
listed as missing. SQNR is against eager fp32. --compile adds what needs torch.compile, minutes a workload.
Exit status 1 when ours is slower than fp32 or less accurate than a slower peer.
"""

import functools
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402

from benchmarks.harness import cli, frame, peers, report, rounds  # noqa: E402
from benchmarks.harness.accuracy import sqnr_db  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402
from benchmarks.models.workloads import TABLES  # noqa: E402
from benchmarks.peers import registry  # noqa: E402
from benchmarks.peers.case import Case  # noqa: E402

FP32 = "fp32"
SPREAD = 5.0  # % between our front-ends, wanted
SQNR_SLACK_DB = 0.5  # ours may be this much less accurate than a peer that it beats


def chosen(workload, args, missing):
    """Candidates of the workload's family, by the command line; fp32 is always one."""
    for candidate in registry.CANDIDATES:
        if not set(workload.families) & set(candidate.families):
            continue
        if candidate.compiles and not args.compile:
            missing.reasons[candidate.name] = "not run (--compile)"
        elif candidate.name != FP32 and not cli.chosen(candidate.name, args):
            missing.reasons[candidate.name] = "not run (--peers, --skip)"
        else:
            yield candidate


def build(workload, args, folder, missing, saves=False):
    """({name: Built}, {name: seconds to build}, the case)."""
    case = Case(workload, args.threads, folder, saves)
    built, seconds = {}, {}
    for candidate in chosen(workload, args, missing):
        key = f"{workload.name}, {candidate.name}"
        if saves and not candidate.served:
            continue
        start = time.perf_counter()
        with missing.noting(key), peers.quiet():
            built[candidate.name] = candidate.build(case)
            seconds[candidate.name] = time.perf_counter() - start
        print(f"  {candidate.name}: {missing.reasons.get(key) or built[candidate.name].ran}", flush=True)
    return built, seconds, case


def answers_of(built, inputs, missing, label):
    """Answers and seconds of the first call after building; drops what fails."""
    answers, first = {}, {}
    for name in list(built):
        start = time.perf_counter()
        with missing.noting(f"{label}, {name}"):
            answers[name] = built[name].call(*inputs).float().clone()
            first[name] = time.perf_counter() - start
        if name not in answers:
            del built[name]
    return answers, first


def goals_of(workload, timings, sqnr):
    """Ours (the fastest form) against fp32, the best int8 inside PyTorch and the best of other engines."""
    kinds = {c.name: c.kind for c in registry.CANDIDATES}
    ours = rounds.best_of(timings, [n for n in timings if kinds[n] == registry.OURS])
    if ours is None:
        return []
    goals = [Goal(f"vs {FP32}", rounds.speedup(timings, ours, FP32), None, 1.0)]
    for kind, target in ((registry.TORCH, workload.torch_target), (registry.OTHER, workload.other_target)):
        best = rounds.best_of(timings, [n for n in timings if kinds[n] == kind])
        if best is None:
            continue
        ratio = rounds.speedup(timings, ours, best)
        goals.append(Goal(f"vs {best}", ratio, target))
        floor = -SQNR_SLACK_DB if ratio > 1 else None
        goals.append(Goal(f"SQNR above {best}", sqnr[ours] - sqnr[best], None, floor, "dB"))
    if registry.FRONTENDS in workload.families:
        traced = [n for n in timings if n.startswith(registry.OURS) and n.endswith("traced")]
        slowest = max(traced, key=lambda n: timings[n].median)
        spread = 100 * (rounds.speedup(timings, ours, slowest) - 1)
        goals.append(Goal(f"{slowest} slower than {ours}", spread, SPREAD, None, "%", larger_is_better=False))
    return goals


def run(workload, args, result, missing):
    print(f"{workload.name}:", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        built, build_s, case = build(workload, args, folder, missing)
        answers, first_call_s = answers_of(built, case.inputs, missing, workload.name)
        sqnr = {name: sqnr_db(answers[FP32], y) for name, y in answers.items() if name != FP32}
        calls = {name: functools.partial(b.call, *case.inputs) for name, b in built.items()}
        timings, foreign = cli.measure(calls, args, warm=True)
        row = result.add(
            workload.name, timings, goals_of(workload, timings, sqnr), (), foreign, sqnr_db=sqnr,
            ran={name: b.ran for name, b in built.items()}, build_s=build_s, first_call_s=first_call_s,
        )  # fmt: skip
    report.print_row(row)


def add_rows(args, result, missing):
    with torch.no_grad():
        for workload in TABLES[args.table]:
            if any(text in workload.name for text in args.workloads.split(",")):
                with missing.noting(workload.name):
                    run(workload, args, result, missing)


def main():
    parser = cli.parser(__doc__, budget_s=6.0)
    parser.add_argument("table", choices=sorted(TABLES))
    cli.add_choice(parser)
    parser.add_argument("--compile", action="store_true", help="candidates that need torch.compile, too")
    args = parser.parse_args()
    name = f"{args.table}-compile" if args.compile else args.table
    return frame.run(name, args, add_rows, layout=report.candidate_table)


if __name__ == "__main__":
    sys.exit(main())
