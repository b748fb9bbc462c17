"""Packed forms never outlive their values: aliases, copies, freed memory, writes behind torch."""

import copy
import io
import os
import subprocess
import sys

import torch
from op_cases import random_int
from weight_state import check, make, ops, states


def test_alias_with_its_own_counter_is_another_weight():
    """`.data` counts versions for itself: equal counts do not mean equal bytes."""
    weight, scale, _ = make()
    x = torch.randn(2, 33)
    check(x, weight, scale)
    alias = weight.data
    alias.add_(1)  # alias at version 1, weight still at 0
    check(x, alias, scale)
    weight.add_(1)  # weight at version 1 too
    check(x, weight, scale)


def test_detach_shares_the_packing():
    weight, scale, _ = make()
    x = torch.randn(2, 33)
    check(x, weight, scale)
    check(x, weight.detach(), scale)
    check(x, torch.nn.Parameter(weight, requires_grad=False), scale)
    assert ops._pack_count(weight) == 1
    weight.detach().mul_(-1)
    check(x, weight, scale)
    assert ops._pack_count(weight) == 2


def test_copies_carry_plain_data_only():
    weight, scale, bias = make()
    x = torch.randn(2, 33)
    check(x, weight, scale, bias)
    file = io.BytesIO()
    torch.save(weight, file)
    file.seek(0)
    for other in (copy.deepcopy(weight), torch.load(file, weights_only=True), weight.clone()):
        assert states(other) == []
        check(x, other, scale, bias)
    shared = copy.deepcopy(weight)
    check(x, shared, scale, bias)
    shared.share_memory_()
    check(x, shared, scale, bias)
    shared.copy_(shared.flip(0))
    check(x, shared, scale, bias)


def test_freed_address_is_not_the_old_weight():
    x = torch.randn(2, 64)
    scale = torch.ones(1)
    for i in range(200):
        weight = torch.full((8, 64), i % 100, dtype=torch.int8)
        check(x, weight, scale)
        bias = torch.full((8,), float(i))  # often at the address of the last one
        check(x, weight, scale, bias)
        del weight, bias


def test_side_tensor_freed_and_address_reused():
    weight, scale, _ = make()
    x = torch.randn(2, 33)
    for i in range(200):
        bias = torch.full((17,), float(i))
        check(x, weight, scale, bias)
        del bias
    assert len(states(weight)) <= 4


def test_inference_tensor():
    with torch.inference_mode():
        weight, scale, bias = make()
        x = torch.randn(2, 33)
        check(x, weight, scale, bias)
        check(x, weight, scale, bias)
        assert ops._pack_count(weight) == 1
        weight.neg_()  # torch counts no versions here
        ops._repack(weight)
        check(x, weight, scale, bias)


def test_memory_is_freed_with_the_weight():
    page = os.sysconf("SC_PAGE_SIZE")

    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * page

    x, scale = torch.randn(1, 1024), torch.ones(1)
    for i in range(80):
        weight = random_int(torch.int8, 1024, 1024)
        ops.linear_dynamic(x, weight, scale)
        del weight
        if i == 20:
            before = resident()
    assert resident() - before < 16 << 20  # 60 weights of 1 MB and their packed forms


CHECKED = """
import torch, torch_ao_ext
ops = torch.ops.torch_ao
w, s, x = torch.randint(-128, 128, (8, 64), dtype=torch.int8), torch.ones(8), torch.randn(2, 64)
a = ops.linear_dynamic(x, w, s)
w.numpy()[:] = -w.numpy()           # torch sees nothing
s.data.mul_(2)
b = ops.linear_dynamic(x, w, s)
w2, s2 = w.clone(), s.clone()
assert torch.equal(b, ops.linear_dynamic(x, w2, s2)), "stale"
assert ops._pack_count(w) == 2
ops.linear_dynamic(x, w, s)
assert ops._pack_count(w) == 2
"""


def test_check_weights_sees_untracked_writes():
    env = {**os.environ, "TORCH_AO_EXT_CHECK_WEIGHTS": "1"}
    subprocess.run([sys.executable, "-c", CHECKED], check=True, env=env)
