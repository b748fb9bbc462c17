"""Builds one library with a switch around every check of csrc, beside the release build."""

import hashlib
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from check_sites import sites_of, with_switches

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
BUILD = ROOT / "build" / "release"
WORK = ROOT / "build" / "mutants"
LIBRARY = WORK / "libtorch_ao_ext.so"
SWITCH = Path(__file__).with_name("check_sites.cpp")


def shell(command):
    done = subprocess.run(command, shell=True, cwd=BUILD, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout[-1000:] + done.stderr[-3000:])


def link_command():
    lines = subprocess.run(
        ["ninja", "-C", str(BUILD), "-t", "commands", "libtorch_ao_ext.so"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    return lines.splitlines()[-1]


def compile_one(command, text, source, made, headers):
    """Compiles a source; nothing when it and all headers are as they were."""
    state = hashlib.sha256(f"{command}\n{text}\n{headers}".encode()).hexdigest()
    mark = made.with_suffix(".state")
    if made.exists() and mark.exists() and mark.read_text() == state:
        return
    source.parent.mkdir(parents=True, exist_ok=True)
    made.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(text)
    mark.unlink(missing_ok=True)
    shell(command)
    mark.write_text(state)


def build():
    """All sites in the order of the files; the library is up to date then."""
    entries = {}
    for c in json.loads((BUILD / "compile_commands.json").read_text()):
        if "/tae_torch.dir/" in c["command"] and CSRC in Path(c["file"]).parents:
            entries[Path(c["file"])] = c["command"]
    headers = sorted(CSRC.rglob("*.h"))
    sites = {path: sites_of(path, ROOT) for path in sorted([*entries, *headers])}
    texts = {path: with_switches(path, found) for path, found in sites.items() if found}
    for path in [p for p in headers if p in texts]:
        copy = WORK / "csrc" / path.relative_to(CSRC)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(texts[path])
    seen = "".join(p.read_text() for p in [*headers, SWITCH.with_suffix(".h")])
    link = link_command().replace("-o libtorch_ao_ext.so", f"-o {LIBRARY}")
    jobs = []
    for path, command in entries.items():
        output = re.search(r" -o (\S+)", command)[1]
        source = WORK / "csrc" / path.relative_to(CSRC)
        made = source.with_suffix(".o")
        command = command.replace(f" -o {output} -c {path}", f" -o {made} -c {source}")
        command = command.replace(f" -I{CSRC}", f" -I{WORK / 'csrc'} -I{CSRC}")
        text = texts.get(path, f'#line 1 "{path}"\n{path.read_text()}')
        jobs.append((command, text, source, made, seen))
        link = link.replace(f" {output} ", f" {made} ")
    switch = WORK / "switch" / SWITCH.name
    made = switch.with_suffix(".o")
    compiler = next(iter(entries.values())).split()[0]
    command = f"{compiler} -std=c++20 -O2 -fPIC -fvisibility=hidden -I{SWITCH.parent} -o {made} -c {switch}"
    jobs.append((command, SWITCH.read_text(), switch, made, seen))
    first = str(jobs[0][3])
    link = link.replace(f" {first} ", f" {made} {first} ", 1)
    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", os.cpu_count()))) as pool:
        try:
            list(pool.map(lambda job: compile_one(*job), jobs))
            shell(link)
        except RuntimeError as error:
            sys.exit(str(error))
    return [site for found in sites.values() for site in found]


if __name__ == "__main__":
    print(len(build()), "checks")
