"""Block masks: equal to torch.ao's, and defined where torch.ao's fail."""

import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_peer import peer
from torch import nn

from torch_ao_ext.pruning import WeightNormSparsifier


def mask_of(sparsifier, weight, steps=1):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight.clone())
    m = nn.Sequential(layer)
    sparsifier.prepare(m, None)
    for _ in range(steps):
        sparsifier.step()
    return m[0].parametrizations.weight[0].mask


def slow_mask(weight, level, block, zeros):
    """The definition, one block after the other, in float64 where it matters little."""
    norm = weight * weight
    rows, columns = weight.shape
    corners = [(r, c) for r in range(0, rows, block[0]) for c in range(0, columns, block[1])]
    parts = [norm[r : r + block[0], c : c + block[1]] for r, c in corners]
    count = min(round(level * len(parts)), len(parts) - 1) if level < 1 else len(parts)
    chosen = sorted(range(len(parts)), key=lambda i: (parts[i].double().mean().item(), i))[:count]
    mask = torch.ones(rows, columns)
    for i in chosen:
        flat = parts[i].flatten()
        smallest = sorted(range(len(flat)), key=lambda j: (flat[j].item(), j))[:zeros]
        local = torch.ones_like(flat)
        local[smallest] = 0
        r, c = corners[i]
        mask[r : r + block[0], c : c + block[1]] = local.view_as(parts[i])
    return mask


@pytest.mark.parametrize("level", [-1.0, 0.0, 0.3, 0.5, 0.97, 1.0, 2.0])
@pytest.mark.parametrize("block", [(1, 1), (1, 4), (2, 2), (4, 1), (8, 1)], ids=str)
def test_masks_equal_torch_aos(block, level):
    weight = torch.randn(32, 40)
    for zeros in {0, 1, math.prod(block)}:
        ours = mask_of(WeightNormSparsifier(level, block, zeros), weight)
        theirs = mask_of(peer().WeightNormSparsifier(level, block, zeros), weight)
        assert torch.equal(ours.float(), theirs.float())


@pytest.mark.parametrize("norm", [None, 1, 2, torch.abs, lambda w: w**4])
def test_norms(norm):
    weight = torch.randn(9, 13)
    ours = mask_of(WeightNormSparsifier(0.6, (2, 3), norm=norm), weight)
    theirs = mask_of(peer().WeightNormSparsifier(0.6, (2, 3), norm=norm), weight)
    assert torch.equal(ours, theirs)


@given(
    rows=st.integers(1, 20),
    columns=st.integers(1, 20),
    block=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    level=st.floats(0, 1.2),
    data=st.data(),
)
@settings(max_examples=80, deadline=None)
def test_any_block_on_any_shape(rows, columns, block, level, data):
    zeros = data.draw(st.integers(0, block[0] * block[1]))
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows * 31 + columns))
    ours = mask_of(WeightNormSparsifier(level, block, zeros), weight)
    expected = slow_mask(weight, level, block, zeros) if level > 0 and zeros else torch.ones(rows, columns)
    assert ours.shape == weight.shape and torch.equal(ours, expected)


@pytest.mark.parametrize("block", [(7, 5), (8, 1), (1, 4), (3, 3), (256, 2), (1, 400)], ids=str)
@pytest.mark.parametrize("partial", [False, True])
def test_255_by_324_with_odd_blocks(block, partial):
    weight = torch.randn(255, 324)
    zeros = max(1, math.prod(block) // 2) if partial else None
    mask = mask_of(WeightNormSparsifier(0.8, block, zeros), weight)
    assert mask.shape == weight.shape
    if not partial and block != (1, 400):
        blocks = math.ceil(255 / block[0]) * math.ceil(324 / block[1])
        assert abs((mask == 0).float().mean().item() - 0.8) < 0.1 + 1 / blocks


def test_equal_blocks_go_in_row_order():
    mask = mask_of(WeightNormSparsifier(0.5, (1, 2)), torch.ones(2, 8))
    assert torch.equal(mask, torch.tensor([[0.0] * 8, [1.0] * 8]))


def test_repeated_steps_keep_the_level():
    weight = torch.randn(16, 16)
    once = mask_of(WeightNormSparsifier(0.5, (1, 4)), weight)
    assert torch.equal(mask_of(WeightNormSparsifier(0.5, (1, 4)), weight, steps=3), once)


def test_mask_keeps_object_and_dtype():
    s = WeightNormSparsifier(0.5, (1, 4), 2)
    mask = mask_of(s, torch.randn(8, 8).bfloat16())
    assert mask is s.state["0.weight"]["mask"] and mask.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "config, text",
    [
        ({"zeros_per_block": 5}, "'zeros_per_block' must be in 0..4, got 5"),
        ({"zeros_per_block": -1}, "'zeros_per_block' must be in 0..4, got -1"),
        ({"sparse_block_shape": (0, 4)}, "'sparse_block_shape' must be two positive sizes"),
        ({"tensor_fqn": "0.bias"}, r"'bias' must be 2-D, got \(8,\)"),
    ],
)
def test_wrong_settings(config, text):
    s = WeightNormSparsifier()
    s.prepare(nn.Sequential(nn.Linear(8, 8)), [{"tensor_fqn": "0.weight", **config}])
    with pytest.raises(ValueError, match=text):
        s.step()
    with pytest.raises(NotImplementedError, match="argument 'norm' must be 1, 2 or a function, got 3"):
        WeightNormSparsifier(norm=3)


def test_pickle_keeps_the_norm():
    s = pickle.loads(pickle.dumps(WeightNormSparsifier(norm=1)))
    assert s.norm_fn is torch.abs
    assert mask_of(s, torch.randn(4, 8)).sum() == 16
