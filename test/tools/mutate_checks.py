"""Deletes each argument check of csrc in turn; some test must notice.

    make mutate-checks [FILES='csrc/ops/linear.cpp ...'] [MUTATE_SECONDS=600]

A check is a statement TAE_CHECK*(..), TORCH_CHECK*(..) or check_*(..). One library holds all
mutants: each check asks whether TAE_MUTANT names it, and then does nothing. The sources stay
as they are. torch is loaded once; each mutant is tested in a forked child. Results are kept in
build/mutants by the text of the check and its surroundings, so a run goes on where it stopped;
--seconds ends it after that time. Ends in a plain count line; exit code 1 with survivors, 2 with
mutants that still wait.
"""

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "release"
WORK = ROOT / "build" / "mutants"
LIBRARY = WORK / "libtorch_ao_ext.so"
SECONDS = 600  # of a step with every check in place
HOSTILE_CALLS = 4000
BLOCK = 250  # of them in one child: a run ends behind the block that noticed
START = re.compile(r"^[ \t]*(?:TAE_CHECK\w*|TORCH_CHECK\w*|check_\w+)\(", re.M)


def statement_end(text, at):
    """Just behind the ';' of the call that opens at text[at]; None when it is no statement."""
    depth, i = 0, at
    while i < len(text):
        c = text[i]
        if c == '"':
            i += 1
            while text[i] != '"':
                i += 2 if text[i] == "\\" else 1
        elif c == "'" and text[i + 2] == "'":
            i += 2
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
            if depth == 0:
                return i + 2 if text[i + 1 : i + 2] == ";" else None
        i += 1
    return None


def mutants_of(path):
    """(line, head, statement, begin, end) for each check of a file."""
    text = path.read_text()
    for match in START.finditer(text):
        begin = match.end() - 1
        end = statement_end(text, begin)
        head = text[match.start() : begin].strip()
        before = text[: match.start()].rstrip()
        # A statement follows one, a brace, a comment or the condition of an if or for.
        comment = before.split("\n")[-1].strip().startswith("//")
        if end is None or (before and before[-1] not in ";{})" and not comment):
            continue
        if before.endswith(")") and "#define" in before.split("\n")[-1]:
            continue
        line = text.count("\n", 0, match.start()) + 1
        yield line, head, text[match.start() : end], match.start(), end


SWITCH = """#include <cstdlib>
#include <cstring>
namespace {
[[maybe_unused]] bool tae_mutant_is(const char* name) {
  const char* const chosen = std::getenv("TAE_MUTANT");
  return chosen != nullptr && std::strcmp(chosen, name) == 0;
}
}  // namespace
"""


def name_of(path, line):
    return f"{path.relative_to(ROOT)}:{line}"


def with_switches(path):
    """The file's text with every check behind a switch."""
    text = path.read_text()
    for line, _, statement, begin, end in reversed(list(mutants_of(path))):
        switch = f'{{ if (!tae_mutant_is("{name_of(path, line)}")) {{ {statement} }} }}'
        text = text[:begin] + switch + text[end:]
    return f'{SWITCH}#line 1 "{path}"\n{text}'


def compile_command(path):
    commands = json.loads((BUILD / "compile_commands.json").read_text())
    entry = next(c for c in commands if c["file"] == str(path))
    return entry["command"], entry["directory"]


