"""Damaged files: no crash, no hang, every flipped bit found, the target as it was."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from damage import KINDS, flip, tensor_at
from saved_models import join, manifest_of, sign, small_file, split

from torch_ao_ext import load_quantized
from torch_ao_ext._saved import container

COUNT = 1000
SEED = 20261125


def test_1000_damaged_files():
    """In a child, so that a crash is a failure with a number and not the end of the run."""
    script = Path(__file__).parent / "damage.py"
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(script), str(SEED), "0", str(COUNT)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    last = lines[-1] if lines else None
    assert run.returncode == 0, f"died at {last}; replay: python {script} {SEED} {last}\n{run.stderr[-2000:]}"
    rows = [line for line in lines if "problem" in line]
    assert len(rows) == COUNT
    bad = [row for row in rows if row["problem"]]
    assert not bad, f"{len(bad)} of {COUNT}, first: {bad[0]}; replay: python {script} {SEED} N N+1"
    kinds = Counter(row["kind"].removesuffix(" signed") for row in rows)
    assert set(kinds) == set(KINDS)
    raised = sum(bool(row["message"]) for row in rows)
    named = sum(bool(row["tensor"]) for row in rows)
    print(f"{COUNT} damaged files, seed {SEED}: {raised} raised, {named} flipped tensor bits all named")
    assert raised > 0.9 * COUNT and named > 100


def test_every_byte_of_the_tensors(tmp_path):
    """One bit of each byte of the data, and the text names the tensor."""
    path = tmp_path / "model.safetensors"
    data = small_file(path)
    start = len(data) - len(split(data)[1])
    for position in range(start, len(data)):
        path.unlink()
        path.write_bytes(flip(data, position, position % 8))
        with pytest.raises(ValueError, match=f"tensor '{tensor_at(data, position)}' is damaged"):
            load_quantized(path)


def child_peak(path):
    """Growth of the peak RSS while this file is refused, and the text."""
    code = (
        "import sys, json, torch_ao_ext\n"
        "from pathlib import Path\n"
        "def peak(): return next(int(l.split()[1]) for l in Path('/proc/self/status').read_text()"
        ".splitlines() if l.startswith('VmHWM'))\n"
        "try: torch_ao_ext.load_quantized('/nonexistent')\n"
        "except OSError: pass\n"
        "import safetensors\n"
        "Path('/proc/self/clear_refs').write_text('5')\n"
        "before = peak()\n"
        "try: torch_ao_ext.load_quantized(sys.argv[1])\n"
        "except ValueError as e: text = str(e)\n"
        "else: text = ''\n"
        "print(json.dumps([(peak() - before) * 1024, text]))\n"
    )
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def _metadata(data):
    """As many tiny metadata entries as a header may have."""
    entries = b",".join(b'"%x":""' % i for i in range(container.MAX_COMMAS))
    return join(b'{"__metadata__":{%s}}' % entries, b"")


def _tensors(data):
    entry = b'"%x":{"dtype":"I8","shape":[0],"data_offsets":[0,0]}'
    count = container.MAX_COMMAS // 4
    return join(b"{" + b",".join(entry % i for i in range(count)) + b"}", b"")


def _shape(data):
    count = container.MAX_COMMAS - 4
    return join(b'{"a":{"dtype":"I8","shape":[%s],"data_offsets":[0,1]}}' % b",".join([b"1"] * count), b"x")


def _modules(data):
    header, body = split(data)
    manifest = manifest_of(header)
    linear = ["quantized.dynamic.Linear", {"in_features": 2**40, "out_features": 2**20, "bias_": True}]
    manifest["modules"].update({f"{i}": linear for i in range(5, 4090)})
    sign(header, manifest)
    return join(header, body)


def _huge(data):
    entry = {"dtype": "I8", "shape": [2**20, 2**20], "data_offsets": [0, 2**40]}
    return join({"a": entry}, b"x")


@pytest.mark.parametrize("make", [_metadata, _tensors, _shape, _modules, _huge])
def test_memory_of_a_refused_file(tmp_path, make):
    """Peak RSS <= 2 x file size + 64 MB, whatever the file claims."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(make(small_file(path)))
    size = path.stat().st_size
    grown, text = child_peak(path)
    assert text and "at most" not in text, text
    print(f"{make.__name__}: file {size} bytes, {grown >> 20} MB, {text[:120]}")
    assert grown <= 2 * size + (64 << 20), f"{grown >> 20} MB for {size} bytes"
