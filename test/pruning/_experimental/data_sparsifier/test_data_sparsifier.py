"""Sparsity of named data: masks, replacement, save and load, embeddings in place."""

import copy
import io
import math
import pickle
import warnings

import pytest
import torch
from pruning_peer import peer
from torch import nn

from torch_ao_ext.pruning._experimental.data_sparsifier import BaseDataSparsifier, DataNormSparsifier


def data():
    generator = torch.Generator().manual_seed(3)
    return [(f"t{i}", torch.randn(9 + i, 14 + i, generator=generator)) for i in range(3)]


def make(**settings):
    return DataNormSparsifier(data(), **settings)


@pytest.mark.parametrize("norm", ["L1", "L2"])
@pytest.mark.parametrize("level", [0.0, 0.4, 0.75, 1.0])
@pytest.mark.parametrize("block", [(1, 1), (1, 4), (3, 2), (4, 5)], ids=str)
def test_masks_equal_torch_aos(block, level, norm):
    for zeros in {0, 1, math.prod(block)}:
        arguments = {
            "sparsity_level": level,
            "sparse_block_shape": block,
            "zeros_per_block": zeros,
            "norm": norm,
        }
        ours = make(**arguments)
        theirs = peer("_experimental.data_sparsifier").DataNormSparsifier(data(), **arguments)
        ours.step()
        theirs.step()
        for name, _ in data():
            assert torch.equal(ours.get_mask(name).float(), theirs.get_mask(name).float())


@pytest.mark.parametrize("shape", [(20,), (1, 1, 6, 8), (1, 12), (12, 1), (1, 1, 8)], ids=str)
def test_flat_and_padded_shapes_keep_their_shape(shape):
    x = torch.randn(shape)
    s = DataNormSparsifier([("x", x)], sparsity_level=0.5, sparse_block_shape=(1, 2))
    s.step()
    masked = s.get_data("x", return_original=False)
    assert masked.shape == x.shape and s.get_mask("x").shape == x.shape
    assert 0.4 <= (masked == 0).float().mean().item() <= 0.6


def test_negative_level_keeps_everything():
    s = make(sparsity_level=-0.5)
    s.step()
    assert bool(s.get_mask("t0").all())


def test_settings_per_data_and_squash():
    s = make(sparsity_level=0.5, sparse_block_shape=(1, 1))
    extra = torch.randn(4, 4)
    original = extra.clone()
    assert torch.equal(s.add_data("extra", extra, sparsity_level=0.25), original)
    s.step()
    assert int((s.get_mask("extra") == 0).sum()) == 4
    assert torch.equal(s.get_data("extra"), original)
    masked = s.get_data("extra", return_original=False).clone()
    s.squash_mask(names=["extra"])
    assert torch.equal(s.get_data("extra", return_original=False), masked) and torch.equal(extra, masked)
    with pytest.raises(ValueError, match="is squashed"):
        s.get_data("extra")


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_embeddings_become_sparse_in_place(kind):
    table = kind(16, 8)
    weight = table.weight
    s = DataNormSparsifier([("table", table)], sparsity_level=0.5)
    s.step()
    s.squash_mask()
    assert table.weight is weight and isinstance(weight, nn.Parameter)
    assert int((weight == 0).sum()) == 64
    table(torch.tensor([[0, 3]])).sum().backward()
    assert weight.grad is not None


def test_replacement():
    s = make(sparsity_level=0.5)
    s.add_data("y", torch.randn(4, 8), sparsity_level=0.25)
    s.step()
    mask = s.get_mask("y").clone()
    with pytest.warns(UserWarning, match="'y' is replaced"):
        s.add_data("y", torch.randn(4, 8))
    assert torch.equal(s.get_mask("y"), mask) and s.data_groups["y"]["sparsity_level"] == 0.25
    with (
        pytest.warns(UserWarning),
        pytest.raises(ValueError, match=r"must have shape \(4, 8\) to keep the mask"),
    ):
        s.add_data("y", torch.randn(2, 2))
    with pytest.warns(UserWarning):
        s.add_data("y", torch.randn(2, 2), reuse_mask=False, sparsity_level=0.1)
    assert bool(s.get_mask("y").all()) and s.data_groups["y"]["sparsity_level"] == 0.1
    s.squash_mask(names=["y"])
    with pytest.warns(UserWarning):
        s.add_data("y", torch.randn(3, 3), reuse_mask=False)
    s.step()


def test_state_dict_round_trip():
    s = make(sparsity_level=0.5)
    s.step()
    s.squash_mask(names=["t1"])
    file = io.BytesIO()
    torch.save(s.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert state["state"]["t0"]["mask"].is_sparse

    other = DataNormSparsifier([("gone", torch.randn(2, 2))])
    other.load_state_dict(state)
    assert set(other.data_groups) == {"t0", "t1", "t2"} and "gone" not in other.state
    for name in state["state"]:
        assert torch.equal(other.get_mask(name), s.get_mask(name))
        assert torch.equal(other.get_data(name, False), s.get_data(name, False))
    assert state["state"]["t0"]["mask"].is_sparse
    other.add_data("new", torch.randn(4, 4))
    other.get_mask("t0").fill_(0)
    assert not other.get_data("t0", False).any() and bool(s.get_data("t0", False).any())

    kept = DataNormSparsifier([("t0", torch.ones(2, 2)), ("mine", torch.ones(2, 2))], sparsity_level=0.1)
    kept.load_state_dict(state, strict=False)
    assert kept.get_data("t0").shape == (2, 2) and set(kept.data_groups) == {"t0", "mine", "t1", "t2"}
    del state["_container"]["t1"]
    with pytest.raises(RuntimeError, match="data 't1' must have settings and a tensor"):
        other.load_state_dict(state)
    assert "new" in other.state, "a refused load changed the sparsifier"


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copies_go_on_working(clone):
    s = make(sparsity_level=0.5, norm="L2")
    s.step()
    other = clone(s)
    assert torch.equal(other.get_mask("t0"), s.get_mask("t0"))
    other.data_groups["t0"]["sparsity_level"] = 1.0
    other.step()
    assert not other.get_mask("t0").any() and bool(s.get_mask("t0").any())
    assert "name: t1" in repr(other)


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda s: s.add_data("z", nn.Linear(1, 1)), TypeError, "got Linear"),
        (lambda s: s.add_data("a.b", torch.ones(2)), ValueError, "without dots, got 'a.b'"),
        (lambda s: s.add_data("training", torch.ones(2)), ValueError, "free name"),
        (lambda s: s.get_data("z"), ValueError, "must be added data, got 'z'"),
        (lambda s: s.get_mask("z"), ValueError, "must be added data, got 'z'"),
        (lambda s: s.prepare(None, None), NotImplementedError, "use add_data"),
        (lambda s: (s.add_data("z", torch.randn(2, 3, 4)), s.step()), ValueError, "at most 2 dimensions"),
        (lambda s: DataNormSparsifier(norm="L3"), ValueError, "must be 'L1' or 'L2', got 'L3'"),
    ],
)
def test_errors(call, error, text):
    s = make()
    with pytest.raises(error, match=text):
        call(s)
    assert "z" not in s.state or s.data_groups["z"]


def test_import_leaves_the_warning_filters_alone():
    import importlib

    from torch_ao_ext.pruning._experimental.data_sparsifier import base_data_sparsifier

    before = list(warnings.filters)
    importlib.reload(base_data_sparsifier)
    assert warnings.filters == before


def test_base_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        BaseDataSparsifier()
