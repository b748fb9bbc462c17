"""Row masks of the pruners, equal to torch.ao's; biases of masked layers."""

import copy
import io
import pickle

import pytest
import torch
from pruning_peer import peer
from torch import nn

from torch_ao_ext.pruning._experimental.pruner import (
    BaseStructuredSparsifier,
    BiasHook,
    FakeStructuredSparsity,
    FPGMPruner,
    LSTMSaliencyPruner,
    SaliencyPruner,
)


def model():
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 6), nn.Linear(6, 4, bias=False)
    )


def masks(pruner, m, steps=1, config=None):
    pruner.prepare(m, config)
    for _ in range(steps):
        pruner.step()
    return {fqn: entry["mask"] for fqn, entry in pruner.state.items()}


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("level", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize(
    "name, extra",
    [
        ("SaliencyPruner", {}),
        ("FPGMPruner", {}),
        ("FPGMPruner", {"dist": 1}),
        ("FPGMPruner", {"dist": torch.cdist}),
    ],
    ids=str,
)
def test_masks_equal_torch_aos(name, extra, level, steps):
    if extra.get("dist") is torch.cdist:
        extra = {"dist": lambda x: torch.cdist(x, x, p=3)}
    ours_kind, their_kind = globals()[name], getattr(peer("_experimental.pruner"), name)
    arguments = (
        {"sparsity_level": level, **extra}
        if name == "FPGMPruner"
        else {"defaults": {"sparsity_level": level}}
    )
    ours = masks(ours_kind(**arguments), model(), steps)
    theirs = masks(their_kind(**arguments), model(), steps)
    assert ours.keys() == theirs.keys() and len(ours) == 3
    for fqn in ours:
        assert ours[fqn].dtype == torch.bool and torch.equal(ours[fqn], theirs[fqn])


@pytest.mark.parametrize("level", [0.0, 0.5, 0.75])
def test_lstm_masks_equal_torch_aos(level):
    config = [{"tensor_fqn": f"0.weight_{k}_l{i}"} for i in range(2) for k in ("ih", "hh")]

    def lstm():
        torch.manual_seed(4)
        return nn.Sequential(nn.LSTM(5, 8, 2))

    ours = masks(LSTMSaliencyPruner({"sparsity_level": level}), lstm(), config=config)
    theirs = masks(
        peer("_experimental.pruner").LSTMSaliencyPruner({"sparsity_level": level}), lstm(), config=config
    )
    for fqn in ours:
        assert torch.equal(ours[fqn], theirs[fqn])
        assert [int(part.sum()) for part in ours[fqn].split(8)] == [8 - int(8 * level)] * 4


def test_default_config_lists_every_lstm_weight():
    pruner = LSTMSaliencyPruner({"sparsity_level": 0.5})
    pruner.make_config_from_model(nn.Sequential(nn.LSTM(3, 4, 2), nn.Linear(4, 2)))
    assert [c["tensor_fqn"] for c in pruner.config] == [
        "0.weight_ih_l0", "0.weight_hh_l0", "0.weight_ih_l1", "0.weight_hh_l1", "1.weight"
    ]  # fmt: skip


def test_fpgm_extremes_and_errors():
    for level, expected in ((-1.0, True), (1.5, False)):
        assert bool((masks(FPGMPruner(level), model())["3.weight"] == expected).all())
    with pytest.raises(NotImplementedError, match="argument 'dist' must be 1, 2 or a function, got 3"):
        FPGMPruner(dist=3)
    pruner = SaliencyPruner({"sparsity_level": 0.5})
    pruner.prepare(nn.Sequential(nn.BatchNorm1d(4)), [{"tensor_fqn": "0.weight"}])
    with pytest.raises(ValueError, match="'weight' must have 2 or more dimensions"):
        pruner.step()


def dense_with(m, state, prune_bias):
    """The same layers with zeroed rows, without any of our classes."""
    for fqn, entry in state.items():
        layer = m.get_submodule(fqn.rpartition(".")[0])
        with torch.no_grad():
            layer.weight[~entry["mask"]] = 0
            if prune_bias and layer.bias is not None:
                layer.bias[~entry["mask"]] = 0
    return m


@pytest.mark.parametrize("prune_bias", [True, False])
def test_masked_model_computes_with_zero_rows(prune_bias):
    m = model()
    pruner = SaliencyPruner({"sparsity_level": 0.5, "prune_bias": prune_bias})
    expected = dense_with(model(), {k: {"mask": v} for k, v in masks(pruner, m).items()}, prune_bias)
    x = torch.randn(2, 3, 3, 3)
    torch.testing.assert_close(m(x), expected(x))
    pruner.squash_mask()
    torch.testing.assert_close(m(x), expected(x))
    assert m.state_dict().keys() == expected.state_dict().keys()
    assert not any(isinstance(h, BiasHook) for x in m.modules() for h in x._forward_hooks.values())
    pickle.loads(pickle.dumps(m))


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 5, 3), (2, 3, 5, 3)])
def test_bias_is_added_along_the_last_dimension_of_a_linear(shape):
    m, x = nn.Sequential(nn.Linear(3, 5)), torch.randn(shape)
    expected = m(x)
    SaliencyPruner({"sparsity_level": 0.0}).prepare(m, None)
    torch.testing.assert_close(m(x), expected)


def test_bias_of_an_unbatched_conv():
    m, x = nn.Sequential(nn.Conv2d(3, 5, 2)), torch.randn(3, 6, 6)
    expected = m(x)
    SaliencyPruner({"sparsity_level": 0.0}).prepare(m, None)
    torch.testing.assert_close(m(x), expected)


def test_the_bias_stays_the_parameter_and_learns():
    m = nn.Sequential(nn.Linear(3, 4))
    bias = m[0].bias
    pruner = SaliencyPruner({"sparsity_level": 0.5})
    mask = masks(pruner, m)["0.weight"]
    m(torch.randn(5, 3)).sum().backward()
    assert m[0]._bias is bias and torch.equal(bias.grad != 0, mask)
    assert bool(bias.all()), "the hook wrote into the bias"


def test_state_dicts_round_trip():
    m, pruner = model(), SaliencyPruner({"sparsity_level": 0.5})
    masks(pruner, m)
    file = io.BytesIO()
    torch.save({"model": m.state_dict(), "pruner": pruner.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    m2, pruner2 = model(), SaliencyPruner({"sparsity_level": 0.1})
    pruner2.prepare(m2, None)
    pruner2.load_state_dict(state["pruner"])
    m2.load_state_dict(state["model"])
    x = torch.randn(2, 3, 3, 3)
    assert torch.equal(m2(x), m(x))
    m3, pruner3 = copy.deepcopy((m, pruner))
    pruner3.groups[0]["sparsity_level"] = 0.75
    pruner3.step()
    assert not torch.equal(m3(x), m(x)) and torch.equal(m2(x), m(x))


def test_row_mask_shape():
    p = FakeStructuredSparsity(torch.tensor([True, False]))
    assert torch.equal(p(torch.ones(2, 3, 1, 1))[:, 0, 0, 0], torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="must have 2 rows, got 3"):
        p(torch.ones(3, 3))
    with pytest.raises(TypeError, match="abstract"):
        BaseStructuredSparsifier({})
