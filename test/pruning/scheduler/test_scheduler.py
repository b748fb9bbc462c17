"""Schedules equal torch.ao's number by number; order checks; save and load."""

import copy
import io
import pickle
import warnings

import pytest
import torch
from pruning_peer import peer
from torch import nn

from torch_ao_ext.pruning import BaseScheduler, CubicSL, LambdaSL, WeightNormSparsifier


def sparsifier(module=None):
    s = (WeightNormSparsifier if module is None else module.WeightNormSparsifier)(0.9)
    s.prepare(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), None)
    s.groups[1]["sparsity_level"] = 0.6
    return s


def run(make, module=None, epochs=40):
    s = sparsifier(module)
    scheduler = make(s)
    levels = [list(scheduler.get_last_sl())]
    for _ in range(epochs):
        s.step()
        scheduler.step()
        levels.append([group["sparsity_level"] for group in s.groups])
    return levels


CUBIC = [
    {},
    {"delta_t": 1, "total_t": 20},
    {"init_sl": 0.2, "init_t": 5, "delta_t": 3, "total_t": 7},
    {
        "init_sl": [0.1, 0.3],
        "init_t": [2, 9],
        "delta_t": 2,
        "total_t": [4, 15],
        "initially_zero": [True, False],
    },
    {"init_sl": 0.7, "delta_t": 1, "total_t": 10, "last_epoch": 3},
]


@pytest.mark.parametrize("arguments", CUBIC, ids=str)
def test_cubic_equals_torch_ao(arguments):
    ours = run(lambda s: CubicSL(s, **arguments))
    assert ours == run(lambda s: peer().CubicSL(s, **arguments), peer())


@pytest.mark.parametrize("f", [lambda t: 0.95**t, [lambda t: t / 40, lambda t: t // 30]])
def test_lambda_equals_torch_ao(f):
    ours = run(lambda s: LambdaSL(s, f))
    assert ours == run(lambda s: peer().LambdaSL(s, f), peer())


def test_lists_must_fit_the_groups():
    with pytest.raises(ValueError, match=r"one value per group \(2\), got 3"):
        CubicSL(sparsifier(), init_sl=[0, 0, 0])
    with pytest.raises(ValueError, match=r"one value per group \(2\), got 1"):
        LambdaSL(sparsifier(), [lambda t: 1.0])
    with pytest.raises(TypeError, match="argument 'sparsifier' must be a BaseSparsifier, got int"):
        LambdaSL.__mro__[1](3)


def test_wrong_order_warns_and_right_order_does_not():
    s = sparsifier()
    scheduler = CubicSL(s)
    with pytest.warns(UserWarning, match="call sparsifier.step\\(\\) first"):
        scheduler.step()
    s = sparsifier()
    scheduler = CubicSL(s)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        s.step()
        scheduler.step()
        scheduler.step()
    s = sparsifier()
    scheduler = CubicSL(s)
    s.step = lambda: None
    with pytest.warns(UserWarning, match="was replaced"):
        scheduler.step()


def test_get_sl_is_for_step():
    scheduler = CubicSL(sparsifier())
    with pytest.warns(UserWarning, match="get_last_sl"):
        scheduler.get_sl()

    class Bare(BaseScheduler):
        pass

    with pytest.raises(NotImplementedError):
        Bare(sparsifier())


def test_verbose_prints_each_level(capsys):
    CubicSL(sparsifier(), verbose=True)
    assert capsys.readouterr().out.count("sparsity level of group") == 2
    CubicSL(sparsifier())
    assert capsys.readouterr().out == ""


def test_cubic_state_round_trip_continues_the_curve():
    s = sparsifier()
    scheduler = CubicSL(s, delta_t=1, total_t=10)
    for _ in range(4):
        s.step()
        scheduler.step()
    file = io.BytesIO()
    torch.save(scheduler.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert "sparsifier" not in state
    s2 = sparsifier()
    other = CubicSL(s2)
    other.load_state_dict(state)
    assert other.last_epoch == 4 and other.get_last_sl() == scheduler.get_last_sl()
    scheduler.step()
    other.step()
    assert other.get_last_sl() == scheduler.get_last_sl()
    other.base_sl[0] = 0
    assert scheduler.base_sl[0] == 0.9 and state["base_sl"][0] == 0.9


class Decay:
    def __init__(self, base):
        self.base = base

    def __call__(self, epoch):
        return self.base**epoch


def test_lambda_state_saves_objects_and_leaves_functions():
    scheduler = LambdaSL(sparsifier(), [lambda t: 1.0, Decay(0.5)])
    state = pickle.loads(pickle.dumps(scheduler.state_dict()))
    assert state["sl_lambdas"] == [None, {"base": 0.5}]
    functions = [lambda t: 0.25, Decay(0.9)]
    other = LambdaSL(sparsifier(), functions)
    other.load_state_dict(state)
    assert other.sl_lambdas == functions and functions[1].base == 0.5


def test_a_copied_pair_counts_on_its_own():
    s = sparsifier()
    scheduler = CubicSL(s)
    s.step()
    s2, scheduler2 = copy.deepcopy((s, scheduler))
    assert s2.step.owner is s2 and scheduler2.sparsifier is s2
    s2.step()
    assert (s._step_count, s2._step_count) == (1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler2.step()
    assert scheduler.last_epoch == 0 and "CubicSL" in repr(scheduler2)
