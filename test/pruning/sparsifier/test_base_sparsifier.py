"""prepare, step, squash, convert, save and load, shared by all sparsifiers."""

import copy
import io
import pickle

import pytest
import torch
from pruning_peer import peer
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrize import is_parametrized

from torch_ao_ext.pruning import BaseSparsifier, FakeSparsity, WeightNormSparsifier


class FirstRow(BaseSparsifier):
    """Zeroes row `row`."""

    def update_mask(self, module, tensor_name, row=0, **kwargs):
        mask = module.parametrizations[tensor_name][0].mask
        mask.fill_(1)
        mask[row] = 0


def model():
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 3)))


def prepared(**defaults):
    m, s = model(), FirstRow(defaults)
    s.prepare(m, None)
    return m, s


def test_default_config_is_torch_aos():
    class Theirs(peer().BaseSparsifier):
        def update_mask(self, module, tensor_name, **kwargs):
            pass

    ours, theirs = FirstRow(), Theirs()
    ours.make_config_from_model(model())
    theirs.make_config_from_model(model())
    assert ours.config == theirs.config and len(ours.config) == 3


def test_defaults_and_entries():
    m, s = model(), FirstRow({"row": 2, "x": [1]})
    s.prepare(m, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": ".2.1.weight", "row": 1, "module": m[2][1]}])
    assert [g["tensor_fqn"] for g in s.groups] == ["0.weight", "2.1.weight"]
    assert [g["row"] for g in s.groups] == [2, 1]
    assert s.groups[0]["x"] is not s.defaults["x"]
    assert s.groups[1]["module"] is m[2][1] and s.groups[1]["module_fqn"] == "2.1"
    assert "row: 1" in repr(s)


@pytest.mark.parametrize(
    "config, error, text",
    [
        ([nn.Linear(1, 1)], TypeError, "must hold dicts, got Linear"),
        ([{"row": 1}], ValueError, "must name its 'tensor_fqn'"),
        ([{"tensor_fqn": "7.weight"}], ValueError, "must name a tensor of the model, got '7.weight'"),
        ([{"tensor_fqn": "0.weight", "tensor_name": "bias"}], ValueError, "'tensor_name' must agree"),
        ([{"tensor_fqn": "0.weight"}] * 2, ValueError, "'0.weight' must be configured once"),
    ],
)
def test_wrong_configs_change_nothing(config, error, text):
    m, s = model(), FirstRow()
    with pytest.raises(error, match=text):
        s.prepare(m, config)
    assert not s.groups and not any(is_parametrized(x) for x in m.modules())


def test_a_layer_used_twice_is_masked_once():
    shared = nn.Linear(4, 4)
    m, s = nn.Sequential(shared, nn.Sequential(shared)), FirstRow()
    s.prepare(m, None)
    assert len(s.groups) == 1 and len(shared.parametrizations.weight) == 1


def test_step_can_be_switched_off():
    m, s = prepared()
    s.enable_mask_update = False
    s.step()
    assert all(bool(entry["mask"].all()) for entry in s.state.values())
    s.enable_mask_update = True
    s.step()
    assert not m[0].weight[0].any() and bool(m[0].weight[1:].all())


def test_prepare_twice_adds_groups():
    m, s = model(), FirstRow()
    s.prepare(m, [{"tensor_fqn": "0.weight"}])
    s.prepare(m, [{"tensor_fqn": "2.0.weight"}])
    assert len(s.groups) == 2 and len(m[0].parametrizations.weight) == 1


def test_squash_leaves_plain_masked_weights_and_params():
    m, s = prepared(row=0, level=0.5)
    s.step()
    expected = [w.detach().clone() for w in (m[0].weight, m[2][0].weight, m[2][1].weight)]
    s.squash_mask(params_to_keep=("level",), params_to_keep_per_layer={"2.0": ("row",)})
    assert not any(is_parametrized(x) for x in m.modules())
    for w, e in zip((m[0].weight, m[2][0].weight, m[2][1].weight), expected, strict=True):
        assert isinstance(w, nn.Parameter) and torch.equal(w, e)
    assert m[0].sparse_params == {"level": 0.5} and m[2][0].sparse_params == {"level": 0.5, "row": 0}
    pickle.loads(pickle.dumps(m))
    with pytest.raises(RuntimeError, match="squashed already"):
        s.squash_mask()


def test_squash_with_an_unknown_key_changes_nothing():
    m, s = prepared()
    with pytest.raises(KeyError, match="nope"):
        s.squash_mask(params_to_keep=("nope",))
    assert is_parametrized(m[0]) and is_parametrized(m[2][1])


def test_state_dict_round_trip_keeps_masks_and_the_argument():
    m, s = prepared(row=1)
    s.step()
    state = s.state_dict()
    assert "module" not in state["groups"][0]
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)

    m2, s2 = prepared(row=3)
    s2.load_state_dict(loaded)
    assert "mask" in loaded["state"]["0.weight"], "the argument was changed"
    again = s2.state_dict()
    assert again["groups"] == state["groups"]
    for fqn, entry in state["state"].items():
        assert torch.equal(again["state"][fqn]["mask"], entry["mask"])
    assert not m2[0].weight[1].any()
    s2.step()
    assert s2.state["0.weight"]["mask"] is m2[0].parametrizations.weight[0].mask
    assert not m2[0].weight[1].any() and bool(m2[0].weight[3].any())


