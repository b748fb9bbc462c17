"""Damaged files: no crash, no hang, every flipped bit found, the target as it was."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from damage import KINDS, flip, tensor_at
from saved_models import join, manifest_of, sign, small_file, split
from torch import nn

from torch_ao_ext import load_quantized, save_quantized
from torch_ao_ext._saved import container
from torch_ao_ext.quantization import default_dynamic_qconfig, quantize_dynamic, row_dynamic_qconfig

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


def _gru(qconfig):
    torch.manual_seed(0)
    return quantize_dynamic(nn.Sequential(nn.GRU(6, 8)).eval(), {nn.GRU: qconfig})


ROWS, TENSORS = row_dynamic_qconfig, default_dynamic_qconfig
SEVEN, EIGHT = {"per_row": False, "reduce_range": True}, {"per_row": False, "reduce_range": None}
NONE = {"per_row": None, "reduce_range": None}
SAID = r"must have \{.*'per_row': False"
FOUND = "by its arguments, got"
# What a layer was saved with, the rule that its file then states, and what the error names of both.
CONTRADICTIONS = [
    (ROWS, SEVEN, rf"{SAID}, 'reduce_range': True\}} {FOUND} \{{.*\}} by its tensors"),
    (ROWS, EIGHT, rf"{SAID}\}} {FOUND} \{{.*\}} by its tensors"),
    (TENSORS, NONE, rf"{FOUND} \{{.*'per_row': False, 'reduce_range': True\}} by its tensors"),
    (TENSORS, EIGHT, rf"{SAID}\}} {FOUND} .*'reduce_range': True\}} by its tensors"),
    (TENSORS, {"per_row": "x"}, "valid arguments: GRU: argument 'per_row' must be a bool, got 'x'"),
    (TENSORS, {"reduce_range": 1}, "valid arguments: GRU: argument 'reduce_range' must be a bool, got 1"),
]


@pytest.mark.parametrize(("qconfig", "rule", "match"), CONTRADICTIONS)
def test_a_rule_that_the_tensors_contradict(tmp_path, qconfig, rule, match):
    """Arguments of a recurrent layer, signed, beside tensors that say something else."""
    path, model, x = tmp_path / "model.safetensors", _gru(qconfig), torch.randn(3, 6)
    save_quantized(model, path)
    header, body = split(path.read_bytes())
    manifest = manifest_of(header)
    args = manifest["modules"]["0"][1]
    if qconfig is ROWS:  # as in files of versions that knew no other rule
        assert not args.keys() & {"per_row", "reduce_range", "dtype"}
        assert torch.equal(load_quantized(path)(x)[0], model(x)[0])
    args.update(rule)
    manifest["modules"]["0"][1] = {name: value for name, value in args.items() if value is not None}
    sign(header, manifest)
    path.unlink()
    path.write_bytes(join(header, body))
    for options in ({}, {"model_fn": lambda: nn.Sequential(nn.GRU(6, 8))}):
        with pytest.raises(ValueError, match=f"module '0' \\(quantized.dynamic.GRU\\) .*{match}"):
            load_quantized(path, **options)
    for other in (ROWS, TENSORS):
        live = _gru(other)
        before = live(x)[0]
        with pytest.raises(ValueError, match="module '0' .quantized.dynamic.GRU. must have"):
            load_quantized(path, into=live)
        assert torch.equal(live(x)[0], before)


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
