"""Fuzzes load_quantized: coverage of torch_ao_ext/_saved guides what is tried next.

    python test/fuzz/load_saved.py --seconds 60 [--planted]

Anything but a ValueError that names the file, a target that changed, or memory beyond the
limit is a finding; the input that shows it is kept and the command to replay it printed.
Inputs are changed byte by byte and by meaning; most get digests that fit, or nothing
behind the digest would run. With --planted one check of the loader is deleted: the control
that must be found (exit code 0 when it is, 1 when it is not).
"""

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "test" / "saved"))

with atheris.instrument_imports(include=["torch_ao_ext._saved"]):
    from torch_ao_ext import load_quantized
    from torch_ao_ext._saved import manifest

import torch  # noqa: E402
from damage import _change, _crafted  # noqa: E402
from saved_models import (  # noqa: E402
    join,
    manifest_of,
    sign,
    sign_tensors,
    small_file,
    small_float_model,
    split,
)

from torch_ao_ext.quantization import quantize_dynamic  # noqa: E402

MAX_BYTES = 1 << 16


def plant():
    """Deletes the check of the aliases: a `tied` entry may then name no tensor."""

    original = manifest.Manifest.loads

    def loads(text):
        parts = manifest.loads_unique(text)
        if not isinstance(parts, dict) or not isinstance(parts.get("tied"), dict):
            return original(text)
        tied = {k: v for k, v in parts["tied"].items() if isinstance(v, str)}
        result = original(json.dumps(parts | {"tied": {}}))
        result.tied = tied
        return result

    manifest.Manifest.loads = staticmethod(loads)


def mutate(data, max_size, seed):
    """One change: by meaning with fitting digests, by meaning without, or of bytes."""
    rng = random.Random(seed)
    try:
        header, body = split(data)
        parts = manifest_of(header)
        how = rng.randrange(10)
        if how < 5:
            _change(rng, parts)
            sign(header, parts)
            result = join(header, body)
        elif how < 7:
            _change(rng, {n: v for n, v in header.items() if n != "__metadata__"})
            sign_tensors(header, body, parts)
            result = join(header, body)
        elif how < 8:
            changed = bytearray(body)
            changed[rng.randrange(len(body))] = rng.randrange(256)
            sign_tensors(header, bytes(changed), parts)
            result = join(header, bytes(changed))
        elif how < 9:
            result = _crafted(rng, data)
        else:
            result = atheris.Mutate(data, max_size)
    except Exception:  # the input is no file that can be taken apart: bytes it is
        result = atheris.Mutate(data, max_size)
    return result if len(result) <= max_size else result[:max_size]


class Target:
    """Writes each input to a file in memory and loads it in one of three ways."""

    def __init__(self, folder):
        self.path = folder / "model.safetensors"
        self.renew()

    def renew(self):
        self.live = quantize_dynamic(small_float_model())
        self.state = [(b, b.clone()) for b in self.live.buffers()]

    def __call__(self, data):
        self.path.unlink(missing_ok=True)  # a file that is mapped is never written to
        self.path.write_bytes(data)
        options = ({"into": self.live}, {}, {"model_fn": small_float_model})[len(data) % 3]
        try:
            load_quantized(self.path, **options)
        except ValueError as error:
            if not str(error).startswith(f"load_quantized: '{self.path}': "):
                raise AssertionError(f"the text does not name the file: {error}") from error
        else:
            if "into" in options:
                self.renew()
            return
        now = list(self.live.buffers())
        if len(now) != len(self.state) or any(
            a is not b or not torch.equal(b, c) for a, (b, c) in zip(now, self.state, strict=True)
        ):
            raise AssertionError("the target changed")


def fuzz(arguments, planted):
    """Runs in a child of main: libFuzzer ends the process."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if planted:
        plant()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        target = Target(Path(folder))
        atheris.Setup([sys.argv[0], *arguments], target, custom_mutator=mutate)
        atheris.Fuzz()


def main():
    if "--child" in sys.argv:
        fuzz([a for a in sys.argv[1:] if a not in ("--child", "--planted")], "--planted" in sys.argv)
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--planted", action="store_true")
    options = parser.parse_args()
    out = ROOT / "build" / "fuzz" / ("planted" if options.planted else "load_saved")
    corpus = out / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    small_file(corpus / "small.safetensors")
    command = [sys.executable, __file__, "--child", *(["--planted"] if options.planted else [])]
    limits = [f"-max_total_time={options.seconds}", f"-seed={options.seed}", f"-max_len={MAX_BYTES}"]
    limits += ["-timeout=10", "-rss_limit_mb=2048", f"-artifact_prefix={out}/", "-verbosity=1"]
    run = subprocess.run([*command, *limits, str(corpus)], capture_output=True, text=True)
    text = run.stdout + run.stderr
    runs = re.findall(r"^#(\d+)\s", text, re.MULTILINE) or re.findall(r"Done (\d+) runs", text)
    count = max(map(int, runs), default=0)
    name = "load_saved, planted bug" if options.planted else "load_saved"
    found = run.returncode != 0
    print(f"fuzz {name}: {count} executions, seed {options.seed}, {'1 finding' if found else '0 findings'}")
    if found and not options.planted:
        print(text[-4000:])
        print(f"replay: {' '.join(command)} {out}/<file printed above>")
        return 1
    if options.planted and not (found and "KeyError" in text):
        print(text[-2000:])
        print("the planted bug was not found")
        return 1
    if count == 0:
        print(text[-2000:])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
