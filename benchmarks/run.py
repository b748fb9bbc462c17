"""`make bench`: every benchmark in turn, each in a process of its own.

    python -m benchmarks.run [--full] [--max-isa avx512_vnni]

Where the CPU has AMX, `--full` runs everything a second time capped to AVX512-VNNI. The short run probes
the roof once for all. Plots of all results are drawn at the end. Exit status 1 when any benchmark missed a
floor or found no time.
"""

import argparse
import json
import math
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import environment, roof  # noqa: E402

FOLDER = Path(__file__).resolve().parent
ONE_THREAD = (
    "ops/linear.py", "ops/between.py", "ops/conv.py", "ops/embedding.py", "ops/observer.py", "ops/rnn.py",
    "ops/attention.py", "ops/weight_only.py", "ops/sparse_linear.py", "models/eager.py",
    "models/table.py layers", "models/table.py convnets", "models/table.py transformers",
    "models/table.py recurrent",
)  # fmt: skip
LIMIT_S = 600  # of the short run; on a slow or busy machine the last benchmarks are left out, and named
# Script, switches of the short run (9 minutes together), of the full run; None: not in that run.
BENCHMARKS = (
    ("packages.py", "", "--build"),
    ("ops/linear.py", "--budget 0.6", ""),
    ("ops/between.py", "--budget 0.3", ""),
    ("ops/conv.py", "--budget 0.1", ""),
    ("ops/embedding.py", "--budget 0.6", "--sizes"),
    ("ops/observer.py", "--budget 0.3", ""),
    ("ops/rnn.py", "--budget 0.8", ""),
    ("ops/attention.py", "--budget 0.5", ""),
    ("ops/weight_only.py", "--budget 0.4", ""),
    ("ops/sparse_linear.py", "--budget 0.2", ""),
    ("ops/island.py", "--budget 1", ""),
    ("ops/overhead.py", "--budget 0.3", ""),
    ("ops/quantize.py", "--budget 0.3", ""),
    ("ops/conv_bn.py", "--budget 0.3", "--compile"),
    ("models/memory.py", "", ""),
    ("models/load.py", "", ""),
    ("models/calibration.py", "--network resnet18 --images 8 --peers 'ext,torch.ao FX'", ""),
    ("models/eager.py", "--budget 1.5", ""),
    ("models/flows.py", "--budget 1.5", ""),
    ("models/resemblyzer.py", "--budget 2", ""),
    ("models/pruned_minilm.py", "--budget 0.8", ""),
    ("models/minilm.py", "--budget 1 --no-compile", "--autotune"),
    ("models/table.py layers", "--budget 0.3 --workloads '3x3 at 14,M=16 768->3072'", "--compile"),
    ("models/table.py convnets", "--budget 1 --workloads 'resnet18 B1'", "--compile"),
    # ExecuTorch takes 17 s to build this one, torch.ao's FX mode cannot.
    ("models/table.py transformers", "--budget 1 --workloads 'sdpa 1x32' --skip executor,FX", "--compile"),
    ("models/table.py recurrent", "--budget 1 --workloads 'tagger B1'", "--compile"),
    ("models/table.py recsys", "--budget 1 --workloads B128", "--compile"),
    ("models/table.py frontends", "--budget 1 --workloads resnet18", "--compile"),
    ("models/serve.py", "--workloads 'resnet18 B1' --peers 'QDQ,pt2e traced' --seconds 1", ""),
    *((script, None, "--threads 1") for script in ONE_THREAD),
)
# Short runs of these are a part of the table; their results end in -short, so that a whole one stays.
PARTS = ("packages.py", "models/calibration.py", "models/minilm.py", "models/table.py", "models/serve.py")


def share_roof(folder):
    """Probes the roof once for all benchmarks of a short run."""
    environment.set_threads(2)
    file = Path(folder) / "roof.json"
    file.write_text(json.dumps(roof.probe()))
    os.environ[roof.SHARED] = str(file)


def planned(full, cap, wait_quiet):
    """(title, command) of each benchmark of the run."""
    for script, short, long in BENCHMARKS:
        switches = long if full else short
        if switches is None:
            continue
        name, *words = script.split()
        command = [sys.executable, str(FOLDER / name), *words, *shlex.split(switches)]
        command += ["--label", "short"] if not full and name in PARTS else []
        if name != "packages.py":  # measures no speed
            command += [f"--max-isa={cap}"] if cap else []
            command += [f"--wait-quiet={wait_quiet}"] if wait_quiet else []
        threads = ", 1 thread" if "--threads 1" in switches else ""
        yield f"{script}{threads}{f', ISA cap {cap}' if cap else ''}", command


def run(commands, limit_s):
    """(exit status, {title: seconds}, titles that found no time)."""
    status, seconds, left_out = 0, {}, []
    end = time.monotonic() + limit_s
    for title, command in commands:
        start = time.monotonic()
        if start >= end:
            left_out.append(title)
            continue
        print(f"\n=== {title}", flush=True)
        try:
            limit = None if limit_s == math.inf else end - start
            status |= subprocess.run(command, check=False, timeout=limit).returncode != 0
        except subprocess.TimeoutExpired:
            left_out.append(title)
        seconds[title] = time.monotonic() - start
        print(f"=== {seconds[title]:.0f} s", flush=True)
    return int(status), seconds, left_out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--full", action="store_true", help="full budgets; on AMX machines also capped to avx512_vnni"
    )
    p.add_argument("--max-isa", choices=sorted(environment.ONEDNN_ISA))
    p.add_argument("--wait-quiet", type=float, default=0.0, metavar="S")
    args = p.parse_args()
    caps = [args.max_isa]
    if args.full and not args.max_isa and "amx_int8" in environment.cpu_features():
        caps.append("avx512_vnni")
    commands = [c for cap in caps for c in planned(args.full, cap, args.wait_quiet)]
    with tempfile.TemporaryDirectory() as folder:
        if not args.full:
            share_roof(folder)
        status, seconds, left_out = run(commands, math.inf if args.full else LIMIT_S)
    subprocess.run([sys.executable, "-m", "benchmarks.plots"], cwd=FOLDER.parent, check=False)
    print(f"\n{sum(seconds.values()):.0f} s: {', '.join(f'{t} {s:.0f}' for t, s in seconds.items())}")
    if left_out:
        print(f"not measured, {LIMIT_S // 60} minutes were over: {'; '.join(left_out)}")
    return status or int(bool(left_out))


if __name__ == "__main__":
    sys.exit(main())
