"""quantize_dynamic on tied and reused modules, and the memory it takes."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from float_models import Block, kinds
from torch import nn

import torch_ao_ext
from torch_ao_ext.nn.quantized.dynamic import Linear
from torch_ao_ext.quantization import (
    quantize_dynamic,
)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 4), nn.Linear(6, 4, bias=False), nn.Linear(6, 4)
        self.b.weight = self.c.weight = self.a.weight
        self.c.bias = self.a.bias
        self.table = nn.Embedding(4, 6)
        self.table.weight = self.a.weight

    def forward(self, x):
        return self.a(x) + self.b(x) + self.c(x)


@pytest.mark.parametrize("inplace", [False, True])
def test_tied_weights_share_int8_tensors(inplace):
    model = Tied().eval()
    x = torch.randn(3, 6)
    expected = model(x)
    q = quantize_dynamic(model, inplace=inplace)
    assert q.a.qweight is q.b.qweight is q.c.qweight
    assert q.a.weight_scale is q.b.weight_scale
    assert q.b.qbias is None and q.a.qbias is q.c.qbias
    assert (q(x) - expected).abs().max() < 0.05
    assert q.table.weight.dtype == torch.float32
    again = copy.deepcopy(q)
    assert again.a.qweight is again.c.qweight and again.a.qweight is not q.a.qweight
    assert torch.equal(again(x), q(x))
    if not inplace:
        assert q.table.weight is not model.table.weight and model.a.weight is model.table.weight


def test_tied_weights_stay_shared_after_loading(tmp_path):
    import safetensors.torch as safetensors

    saved = quantize_dynamic(Tied())
    safetensors.save_model(saved, tmp_path / "m.safetensors")  # keeps one name of each tensor
    x = torch.randn(3, 6)
    for how in ("safetensors", "state_dict"):
        q = quantize_dynamic(Tied())
        assert not torch.equal(q(x), saved(x))
        if how == "safetensors":
            safetensors.load_model(q, tmp_path / "m.safetensors")
        else:
            q.load_state_dict(saved.state_dict())
        assert torch.equal(q(x), saved(x)), how
        assert q.a.qweight is q.c.qweight and q.a.weight_scale is q.c.weight_scale


def test_reused_module_stays_one_module():
    shared = nn.Linear(6, 6)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.Sequential(shared))
    q = quantize_dynamic(model)
    assert isinstance(q[0], Linear) and q[0] is q[2] is q[3][0]


def test_reused_container():
    block = Block()
    q = quantize_dynamic(nn.ModuleList([block, block]))
    assert q[0] is q[1] and all(kinds(q).values())


MEMORY = """
import ctypes, gc, re, sys
import torch, torch_ao_ext
from torch import nn

def megabytes(key):
    return int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

convert = torch_ao_ext.quantization.quantize_dynamic
convert(nn.Sequential(nn.Linear(64, 64)))(torch.randn(2, 64))  # what is allocated once
base = megabytes("VmRSS")
model = nn.Sequential(*[nn.Linear(2048, 2048) for _ in range(8)])
full = megabytes("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
model = convert(model, inplace=sys.argv[1] == "inplace")
gc.collect(); ctypes.CDLL(None).malloc_trim(0)
model(torch.randn(4, 2048))
print(megabytes("VmHWM") - full, megabytes("VmRSS") - base)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", ["inplace", "copy"])
def test_memory(how):
    """8 layers of 4 MB in int8, 16 MB in float32."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, how], capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(torch_ao_ext.__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    peak_extra, kept = map(float, done.stdout.split())
    assert kept <= 2.1 * 32 + 3, "plain and packed weights, and nothing else"
    # In place: one plain layer, one packed layer, one block of rows. A copy holds the
    # plain and packed layers beside the float model and one layer in float32 on the way, but no
    # second float model (128 MB).
    assert peak_extra <= (12 if how == "inplace" else 2.1 * 32 + 16 + 3)
