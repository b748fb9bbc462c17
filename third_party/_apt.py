"""Fetch Debian source tarballs through a private apt configuration.

The machine's own apt configuration names the mirror; nothing else of it is used or
changed, and no mirror name is written in this repository.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class FetchError(Exception):
    """A problem the user has to solve; printed as one line without a traceback."""


@dataclass(frozen=True)
class Entry:
    """One archive of the apt configuration."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str | None


def _deb822(text: str) -> Iterator[Entry]:
    for stanza in text.split("\n\n"):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t"):  # continuation of the field above
                fields[key] = f"{fields.get(key, '')} {line.strip()}"
            elif ":" in line:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        if "uris" not in fields or fields.get("enabled", "yes").lower() == "no":
            continue
        for uri in fields["uris"].split():
            yield Entry(uri, tuple(fields.get("suites", "").split()),
                        tuple(fields.get("components", "").split()),
                        fields.get("signed-by"))


def _one_line(text: str) -> Iterator[Entry]:
    for line in text.splitlines():
        words = line.split("#", 1)[0].split()
        if len(words) < 3 or words[0] not in ("deb", "deb-src"):
            continue
        signed_by = None
        if words[1].startswith("["):  # deb [arch=amd64 signed-by=/path] uri suite main
            end = next((i for i, w in enumerate(words) if w.endswith("]")), None)
            if end is None:
                continue
            for option in " ".join(words[1:end + 1]).strip("[] ").split():
                name, _, value = option.partition("=")
                if name.lower() == "signed-by":
                    signed_by = value
            words = [words[0], *words[end + 1:]]
        if len(words) >= 4:
            yield Entry(words[1], (words[2],), tuple(words[3:]), signed_by)


def entries(etc: Path) -> list[Entry]:
    """Return every archive named below `etc` (normally /etc/apt), in apt's order."""
    found: list[Entry] = []
    parts = etc / "sources.list.d"
    files = [etc / "sources.list", *sorted(parts.glob("*"))]
    for path in files:
        if not path.is_file() or path.suffix not in (".list", ".sources"):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += _deb822(text) if path.suffix == ".sources" else _one_line(text)
    return found


def pick_mirror(found: list[Entry]) -> Entry:
    """Return the Debian main archive: path `.../debian`, component main."""
    for entry in found:
        parts = [p for p in urlsplit(entry.uri).path.split("/") if p]
        last = parts[-1].removesuffix(".list") if parts else ""
        # debian-security and third parties have other last path components.
        if last == "debian" and "main" in entry.components:
            return entry
    raise FetchError("fetch: no Debian main archive in the apt configuration; "
                     "use --from-dir or TORCH_AO_EXT_SOURCES with local tarballs")


class Apt:
    """Private apt state below `root`; lists are updated once per object."""

    def __init__(self, root: Path, suite: str, etc: Path = Path("/etc/apt")) -> None:
        self._root = root
        self._suite = suite
        self._etc = etc
        self._ready = False

    def _run(self, cwd: Path, *args: str) -> None:
        env = os.environ | {"APT_CONFIG": str(self._root / "apt.conf"), "LC_ALL": "C"}
        try:
            done = subprocess.run(["apt-get", "-q", *args], cwd=cwd, env=env, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        except FileNotFoundError:
            raise FetchError("fetch: apt-get not found; use --from-dir, "
                             "TORCH_AO_EXT_SOURCES or --upstream") from None
        if done.returncode != 0:
            tail = "; ".join(done.stdout.strip().splitlines()[-3:])
            raise FetchError(f"fetch: apt-get {' '.join(args)} failed: {tail}")

    def _prepare(self) -> None:
        mirror = pick_mirror(entries(self._etc))
        for folder in ("lists/partial", "cache/archives/partial", "state"):
            (self._root / folder).mkdir(parents=True, exist_ok=True)
        (self._root / "state" / "status").touch()
        # An inline key block cannot be named in a one-line entry: take the keyring.
        signed_by = mirror.signed_by or KEYRING
        if not signed_by.startswith("/"):
            signed_by = KEYRING
        (self._root / "sources.list").write_text(
            f"deb-src [signed-by={signed_by}] {mirror.uri} {self._suite} main\n")
        lines = [
            f'Dir::Etc::SourceList "{self._root}/sources.list";',
            'Dir::Etc::SourceParts "-";',
            f'Dir::State "{self._root}/state";',
            f'Dir::State::Lists "{self._root}/lists";',
            f'Dir::State::status "{self._root}/state/status";',
            f'Dir::Cache "{self._root}/cache";',
            'APT::Get::AllowUnauthenticated "0";',
            'Acquire::Languages "none";',
        ]
        if os.geteuid() == 0:  # user _apt cannot write below the home of root
            lines.append('APT::Sandbox::User "root";')
        (self._root / "apt.conf").write_text("\n".join(lines) + "\n")
        self._run(self._root, "update")
        self._ready = True

    def source(self, package: str, version: str, into: Path, *, delta: bool) -> None:
        """Download the orig tarball (delta: the Debian part) of a source package."""
        if not self._ready:
            self._prepare()
        which = "--diff-only" if delta else "--tar-only"
        self._run(into, "source", which, "--download-only", f"{package}={version}")
