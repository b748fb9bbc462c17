"""Masks on activations: collected statistics, masks, hooks, save and load."""

import copy
import pickle

import pytest
import torch
from pruning_peer import peer
from torch import nn

from torch_ao_ext.pruning._experimental.activation_sparsifier.activation_sparsifier import (
    ActivationSparsifier,
)


def add(x, y):
    return x + y


def mean(x):
    return x.mean(0)


def over(x, threshold=0.0):
    return (x > threshold).to(x.dtype)


def model():
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Conv1d(4, 4, 1))


FUNCTIONS = {"aggregate_fn": add, "reduce_fn": mean, "mask_fn": over}


def run(kind, **layer_options):
    m = model()[:1]
    s = kind(m, **FUNCTIONS, threshold=0.1)
    s.register_layer(m[0], **layer_options)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        m(torch.randn(5, 6, generator=generator))
    s.step()
    mask = copy.deepcopy(s.get_mask("0"))
    s.squash_mask()
    return mask, m(torch.randn(5, 6, generator=generator))


@pytest.mark.parametrize("options", [{}, {"threshold": 1.0}, {"features": [0, 4], "feature_dim": 1}], ids=str)
def test_equal_to_torch_ao(options):
    theirs = peer("_experimental.activation_sparsifier.activation_sparsifier").ActivationSparsifier
    (mask, out), (their_mask, their_out) = run(ActivationSparsifier, **options), run(theirs, **options)
    assert torch.equal(out, their_out)
    pairs = zip(mask, their_mask, strict=True) if isinstance(mask, list) else [(mask, their_mask)]
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_callers_input_is_not_changed():
    m = model()
    s = ActivationSparsifier(m, **FUNCTIONS, threshold=100.0)
    s.register_layer(m[0], features=[1], feature_dim=1)
    x = torch.randn(5, 6)
    m[0](x)
    s.step()
    s.squash_mask()
    before = x.clone()
    expected = x.clone()
    expected[:, 1] = 0
    plain = model()[0]
    assert torch.equal(m[0](x), plain(expected)) and torch.equal(x, before)


def test_further_inputs_pass_through():
    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    m = nn.Sequential(Two())
    s = ActivationSparsifier(m, **FUNCTIONS, threshold=100.0)
    s.register_layer(m[0])
    x, y = torch.ones(2, 3), torch.ones(2, 3)
    m[0](x, y)
    s.step()
    s.squash_mask()
    assert torch.equal(m[0](x, y), y)


def test_statistics_hold_no_graph():
    m = model()
    s = ActivationSparsifier(m, **FUNCTIONS)
    s.register_layer(m[1])
    m[1](m[0](torch.randn(4, 6)))
    assert not s.data_groups["1"]["data"].requires_grad


def test_step_forgets_and_demands_new_input():
    m = model()
    s = ActivationSparsifier(m, **FUNCTIONS)
    s.register_layer(m[0])
    with pytest.raises(ValueError, match="layer '0' must have run once"):
        s.step()
    m[0](torch.ones(2, 6))
    s.step()
    with pytest.raises(ValueError, match="layer '0' must have seen input"):
        s.step()


def test_registration_errors_and_replacement():
    m = model()
    s = ActivationSparsifier(m, aggregate_fn=add, reduce_fn=mean)
    with pytest.raises(TypeError, match="argument 'mask_fn' must be a function, got None"):
        s.register_layer(m[0])
    with pytest.raises(ValueError, match="argument 'feature_dim' must be given"):
        s.register_layer(m[0], mask_fn=over, features=[0])
    with pytest.raises(ValueError, match="must be part of the model"):
        s.register_layer(nn.ReLU(), mask_fn=over)
    assert not s.data_groups and not m[0]._forward_pre_hooks
    s.register_layer(m[0], mask_fn=over, threshold=1.0)
    with pytest.warns(UserWarning, match="'0' was registered"):
        s.register_layer(m[0], mask_fn=over)
    assert s.data_groups["0"]["sparse_config"] == {} and len(m[0]._forward_pre_hooks) == 1
    with pytest.raises(ValueError, match="'name' or 'layer' must be given"):
        s.get_mask()
    with pytest.raises(ValueError, match="must be a registered layer, got '7'"):
        s.get_mask("7")
    s.unregister_layer("0")
    assert not m[0]._forward_pre_hooks and "0" not in s.state


def test_squash_without_masks_leaves_the_model_free():
    m = model()
    s = ActivationSparsifier(m, **FUNCTIONS)
    s.register_layer(m[0])
    x = torch.randn(2, 6)
    expected = m[0](x)
    s.step()
    s.squash_mask(attach_sparsify_hook=False)
    assert torch.equal(m[0](x), expected) and not m[0]._forward_pre_hooks
    assert s.data_groups["0"]["hook_state"] == "None"
    s.unregister_layer("0")


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("options", [{}, {"features": [0, 4], "feature_dim": 1}], ids=str)
@pytest.mark.parametrize("way", ["state_dict", "deepcopy", "pickle"])
def test_round_trips(way, options, squash):
    m = model()[:1]
    s = ActivationSparsifier(m, **FUNCTIONS, threshold=0.1)
    s.register_layer(m[0], **options)
    x = torch.randn(5, 6)
    m(x)
    if squash:
        s.step()
        s.squash_mask()
    if way == "state_dict":
        state = s.state_dict()
        m2 = model()[:1]
        other = ActivationSparsifier(m2)
        other.register_layer(m2[0], **FUNCTIONS)
        other.load_state_dict(state)
        assert "layer" not in state["data_groups"]["0"]
    else:
        other = copy.deepcopy(s) if way == "deepcopy" else pickle.loads(pickle.dumps(s))
        m2 = other.model
    assert len(m2[0]._forward_pre_hooks) == 1 and m2 is not m
    if squash:
        assert torch.equal(m2(x), m(x))
        return
    s.step()
    other.step()
    ours, copied = s.get_mask("0"), other.get_mask("0")
    pairs = zip(ours, copied, strict=True) if isinstance(ours, list) else [(ours, copied)]
    assert all(torch.equal(a, b) for a, b in pairs)
    assert "name: 0" in repr(other)
