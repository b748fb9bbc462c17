"""third_party/fetch.py and build.py with tiny local tarballs; no network, no compiler."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest

THIRD_PARTY = Path(__file__).resolve().parents[2] / "third_party"
sys.path.insert(0, str(THIRD_PARTY))

import _apt  # noqa: E402
import fetch as fetch_module  # noqa: E402

PATCH = """--- a/hello.txt
+++ b/hello.txt
@@ -1 +1 @@
-hello
+patched
"""


def make_tarball(path: Path, files: dict[str, str]) -> str:
    """Write a tarball of text files; return its SHA-256."""
    staging = path.parent / (path.name + ".d")
    for name, text in files.items():
        target = staging / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    with tarfile.open(path, "w:xz") as archive:
        for child in sorted(staging.iterdir()):
            archive.add(child, arcname=child.name)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def site(tmp_path: Path):
    """A lock with a flat and a patched source, their tarballs and an empty PATH."""
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    flat = make_tarball(downloads / "flat.tar.xz", {"a.txt": "a", "b/c.txt": "c"})
    top = make_tarball(downloads / "top.tar.xz", {"top-1.0/hello.txt": "hello\n"})
    lock = tmp_path / "sources.lock"
    (tmp_path / "patches").mkdir()
    (tmp_path / "patches" / "own.patch").write_text(PATCH)
    lock.write_text(f"""
suite = "trixie"
[[source]]
name = "flat"
version = "1"
package = "flat"
package_version = "1-1"
file = "flat.tar.xz"
sha256 = "{flat}"
flat = true
[[source]]
name = "top"
version = "1.0 with fixes"
package = "top"
package_version = "1.0-1"
file = "top.tar.xz"
sha256 = "{top}"
patches = ["own.patch"]
""")
    return tmp_path


def fetch(site: Path, *args: str, **env: str) -> subprocess.CompletedProcess:
    """Run fetch.py on the site's lock and cache, in this process to be fast."""
    argv = ["--lock", str(site / "sources.lock"), "--cache", str(site / "cache"), *args]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TORCH_AO_EXT_")}
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.dict(os.environ, clean | env, clear=True), redirect_stdout(out), redirect_stderr(err):
        code = fetch_module.main(argv)
    return subprocess.CompletedProcess(argv, code, out.getvalue(), err.getvalue())


def folders(result: subprocess.CompletedProcess) -> dict[str, Path]:
    """Parse name=folder lines."""
    assert result.returncode == 0, result.stderr
    pairs = (line.split("=", 1) for line in result.stdout.splitlines())
    return {name: Path(path) for name, path in pairs}


def assert_one_clear_error(result: subprocess.CompletedProcess, *words: str) -> None:
    """Exit code, one line, no result."""
    assert result.returncode != 0
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""
    for word in words:
        assert word in result.stderr


def test_from_dir_unpacks_and_patches(site: Path):
    out = folders(fetch(site, "--from-dir", str(site / "downloads")))
    assert (out["flat"] / "b" / "c.txt").read_text() == "c"
    assert (out["top"] / "hello.txt").read_text() == "patched\n"
    left = {p.name for p in (site / "cache" / "src").iterdir()}
    assert left == {out["flat"].name, out["top"].name, "fetch.lock"}


def test_environment_names_the_local_folder(site: Path):
    env = {"TORCH_AO_EXT_SOURCES": str(site / "downloads")}
    assert set(folders(fetch(site, **env))) == {"flat", "top"}


def test_only_named_sources(site: Path):
    out = folders(fetch(site, "--from-dir", str(site / "downloads"), "flat"))
    assert set(out) == {"flat"}


def test_second_run_reuses_the_folders(site: Path):
    first = folders(fetch(site, "--from-dir", str(site / "downloads")))
    before = {p: p.stat().st_ino for p in first.values()}
    second = folders(fetch(site, "--from-dir", str(site / "downloads")))
    assert {p: p.stat().st_ino for p in second.values()} == before


def test_cached_tarballs_need_no_network(site: Path):
    cached = site / "cache" / "src" / "tarballs"
    cached.parent.mkdir(parents=True)
    (site / "downloads").rename(cached)
    # An empty PATH hides apt-get: any attempt to download would be an error. The
    # patched source is left out, for patch(1) is hidden too.
    out = folders(fetch(site, "flat", PATH=str(site)))
    assert (out["flat"] / "a.txt").read_text() == "a"


def test_altered_local_tarball(site: Path):
    tarball = site / "downloads" / "top.tar.xz"
    tarball.write_bytes(tarball.read_bytes() + b"x")
    result = fetch(site, "--from-dir", str(site / "downloads"))
    assert_one_clear_error(result, "top.tar.xz", "SHA-256")


def test_command_line(site: Path):
    """As a program: exit code 1 and one line, no traceback."""
    (site / "downloads" / "top.tar.xz").write_bytes(b"")
    command = [sys.executable, str(THIRD_PARTY / "fetch.py"), "--lock", str(site / "sources.lock")]
    command += ["--cache", str(site / "cache"), "--from-dir", str(site / "downloads")]
    result = subprocess.run(command, text=True, capture_output=True)
    assert_one_clear_error(result, "top.tar.xz")
    assert result.returncode == 1 and "Traceback" not in result.stderr