def test_load_masks_a_squashed_model_again():
    m, s = prepared(row=1)
    s.step()
    state = copy.deepcopy(s.state_dict())
    s.squash_mask()
    s.load_state_dict(state)
    assert isinstance(m[0].parametrizations.weight[0], FakeSparsity) and not m[0].weight[1].any()


def test_load_errors():
    _, s = prepared()
    state = copy.deepcopy(s.state_dict())
    with pytest.raises(RuntimeError, match="'prepare' must come before"):
        FirstRow().load_state_dict(state)
    other = FirstRow()
    other.prepare(nn.Sequential(nn.Linear(4, 5)), None)
    with pytest.raises(RuntimeError, match="must have tensor '2.[01].weight'"):
        other.load_state_dict(state)
    other.load_state_dict(state, strict=False)
    assert [g["tensor_fqn"] for g in other.groups] == ["0.weight"]
    state["state"]["0.weight"]["mask"] = torch.ones(2, 2)
    with pytest.raises(RuntimeError, match=r"must have shape \(5, 4\), got \(2, 2\)"):
        other.load_state_dict(state, strict=False)


def test_copies_go_on_working():
    m, s = prepared(row=2)
    s.step()
    both = copy.deepcopy((m, s))
    both[1].groups[0]["row"] = 4
    both[1].step()
    first = both[1].groups[0]["module"]
    assert not first.weight[4].any() and bool(first.weight[2].any())
    assert bool(s.groups[0]["module"].weight[4].any()), "the copy shares a mask"
    s.squash_mask()
    restored = pickle.loads(pickle.dumps(s))
    assert restored.enable_mask_update and restored.groups[0]["row"] == 2


def test_masks_are_found_behind_other_parametrizations():
    class Double(nn.Module):
        def forward(self, x):
            return 2 * x

    m = model()
    parametrize.register_parametrization(m[0], "weight", Double())
    s = WeightNormSparsifier(0.5, (1, 1))
    s.prepare(m, [{"tensor_fqn": "0.weight"}])
    s.step()
    assert int((m[0].weight == 0).sum()) == 10


def test_own_parametrization_and_mask():
    class Half(FakeSparsity):
        def forward(self, x):
            return super().forward(x) / 2

    mask = torch.ones(5, 4)
    m, s = model(), FirstRow()
    before = m[0].weight.detach().clone()
    s.prepare(m, [{"tensor_fqn": "0.weight", "mask": mask, "parametrization": Half}])
    s.step()
    assert s.state["0.weight"]["mask"] is mask and not mask[0].any()
    assert torch.equal(m[0].weight, before * mask / 2)
    s.load_state_dict(copy.deepcopy(s.state_dict()))
    assert isinstance(m[0].parametrizations.weight[0], Half)


def test_rnn_weights_follow_their_masks():
    m, s = nn.Sequential(nn.LSTM(3, 4)), FirstRow()
    x = torch.randn(5, 2, 3)
    s.prepare(m, [{"tensor_fqn": "0.weight_hh_l0"}])
    before = m(x)[0]
    s.step()
    after = m(x)[0]
    assert not torch.equal(before, after)
    s.squash_mask()
    assert torch.equal(m(x)[0], after) and not m[0]._forward_pre_hooks
    assert not m[0].weight_hh_l0[0].any()


def test_gradients_stop_at_the_mask():
    m, s = prepared()
    s.step()
    m(torch.randn(2, 4)).sum().backward()
    gradient = m[0].parametrizations.weight.original.grad
    assert not gradient[0].any() and bool(gradient[1:].any())


class Target(nn.Linear):
    @classmethod
    def from_dense(cls, mod):
        new = cls(mod.in_features, mod.out_features)
        new.load_state_dict({"weight": mod.weight, "bias": mod.bias})
        return new


def test_convert_replaces_masked_layers_everywhere():
    shared = nn.Linear(4, 4)
    m = nn.Sequential(shared, nn.Sequential(nn.Linear(4, 4), shared), nn.Linear(4, 2))
    s = FirstRow()
    s.prepare(m, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "1.0.weight"}])
    s.step()
    x = torch.randn(3, 4)
    expected = m(x)
    converted = s.convert(m, mapping={nn.Linear: Target})
    assert (
        type(converted[0]) is Target and converted[1][1] is converted[0] and type(converted[1][0]) is Target
    )
    assert type(converted[2]) is nn.Linear and is_parametrized(m[0])
    assert torch.equal(converted(x), expected)
    assert s.convert(m, mapping={nn.Linear: Target}, inplace=True) is m and type(m[0]) is Target
    with pytest.raises(NotImplementedError, match="argument 'mapping' must be given"):
        s.convert(m)
