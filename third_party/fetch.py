#!/usr/bin/env python3
"""Provide the pinned third-party sources of `sources.lock` as unpacked folders.

Tarballs come from the cache, a local folder (`--from-dir`, TORCH_AO_EXT_SOURCES) or
Debian through apt; `--upstream BASE` clones BASE/<upstream> instead. Every tarball is
compared with its SHA-256 before each use. Prints one `name=folder` line per source.
Python standard library only.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _apt import Apt, FetchError

HERE = Path(__file__).resolve().parent


def cache_root() -> Path:
    """Return the cache folder: TORCH_AO_EXT_CACHE or the user's cache."""
    if own := os.environ.get("TORCH_AO_EXT_CACHE"):
        return Path(own).expanduser().resolve()
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else Path.home() / ".cache").resolve() / "torch_ao_ext"


@contextmanager
def locked(path: Path):
    """Hold an exclusive lock, so that two builds do not write the same folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def sha256(path: Path) -> str:
    """Return the hex digest of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def check(path: Path, expected: str) -> None:
    """Raise unless the file has the pinned digest."""
    got = sha256(path)
    if got != expected:
        raise FetchError(f"fetch: {path} must have SHA-256 {expected}, got {got}; "
                         "delete it or restore the pinned file")


class Fetcher:
    """Finds, checks and unpacks the sources of one lock file."""

    def __init__(self, lock: Path, cache: Path, from_dir: Path | None = None,
                 upstream: str | None = None) -> None:
        try:
            import tomllib
        except ModuleNotFoundError:
            raise FetchError("fetch: Python must be 3.11 or newer") from None
        self.table: dict[str, Any] = tomllib.loads(lock.read_text())
        self.patches = lock.parent / "patches"
        self.root = cache / "src"
        self.from_dir = from_dir
        self.upstream = upstream
        self.apt = Apt(self.root / "apt", self.table.get("suite", ""))

    def tarball(self, source: dict[str, Any], prefix: str = "") -> Path:
        """Return the checked tarball; prefix "delta_" is the Debian part."""
        file, digest = source[f"{prefix}file"], source[f"{prefix}sha256"]
        if self.from_dir is not None:
            path = self.from_dir / file
            if not path.is_file():
                raise FetchError(f"fetch: {path} is missing; --from-dir must hold every "
                                 "file of sources.lock")
            check(path, digest)
            return path
        path = self.root / "tarballs" / file
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.root) as tmp:
                print(f"fetch: {file} from Debian", file=sys.stderr)
                self.apt.source(source["package"], source["package_version"], Path(tmp),
                                delta=bool(prefix))
                if not (Path(tmp) / file).is_file():
                    raise FetchError(f"fetch: apt-get source {source['package']}="
                                     f"{source['package_version']} brought no {file}")
                check(Path(tmp) / file, digest)
                os.replace(Path(tmp) / file, path)
        check(path, digest)
        return path

    def folder(self, source: dict[str, Any]) -> Path:
        """Name the unpacked folder after everything that decides its content."""
        state = hashlib.sha256(repr(sorted(source.items())).encode())
        state.update(b"upstream" if self.upstream else b"tarball")
        for name in source.get("patches", []):
            state.update((self.patches / name).read_bytes())
        version = source["version"].split()[0]
        return self.root / f"{source['name']}-{version}-{state.hexdigest()[:12]}"

    def unpack(self, source: dict[str, Any]) -> Path:
        """Return the source folder, creating it in one rename."""
        final = self.folder(source)
        # The tarball is checked even if the folder exists: an altered cache is an error.
        if not self.upstream:
            tarball = self.tarball(source)
            delta = self.tarball(source, "delta_") if "delta_file" in source else None
        if final.is_dir():
            return final
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.root) as tmp:
            tree = Path(tmp) / "tree"
            if self.upstream:
                clone(self.upstream, source, tree)
            else:
                extract(tarball, tree, flat=source.get("flat", False))
                if delta is not None:
                    extract(delta, Path(tmp) / "delta", flat=False)
                    for name in source["delta_patches"]:
                        apply_patch(tree, Path(tmp) / "delta" / "patches" / name)
            for name in source.get("patches", []):
                apply_patch(tree, self.patches / name)
            os.replace(tree, final)
        return final

    def run(self, names: list[str] | None = None) -> dict[str, Path]:
        """Unpack all (or the named) sources; return name -> folder."""
        with locked(self.root / "fetch.lock"):
            return {s["name"]: self.unpack(s) for s in self.table["source"]
                    if not names or s["name"] in names}


