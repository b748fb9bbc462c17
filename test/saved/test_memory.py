"""One copy of the weights: 100 M int8 parameters, and layers of other families.

Not sparse ones: they keep a dense form beside the blocks (docs/saved_models.md).
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from saved_models import big_kinds, kinds_model
from torch import nn

from torch_ao_ext import load_quantized, save_quantized
from torch_ao_ext._saved.pages import release
from torch_ao_ext.nn.quantized.dynamic import Linear

SIZE, LAYERS = 4096, 6


def big_model():
    """Random int8 weights: no float weight is made first."""
    model = nn.Sequential(*(Linear(SIZE, SIZE) for _ in range(LAYERS)))
    for layer in model:
        layer.qweight.random_(-128, 128)
        layer.weight_scale.fill_(1e-3)
    return model


@pytest.fixture(scope="module", params=["linear", "kinds"])
def facts(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("memory") / "model.safetensors"
    kinds = request.param == "kinds"
    save_quantized(kinds_model(big_kinds, sparse=False) if kinds else big_model(), path)
    script = Path(__file__).parent / "memory_of.py"
    command = [sys.executable, str(script), str(path), "4", *(["kinds"] if kinds else [])]
    run = subprocess.run(command, capture_output=True, text=True, timeout=240)
    path.unlink()
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert kinds or result["int8_bytes"] == LAYERS * SIZE * SIZE > 100e6
    print({k: [x >> 20 for x in v] if isinstance(v, list) else v >> 20 for k, v in result.items()}, "MB")
    return result


def test_rss_after_load_and_packing(facts):
    assert facts["loaded_rss"] <= 1.25 * facts["int8_bytes"]
    assert facts["loaded_rss"] >= 0.9 * facts["int8_bytes"], "not packed, or not measured"


def test_rss_after_a_call(facts):
    assert facts["called_rss"] <= 1.25 * facts["int8_bytes"]


def test_four_workers_share_the_weights(facts):
    assert len(facts["workers_pss"]) == 4
    assert sum(facts["workers_pss"]) <= 1.5 * facts["one_pss"], facts


def test_release_drops_pages_and_keeps_bytes(tmp_path):
    """The control: the pages are resident before, gone after, and read the same again."""
    path = tmp_path / "model.safetensors"
    save_quantized(nn.Sequential(Linear(2048, 2048)), path)
    weight = load_quantized(path, dtype=None)[0].qweight

    def resident():
        lines = Path("/proc/self/smaps").read_text().split("\n")
        starts = [i for i, line in enumerate(lines) if line.endswith(str(path))]
        return sum(int(lines[i + k].split()[1]) for i in starts for k in range(1, 8)
                   if lines[i + k].startswith("Rss:")) * 1024  # fmt: skip

    total = int(weight.to(torch.int64).sum())
    assert resident() >= weight.nbytes
    release(weight)
    assert resident() < weight.nbytes // 100
    assert int(weight.to(torch.int64).sum()) == total and resident() >= weight.nbytes
