"""What the docs name is there: files, folders, targets of make, scripts and the flags of benchmarks."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("README.md", "SECURITY.md", "third_party/README.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
FOLDERS = ("csrc", "test", "docs", "torch_ao_ext", "benchmarks", "third_party")
NOT_THERE = {"benchmarks/results"}  # made by benchmarks


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_folders_are_there(page):
    text = page.read_text()
    paths = set(re.findall(rf"(?<![\w/.-])((?:{'|'.join(FOLDERS)})/[\w./*-]*[\w*])(?![\w<])", text))
    missing = {p for p in paths - NOT_THERE if not any(ROOT.glob(p))}
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_and_modules_are_there(page):
    text, makefile = page.read_text(), (ROOT / "Makefile").read_text()
    targets = {t for line in re.findall(r"^([a-z][a-z -]*):", makefile, re.M) for t in line.split()}
    assert {"test", "bench", "asan", "tsan"} <= targets
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets
    for module in re.findall(r"python -m ((?:torch_ao_ext|benchmarks)[\w.]*)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    assert not [t for t in targets if "://" not in t and not (page.parent / t).exists()]


def test_readme_leads_to_every_page():
    linked = set(re.findall(r"\]\(([^)#\s]+)", (ROOT / "README.md").read_text()))
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked


def test_flags_of_benchmarks_are_theirs():
    used = {}
    for page in PAGES:
        for script, rest in re.findall(r"python (benchmarks/[\w/]+\.py)([^`|;]*)", page.read_text()):
            used.setdefault(script, set()).update(re.findall(r"(?<!\S)\[?(--[a-z-]+)", rest))
    common = (ROOT / "benchmarks" / "harness" / "cli.py").read_text()
    assert len(used) > 15
    for script, flags in used.items():
        known = set(re.findall(r'"(--[a-z-]+)"', (ROOT / script).read_text() + common))
        assert flags <= known, f"{script}: {flags - known}"


def test_nothing_points_to_a_machine():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a checkout")
    for name in listed.stdout.split():
        if name.endswith((".md", ".py", ".cpp", ".h", ".csv", ".txt")):
            found = re.search(r"(?<![\w.*\]])/(?:home|root|Users|tmp)/\w+", (ROOT / name).read_text())
            assert found is None, f"{name}: {found[0]}"
