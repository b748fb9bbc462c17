"""What every benchmark does around its rows: the ISA cap, threads, the roof, the machine, what is missing."""

import re

from benchmarks.harness import environment, peers, report, roof


def run(name, args, add_rows, *, probe=True, layout=None, needed=None):
    """Exit status of a benchmark: 1 when it missed a floor or something needed is missing.

    Args:
        name: of the result.
        args: of cli.parser.
        add_rows: called with (args, result, missing).
        probe: whether the roof stands in the result.
        layout: of the table, as report.Report has it.
        needed: regular expression; what has it in its name may be left out (--peers) and not fail.
    """
    if args.max_isa:
        return environment.rerun_capped(args.max_isa)
    environment.set_threads(args.threads)
    peers.hush()
    result = report.Report(name, roof.probe((1, args.threads)) if probe else None, layout)
    print(environment.describe(result.environment), flush=True)
    missing = peers.Missing()
    add_rows(args, result, missing)
    result.missing = missing.as_dict()
    for name, reason in result.missing.items():
        print(f"missing: {name}: {reason}")
    status = report.conclude(result, args.output, args.label)
    failed = [name for name, reason in result.missing.items() if not reason.startswith("not run")]
    return status or int(needed is not None and any(re.search(needed, name) for name in failed))
