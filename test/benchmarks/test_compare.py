"""benchmarks.compare: two result files."""

import copy
import json

import pytest

from benchmarks import compare


def result(**medians):
    timings = {name: {"median_us": us, "p10_us": us} for name, us in medians.items()}
    row = {"id": "a", "noisy": False, "timings": timings, "sqnr_db": {"ours": 30.0}}
    environment = {"cpu_features": ["avx2"], "threads": 2}
    return {"format": 1, "benchmark": "b", "environment": environment, "rows": [row]}


def words(old, new, **options):
    return {(line[0], line[1]): line[-1] for line in compare.compare(old, new, **options)}


def test_times():
    old = result(fp32=100.0, ours=50.0, peer=60.0, lost=1.0)
    new = result(fp32=104.0, ours=53.0, peer=50.0, more=1.0)
    assert words(old, new) == {
        ("a", "fp32"): "", ("a", "ours"): "SLOWER", ("a", "peer"): "faster", ("a", "lost"): "GONE",
        ("a", "more"): "new",
    }  # fmt: skip
    assert words(old, new, limit=0.1)["a", "ours"] == ""


def test_ratios_to_a_candidate():
    # A machine half as fast: only what changed beside fp32 counts.
    old, new = result(fp32=100.0, ours=50.0, peer=60.0), result(fp32=200.0, ours=100.0, peer=140.0)
    assert words(old, new) == dict.fromkeys([("a", n) for n in ("fp32", "ours", "peer")], "SLOWER")
    assert words(old, new, against="fp32") == {("a", "ours"): "", ("a", "peer"): "SLOWER"}


def test_rows_come_and_go_and_noise_is_not_judged():
    old, new = result(ours=50.0), result(ours=80.0)
    new["rows"][0]["noisy"] = True
    assert words(old, new) == {("a", "ours"): "noisy"}
    new["rows"][0]["id"] = "c"
    assert words(old, new) == {("a", "ours"): "GONE", ("c", "ours"): "new"}


def test_accuracy():
    old, new = result(ours=50.0), result(ours=50.0)
    new["rows"][0]["sqnr_db"]["ours"] = 29.6
    assert len(compare.compare(old, new)) == 1
    new["rows"][0]["sqnr_db"]["ours"] = 29.4
    assert compare.compare(old, new)[1][-1] == "LESS ACCURATE"
    old["rows"][0]["sqnr_db"]["ours"] = "inf"  # as JSON has it
    assert compare.compare(old, new)[1][-1] == "LESS ACCURATE"


def figures(**facts):
    """A result whose row has no times."""
    goals = [{"name": "installed", "got": facts.pop("mb"), "unit": "MB", "larger_is_better": False}]
    found = result()
    found["rows"][0] |= {"goals": goals, "sqnr_db": {}, **facts}
    return found


def test_rows_without_times_by_their_figures():
    old = figures(mb=20.0, load_s=0.1, requests_per_s=100.0, rss_bytes=1 << 20, gone_s=1.0, ran="text")
    new = figures(mb=22.0, load_s=0.102, requests_per_s=90.0, rss_bytes=1 << 19, more_s=1.0, ran="text")
    assert words(old, new) == {
        ("a", "installed"): "WORSE", ("a", "load_s"): "", ("a", "requests_per_s"): "WORSE",
        ("a", "rss_bytes"): "better", ("a", "gone_s"): "GONE", ("a", "more_s"): "new",
    }  # fmt: skip
    assert words(old, new, limit=0.2)["a", "installed"] == ""
    assert words(old, new, against="fp32") == {}
    del new["rows"][0]
    assert words(old, new)["a", "load_s"] == "GONE" and words(new, old)["a", "load_s"] == "new"
    lines = {line[1]: line[2:5] for line in compare.compare(figures(mb=20.0), figures(mb=-1.0))}
    assert lines == {"installed": ["20.0 MB", "-1.00 MB", ""]}


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def test_command(tmp_path, capsys):
    old = write(tmp_path / "old.json", result(fp32=100.0, ours=50.0))
    same = write(tmp_path / "same.json", result(fp32=101.0, ours=50.0))
    slow = write(tmp_path / "slow.json", result(fp32=100.0, ours=60.0))
    assert compare.main([old, same]) == 0
    assert "no change" in capsys.readouterr().out
    assert compare.main([old, slow]) == 1
    text = capsys.readouterr().out
    assert "| a | ours | 50.00 us | 60.00 us | +20.0 % | SLOWER |" in text and "1 slower" in text
    assert compare.main([old, slow, "--limit", "25"]) == 0


OTHER = copy.deepcopy(result(ours=1.0))
OTHER["benchmark"] = "c"
AMX = copy.deepcopy(result(ours=1.0))
AMX["environment"]["cpu_features"] = ["amx_int8"]
BAD = {
    "benchmark": (OTHER, [], "must be of one benchmark"),
    "cpu": (AMX, [], "'cpu_features' must be equal"),
    "format": ({"format": 2, "rows": []}, [], "must be a result file of format 1"),
    "text": ("{", [], "bad.json"),
    "candidate": (result(ours=1.0), ["--against", "none"], "no row has the candidates"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path, name):
    value, options, text = BAD[name]
    good, bad = write(tmp_path / "good.json", result(ours=1.0)), write(tmp_path / "bad.json", value)
    with pytest.raises(SystemExit, match=text):
        compare.main([good, bad, *options])


def test_other_machines_by_ratio(tmp_path):
    old, new = result(fp32=2.0, ours=1.0), result(fp32=2.0, ours=1.0)
    new["environment"]["cpu_features"] = ["amx_int8"]
    files = [write(tmp_path / "old.json", old), write(tmp_path / "new.json", new)]
    assert compare.main([*files, "--against", "fp32"]) == 0