def extract(tarball: Path, into: Path, *, flat: bool) -> None:
    """Unpack, leaving out the single top folder unless the tarball has none."""
    into.mkdir()
    # Python before 3.11.4 has no filters; the digest has already vouched for the file.
    options = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    try:
        with tarfile.open(tarball) as archive:
            archive.extractall(into, **options)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise FetchError(f"fetch: {tarball} cannot be unpacked: {error}") from None
    if flat:
        return
    top = [p for p in into.iterdir()]
    if len(top) != 1 or not top[0].is_dir():
        raise FetchError(f"fetch: {tarball} must hold one top folder, got {len(top)}")
    inner = into.with_name(into.name + ".top")
    os.replace(top[0], inner)
    into.rmdir()
    os.replace(inner, into)


def apply_patch(tree: Path, patch: Path) -> None:
    """Apply one -p1 patch with patch(1), or with git where that is missing."""
    if shutil.which("patch"):
        command = ["patch", "-p1", "-s", "--no-backup-if-mismatch", "-i", str(patch)]
    else:
        command = ["git", "apply", "-p1", str(patch)]
    # The ceiling keeps git from looking for a repository around the cache folder: it
    # would skip every path as outside of it, without an error.
    run(command, tree, f"patch {patch.name}", GIT_CEILING_DIRECTORIES=str(tree.parent))


def clone(base: str, source: dict[str, Any], into: Path) -> None:
    """Fetch exactly the pinned commit (or tag) of the upstream repository."""
    url = f"{base.rstrip('/')}/{source['upstream']}"
    what = f"clone of {source['upstream']}"
    print(f"fetch: {what}", file=sys.stderr)
    ref = source.get("commit") or f"refs/tags/{source['tag']}"
    into.mkdir()
    run(["git", "init", "-q"], into, what)
    run(["git", "fetch", "-q", "--depth", "1", url, ref], into, what)
    run(["git", "checkout", "-q", "FETCH_HEAD"], into, what)
    shutil.rmtree(into / ".git")


def run(command: list[str], cwd: Path, what: str, **env: str) -> None:
    """Run a tool; its last lines become the error message."""
    try:
        done = subprocess.run(command, cwd=cwd, env=os.environ | env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except FileNotFoundError:
        raise FetchError(f"fetch: {what}: {command[0]} not found") from None
    if done.returncode != 0:
        tail = "; ".join(done.stdout.strip().splitlines()[-3:])
        raise FetchError(f"fetch: {what} failed: {tail}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments shared with build.py."""
    parser.add_argument("--lock", type=Path, default=HERE / "sources.lock")
    parser.add_argument("--cache", type=Path, help="default: TORCH_AO_EXT_CACHE or the "
                        "user's cache folder")
    parser.add_argument("--from-dir", type=Path, metavar="DIR",
                        help="folder that holds the tarballs (or TORCH_AO_EXT_SOURCES)")
    parser.add_argument("--upstream", metavar="BASE", help="clone <BASE>/<owner>/<name> "
                        "at the pinned tag or commit instead of using tarballs")


def from_arguments(args: argparse.Namespace) -> Fetcher:
    """Build the fetcher that the arguments and the environment ask for."""
    from_dir = args.from_dir or os.environ.get("TORCH_AO_EXT_SOURCES") or None
    return Fetcher(args.lock, args.cache or cache_root(),
                   Path(from_dir).resolve() if from_dir else None, args.upstream)


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("names", nargs="*", help="only these sources")
    args = parser.parse_args(argv)
    try:
        for name, path in from_arguments(args).run(args.names).items():
            print(f"{name}={path}")
    except FetchError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