def test_altered_cached_tarball_is_found_although_unpacked(site: Path):
    cached = site / "cache" / "src" / "tarballs"
    cached.parent.mkdir(parents=True)
    (site / "downloads").rename(cached)
    folders(fetch(site))
    (cached / "flat.tar.xz").write_bytes(b"something else")
    assert_one_clear_error(fetch(site), "flat.tar.xz", "SHA-256")


def test_missing_file(site: Path):
    (site / "downloads" / "flat.tar.xz").unlink()
    result = fetch(site, "--from-dir", str(site / "downloads"))
    assert_one_clear_error(result, "flat.tar.xz", "missing")


def test_no_apt_get(site: Path):
    result = fetch(site, "flat", PATH=str(site))
    # Which of the two depends on the machine: no Debian archive configured, or no tool.
    assert_one_clear_error(result.__class__(result.args, result.returncode, result.stdout,
                                            result.stderr.splitlines()[-1]), "--from-dir")


def test_patch_that_does_not_apply_leaves_nothing(site: Path):
    (site / "patches" / "own.patch").write_text(PATCH.replace("-hello", "-other"))
    result = fetch(site, "--from-dir", str(site / "downloads"))
    assert_one_clear_error(result, "own.patch")
    names = [p.name for p in (site / "cache" / "src").iterdir()]
    assert not [n for n in names if n.startswith(("top", "tmp"))]


def test_upstream_clones_the_pinned_tag(site: Path):
    repository = site / "git" / "owner" / "top"
    repository.mkdir(parents=True)

    def git(*args: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@t.invalid"]
        subprocess.run(["git", *identity, *args], cwd=repository, check=True, capture_output=True)

    git("init", "-q")
    for text, tag in (("hello\n", "v1.0"), ("later\n", "v1.1")):
        (repository / "hello.txt").write_text(text)
        git("add", ".")
        git("commit", "-q", "-m", tag)
        git("tag", tag)
    with (site / "sources.lock").open("a") as lock:
        lock.write('upstream = "owner/top"\ntag = "v1.0"\n')
    out = folders(fetch(site, "--upstream", f"file://{site}/git", "top"))
    assert (out["top"] / "hello.txt").read_text() == "patched\n"
    assert not (out["top"] / ".git").exists()


DEB822 = """Types: deb
# http://old.invalid/archive/debian
URIs: http://mirror.invalid/debian-security
Suites: stable-security
Components: main
Signed-By: /keys/security.gpg

Types: deb
URIs: http://mirror.invalid/path/debian/
Suites: stable stable-updates
Components: main contrib
Signed-By: /keys/archive.gpg
"""
THIRD = "deb [arch=amd64 signed-by=/keys/x.gpg] https://third.invalid/apt stable main\n"


def test_mirror_from_deb822(tmp_path: Path):
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "a.list").write_text(THIRD)
    (tmp_path / "sources.list.d" / "debian.sources").write_text(DEB822)
    (tmp_path / "sources.list.d" / "b.sources.disabled").write_text(DEB822)
    entry = _apt.pick_mirror(_apt.entries(tmp_path))
    assert entry.uri == "http://mirror.invalid/path/debian/"
    assert entry.signed_by == "/keys/archive.gpg"


def test_mirror_from_one_line_list(tmp_path: Path):
    (tmp_path / "sources.list").write_text(
        "# deb http://old.invalid/debian stable main\n" + THIRD
        + "deb http://sec.invalid/debian-security stable-security main\n"
        + "deb [ signed-by=/keys/archive.gpg ] http://mirror.invalid/debian stable main\n")
    entry = _apt.pick_mirror(_apt.entries(tmp_path))
    assert entry.uri == "http://mirror.invalid/debian"
    assert entry.signed_by == "/keys/archive.gpg"


def test_no_debian_archive(tmp_path: Path):
    (tmp_path / "sources.list").write_text(THIRD)
    with pytest.raises(_apt.FetchError, match="--from-dir"):
        _apt.pick_mirror(_apt.entries(tmp_path))


def test_disabled_stanza_is_skipped(tmp_path: Path):
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "d.sources").write_text(
        DEB822.replace("Types: deb\nURIs", "Enabled: no\nTypes: deb\nURIs"))
    with pytest.raises(_apt.FetchError):
        _apt.pick_mirror(_apt.entries(tmp_path))


def test_build_reuses_a_finished_prefix(tmp_path: Path):
    """A stamped prefix is printed at once: no sources, no network, no compiler runs."""
    build = [sys.executable, str(THIRD_PARTY / "build.py"), "--cache", str(tmp_path)]
    where = subprocess.run([*build, "--where"], text=True, capture_output=True)
    assert where.returncode == 0, where.stderr
    prefix = Path(where.stdout.strip())
    prefix.mkdir(parents=True)
    (prefix / "engines.stamp").write_text("")
    done = subprocess.run(build, text=True, capture_output=True)
    assert done.stdout.splitlines()[-1] == str(prefix)
    assert done.returncode == 0 and not (tmp_path / "src").exists()


def test_lock_is_complete():
    """Every source has a digest and licence, and its patches exist."""
    import tomllib

    table = tomllib.loads((THIRD_PARTY / "sources.lock").read_text())
    for source in table["source"]:
        assert len(source["sha256"]) == 64 and source["licence"]
        assert source.get("tag") or len(source["commit"]) == 40
        for name in source.get("patches", []):
            assert (THIRD_PARTY / "patches" / name).is_file()
