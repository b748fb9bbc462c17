"""The switches that every benchmark has."""

import argparse
import re

from benchmarks.harness import environment, rounds


def add_choice(p, workloads=""):
    """Switches that choose a part of a table."""
    p.add_argument("--workloads", default=workloads, help="rows whose name holds one of these texts")
    p.add_argument("--peers", default="", help="candidates whose name holds one of these texts")
    p.add_argument("--skip", default="", help="candidates whose name holds none of these, such as executorch")


def add_output(p):
    """Where the result goes, and a part of its name."""
    p.add_argument("--output", help="folder of the results (default benchmarks/results)")
    p.add_argument("--label", type=_label, help="the result's name ends in -LABEL")


def _label(text):
    if not re.fullmatch("[a-z0-9_]+", text):
        raise argparse.ArgumentTypeError(f"must be of a-z, 0-9 and _, got {text!r}")
    return text


def chosen(name, args):
    """Whether --peers and --skip let a candidate run."""
    skipped = args.skip and any(text in name for text in args.skip.split(","))
    return any(text in name for text in args.peers.split(",")) and not skipped


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
    add_output(p)
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
