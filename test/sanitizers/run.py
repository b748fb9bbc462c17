"""Builds own code with sanitizers and runs C++ and Python tests on it; the engines stay plain.

    python test/sanitizers/run.py asan [--short]     memory errors and undefined behaviour
    python test/sanitizers/run.py tsan [--short]     data races, one intra-op thread

Planted bugs are the control: each must be reported first. JIT code and the engines are blind
spots here; test/ops/test_guard_pages.py sees them. Ends in a plain count line; exit code 1
with a finding, whose report is in build/<leg>/reports.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
SANITIZERS = {"asan": "address,undefined", "tsan": "thread"}
PLANTED = {"asan": ("heap_overrun", "use_after_free", "signed_overflow"), "tsan": ("race",)}
REPORTS = ("ERROR: AddressSanitizer", "runtime error:", "WARNING: ThreadSanitizer", "ERROR: LeakSanitizer")

# Python tests for ASan; those that start programs of the release build or measure memory are not among them.
FILES = [
    "test/ops/test_arguments.py", "test/ops/test_linear.py", "test/ops/test_linear_dynamic.py",
    "test/ops/test_linear_weight_only.py", "test/ops/test_conv.py", "test/ops/test_conv_engines.py",
    "test/ops/test_conv_dynamic.py", "test/ops/test_embedding.py", "test/ops/test_elementwise.py",
    "test/ops/test_quantize.py", "test/ops/test_rnn.py", "test/ops/test_rnn_tensor_rule.py",
    "test/ops/test_output_sizes.py", "test/ops/test_large_results.py", "test/ops/test_conv_post_ops.py",
    "test/ops/test_attention.py", "test/ops/test_scaled_dot_product_attention.py", "test/ops/test_matmul.py",
    "test/ops/test_softmax.py", "test/ops/test_norm.py", "test/ops/test_batch_norm.py",
    "test/ops/test_cat.py", "test/ops/test_island.py", "test/ops/test_island_in_place.py",
    "test/ops/test_sparse_linear.py", "test/ops/test_weight_state.py", "test/ops/test_weight_aliases.py",
    "test/ops/test_weight_mutations.py", "test/ops/test_weight_races.py", "test/saved/test_round_trip.py",
]  # fmt: skip
SHORT_FILES = [
    "test/ops/test_embedding.py", "test/ops/test_rnn.py", "test/ops/test_sparse_linear.py",
    "test/ops/test_attention.py", "test/ops/test_scaled_dot_product_attention.py", "test/ops/test_matmul.py",
    "test/ops/test_softmax.py", "test/ops/test_norm.py", "test/ops/test_island.py",
    "test/ops/test_island_in_place.py", "test/ops/test_cat.py", "test/ops/test_elementwise.py",
    "test/ops/test_output_sizes.py", "test/ops/test_large_results.py", "test/ops/test_quantize.py",
]  # fmt: skip
# Reads a result of 2 MB that is dead, whose memory is kept for the next one (csrc/core/poison.h).
DEAD_RESULT = """
import ctypes
import torch
import torch_ao_ext
y = torch.ops.torch_ao.requantize(torch.zeros(2 << 20, dtype=torch.uint8), 0.1, 0, 0.1, 0)
place = y.data_ptr()
del y
ctypes.string_at(place, 100)
"""
# Not captured: a report ends the process.
PYTEST = [sys.executable, "-m", "pytest", "-q", "-x", "-s", "-p", "no:cacheprovider"]
# engine, cap, calls
HOSTILE = [
    ("", "", 20000), ("native", "", 5000), ("onednn", "", 2000), ("xnnpack", "", 2000),
    ("", "portable", 5000), ("", "avx2", 5000), ("", "avx_vnni", 5000), ("", "avx512", 5000),
]  # fmt: skip
SHORT_HOSTILE = [("", "", 6000), ("", "portable", 2000), ("", "avx2", 2000), ("", "avx512", 2000)]


def at_fixed_addresses(command, env):
    """The command without randomized addresses, if the system lets it: on kernels with 32 random bits
    a sanitizer finds its shadow memory taken. What is preloaded must not be so into setarch."""
    if shutil.which("setarch") is None or subprocess.run(["setarch", "-R", "true"]).returncode:
        return command, env
    rest = {name: value for name, value in env.items() if name != "LD_PRELOAD"}
    preload = [f"LD_PRELOAD={env['LD_PRELOAD']}"] if "LD_PRELOAD" in env else []
    return ["setarch", "-R", "env", *preload, *command], rest


class Leg:
    """One sanitizer: its build folder, environment and counts."""

    def __init__(self, name):
        self.name = name
        self.build = ROOT / "build" / name
        self.runs = self.findings = 0
        self.reports = self.build / "reports"

    def configure(self, short):
        """Configures and builds; the engines are those of the release build. The short form of ASan
        does without the C++ tests, which are a third of the work."""
        self.build.mkdir(parents=True, exist_ok=True)
        script = ROOT / "third_party" / "build.py"
        engines = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True)
        launcher = ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
        options = [
            f"-DTAE_SANITIZE={SANITIZERS[self.name]}", "-DTAE_BUILD_TESTS=ON",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DTAE_ENGINES_DIR={engines.stdout.strip().splitlines()[-1]}", *launcher,
        ]  # fmt: skip
        log = self.build / "build.log"
        target = ["torch_ao_ext", *(["op_race"] if self.name == "tsan" else [] if short else ["tae_tests"])]
        jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count())
        with open(log, "w") as output:
            for command in (
                ["cmake", "-S", ROOT, "-B", self.build, "-G", "Ninja", *options],
                ["cmake", "--build", self.build, "--parallel", jobs, "--target", *target],
            ):
                if subprocess.run(command, stdout=output, stderr=subprocess.STDOUT).returncode:
                    sys.exit(f"{self.name}: the build failed, see {log}")

    def environment(self, preload, **more):
        """Preloaded into Python. libstdc++ beside ASan: else the first C++ exception finds no real
        __cxa_throw and ends the process."""
        leaks = "0" if preload else "1"
        # Larger claims fail at once, as they do for hostile calls without ASan.
        memory = "allocator_may_return_null=1:max_allocation_size_mb=2048"
        env = {
            **os.environ,
            "ASAN_OPTIONS": f"detect_leaks={leaks}:detect_odr_violation=0:{memory}",
            "LSAN_OPTIONS": f"suppressions={HERE / 'leaks.txt'}:print_suppressions=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "TSAN_OPTIONS": f"suppressions={HERE / 'races.txt'}:history_size=7:exitcode=66",
            "OMP_NUM_THREADS": "1" if self.name == "tsan" else "2",
            **more,
        }
        if preload:
            names = {"asan": ("libasan.so", "libstdc++.so"), "tsan": ("libtsan.so",)}[self.name]
            found = [
                subprocess.run(["g++", f"-print-file-name={n}"], check=True, capture_output=True, text=True)
                for n in names
            ]
            env["LD_PRELOAD"] = " ".join(str(Path(f.stdout.strip()).resolve()) for f in found)
            env["TORCH_AO_EXT_LIBRARY"] = str(self.build / "libtorch_ao_ext.so")
            env["PYTHONPATH"] = str(ROOT)
        return env

    def run(self, what, command, preload=False, **variables):
        """Runs a command; a failure or a report is a finding."""
        begin = time.monotonic()
        env = self.environment(preload, **variables)
        fixed, rest = at_fixed_addresses(command, env)
        done = subprocess.run(fixed, cwd=ROOT, env=rest, capture_output=True, text=True, errors="replace")
        text = done.stdout + done.stderr
        bad = done.returncode != 0 or any(r in text for r in REPORTS)
        self.runs += 1
        self.findings += bad
        last = (done.stdout.strip().splitlines() or [""])[-1]
        how = "FOUND" if bad else "clean"
        print(f"{self.name}: {what}: {how} in {time.monotonic() - begin:.0f} s: {last}", flush=True)
        if bad:
            self.reports.mkdir(exist_ok=True)
            file = self.reports / f"{self.runs}.txt"
            file.write_text(text)
            settings = " ".join(f"{k}='{env[k]}'" for k in sorted(env) if os.environ.get(k) != env[k])
            print(f"  report: {file}\n  replay: env {settings} {' '.join(map(str, command))}")

    def control(self):
        """Each planted bug, in a process of its own."""
        library = self.build / "planted.so"
        flags = [f"-fsanitize={SANITIZERS[self.name]}", "-fno-sanitize-recover=all"]
        flags += ["-fPIC", "-shared", "-O0", "-g"]
        subprocess.run(["g++", *flags, HERE / "planted.cpp", "-o", library], check=True)
        bugs = {b: f"import ctypes, torch; ctypes.CDLL({str(library)!r}).{b}()" for b in PLANTED[self.name]}
        if self.name == "asan":
            bugs["dead_result"] = DEAD_RESULT
        for bug, code in bugs.items():
            command, env = at_fixed_addresses([sys.executable, "-c", code], self.environment(preload=True))
            done = subprocess.run(command, env=env, capture_output=True, text=True)
            if done.returncode == 0 or not any(r in done.stderr for r in REPORTS):
                sys.exit(f"{self.name}: the planted {bug} was not reported:\n{done.stdout}{done.stderr}")
        print(f"{self.name}: {len(bugs)} planted bugs reported", flush=True)


def asan(leg, short):
    """Catch2 with leak detection, generated calls and the tests of the operators."""
    tests = leg.build / "test" / "csrc" / "tae_tests"
    for level in () if short else ("portable", "avx2", "avx_vnni", "avx512", "amx"):
        names = ["~[fork]"]  # a child of a sanitized process ends in a leak check of its parent's threads
        leg.run(f"Catch2 at {level}", [tests, *names], TORCH_AO_EXT_MAX_ISA=level)
    for engine, level, calls in SHORT_HOSTILE if short else HOSTILE:
        command = [sys.executable, "test/ops/hostile_calls.py", "--calls", str(calls), "--engine", engine]
        level = {"TORCH_AO_EXT_MAX_ISA": level} if level else {}
        leg.run(f"hostile calls {engine or 'automatic'} {level}", command, preload=True, **level)
    for file in SHORT_FILES if short else FILES:
        leg.run(file, [*PYTEST, file], preload=True)


def tsan(leg, short):
    """All operators from many C++ threads, and the races of a weight's first use from Python."""
    threads, rounds = ("4", "2") if short else ("8", "25")
    with tempfile.TemporaryDirectory() as folder:
        calls = Path(folder) / "calls.pt"
        write = "import sys; sys.path[:0] = ['test/ops']; import test_memory as t; t.write_calls(sys.argv[1])"
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", write, calls], cwd=ROOT, env=env, check=True)
        leg.run("all operators", [leg.build / "test" / "csrc" / "op_race", calls, threads, rounds])
    # Not the race with detach(): torch copies the slot of a tensor without a lock (docs/design.md).
    test = ["test/ops/test_weight_races.py", "-k", "not detach and not fork"]
    leg.run("first use of a weight", [*PYTEST, *test], preload=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("leg", choices=sorted(SANITIZERS))
    parser.add_argument("--short", action="store_true", help="the form for continuous integration")
    options = parser.parse_args()
    begin = time.monotonic()
    leg = Leg(options.leg)
    leg.configure(options.short)
    built = time.monotonic() - begin
    leg.control()
    {"asan": asan, "tsan": tsan}[options.leg](leg, options.short)
    ran = time.monotonic() - begin - built
    print(f"{leg.name}: built in {built:.0f} s, {leg.runs} runs in {ran:.0f} s: {leg.findings} findings")
    return 1 if leg.findings else 0


if __name__ == "__main__":
    sys.exit(main())
