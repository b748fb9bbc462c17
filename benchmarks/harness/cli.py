"""The switches that every benchmark has."""

import argparse

from benchmarks.harness import environment, rounds


def parser(description, budget_s):
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--max-isa", choices=sorted(environment.ONEDNN_ISA), help="cap every library, in a child process"
    )
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=30, help="least number of rounds")
    p.add_argument("--budget", type=float, default=budget_s, help="seconds for one row")
    p.add_argument("--quick", action="store_true", help="a fifth of the budget")
    p.add_argument(
        "--wait-quiet",
        type=float,
        default=0.0,
        metavar="S",
        help="wait up to S seconds before a row until nobody else uses the machine",
    )
    p.add_argument("--output", help="folder of the results (default benchmarks/results)")
    return p


def measure(candidates, args, **options):
    """(timings, foreign CPUs) under the command line's limits."""
    budget_s = args.budget / 5 if args.quick else args.budget
    return rounds.measure_quietly(
        candidates,
        threads=args.threads,
        wait_s=args.wait_quiet,
        min_rounds=args.rounds,
        budget_s=budget_s,
        **options,
    )
