"""Builds and runs fuzz_ops, the libFuzzer target of the operators, with ASan and UBSan.

    python test/fuzz/ops.py --seconds 60 [--planted]

clang instruments own code in build/fuzz; LibTorch and the engines stay plain. A report of a
sanitizer, an exception outside the contract, or a native result that is not the reference
engine's is a finding; its input is kept and the command to replay it printed. With --planted
the target reads one byte too many behind four conditions: the control that must be found (exit
code 0 when it is, 1 when it is not).
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "fuzz"
CLANG = ("clang-14", "clang++-14")
SANITIZERS = "fuzzer-no-link,address,undefined"


def build():
    """Builds the target; returns the program."""
    BUILD.mkdir(parents=True, exist_ok=True)
    script = ROOT / "third_party" / "build.py"
    engines = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True)
    options = [
        f"-DCMAKE_C_COMPILER={CLANG[0]}", f"-DCMAKE_CXX_COMPILER={CLANG[1]}", f"-DTAE_SANITIZE={SANITIZERS}",
        "-DTAE_BUILD_FUZZERS=ON", f"-DPython_EXECUTABLE={sys.executable}",
        f"-DTAE_ENGINES_DIR={engines.stdout.strip().splitlines()[-1]}",
    ]  # fmt: skip
    jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count())
    log = BUILD / "build.log"
    with open(log, "w") as output:
        for command in (
            ["cmake", "-S", ROOT, "-B", BUILD, "-G", "Ninja", *options],
            ["cmake", "--build", BUILD, "--parallel", jobs, "--target", "fuzz_ops"],
        ):
            if subprocess.run(command, stdout=output, stderr=subprocess.STDOUT).returncode:
                sys.exit(f"fuzz_ops: the build failed, see {log}")
    return BUILD / "test" / "fuzz" / "fuzz_ops"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--planted", action="store_true")
    options = parser.parse_args()
    program = build()
    name = "fuzz_ops, planted bug" if options.planted else "fuzz_ops"
    out = BUILD / ("planted" if options.planted else "findings")
    corpus = out / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={options.seconds}", f"-seed={options.seed}", "-max_len=256", "-len_control=0"]
    limits += ["-timeout=20", "-rss_limit_mb=4096", "-detect_leaks=0", "-print_final_stats=1"]
    limits += [f"-artifact_prefix={out}/"]
    env = {**os.environ, **({"FUZZ_PLANTED": "1"} if options.planted else {})}
    env["ASAN_OPTIONS"] = "detect_odr_violation=0:allocator_may_return_null=1"
    done = subprocess.run(
        [program, *limits, corpus], env=env, capture_output=True, text=True, errors="replace"
    )
    text = done.stdout + done.stderr
    count = max(map(int, re.findall(r"(?:^#|number_of_executed_units: )(\d+)", text, re.M)), default=0)
    found = done.returncode != 0
    print(f"{name}: {count} executions, seed {options.seed}, {int(found)} findings")
    if options.planted:
        if not (found and "heap-buffer-overflow" in text and "plant(" in text):
            print(text[-3000:] + "\nthe planted bug was not found")
            return 1
        return 0
    if found:
        print(text[-6000:])
        print(f"replay: {program} {out}/<file printed above>")
    return 1 if found or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
