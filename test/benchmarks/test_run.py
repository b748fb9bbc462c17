"""`make bench`: what it runs exists, and what finds no time is named."""

import json
import subprocess
import sys

import pytest

from benchmarks import run
from benchmarks.harness import roof


def test_every_script_is_planned_and_takes_its_arguments():
    scripts = {script.split()[0] for script, *_ in run.BENCHMARKS}
    folders = [run.FOLDER / name for name in ("ops", "models")]
    runnable = {
        f"{f.parent.name}/{f.name}" for folder in folders for f in folder.glob("*.py")
        if "__main__" in f.read_text()
    }  # fmt: skip
    assert scripts == runnable | {"packages.py"}


@pytest.mark.parametrize("full", [False, True])
def test_plan(full):
    plan = dict(run.planned(full, "avx2", 0.0))
    assert len(plan) == len(list(run.planned(full, "avx2", 0.0)))
    assert all("--max-isa=avx2" in command for title, command in plan.items() if "packages" not in title)
    assert any("1 thread" in title for title in plan) == full
    tables = {title.split()[1].rstrip(",") for title in plan if "table.py" in title}
    assert tables == {"layers", "convnets", "transformers", "recurrent", "recsys", "frontends"}


def test_what_finds_no_time_is_named(capsys):
    quick, slow = ([sys.executable, "-c", f"import time; time.sleep({s})"] for s in (0, 60))
    bad = [sys.executable, "-c", "raise SystemExit(1)"]
    assert run.run([("quick", quick)], 60)[::2] == (0, [])
    assert run.run([("bad", bad)], 60)[0] == 1
    status, seconds, left_out = run.run([("slow", slow), ("next", quick)], 1.0)
    assert left_out == ["slow", "next"] and list(seconds) == ["slow"] and status == 0
    assert "=== slow" in capsys.readouterr().out


def test_a_shared_roof_is_read_and_not_probed(tmp_path, monkeypatch):
    file = tmp_path / "roof.json"
    file.write_text(json.dumps({"int8_gops": {}}))
    monkeypatch.setenv(roof.SHARED, str(file))
    monkeypatch.setattr(subprocess, "run", None)
    assert roof.probe() == {"int8_gops": {}}
