"""Plots: the speed of every candidate against the first one's, our own ones coloured."""

import json

import pytest

from benchmarks import plots


def result(rows):
    environment = {"date": "2026-01-01 00:00 UTC", "threads": 2}
    return {"benchmark": "b", "environment": environment, "rows": rows}


def row(name, **medians):
    return {"id": name, "noisy": False, "timings": {n: {"median_us": us} for n, us in medians.items()}}


def test_speeds_are_ratios_to_the_first():
    assert plots.speeds(row("a", fp32=10.0, ours=5.0, peer=20.0)) == {"fp32": 1.0, "ours": 2.0, "peer": 0.5}
    assert plots.speeds(row("a", fp32=10.0)) == {}


def test_colours():
    names = ("torch_ao_ext pt2e", "fp32", "openvino bf16", "openvino nncf")
    assert [plots.colour(name) for name in names] == [plots.OURS, plots.FLOAT, plots.FLOAT, plots.OTHER]


def test_a_result_without_times_has_no_plot():
    assert plots.figure_of(result([row("a"), row("b", fp32=1.0)])) is None


def test_files_get_a_picture_beside_them(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    both = [row("a", fp32=10.0, torch_ao_ext=5.0), row("b", fp32=1.0, torch_ao_ext=2.0)]
    bars = plots.figure_of(result(both)).axes[0].patches
    assert [bar.get_width() for bar in bars] == [1.0, 2.0]
    (tmp_path / "x.json").write_text(json.dumps(result(both)))
    (tmp_path / "sizes.json").write_text(json.dumps(result([row("a")])))
    assert plots.main(sorted(tmp_path.glob("*.json"))) == 0
    assert [p.name for p in tmp_path.glob("*.png")] == ["x.png"]
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
