"""A packed form is made once for what it was made from, and found again."""

import op_reference as reference
import pytest
import torch
from op_cases import random_int
from weight_state import check, make, ops, states


def test_packed_once_and_reported():
    weight, scale, bias = make()
    x = torch.randn(3, 33)
    for _ in range(3):
        check(x, weight, scale, bias)
    assert ops._pack_count(weight) == 1
    (state,) = states(weight)
    assert state["op"] == "linear_dynamic"
    assert state["engine"] in ("native", "onednn", "xnnpack")
    assert state["packed_bytes"] > 0
    ops._repack(weight)
    assert states(weight) == []
    check(x, weight, scale, bias)
    assert ops._pack_count(weight) == 2


def test_every_baked_tensor_is_watched():
    weight, scale, bias = make()
    zero_point = torch.randint(-128, 128, (17,))
    x = random_int(torch.uint8, 3, 33)
    tensors = [weight, scale, zero_point, bias]
    for t in (None, *tensors):
        if t is not None:
            t.copy_(t.flip(0))
        for _ in range(2):
            args = (x, 0.1, 7, weight, scale, zero_point, bias, 1.0, 0, torch.float32)
            assert torch.equal(ops.linear(*args), reference.linear(*args))
    assert ops._pack_count(weight) == 5
    # A superseded packing can never be found again and is not kept.
    assert len(states(weight)) == 1


def test_every_baked_number_is_in_the_key():
    weight, scale, bias = make()
    x = random_int(torch.uint8, 3, 33)
    base = [x, 0.1, 7, weight, scale, None, bias, 0.3, 9, torch.uint8, "clamp", [-1.0, 1.0]]
    changes = [(1, 0.2), (2, 8), (6, None), (7, 0.4), (8, 10), (9, torch.int8), (10, ""), (11, [-1.0, 2.0])]
    assert torch.equal(ops.linear(*base), reference.linear(*base))
    for count, (index, value) in enumerate(changes, start=2):
        call = list(base)
        call[index] = value
        if index == 10:
            call[11] = []
        assert torch.equal(ops.linear(*call), reference.linear(*call)), index
        assert ops._pack_count(weight) == count
        assert len(states(weight)) <= 4
    call = [x.view(torch.int8), *base[1:]]
    assert torch.equal(ops.linear(*call), reference.linear(*call))


def test_least_recently_used_state_goes_first():
    weight, scale, _ = make()
    x = random_int(torch.uint8, 3, 33)

    def run(zero_point):
        ops.linear(x, 0.1, zero_point, weight, scale, None, None, 1.0, 0, torch.float32)
        return ops._pack_count(weight)

    assert [run(z) for z in (0, 1, 2, 3)] == [1, 2, 3, 4]
    assert run(0) == 4
    assert run(4) == 5  # drops 1
    assert [run(z) for z in (0, 2, 3, 4)] == [5, 5, 5, 5]
    assert run(1) == 6


def test_slice_packs_each_time_and_explain_says_so():
    stack = random_int(torch.int8, 3, 17, 33)
    scale = torch.rand(17) + 0.01
    x = torch.randn(2, 33)
    for _ in range(3):
        check(x, stack[1], scale)
    assert ops._pack_count(stack) == 3
    kept = stack[2]
    for _ in range(3):
        check(x, kept, scale)
    assert ops._pack_count(stack) == 4


def test_engine_change_repacks():
    weight, scale, bias = make()
    x = torch.randn(2, 33)
    check(x, weight, scale, bias)
    try:
        ops._set_engine("reference")
        check(x, weight, scale, bias)
        assert states(weight)[0]["engine"] == "reference"
    finally:
        ops._set_engine("")
    check(x, weight, scale, bias)
    assert states(weight)[0]["engine"] != "reference"


def test_failed_packing_leaves_the_weight_usable():
    weight, scale, _ = make()
    x = torch.randn(2, 33)
    bad = scale.clone()
    bad[3] = float("nan")
    for _ in range(6):
        with pytest.raises(ValueError, match="weight_scale.* at position 3"):
            ops.linear_dynamic(x, weight, bad)
    assert ops._pack_count(weight) == 0
    check(x, weight, scale)
    bad.copy_(scale)
    check(x, weight, bad)
