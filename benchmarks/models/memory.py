"""Memory of a converted model: RSS after conversion, peak while packing.

    python benchmarks/models/memory.py

Each case runs in a child of its own, so that nothing else is in the figures.
RSS after conversion <= 2.1 x int8 bytes + float remainder (plain + packed);
extra memory at the peak of packing <= one packed layer.
"""

import ctypes
import gc
import json
import subprocess
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402
from torch import nn  # noqa: E402

from benchmarks.harness import cli, environment, frame, peers, report  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402

RSS_LIMIT = 2.1  # times the int8 bytes, plus what stayed float
# Page rounding, allocator bookkeeping, activations kept by the heap.
SLACK_BYTES = 2 << 20


def settle():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def anonymous_bytes():
    """Resident memory without mapped files: code pages touched by the first run are not the model's."""
    settle()
    return status_bytes("RssAnon")


def rss_bytes():
    settle()
    return status_bytes("VmRSS")


def status_bytes(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def reset_peak():
    Path("/proc/self/clear_refs").write_text("5")


def wide_model():
    """Eight layers of 16.8 M weights: one layer is far above the noise of RSS."""
    return nn.Sequential(*(nn.Linear(4096, 4096) for _ in range(8)))


def minilm_case():
    from benchmarks.models import minilm_model

    ids, mask = minilm_model.inputs(1, 32)
    return minilm_model.load(), lambda model: minilm_model.hidden(model, ids, mask)


def wide_case():
    x = torch.randn(4, 4096)
    return wide_model(), lambda model: model(x)


CASES = {"MiniLM": minilm_case, "8 x Linear(4096, 4096)": wide_case}


def warm_up():
    """Touch the code and start the threads that the real run uses."""
    ext = peers.ours()
    model = ext.quantization.quantize_dynamic(nn.Sequential(nn.Linear(64, 64)))
    model(torch.randn(64, 64))
    nn.Linear(64, 64)(torch.randn(64, 64))


def child(case):
    """Prints one JSON line: bytes of the model and RSS at each step."""
    from benchmarks.models.variants import model_bytes

    torch.set_grad_enabled(False)
    ext = peers.ours()
    warm_up()
    if case == "MiniLM":
        from benchmarks.models import minilm_model

        minilm_model.tokenize(["warm up"], 32)
        from transformers import BertModel  # noqa: F401
    before = anonymous_bytes()
    model, run = CASES[case]()
    run(model)
    with_float = anonymous_bytes() - before
    model = ext.quantization.quantize_dynamic(model, inplace=True)
    run(model)
    converted = anonymous_bytes() - before
    int8, remainder = model_bytes(model)

    ext.repack(model)
    unpacked = rss_bytes()
    reset_peak()
    ext.prepack(model)
    peak = status_bytes("VmHWM")
    packed = rss_bytes()
    largest = max(b.nbytes for n, b in model.named_buffers() if n.endswith("qweight"))
    print(
        json.dumps(
            {
                "float_rss": with_float,
                "int8_rss": converted,
                "int8_bytes": int8,
                "float_bytes": remainder,
                "packed_growth": packed - unpacked,
                "packing_extra": peak - packed,
                "largest_layer": largest,
            }
        )
    )


def goals_of(f):
    limit = RSS_LIMIT * f["int8_bytes"] + f["float_bytes"] + SLACK_BYTES
    packed_layer = f["largest_layer"] * max(1.0, f["packed_growth"] / f["int8_bytes"])
    mb = 1 << 20
    return [
        Goal(
            "RSS after conversion",
            f["int8_rss"] / mb,
            None,
            limit / mb,
            "MB",
            larger_is_better=False,
            note=f"int8 {f['int8_bytes'] / mb:.1f}, float {f['float_bytes'] / mb:.1f} MB",
        ),
        Goal(
            "extra at packing's peak",
            f["packing_extra"] / mb,
            None,
            (packed_layer + SLACK_BYTES) / mb,
            "MB",
            larger_is_better=False,
            note="one packed layer",
        ),
        Goal("RSS of the float model", f["float_rss"] / mb, unit="MB", larger_is_better=False),
    ]


def add_rows(args, result, missing):
    del missing
    for case in CASES:
        command = [sys.executable, __file__, "--case", case, "--threads", str(args.threads)]
        run = subprocess.run(command, check=False, capture_output=True, text=True)
        if run.returncode != 0:
            row = result.add(case, {}, failures=[(run.stderr.strip().splitlines() or ["no output"])[-1]])
        else:
            facts = json.loads(run.stdout.splitlines()[-1])
            row = result.add(case, {}, goals_of(facts), **facts)
        report.print_row(row)


def main():
    p = cli.parser(__doc__, budget_s=1.0)
    p.add_argument("--case", choices=sorted(CASES), help="internal: run one case and print JSON")
    args = p.parse_args()
    if args.case:
        environment.set_threads(args.threads)
        child(args.case)
        return 0
    return frame.run("memory", args, add_rows, probe=False)


if __name__ == "__main__":
    sys.exit(main())
