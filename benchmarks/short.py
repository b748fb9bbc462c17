"""The short form of docs/benchmarks.md for README.md, made from the tables of the page.

`python -m benchmarks.page` writes it between `<!-- short form -->` and `<!-- end -->`; a test holds the two
against each other. Rows are chosen here, and none for its result.
"""

import math
import re
import textwrap

from benchmarks.peers import registry

BLOCK = re.compile(r"(<!-- short form -->\n).*?(<!-- end -->)", re.DOTALL)
CELL = re.compile(r"([\d.]+) (us|ms) \([^)]*\)(?:, (\S+) dB)?")
BUSY = " (noisy"
SQNR_SLACK_DB = 0.5
OURS = registry.OURS
# Row of README, places of the page of which the first that has it counts, column there.
MODELS = (
    ("ResNet-18 B1", ("convnets",), "resnet18 B1"),
    ("ResNet-50 B1", ("convnets-resnet50", "convnets-compile"), "resnet50 B1"),
    ("MobileNetV2 B1", ("convnets",), "mobilenetv2 B1"),
    ("MobileNetV3-large B1", ("convnets",), "mobilenetv3-large B1"),
    ("CREPE B1", ("convnets",), "CREPE B1"),
    ("BERT-base 1x128", ("transformers-bert", "transformers-compile"), "BERT-base 1x128"),
    ("ViT-B/16 B1", ("transformers-compile",), "ViT-B/16 B1"),
    ("MiniLM 1x32", ("transformers",), "MiniLM sdpa 1x32"),
    ("MiniLM 8x128", ("transformers",), "MiniLM sdpa 8x128"),
    ("Resemblyzer B1 (3 LSTM)", ("recurrent",), "Resemblyzer B1"),
    ("LSTM tagger B1", ("recurrent",), "LSTM tagger B1"),
    ("DLRM-small B128", ("recsys",), "DLRM-small B128"),
)
MINILM = {
    "fp32": ("fp32",),
    "torch.ao `quantize_dynamic`, better engine": ("torch.ao x86", "torch.ao onednn"),
    "onnxruntime int8": ("onnxruntime int8",),
    "**torch_ao_ext**": ("torch_ao_ext",),
    "torchao + compile": ("torchao + compile",),
    "**torch_ao_ext + compile**": ("torch_ao_ext + compile",),
}
SIZES = ("1x32", "8x32", "8x128")
LAYERS, ROWS = ("768->768", "768->3072", "3072->768", "4096->4096"), (1, 16, 128, 512)


def place(page, name):
    """Text of a result's place, empty without one."""
    found = re.search(rf"<!-- result: {re.escape(name)} -->\n(.*?)<!-- end -->", page, re.DOTALL)
    return found.group(1) if found else ""


def tables(text):
    """Every markdown table as a list of rows of cells, the head first."""
    found, before = [], False
    for line in text.splitlines():
        if line.startswith("|"):
            if not before:
                found.append([])
            if not line.startswith("| ---"):
                found[-1].append([cell.strip() for cell in line.strip("|").split(" | ")])
        before = line.startswith("|")
    return found


def date(page, name):
    """Day of the run in a place."""
    return re.search(r"\d{4}-\d\d-\d\d", place(page, name)).group()


def timings(page, name):
    """({row: {candidate: (ms, dB or None)}}, rows that were measured beside others) of a place."""
    found = tables(place(page, name))
    if not found:
        return {}, set()
    head, *lines = found[0]
    by_candidate = head[0] == "candidate"
    values, busy = {}, set()
    for line in lines:
        for label, text in zip(head[1:], line[1:], strict=False):
            row, candidate = (label, line[0]) if by_candidate else (line[0], label)
            if BUSY in row:
                row = row.partition(BUSY)[0]
                busy.add(row)
            match = CELL.match(text)
            if match:
                ms = float(match[1]) / (1000 if match[2] == "us" else 1)
                values.setdefault(row, {})[candidate] = (ms, match[3])
    return values, busy


def figures(page, name):
    """{(row, figure): text} of a place's table of goals; a row's mark of a busy machine is left out."""
    lines = [line for table in tables(place(page, name)) if table[0][1] == "figure" for line in table[1:]]
    return {(line[0].partition(BUSY)[0], line[1]): line[4] for line in lines}


def _number(ms):
    return f"{ms:#.3g}".removesuffix(".")


def fastest(measured, kind, least_db=-math.inf):
    """Name of the fastest candidate of a kind, of those with so much SQNR where there is one; None."""
    kinds = {c.name: c.kind for c in registry.CANDIDATES}
    names = [name for name in measured if kinds.get(name) == kind]
    exact = [name for name in names if float(measured[name][1]) >= least_db]
    return min(exact or names, key=lambda name: measured[name][0], default=None)


