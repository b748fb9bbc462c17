"""The page of benchmarks takes new results into its places and leaves the rest."""

from pathlib import Path

from benchmarks import page, run

TEXT = """# Page
Words.
<!-- result: a -->
old
<!-- end -->
More.
<!-- result: b -->
kept
<!-- end -->
"""


def test_results_replace_what_was_there(tmp_path, capsys):
    target = tmp_path / "page.md"
    target.write_text(TEXT)
    (tmp_path / "a.md").write_text("# a\n\nnew | 1\n")
    given = ["--results", str(tmp_path), "--page", str(target)]
    assert page.main(given) == 0
    assert target.read_text() == TEXT.replace("old", "new | 1")
    assert page.main([*given, "a"]) == 0
    assert page.main([*given, "b"]) == 1 and "no place or no result: b" in capsys.readouterr().err
    assert target.read_text() == TEXT.replace("old", "new | 1")


def test_places_of_the_page_are_results_of_benchmarks():
    names = [name for _, name, _ in page.PLACE.findall(page.PAGE.read_text())]
    results = {Path(script).stem for script, *_ in run.BENCHMARKS} | {
        script.split()[1] for script, *_ in run.BENCHMARKS if " " in script
    }
    assert len(names) == len(set(names))
    assert {name.split("-")[0] for name in names} <= results
