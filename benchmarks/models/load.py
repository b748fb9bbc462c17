"""Loading a saved model: memory and time of its parts.

    python benchmarks/models/load.py

BERT-base's linear layers (85 M int8 weights) and 6 x Linear(4096, 4096), saved and loaded
with the file in the page cache. Memory is measured in a process of its own by
test/saved/memory_of.py: RSS after load and packing <= 1.25 x int8 bytes, four workers
forked after the load <= 1.5 x the PSS of one process. Time: what the digest adds to
mapping, building and packing, and the rate of packing itself against copying the
same bytes; and what a second process waits for, whose libraries and file are in the
page cache: import, load with packing and the modules it needs, the first call
against later ones.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))

import torch  # noqa: E402
from torch import nn  # noqa: E402

from benchmarks.harness import cli, frame, peers, report  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402

ROUNDS = 7
WORKERS = 4
PROCESSES = 3
MOST_RSS, MOST_FIRST_CALL = 1.1, 2.0  # wanted
# Prints the seconds of a process: import, load, first call, the median of later ones.
SECOND_PROCESS = """
import json, statistics, sys, time
clock = time.perf_counter
start = clock(); import torch; import torch_ao_ext; imported = clock() - start
torch.set_num_threads(int(sys.argv[2])); torch.set_grad_enabled(False)
start = clock(); model = torch_ao_ext.load_quantized(sys.argv[1]); loaded = clock() - start
x, calls = torch.randn(4, model[0].in_features), []
for _ in range(11):
    start = clock(); model(x); calls.append(clock() - start)
print(json.dumps([imported, loaded, calls[0], statistics.median(calls[1:])]))
"""


def bert_layers():
    return [(768, 768)] * 4 + [(768, 3072), (3072, 768)]


CASES = {
    "BERT-base": bert_layers() * 12,
    "6 x Linear(4096, 4096)": [(4096, 4096)] * 6,
}


def model_of(shapes):
    """Random int8 weights; no float weight is made."""
    from torch_ao_ext.nn.quantized.dynamic import Linear

    model = nn.Sequential(*(Linear(k, n) for k, n in shapes))
    for layer in model:
        layer.qweight.random_(-128, 128)
        layer.weight_scale.fill_(1e-3)
    return model


def best(function, before=lambda: None):
    times = []
    for _ in range(ROUNDS):
        argument = before()
        start = time.perf_counter()
        function(argument) if argument is not None else function()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def packed_bytes(weight):
    """Bytes of the packed forms of one weight."""
    return sum(state["packed_bytes"] for state in peers.ours().explain(weight).weights["weight"]["states"])


def times_of(path, int8):
    """Seconds of a load and of its parts, medians."""
    from torch_ao_ext._saved.manifest import crc32_tensor

    ext = peers.ours()
    plain = ext.load_quantized(path, dtype=None)
    weights = [layer.qweight for layer in plain]
    copies = [torch.empty_like(w) for w in weights]

    def digest():
        for weight in weights:
            crc32_tensor(weight)

    def copy():
        for weight, to in zip(weights, copies, strict=True):
            to.copy_(weight)

    digest(), copy()  # touch every page
    facts = {
        "load_s": best(lambda: ext.load_quantized(path)),
        "load_unpacked_s": best(lambda: ext.load_quantized(path, dtype=None)),
        "digest_s": best(digest),
        "copy_s": best(copy),
        "pack_s": best(lambda: ext.prepack(plain), lambda: ext.repack(plain) and None),
    }
    facts["packed_bytes"] = sum(packed_bytes(weight) for weight in weights)
    rates = {f"{name}_gb_per_s": int8 / facts[f"{name}_s"] / 1e9 for name in ("pack", "copy")}
    return facts | rates


def second_process(path, threads):
    """Seconds of the steps of SECOND_PROCESS, medians of PROCESSES."""
    command = [sys.executable, "-c", SECOND_PROCESS, str(path), str(threads)]
    environment_ = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run():
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment_)
        return json.loads(done.stdout)

    steps = zip(*(run() for _ in range(PROCESSES)), strict=True)
    names = ("import_s", "second_load_s", "first_call_s", "later_call_s")
    return {name: statistics.median(seconds) for name, seconds in zip(names, steps, strict=True)}


def process_seconds(path):
    """A fresh process that imports and loads: what a user waits for."""
    code = "import sys, torch_ao_ext; len(sys.argv) > 1 and torch_ao_ext.load_quantized(sys.argv[1])"
    environment_ = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(*arguments):
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, env=environment_)

    return best(lambda: run(str(path)))


def memory_of(path):
    script = ROOT / "test" / "saved" / "memory_of.py"
    environment_ = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, str(script), str(path), str(WORKERS)],
        check=True, capture_output=True, text=True, env=environment_,
    )  # fmt: skip
    return json.loads(run.stdout.splitlines()[-1])


def goals_of(f):
    mb = 1 << 20
    rest = f["process_s"] - f["digest_s"]
    return [
        Goal("RSS after load", f["loaded_rss"] / mb, None, 1.25 * f["int8_bytes"] / mb, "MB",
             larger_is_better=False, note=f"{f['loaded_rss'] / f['int8_bytes']:.2f} x int8"),
        Goal("RSS after load / packed bytes", f["loaded_rss"] / f["packed_bytes"], MOST_RSS,
             larger_is_better=False, note=f"packed {f['packed_bytes'] / mb:.1f} MB"),
        Goal(f"PSS of {WORKERS} workers", sum(f["workers_pss"]) / mb, None, 1.5 * f["one_pss"] / mb, "MB",
             larger_is_better=False, note=f"one process {f['one_pss'] / mb:.0f} MB"),
        Goal("digest / rest of a fresh process", 100 * f["digest_s"] / rest, None, 5.0, "%",
             larger_is_better=False, note=f"{f['process_s'] * 1e3:.0f} ms with import"),
        Goal("digest / rest of the load", 100 * f["digest_s"] / (f["load_s"] - f["digest_s"]), unit="%",
             larger_is_better=False,
             note=f"load {f['load_s'] * 1e3:.1f} ms, digest {f['digest_s'] * 1e3:.1f} ms"),
        Goal("packing", f["pack_gb_per_s"], unit="GB/s", note=f"copy {f['copy_gb_per_s']:.1f} GB/s"),
        Goal("load in a second process", f["second_load_s"] * 1e3, unit="ms", larger_is_better=False,
             note=f"import {f['import_s'] * 1e3:.0f} ms"),
        Goal("first call / later ones", f["first_call_s"] / f["later_call_s"], MOST_FIRST_CALL,
             larger_is_better=False, note=f"later ones {f['later_call_s'] * 1e6:.0f} us"),
    ]  # fmt: skip


def add_rows(args, result, missing):
    del missing
    torch.set_grad_enabled(False)
    ext = peers.ours()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        for case, shapes in CASES.items():
            ext.save_quantized(model_of(shapes), path)
            facts = memory_of(path)
            facts |= times_of(path, facts["int8_bytes"])
            facts["process_s"] = process_seconds(path)
            facts |= second_process(path, args.threads)
            report.print_row(result.add(case, {}, goals_of(facts), **facts))


def main():
    return frame.run("load", cli.parser(__doc__, budget_s=1.0).parse_args(), add_rows, probe=False)


if __name__ == "__main__":
    sys.exit(main())