def sides(measured):
    """Texts 'torch.ao FX onednn 2.16, 39.6 dB' of torch's, other engines' and our candidates.

    Ours is the fastest that is at most SQNR_SLACK_DB below the faster of the two peers.
    """
    peers = [fastest(measured, kind) for kind in (registry.TORCH, registry.OTHER)]
    best = min((name for name in peers if name), key=lambda name: measured[name][0], default=None)
    least = float(measured[best][1]) - SQNR_SLACK_DB if best else -math.inf
    names = [*peers, fastest(measured, OURS, least)]
    return [
        f"{name.removeprefix(OURS).strip()} {_number(measured[name][0])}, {measured[name][1]} dB"
        if name else ""
        for name in names
    ]  # fmt: skip


def model_table(page):
    """Lines of the table of models."""
    lines = [
        "| ms, SQNR | fp32 | best int8 inside PyTorch | best int8 of another engine | torch_ao_ext | day |",
        "|---|---|---|---|---|---|",
    ]
    for title, places, row in MODELS:
        for name in places:
            values, busy = timings(page, name)
            if row not in values:
                continue
            note = ", busy" if row in busy else ""
            fp32 = _number(values[row]["fp32"][0])
            cells = [title, fp32, *sides(values[row]), f"{date(page, name)}{note}"]
            lines.append(f"| {' | '.join(cells)} |")
            break
    return lines


def minilm_table(page):
    """Lines of MiniLM at three sizes."""
    values, _ = timings(page, "minilm")
    lines = [f"| MiniLM, ms | {' | '.join(SIZES)} | SQNR |", "|---|---|---|---|---|"]
    for title, names in MINILM.items():
        times, decibels = [], []
        for size in SIZES:
            measured = [values[f"MiniLM {size}"][name] for name in names if name in values[f"MiniLM {size}"]]
            ms, db = min(measured, default=(None, None))
            times.append("" if ms is None else _number(ms))
            decibels += [float(db)] if db else []
        spread = f"{min(decibels):.1f}-{max(decibels):.1f} dB" if decibels else ""
        lines.append(f"| {title} | {' | '.join(times)} | {spread} |")
    return lines


def linear_table(page):
    """Lines of `linear_dynamic` against torch.ao."""
    found = figures(page, "linear")
    lines = [f"| K -> N | {' | '.join(f'M={m}' for m in ROWS)} |", "|---|---|---|---|---|"]
    for layer in LAYERS:
        ratios = []
        for m in ROWS:
            texts = [
                text for (row, name), text in found.items()
                if row == f"dynamic M={m} {layer}" and name.startswith("vs torch.ao")
            ]  # fmt: skip
            ratios.append(texts[0].removesuffix("x") if texts else "")
        lines.append(f"| {layer.replace('->', ' -> ')} | {' | '.join(ratios)} |")
    return lines


def eager_text(page):
    """Lines on ResNet-18 in eager mode."""
    got, (values, _) = figures(page, "eager"), timings(page, "eager")
    model, calibrated, training = "ResNet-18 B1", "calibrated forward B1", "training step B4"

    def share(row, name):
        return f"{values[row][name][0] / values[row]['fp32'][0]:.2f}"

    def decibels(name):
        return values[model][name][1]

    peer = "torch.ao x86"
    ratio, traced, eager = (got[model, name].removesuffix("x") for name in (
        "vs fp32", f"traced vs {peer} traced", f"vs {peer}",
    ))  # fmt: skip
    parts = (
        "ResNet-18 in eager mode (`docs/eager.md`, `python benchmarks/models/eager.py`,",
        f"{date(page, 'eager')}):",
        f"traced {ratio} times as fast as fp32 at {decibels(f'{OURS} traced')} dB",
        f"and {traced} times as fast as torch.ao's traced one (engine x86, {decibels(f'{peer} traced')} dB),",
        f"untraced {eager} times torch.ao's. A calibrated forward takes",
        f"{share(calibrated, OURS)} times a float one (torch.ao {share(calibrated, peer)}),",
        f"a training step {share(training, OURS)} times (torch.ao {share(training, peer)}).",
    )
    return textwrap.wrap(" ".join(parts), 110, break_on_hyphens=False)


def form(page):
    """The block's text."""
    lines = [
        *model_table(page), "",
        f"`python benchmarks/models/minilm.py`, {date(page, 'minilm')}:", "",
        *minilm_table(page), "",
        "`linear_dynamic` float32 to float32, times faster than the better of torch.ao's two engines",
        f"(`python benchmarks/ops/linear.py`, {date(page, 'linear')}):", "",
        *linear_table(page), "",
        *eager_text(page),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def filled(readme, page):
    """README with the block of this page."""
    if not BLOCK.search(readme):
        raise ValueError("README has no place for the short form")
    return BLOCK.sub(lambda match: match[1] + form(page) + match[2], readme)
