"""`make bench`: every benchmark in turn, each in a process of its own.

    python -m benchmarks.run [--full] [--max-isa avx512_vnni]

Where the CPU has AMX, `--full` runs everything a second time capped to
AVX512-VNNI. Plots of all results are drawn at the end. Exit status 1 when any benchmark missed a floor.
"""

import argparse
import math
import subprocess
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import environment  # noqa: E402

FOLDER = Path(__file__).resolve().parent
LIMIT_S = 600  # of the short run; on a slow or busy machine the last benchmarks are left out, and named
# Script, arguments of the short run (about 10 minutes together), of the full run; None: not in that run.
BENCHMARKS = (
    ("packages.py", [], ["--build"]),
    ("ops/linear.py", ["--budget", "0.7"], []),
    ("ops/between.py", ["--budget", "0.3"], []),
    ("ops/conv.py", ["--budget", "0.1"], []),
    ("ops/embedding.py", ["--budget", "1"], []),
    ("ops/observer.py", ["--budget", "0.5"], []),
    ("ops/rnn.py", ["--budget", "1"], []),
    ("ops/attention.py", ["--budget", "0.5"], []),
    ("ops/weight_only.py", ["--budget", "0.5"], []),
    ("ops/sparse_linear.py", ["--budget", "0.3"], []),
    ("ops/island.py", ["--budget", "1"], []),
    ("ops/overhead.py", ["--budget", "0.3"], []),
    ("ops/quantize.py", ["--budget", "0.3"], []),
    ("ops/conv_bn.py", ["--budget", "0.3"], []),
    ("models/memory.py", [], []),
    ("models/load.py", [], []),
    ("models/eager.py", ["--budget", "2"], []),
    ("models/flows.py", ["--budget", "2"], []),
    ("models/resemblyzer.py", ["--budget", "2"], []),
    ("models/pruned_minilm.py", ["--budget", "1"], []),
    ("models/minilm.py", ["--budget", "1", "--no-compile"], ["--autotune"]),
    ("models/table.py layers", ["--budget", "0.3", "--workloads", "at 14,M=16"], ["--compile"]),
    ("models/table.py convnets", ["--budget", "1", "--workloads", "resnet18 B1"], ["--compile"]),
    ("models/table.py transformers", ["--budget", "1", "--workloads", "sdpa 1x32"], ["--compile"]),
    ("models/table.py recurrent", ["--budget", "1", "--workloads", "tagger B1"], ["--compile"]),
    ("models/table.py recsys", ["--budget", "1", "--workloads", "B128"], ["--compile"]),
    ("models/table.py frontends", ["--budget", "1", "--workloads", "resnet18"], ["--compile"]),
    ("models/serve.py", ["--workloads", "resnet18 B1", "--peers", "QDQ,pt2e traced", "--seconds", "1"], []),
    ("models/table.py layers", None, ["--threads", "1"]),
    ("models/table.py convnets", None, ["--threads", "1"]),
    ("models/table.py transformers", None, ["--threads", "1"]),
)


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
    status, left_out = 0, []
    end = time.monotonic() + (math.inf if args.full else LIMIT_S)
    for cap in caps:
        for script, short, full in BENCHMARKS:
            arguments = full if args.full else short
            if arguments is None:
                continue
            name, *words = script.split()
            command = [sys.executable, str(FOLDER / name), *words, *arguments]
            if name != "packages.py":  # measures no speed
                command += [f"--max-isa={cap}"] if cap else []
                command += [f"--wait-quiet={args.wait_quiet}"] if args.wait_quiet else []
            title = f"{script}{f', ISA cap {cap}' if cap else ''}"
            start = time.monotonic()
            if start >= end:
                left_out.append(title)
                continue
            print(f"\n=== {title}", flush=True)
            try:
                limit = None if args.full else end - start
                status |= subprocess.run(command, check=False, timeout=limit).returncode != 0
            except subprocess.TimeoutExpired:
                left_out.append(title)
            print(f"=== {time.monotonic() - start:.0f} s", flush=True)
    if left_out:
        print(f"not measured, {LIMIT_S // 60} minutes were over: {'; '.join(left_out)}")
    subprocess.run([sys.executable, "-m", "benchmarks.plots"], cwd=FOLDER.parent, check=False)
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