def link_command():
    lines = subprocess.run(
        ["ninja", "-C", str(BUILD), "-t", "commands", "libtorch_ao_ext.so"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    return lines.splitlines()[-1]


def shell(command, directory):
    done = subprocess.run(command, shell=True, cwd=directory, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-1000:] + done.stderr[-3000:])


def build(paths):
    """One library with the switches of all files; only changed files are compiled again."""
    link = link_command().replace("-o libtorch_ao_ext.so", f"-o {LIBRARY}")
    for path in paths:
        source = WORK / "csrc" / path.relative_to(ROOT / "csrc")
        made = source.with_suffix(".o")
        source.parent.mkdir(parents=True, exist_ok=True)
        command, directory = compile_command(path)
        output = re.search(r" -o (\S+)", command)[1]
        text = with_switches(path)
        if not made.exists() or not source.exists() or source.read_text() != text:
            print(f"compiling {path.relative_to(ROOT)}", flush=True)
            source.write_text(text)
            made.unlink(missing_ok=True)
            command = command.replace(f" -o {output}", f" -o {made}")
            shell(command.replace(f" -c {path}", f" -c {source}"), directory)
        link = link.replace(f" {output} ", f" {made} ")
    shell(link, BUILD)


# Source in csrc/ops without "_common" -> parts of the names of its operators, and its test files. Else
# both are its own name.
FAMILIES = {
    "batch_norm": ("_bn", "batch_norm"),
    "channels_last": ("conv2d", "conv"),
    "choose_qparams": ("choose_qparams", "quantize"),
    "conv_dynamic": ("conv dynamic", "conv_dynamic"),
    "conv_input": ("conv", "conv"),
    "elementwise": ("add mul pool requantize", "elementwise"),
    "embedding_bag": ("embedding", "embedding"),
    "embedding_prepack": ("embedding", "embedding"),
    "group_norm": ("norm", "norm"),
    "histogram": ("histogram", "nothing"),
    "interpolate": ("interpolate", "elementwise"),
    "island_program": ("island", "island"),
    "layer_norm": ("norm", "norm"),
    "lookup": ("lookup", "elementwise"),
    "pool": ("pool", "elementwise"),
    "post_ops": ("linear", "linear"),
    "rnn": ("lstm gru rnn", "rnn"),
    "rnn_cells": ("cell", "rnn"),
    "sparse_weight": ("sparse", "sparse"),
}
OBSERVERS = ["test/quantization/test_fake_quantize.py", "test/quantization/test_histogram_observer.py"]


def steps_of(path):
    """Steps that look at the checks of a file, the quickest first: what, and a list of tests or words."""
    stem = path.stem.removesuffix("_common")
    words, files = FAMILIES.get(stem, (stem, stem))
    if path.parent.name != "ops":
        words, files = "", "linear"
    yield "hostile calls of the family", words
    names = f"{' or '.join(words.split())} or post_ops or scales or memory" if words else "test"
    yield "arguments", ["test/ops/test_arguments.py", "-k", names]
    own = [str(p.relative_to(ROOT)) for p in sorted((ROOT / "test" / "ops").glob(f"test_{files}*.py"))]
    if own:
        yield "own tests", own
    if stem in ("fake_quantize", "histogram"):
        yield "observers", OBSERVERS
    if words:
        yield "hostile calls", ""
    if stem in ("service", "autograd", "weight_state", "linear", "rnn", "checks", "qparams"):
        yield "service", [f"test/ops/test_{s}.py" for s in ("service", "weight_state", "opcheck")]


def passes(step):
    """Runs in a child; whether nothing was noticed."""
    import pytest

    if isinstance(step, list):
        # 5: no test has that name.
        return pytest.main(["-q", "-x", "-p", "no:cacheprovider", *step]) in (0, 5)
    import hostile_calls

    calls = hostile_calls.Calls(1)
    calls.names = [n for n in calls.names if any(w in n for w in step.split() or [""])] or calls.names
    hostile_calls.warm_up(calls)
    hostile_calls.BLOCK, hostile_calls.HANG_SECONDS = BLOCK, 10
    counts, failures = hostile_calls.run(calls, "", HOSTILE_CALLS, 1, most_bad=1)
    return not failures


def child(step, name, seconds):
    """'passed', 'noticed' or 'timeout' of one step with one check deleted ('' for none)."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.environ["TAE_MUTANT"] = name
        with open(WORK / "output.txt", "w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        code = 1
        try:
            code = 0 if passes(step) else 1
        finally:
            sys.stdout.flush()
            os._exit(code)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return "passed" if status == 0 else "noticed"
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "timeout"


class Results:
    """What earlier runs found, in a file."""

    def __init__(self):
        self.file = WORK / "results.json"
        self.found = json.loads(self.file.read_text()) if self.file.exists() else {}
        newest = max(p.stat().st_mtime_ns for p in (ROOT / "test" / "ops").glob("*.py"))
        self.state = f"{hashlib.sha256(LIBRARY.read_bytes()).hexdigest()} {newest}"

    def how(self, key):
        """'killed', 'survived' these tests, or 'waiting'."""
        return "killed" if key in self.found else "survived" if key + self.state in self.found else "waiting"

    def put(self, key, value):
        self.found[key] = value
        self.file.write_text(json.dumps(self.found))

    def seconds_of(self, what, step):
        """How long a step takes with every check in place, when nothing may be noticed."""
        key = f"{what} {step} {self.state}"
        if key not in self.found:
            begin = time.monotonic()
            if child(step, "", SECONDS) != "passed":
                output = (WORK / "output.txt").read_text()[-3000:]
                sys.exit(f"{what} {step}: do not pass as they are:\n{output}")
            self.put(key, time.monotonic() - begin)
        return self.found[key]


def killed_by(path, name, results):
    """The step that noticed, or None."""
    for what, step in steps_of(path):
        how = child(step, name, 30 + 5 * results.seconds_of(what, step))
        if how != "passed":
            return what if how == "noticed" else how
    return None


def load():
    """Everything that children need, once. One thread: a fork keeps no workers."""
    os.environ["TORCH_AO_EXT_LIBRARY"] = str(LIBRARY)
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT / "test"), str(ROOT / "test" / "ops")]
    import torch

    torch.set_num_threads(1)
    import hostile_calls  # noqa: F401
    import pytest  # noqa: F401


def key_of(path, line, statement, text):
    """Changes with the check and the file it is in."""
    return hashlib.sha256(f"{path.relative_to(ROOT)}:{line}:{statement}:{text}".encode()).hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="*", help="sources of csrc; all of csrc/ops and csrc/core")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    WORK.mkdir(parents=True, exist_ok=True)
    paths = [ROOT / f for f in options.files] or [
        p for folder in ("ops", "core") for p in sorted((ROOT / "csrc" / folder).glob("*.cpp"))
    ]
    build(paths)
    load()
    results = Results()
    counts = {"killed": 0, "survived": 0, "waiting": 0}
    survivors = []
    for path in paths:
        text = path.read_text()
        for line, head, statement, *_ in mutants_of(path):
            key, name = key_of(path, line, statement, text), name_of(path, line)
            if results.how(key) == "waiting" and time.monotonic() < end:
                begin = time.monotonic()
                step = killed_by(path, name, results)
                results.put(key if step else key + results.state, step)
                print(f"{name}: {head}: {step or 'SURVIVED'} ({time.monotonic() - begin:.0f} s)", flush=True)
            how = results.how(key)
            counts[how] += 1
            if how == "survived":
                survivors.append(f"{name}: {' '.join(statement.split())[:200]}")
    print(*survivors, sep="\n")
    print(f"mutated checks: {len(paths)} files, " + ", ".join(f"{n} {k}" for k, n in counts.items()))
    return 1 if survivors else 2 if counts["waiting"] else 0


if __name__ == "__main__":
    sys.exit(main())
