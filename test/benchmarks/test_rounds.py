"""The harness' own statistics: a wrong median would make every table wrong."""

import itertools
import math

import pytest
import torch

from benchmarks.harness import accuracy, quiet, report, rounds, shapes
from benchmarks.harness.goals import INFO, MET, MISSED, SHORT, Goal


class Clock:
    """A clock that only candidates move, so that tests need no real time."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def candidate(self, *durations, log=None, name=None):
        """A call whose n-th run takes the n-th duration, then the last one for ever."""
        left = list(durations)

        def call():
            if log is not None:
                log.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


def test_percentile_interpolates_like_numpy():
    values = [4.0, 1.0, 3.0, 2.0]
    assert rounds.percentile(values, 0) == 1.0
    assert rounds.percentile(values, 100) == 4.0
    assert rounds.percentile(values, 50) == 2.5
    assert rounds.percentile(values, 10) == pytest.approx(1.3)


def test_measure_finds_medians_and_interleaves():
    clock, log = Clock(), []
    calls = {
        "a": clock.candidate(1.0, log=log, name="a"),
        "b": clock.candidate(2.0, log=log, name="b"),
    }
    timings = rounds.measure(calls, min_rounds=4, budget_s=0.0, hard_s=1e9, sample_s=1e-3, clock=clock)
    assert timings["a"].median == 1.0 and timings["b"].median == 2.0
    assert len(timings["a"].seconds) == len(timings["b"].seconds) == 4
    assert log[-8:] == ["a", "b", "b", "a", "a", "b", "b", "a"]


def test_a_warm_measure_does_not_time_the_call_before():
    clock, left = Clock(), [9.0] * 3 + [1.0] + [5.0, 1.0] * 4

    def call():
        clock.now += left.pop(0)

    pauses = []
    timings = rounds.measure(
        {"a": call}, min_rounds=4, budget_s=0.0, hard_s=1e9, warm=True, clock=clock, pause=pauses.append
    )
    assert timings["a"].seconds == [1.0] * 4 and not left
    assert pauses == [rounds.SETTLE_S] * 4


def test_measure_goes_on_until_the_budget_is_used():
    clock = Clock()
    timings = rounds.measure({"a": clock.candidate(1.0)}, min_rounds=3, budget_s=10.0, clock=clock)
    assert len(timings["a"].seconds) == 10


def test_measure_stops_at_the_hard_limit_with_fewer_rounds():
    clock = Clock()
    timings = rounds.measure(
        {"a": clock.candidate(1.0)}, min_rounds=30, budget_s=2.0, hard_s=8.0, clock=clock
    )
    assert len(timings["a"].seconds) == 8


def test_short_calls_are_repeated_within_a_sample():
    clock = Clock()
    timings = rounds.measure(
        {"a": clock.candidate(1e-6)}, min_rounds=2, budget_s=0.0, hard_s=1.0, sample_s=1e-3, clock=clock
    )
    assert timings["a"].calls_per_round == pytest.approx(1000, rel=0.01)
    assert timings["a"].median == pytest.approx(1e-6)


def test_speedup_is_taken_inside_each_round():
    # One slow round hits both sides: the paired ratio stays 2, whatever the medians are.
    timings = {
        "ours": rounds.Timing([1.0, 10.0, 1.0]),
        "peer": rounds.Timing([2.0, 20.0, 2.0]),
    }
    assert rounds.speedup(timings, "ours", "peer") == 2.0
    assert rounds.best_of(timings, ["peer", "ours", "absent"]) == "ours"
    assert rounds.best_of(timings, ["absent"]) is None


def test_quietest_attempt_is_kept(monkeypatch):
    loads = iter([1.0, 0.5, 0.7])

    class Load:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.cpus = next(loads)

    monkeypatch.setattr(quiet, "ForeignLoad", Load)
    clock = Clock()
    timings, foreign = rounds.measure_quietly(
        {"a": clock.candidate(1.0)},
        threads=10**6,
        attempts=3,
        min_rounds=2,
        budget_s=0.0,
        hard_s=1e9,
        clock=clock,
    )
    assert foreign == 0.5 and len(timings["a"].seconds) == 2


@pytest.mark.parametrize(
    "got, verdict", [(2.0, MET), (1.8, MET), (1.5, SHORT), (1.3, SHORT), (1.29, MISSED), (math.nan, MISSED)]
)
def test_goal_verdicts(got, verdict):
    assert Goal("x", got, target=1.8, floor=1.3).verdict == verdict


def test_goal_without_limits_judges_nothing_and_smaller_may_be_better():
    assert Goal("x", 0.1).verdict == INFO
    assert Goal("x", 1.2, floor=1.2, larger_is_better=False).verdict == MET
    assert Goal("x", 1.3, floor=1.2, larger_is_better=False).verdict == MISSED


def test_sqnr_of_known_noise():
    reference = torch.ones(1000)
    assert accuracy.sqnr_db(reference, reference + 0.1) == pytest.approx(20.0, abs=1e-4)
    assert accuracy.sqnr_db(reference, reference) == math.inf
    assert accuracy.sqnr_db(reference, reference * math.nan) == -math.inf


def test_linear_from_integers_is_exact():
    x = torch.tensor([[255, 0, 128]], dtype=torch.uint8)
    w = torch.tensor([[127, -128, 1], [-128, -128, -128]], dtype=torch.int8)
    y = accuracy.linear_from_integers(x, 0.5, 128, w, torch.tensor([2.0, 1.0]), torch.tensor([1.0, 0.0]))
    # (255-128)*127 + (0-128)*-128 + 0 = 32513; (127 - 128) * -128 = 128
    assert y.tolist() == [[32513.0 + 1.0, 64.0]]


def test_report_lists_what_missed(tmp_path):
    result = report.Report("demo")
    timing = rounds.Timing([1e-3])
    result.add("good", {"a": timing}, [Goal("ratio", 1.2, 1.1, 1.0)])
    result.add(
        "bad", {"a": timing}, [Goal("ratio", 0.9, 1.1, 1.0)], failures=["2 steps off"], foreign_cpus=1e6
    )
    missed = result.missed()
    assert len(missed) == 2 and any("2 steps off" in m for m in missed) and any("0.90x" in m for m in missed)
    text = result.write(tmp_path).read_text()
    assert MISSED in text and "noisy" in text and "good" in text
    assert list(tmp_path.glob("*.json"))


@pytest.mark.parametrize("path", sorted(shapes.FOLDER.glob("*.csv")), ids=lambda p: p.stem)
def test_shape_files_name_layers_and_say_how_often_they_run(path):
    readers = {
        "between": shapes.read_between, "conv": shapes.read_conv, "conv_add": shapes.read_conv,
        "embedding": shapes.read_bags, "embedding_sizes": shapes.read_bags,
        "linear": shapes.read_linear, "minilm_linear": shapes.read_linear,
        "rnn": shapes.read_rnn, "sparse_linear": shapes.read_sparse, "weight_only": shapes.read_weights,
    }  # fmt: skip
    rows = readers[path.stem](path.stem)
    assert rows and all(row.layer and row.repeat > 0 for row in rows)
    assert len({(row.layer, str(row)) for row in rows}) == len(rows)


def test_shape_files_hold_the_sizes_of_the_targets():
    assert any((r.m, r.k, r.n) == (512, 4096, 4096) for r in shapes.read_linear("linear"))
    cold = [(r.k, r.n) for r in shapes.read_weights("weight_only") if r.cold]
    assert cold == [(4096, 4096), (4096, 11008)]
    sparse = {(r.m, r.k, r.zeros) for r in shapes.read_sparse("sparse_linear")}
    assert sparse >= {(m, k, z) for m in (1, 32, 128) for k in (768, 3072) for z in (80, 90, 95)}
    bags = {(r.dim, r.pooling, r.batch, r.indices) for r in shapes.read_bags("embedding")}
    assert bags >= {(64, 20, 2048, "uniform"), (64, 20, 2048, "zipf"), (128, 100, 128, "zipf")}
    more = {(r.dim, r.pooling, r.batch, r.indices) for r in shapes.read_bags("embedding_sizes")}
    assert not bags & more and bags | more >= set(
        itertools.product((64, 128), (20, 100), (8, 128, 2048), ("uniform", "zipf"))
    )
