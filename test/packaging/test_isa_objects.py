"""The inline-function trap: code compiled for one ISA must not be picked up by
the linker for all. Object files named `stem__<isa>` may define no weak symbol,
and every other object may hold no AVX instruction."""

import re
import subprocess
from pathlib import Path

import pytest

BUILD = Path(__file__).resolve().parents[2] / "build" / "release" / "CMakeFiles"
OBJECTS = sorted([*BUILD.glob("tae_engine.dir/**/*.o"), *BUILD.glob("tae_torch.dir/**/*.o")])
ISA_OBJECT = re.compile(r"__(avx2|avxvnni|avx512|avx512vnni|amx)\.cpp\.o$")


def test_there_is_something_to_check():
    levels = {match.group(1) for path in OBJECTS if (match := ISA_OBJECT.search(path.name))}
    assert {"avx2", "avx512", "avx512vnni", "avxvnni", "amx"} <= levels
    assert len(OBJECTS) > 20


@pytest.mark.parametrize("path", [p for p in OBJECTS if ISA_OBJECT.search(p.name)], ids=lambda p: p.name)
def test_isa_object_defines_no_weak_symbol(path):
    command = ["nm", "-C", "--defined-only", str(path)]
    symbols = subprocess.run(command, check=True, capture_output=True, text=True)
    weak = [line for line in symbols.stdout.splitlines() if re.match(r"\S+ [WVu] ", line)]
    # DW.ref.* is the compiler's hidden pointer to the exception personality: data, no code.
    assert [line for line in weak if "DW.ref." not in line] == []


@pytest.mark.parametrize("path", [p for p in OBJECTS if not ISA_OBJECT.search(p.name)], ids=lambda p: p.name)
def test_baseline_object_holds_no_avx(path):
    code = subprocess.run(["objdump", "-d", "--no-show-raw-insn", str(path)], check=True, capture_output=True,
                          text=True).stdout
    assert not re.search(r"%[yz]mm\d|\tv[a-z]+ps\b|\tvp[a-z]+\b", code)
