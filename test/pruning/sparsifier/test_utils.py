"""Paths, swaps and the mask parametrization."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from torch_ao_ext.pruning import FakeSparsity, fqn_to_module, get_arg_info_from_tensor_fqn, module_to_fqn
from torch_ao_ext.pruning.sparsifier.utils import module_contains_param, swap_module


def model():
    return nn.Sequential(nn.Linear(4, 5), nn.Sequential(nn.ReLU(), nn.Linear(5, 3, bias=False)))


def test_paths_lead_there_and_back():
    m = model()
    for name, module in m.named_modules():
        assert module_to_fqn(m, module) == name
        assert fqn_to_module(m, name) is module
    assert fqn_to_module(m, "1.1.weight") is m[1][1].weight
    assert module_to_fqn(m, nn.ReLU()) is None
    assert fqn_to_module(m, "1.7.weight") is None


@pytest.mark.parametrize("fqn, module_fqn, name", [("weight", "", "weight"), ("1.1.weight", "1.1", "weight")])
def test_info_of_a_tensor(fqn, module_fqn, name):
    m = model()
    info = get_arg_info_from_tensor_fqn(m, fqn)
    assert info == {
        "module_fqn": module_fqn,
        "module": fqn_to_module(m, module_fqn),
        "tensor_name": name,
        "tensor_fqn": fqn,
    }


def test_fake_sparsity_multiplies_and_checks():
    mask = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    p = FakeSparsity(mask)
    assert torch.equal(p(torch.full((2, 2), 3.0)), 3 * mask)
    assert p.mask is mask and p.state_dict() == {}
    with pytest.raises(ValueError, match=r"argument 'x' must have the mask's shape \(2, 2\), got \(2, 3\)"):
        p(torch.ones(2, 3))


def test_a_masked_model_loads_its_own_state_dict():
    m = model()
    parametrize.register_parametrization(m[0], "weight", FakeSparsity(torch.ones(5, 4)))
    m[0].parametrizations.weight[0].mask[1] = 0
    copied = copy.deepcopy(m)
    file = io.BytesIO()
    torch.save(m.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert not [key for key in state if "mask" in key]
    copied.load_state_dict(state, strict=True)
    x = torch.randn(2, 4)
    assert torch.equal(copied(x), m(x)) and not copied[0].weight[1].any()


def test_module_contains_param():
    m = nn.Linear(3, 3)
    assert not module_contains_param(m, FakeSparsity)
    parametrize.register_parametrization(m, "weight", nn.Identity())
    assert not module_contains_param(m, FakeSparsity)
    parametrize.register_parametrization(m, "weight", FakeSparsity(torch.ones(3, 3)))
    assert module_contains_param(m, FakeSparsity)


class Target(nn.Linear):
    @classmethod
    def from_dense(cls, mod):
        new = cls(mod.in_features, mod.out_features)
        new.weight = nn.Parameter(mod.weight.detach())
        new.bias = nn.Parameter(mod.bias.detach())
        return new


def test_swap_keeps_hooks_and_their_options():
    m = nn.Linear(3, 3)
    seen = []
    m.register_forward_pre_hook(lambda mod, args, kwargs: seen.append(kwargs), with_kwargs=True)
    m.register_forward_hook(lambda mod, args, out: out + 1)
    x = torch.randn(2, 3)
    expected = m(input=x)
    swapped = swap_module(m, {nn.Linear: Target})
    assert type(swapped) is Target
    assert torch.equal(swapped(input=x), expected)
    assert len(seen) == 2 and "input" in seen[1]
    assert swap_module(m, {}) is m


def test_swap_refuses_two_devices():
    m = nn.Linear(3, 3)
    m.register_buffer("other", torch.ones(1, device="meta"))
    with pytest.raises(ValueError, match="one device, got cpu, meta"):
        swap_module(m, {nn.Linear: Target})
