"""Deletes each argument check of csrc in turn; some test must notice.

    make mutate-checks [FILES='csrc/ops/linear.cpp ...']

A check is a statement TAE_CHECK*(..), TORCH_CHECK*(..) or check_*(..). One translation unit is
compiled again and linked with the objects of build/release; the tests load that library. The
sources stay as they are. Results are kept in build/mutants, so a run goes on where it stopped
and only changed files are tried again. Ends in a plain count line; exit code 1 with survivors.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "release"
WORK = ROOT / "build" / "mutants"
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
    """(line, statement, text without it) for each check of a file."""
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
        statement = text[match.start() : end].strip()
        kept = "\n" * statement.count("\n")
        line = text.count("\n", 0, match.start()) + 1
        if before.endswith(")") and "#define" in before.split("\n")[-1]:
            continue
        yield line, head, statement, text[: match.start()] + "(void)0;" + kept + text[end:]


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


def build(path, text):
    """The library with this text for the file, or None when it does not compile."""
    source = WORK / "csrc" / path.relative_to(ROOT / "csrc")
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(text)
    command, directory = compile_command(path)
    output = re.search(r" -o (\S+)", command)[1]
    made = WORK / "mutant.o"
    command = command.replace(f" -o {output}", f" -o {made}").replace(f" -c {path}", f" -c {source}")
    done = subprocess.run(command, shell=True, cwd=directory, capture_output=True, text=True)
    if done.returncode:
        return None, done.stderr[-500:]
    library = WORK / "libtorch_ao_ext.so"
    link = link_command().replace(f" {output} ", f" {made} ")
    link = link.replace("-o libtorch_ao_ext.so", f"-o {library}")
    done = subprocess.run(link, shell=True, cwd=BUILD, capture_output=True, text=True)
    return (library, "") if done.returncode == 0 else (None, done.stderr[-500:])


def tests_of(path):
    """Commands that look at the checks of a file, the quickest first."""
    stem = path.stem.removesuffix("_common")
    family = {"post_ops": "linear", "quantize": "quantize", "embedding_prepack": "embedding",
              "choose_qparams": "quantize"}.get(stem, stem)
    pytest = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    hostile = [sys.executable, "test/ops/hostile_calls.py", "--seed", "1", "--calls"]
    own = sorted((ROOT / "test" / "ops").glob(f"test_{family}*.py"))
    if path.parent.name == "ops":
        names = f"{family} or post_ops or scales or memory or float"
        yield [*pytest, "test/ops/test_arguments.py", "-k", names]
    else:
        yield [*pytest, "test/ops/test_arguments.py"]
    if own:
        yield [*pytest, *map(str, own)]
    yield [*hostile, "6000"]
    if path.stem in ("service", "autograd", "weight_state", "env"):
        yield [*pytest, *(f"test/ops/test_{s}.py" for s in ("service", "weight_state", "opcheck"))]


def killed_by(path, library):
    """The command that noticed, or None."""
    env = {**os.environ, "TORCH_AO_EXT_LIBRARY": str(library), "PYTHONPATH": str(ROOT)}
    for command in tests_of(path):
        try:
            done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
        except subprocess.TimeoutExpired:
            return "timeout"
        if done.returncode not in (0, 5):  # 5: no test has that name
            return " ".join(Path(c).name if "/" in c else c for c in command[1:6])
    return None


def main(files):
    WORK.mkdir(parents=True, exist_ok=True)
    store = WORK / "results.json"
    results = json.loads(store.read_text()) if store.exists() else {}
    paths = [ROOT / f for f in files] or sorted((ROOT / "csrc").glob("ops/*.cpp")) + sorted(
        (ROOT / "csrc" / "core").glob("*.cpp")
    )
    counts = {"killed": 0, "survived": 0, "not built": 0}
    survivors = []
    for path in paths:
        original = path.read_text()
        for line, head, statement, text in mutants_of(path):
            key = hashlib.sha256((str(path.relative_to(ROOT)) + text).encode()).hexdigest()
            if key not in results:
                begin = time.monotonic()
                library, problem = build(path, text)
                by = killed_by(path, library) if library else "not built"
                results[key] = {"by": by, "problem": problem}
                if library:
                    store.write_text(json.dumps(results))
                print(f"{path.relative_to(ROOT)}:{line}: {head}: {by or 'SURVIVED'} "
                      f"({time.monotonic() - begin:.0f} s)", flush=True)  # fmt: skip
            by = results[key]["by"]
            counts["survived" if by is None else "not built" if by == "not built" else "killed"] += 1
            if by is None:
                survivors.append(f"{path.relative_to(ROOT)}:{line}: {' '.join(statement.split())[:200]}")
        assert path.read_text() == original
    print(*survivors, sep="\n")
    print(f"mutated checks: {len(paths)} files, " + ", ".join(f"{n} {k}" for k, n in counts.items()))
    return 1 if survivors or counts["not built"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
