"""Odd arguments: where torch's float convolution raises ours raises, else sizes and values are the same."""

import random

import pytest
import torch
import torch.nn.functional as functional
from op_cases import random_int
from test_conv import OPS, op_name

ops = torch.ops.torch_ao
WALKS = 400  # of each op


def odd_call(rng, rank, transposed):
    """(x, w, numbers): a valid call with up to two odd arguments."""
    groups = rng.choice([1, 1, 2, 3])
    ic, oc = rng.randint(1, 4), rng.randint(1, 4)
    kernel = [rng.randint(1, 3) for _ in range(rank)]
    size = [rng.randint(1, 6) for _ in range(rank)]
    numbers = {
        "stride": [rng.randint(1, 3) for _ in range(rank)],
        "padding": [rng.randint(0, 1) for _ in range(rank)],
        "dilation": [rng.randint(1, 2) for _ in range(rank)],
        "groups": groups,
    }
    if transposed:
        numbers["output_padding"] = [rng.choice([0, 0, 1]) for _ in range(rank)]
    channels, batch = groups * ic, rng.choice([1, 2])
    shape = [groups * ic, oc] if transposed else [groups * oc, ic]
    axis = rng.randrange(rank)
    for odd in rng.sample(range(12), rng.choice([0, 1, 1, 2])):
        if odd == 0:
            numbers["stride"][axis] = rng.choice([0, -1, 7])
        elif odd == 1:
            numbers["padding"][axis] = rng.choice([-1, 9])
        elif odd == 2:
            numbers["dilation"][axis] = rng.choice([0, -2, 5])
        elif odd == 3:
            numbers["groups"] = rng.choice([0, -1, 5, channels])
        elif odd == 4:
            channels += rng.choice([-1, 1])
        elif odd == 5:
            size[axis] = 0
        elif odd == 6:
            kernel[axis] = rng.choice([0, 9])
        elif odd == 7:
            batch = 0
        elif odd == 8:
            name = rng.choice([k for k in numbers if k != "groups"])
            numbers[name] = numbers[name] + [1]
        elif odd == 9:
            shape[rng.randrange(2)] += 1
        elif odd == 10 and transposed:
            numbers["output_padding"][axis] = rng.choice([-1, 3])
        elif odd == 11:
            size = [1] * rank  # one pixel
    return [batch, channels, *size], [*shape, *kernel], numbers


def float_call(op, x, w, numbers):
    """torch's result, or None where it raises."""
    try:
        return op(x, w, **numbers)
    except (RuntimeError, ValueError, IndexError):  # the latter for lists of another length
        return None


@pytest.mark.parametrize(("rank", "transposed"), OPS)
@pytest.mark.parametrize("form", ["", "_dynamic", "_bn"])
def test_where_the_float_op_raises_ours_raises(rank, transposed, form):
    torch.manual_seed(rank)
    rng = random.Random(f"{rank} {transposed} {form}")
    name = op_name(rank, transposed)
    raised = returned = 0
    for _ in range(WALKS if form == "" else WALKS // 4):
        shape, w_shape, numbers = odd_call(rng, rank, transposed)
        x, w = random_int(torch.uint8, *[max(s, 0) for s in shape]), random_int(torch.int8, *w_shape)
        want = float_call(getattr(functional, name), x.float(), w.float(), numbers)
        n = w_shape[1] * max(numbers["groups"], 0) if transposed else w_shape[0]
        call = (x, 1.0, 0, w, torch.ones(1), None, None)
        if form == "_bn":
            call += (torch.zeros(n), torch.ones(n), None, None, 0.0)
        call += (1.0, 0, torch.float32)
        if form == "_dynamic":
            call = (x.float(), w, torch.ones(1))
        try:
            y = getattr(ops, name + form)(*call, **numbers)
        except ValueError as error:
            assert f"torch_ao::{name}{form}: argument '" in str(error)
            # Some of torch's backends take a dilation of 0 for a kernel of 1.
            known = "'dilation'" in str(error) and min(numbers["dilation"]) < 1
            assert want is None or want.numel() == 0 or known, (x.shape, w.shape, numbers, error)
            raised += 1
            continue
        assert want is not None, (x.shape, w.shape, numbers)
        assert y.shape == want.shape
        if form != "_dynamic":  # integers below 2^24
            assert torch.equal(y, want), (x.shape, w.shape, numbers)
        returned += 1
    assert raised > 20 and returned > 20
