"""The frame of a benchmark: cap, threads, what is missing, exit status."""

import json
from types import SimpleNamespace

import pytest
import torch

from benchmarks.harness import environment, frame
from benchmarks.harness.goals import Goal


def arguments(folder, **changed):
    given = {"max_isa": None, "threads": torch.get_num_threads(), "output": str(folder), "label": "part"}
    return SimpleNamespace(**{**given, **changed})


def rows(got=2.0, **reasons):
    """A benchmark of one row with a floor of 1, and what is missing."""

    def add_rows(args, result, missing):
        result.add("a", {}, [Goal("ratio", got, floor=1.0)])
        missing.reasons |= reasons

    return add_rows


def test_result_is_written_with_its_label_and_what_is_missing(tmp_path, capsys):
    assert frame.run("x", arguments(tmp_path), rows(peer="not installed"), probe=False) == 0
    (path,) = tmp_path.glob("x-part*.json")
    found = json.loads(path.read_text())
    assert found["benchmark"] == "x-part" and found["missing"] == {"peer": "not installed"}
    assert found["roof"] == {} and [row["id"] for row in found["rows"]] == ["a"]
    assert "missing: peer: not installed" in capsys.readouterr().out


@pytest.mark.parametrize("reason, status", [("RuntimeError: no", 1), ("not run (--peers)", 0)])
def test_what_is_needed_may_be_left_out_but_not_fail(tmp_path, reason, status):
    args = arguments(tmp_path)
    assert frame.run("x", args, rows(ours=reason), probe=False, needed="^ours") == status
    assert frame.run("x", args, rows(peer=reason), probe=False, needed="^ours") == 0


def test_a_missed_floor_is_the_status(tmp_path):
    assert frame.run("x", arguments(tmp_path), rows(got=0.5), probe=False) == 1


def test_a_cap_runs_the_command_again_and_nothing_here(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "rerun_capped", {"avx2": 7}.get)
    assert frame.run("x", arguments(tmp_path, max_isa="avx2"), None) == 7
    assert not list(tmp_path.iterdir())
