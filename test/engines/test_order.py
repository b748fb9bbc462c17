"""The candidate table, seen from outside: which engine leads which class of problems."""

import json
import os
import subprocess
import sys

import pytest
import torch

import torch_ao_ext  # noqa: F401  (registers the operators)

PROBE = """
import json, torch, torch_ao_ext
leaders = {}
for k, n in [(64, 32), (768, 768), (4096, 4096)]:
    weight, scale = torch.randint(-128, 128, (n, k), dtype=torch.int8), torch.full((n,), 0.01)
    torch.ops.torch_ao.linear_dynamic(torch.randn(2, k), weight, scale)
    leaders[f"dynamic {k}x{n}"] = json.loads(torch.ops.torch_ao._explain(weight))["states"][0]["engine"]
    weight = weight.clone()
    x = torch.randint(0, 256, (2, k), dtype=torch.uint8)
    torch.ops.torch_ao.linear(x, 0.1, 3, weight, scale, None, None, 0.5, 7)
    leaders[f"static {k}x{n}"] = json.loads(torch.ops.torch_ao._explain(weight))["states"][0]["engine"]
leaders["isa"] = json.loads(torch.ops.torch_ao._info())["best_isa"]
print(json.dumps(leaders))
"""


def leaders(isa, **settings):
    env = dict(os.environ, TORCH_AO_EXT_MAX_ISA=isa, **settings)
    command = [sys.executable, "-c", PROBE]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    return found.pop("isa"), found


@pytest.mark.parametrize("isa", ["portable", "avx2"])
def test_xnnpack_leads_without_vnni(isa):
    ran, found = leaders(isa)
    assert ran == isa
    assert set(found.values()) == {"xnnpack"}


@pytest.mark.parametrize("isa", ["portable", "avx2"])
def test_deterministic_mode_passes_it_over(isa):
    _, found = leaders(isa, TORCH_AO_EXT_DETERMINISTIC="1")
    assert set(found.values()) == {"native"}


def test_onednn_leads_large_weights_on_256_bit_vnni():
    ran, found = leaders("avx_vnni")
    if ran != "avx_vnni":
        pytest.skip(f"this CPU has no AVX-VNNI; best level under the cap is {ran}")
    for name, engine in found.items():
        assert engine == ("onednn" if "4096" in name else "native"), name


@pytest.mark.parametrize("isa", ["avx512", "avx512_vnni", "amx"])
def test_native_leads_on_avx512(isa):
    ran, found = leaders(isa)
    if ran != isa:
        pytest.skip(f"this CPU has no {isa}; best level under the cap is {ran}")
    assert set(found.values()) == {"native"}


def test_refusals_are_told():
    weight = torch.randint(-128, 128, (8, 70000), dtype=torch.int8)
    torch.ops.torch_ao.linear_dynamic(torch.randn(1, 70000), weight, torch.ones(1))
    state = json.loads(torch.ops.torch_ao._explain(weight))["states"][0]
    assert state["engine"] == "reference"
    reasons = dict(state["refused"])
    assert {"native", "onednn", "xnnpack"} <= set(reasons)
    assert "70000" in reasons["native"]
