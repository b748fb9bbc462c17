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
for name, shape, groups in [
    ("stem", (32, 3, 3, 3), 1), ("dense", (64, 64, 3, 3), 1), ("heavy", (512, 512, 3, 3), 1),
    ("pointwise", (64, 256, 1, 1), 1), ("heavy pointwise", (512, 2048, 1, 1), 1),
    ("narrow pointwise", (24, 64, 1, 1), 1), ("groups", (64, 8, 3, 3), 8),
    ("depthwise", (96, 1, 3, 3), 96), ("wide depthwise", (576, 1, 3, 3), 576),
]:
    weight, scale = torch.randint(-128, 128, shape, dtype=torch.int8), torch.tensor([0.01])
    x = torch.randint(0, 256, (1, shape[1] * groups, 9, 9), dtype=torch.uint8)
    torch.ops.torch_ao.conv2d(x, 0.1, 3, weight, scale, None, None, 0.5, 7, groups=groups)
    leaders["conv " + name] = json.loads(torch.ops.torch_ao._explain(weight))["states"][0]["engine"]
leaders["isa"] = json.loads(torch.ops.torch_ao._info())["best_isa"]
print(json.dumps(leaders))
"""


def leaders(isa, convolutions=False, **settings):
    env = dict(os.environ, TORCH_AO_EXT_MAX_ISA=isa, **settings)
    command = [sys.executable, "-c", PROBE]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    return found.pop("isa"), {k: v for k, v in found.items() if k.startswith("conv ") == convolutions}


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


NATIVE_CONVOLUTIONS = {"conv heavy", "conv heavy pointwise", "conv wide depthwise"}


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx_vnni", "avx512", "avx512_vnni", "amx"])
def test_who_leads_convolutions(isa):
    ran, found = leaders(isa, convolutions=True)
    if ran != isa:
        pytest.skip(f"this CPU has no {isa}; best level under the cap is {ran}")
    native = {name for name, engine in found.items() if engine == "native"}
    if isa in ("avx512_vnni", "amx"):
        narrow = {"conv narrow pointwise"} if isa == "avx512_vnni" else set()
        assert native == NATIVE_CONVOLUTIONS | {"conv depthwise", "conv pointwise"} | narrow
    elif isa == "avx_vnni":
        assert native == NATIVE_CONVOLUTIONS | {"conv dense", "conv pointwise"}
    else:
        assert native == set(found)
    assert set(found.values()) <= {"native", "onednn"}


def test_refusals_are_told():
    weight = torch.randint(-128, 128, (8, 70000), dtype=torch.int8)
    torch.ops.torch_ao.linear_dynamic(torch.randn(1, 70000), weight, torch.ones(1))
    state = json.loads(torch.ops.torch_ao._explain(weight))["states"][0]
    assert state["engine"] == "reference"
    reasons = dict(state["refused"])
    assert {"native", "onednn", "xnnpack"} <= set(reasons)
    assert "70000" in reasons["native"]
