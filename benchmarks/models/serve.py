"""What a service sees of saved models: load, first call, memory, requests of two workers.

    python benchmarks/models/serve.py [--workloads resnet18] [--peers onnx,ext] [--seconds 3]

Every candidate that has a file (models/table.py without torch.compile) is loaded by a fresh process:
import of its library, load, first call, the median of the next calls, and the memory that load and calls
added to that of the imports. Then two processes with one thread each answer requests for --seconds; the file
is in the page cache throughout. Exit status 1 when ours adds more memory than float32 does.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402

from benchmarks.harness import cli, frame, peers, report  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402
from benchmarks.models import table  # noqa: E402
from benchmarks.models.memory import rss_bytes  # noqa: E402
from benchmarks.models.workloads import TABLES  # noqa: E402
from benchmarks.peers import registry  # noqa: E402

WORKLOADS = "resnet18,mobilenetv2,MiniLM sdpa 1x32,BERT-base,Resemblyzer"
WORKERS, STEADY_CALLS = 2, 10
MOST_FIRST_CALL = 2.0  # of a later one, wanted
MB = 1 << 20


def child(args):
    """Loads a file, answers, prints one JSON line; a worker waits for a line on stdin first."""
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    facts = {}
    inputs = torch.load(args.inputs)
    with contextlib.redirect_stdout(sys.stderr):
        start = time.perf_counter()
        load = registry.loader(args.loader)
        facts["import_s"] = time.perf_counter() - start
        before = rss_bytes()
        start = time.perf_counter()
        call = load(args.file, args.threads)
        facts["load_s"] = time.perf_counter() - start
    times = []
    for _ in range(1 + STEADY_CALLS):
        start = time.perf_counter()
        call(*inputs)
        times.append(time.perf_counter() - start)
    facts |= {"first_call_s": times[0], "steady_s": statistics.median(times[1:])}
    facts["rss_bytes"] = rss_bytes() - before
    if args.seconds:
        print("ready", flush=True)
        sys.stdin.readline()
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < args.seconds:
            call(*inputs)
            count += 1
        facts["requests_per_s"] = count / (time.perf_counter() - start)
    print(json.dumps(facts), flush=True)


def command(built, inputs, threads, seconds):
    return [
        sys.executable, __file__, "--loader", built.loader, "--file", str(built.file),
        "--inputs", str(inputs), "--threads", str(threads), "--seconds", str(seconds),
    ]  # fmt: skip


def alone(built, inputs, threads):
    """Facts of one fresh process."""
    run = subprocess.run(command(built, inputs, threads, 0), check=False, capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError((run.stderr.strip().splitlines() or ["no output"])[-1])
    return json.loads(run.stdout.splitlines()[-1])


def workers(built, inputs, seconds):
    """Requests a second of WORKERS processes with one thread each, together."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    started = [subprocess.Popen(command(built, inputs, 1, seconds), **pipes) for _ in range(WORKERS)]
    try:
        for process in started:
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError("a worker ended before it was ready")
        for process in started:
            process.stdin.write("\n")
            process.stdin.flush()
        answers = (json.loads(process.communicate()[0].splitlines()[-1]) for process in started)
        return sum(answer["requests_per_s"] for answer in answers)
    finally:
        for process in started:
            process.kill()
            process.wait()


def run(workload, args, result, missing):
    print(f"{workload.name}:", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        built, _, case = table.build(workload, args, folder, missing, saves=True)
        inputs = Path(folder) / "inputs.pt"
        torch.save(case.inputs, inputs)
        served = {name: b for name, b in built.items() if b.file is not None}
        del built, case
        for name, b in served.items():
            with missing.noting(f"{workload.name}, {name} served"):
                facts = alone(b, inputs, args.threads)
                facts["requests_per_s"] = workers(b, inputs, args.seconds)
                facts["file_bytes"] = size_of(b.file)
                result.add(f"{workload.name}, {name}", {}, goals_of(facts, result, workload, name), **facts)
                print(
                    "  " + "; ".join(f"{column} {text}" for column, text in columns(facts).items()),
                    flush=True,
                )


def size_of(path):
    """Bytes of a file or folder; an OpenVINO .xml has its weights beside it."""
    path = Path(path)
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    beside = path.with_suffix(".bin") if path.suffix == ".xml" else None
    return path.stat().st_size + (beside.stat().st_size if beside else 0)


def goals_of(facts, result, workload, name):
    """Ours adds no more memory than float32; its first call is not far from the next ones."""
    if not name.startswith(registry.OURS):
        return []
    ratio = facts["first_call_s"] / facts["steady_s"]
    goals = [Goal("first call / later ones", ratio, MOST_FIRST_CALL, larger_is_better=False)]
    fp32 = next((row for row in result.rows if row["id"] == f"{workload.name}, {table.FP32}"), None)
    if fp32 is not None:
        most = fp32["rss_bytes"] / MB
        goals.append(Goal("RSS", facts["rss_bytes"] / MB, None, most, "MB", larger_is_better=False))
    return goals


def columns(facts):
    """What the table shows of one candidate."""
    return {
        "file MB": f"{facts['file_bytes'] / MB:.1f}",
        "import ms": f"{facts['import_s'] * 1e3:.0f}",
        "load ms": f"{facts['load_s'] * 1e3:.0f}",
        "first call ms": f"{facts['first_call_s'] * 1e3:.1f}",
        "later calls ms": f"{facts['steady_s'] * 1e3:.2f}",
        "RSS MB": f"{facts['rss_bytes'] / MB:.1f}",
        f"requests of {WORKERS} workers, 1/s": f"{facts['requests_per_s']:.1f}",
    }


def serve_table(rows):
    """One line a candidate."""
    lines = [[row["id"], *columns(row).values()] for row in rows]
    return report.table(["workload, candidate", *columns(rows[0])], lines) if rows else []


def add_rows(args, result, missing):
    with torch.no_grad():
        for workload in (w for name in TABLES if name != "frontends" for w in TABLES[name]):
            if any(text in workload.name for text in args.workloads.split(",")):
                with missing.noting(workload.name):
                    run(workload, args, result, missing)


def main():
    parser = cli.parser(__doc__, budget_s=1.0)
    cli.add_choice(parser, WORKLOADS)
    parser.add_argument("--seconds", type=float, default=3.0, help="of answering requests")
    for name in ("loader", "file", "inputs"):
        parser.add_argument(f"--{name}", help="internal: the child's")
    args = parser.parse_args()
    if args.loader:
        peers.hush()
        child(args)
        return 0
    args.compile = False
    needed = f"{registry.OURS}.* served"
    return frame.run("serve", args, add_rows, probe=False, layout=serve_table, needed=needed)


if __name__ == "__main__":
    sys.exit(main())
