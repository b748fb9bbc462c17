"""Schedules of a data sparsifier's settings."""

import copy
import warnings

import pytest
import torch
from pruning_peer import peer

from torch_ao_ext.pruning._experimental.data_scheduler import BaseDataScheduler
from torch_ao_ext.pruning._experimental.data_sparsifier import DataNormSparsifier


class Rule:
    def get_schedule_param(self):
        if self.last_epoch == 0:
            return {}
        return {n: c[self.schedule_param] * 0.5 for n, c in self.data_sparsifier.data_groups.items()}


class Ours(Rule, BaseDataScheduler):
    pass


def sparsifier(kind=DataNormSparsifier):
    return kind([("a", torch.randn(4, 4)), ("b", torch.randn(4, 4))], sparsity_level=0.8)


def test_values_equal_torch_aos():
    class Theirs(Rule, peer("_experimental.data_scheduler").BaseDataScheduler):
        pass

    found = []
    for scheduler, kind in (
        (Ours, DataNormSparsifier),
        (Theirs, peer("_experimental.data_sparsifier").DataNormSparsifier),
    ):
        s = sparsifier(kind)
        schedule = scheduler(s, "sparsity_level")
        values = [schedule.get_last_param()]
        for _ in range(4):
            s.step()
            schedule.step()
            values.append(schedule.get_last_param())
        found.append((schedule.base_param, values))
    assert found[0] == found[1] and found[0][1][4] == {"a": 0.05, "b": 0.05}


def test_order_verbose_and_types(capsys):
    schedule = Ours(sparsifier(), "sparsity_level", verbose=True)
    with pytest.warns(UserWarning, match="call data_sparsifier.step\\(\\) first"):
        schedule.step()
    assert "sparsity_level of a is now 0.4" in capsys.readouterr().out
    with pytest.raises(TypeError, match="must be a BaseDataSparsifier, got str"):
        Ours("x", "sparsity_level")


def test_unknown_names_are_refused():
    class Wrong(BaseDataScheduler):
        def get_schedule_param(self):
            return {"c": 1}

    with pytest.raises(ValueError, match=r"must be data of the sparsifier, got \['c'\]"):
        Wrong(sparsifier(), "sparsity_level")


def test_state_round_trip_and_copies():
    s = sparsifier()
    schedule = Ours(s, "sparsity_level")
    s.step()
    schedule.step()
    state = schedule.state_dict()
    other = Ours(sparsifier(), "sparsity_level")
    other.load_state_dict(state)
    assert other.last_epoch == 1 and other.get_last_param() == {"a": 0.4, "b": 0.4}
    other.base_param["a"] = 0
    assert state["base_param"]["a"] == 0.8
    s2, schedule2 = copy.deepcopy((s, schedule))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        s2.step()
        schedule2.step()
    assert s.data_groups["a"]["sparsity_level"] == 0.4 and s2.data_groups["a"]["sparsity_level"] == 0.2
    assert "sparsity_level" in repr(schedule2)
