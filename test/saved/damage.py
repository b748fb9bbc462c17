"""Damaged files, by number.

    python test/saved/damage.py SEED FIRST LAST

loads the damaged files FIRST to LAST - 1 of a seed in this process and prints a line of
JSON for each, so that whoever started it knows at which file it died.
"""

import json
import random
import resource
import struct
import sys
import tempfile
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from saved_models import (
    Kinds,
    join,
    kinds_model,
    manifest_of,
    sign,
    sign_tensors,
    small_float_model,
    small_model,
    split,
)

from torch_ao_ext import load_quantized, save_quantized
from torch_ao_ext.quantization import quantize_dynamic

KINDS = ("bit in a tensor", "bit anywhere", "cut", "bytes", "header text", "entry", "manifest", "length",
         "crafted")  # fmt: skip

# Values of JSON that no reader expects in this place.
ODD = [
    None, True, -1, 0, 1, 2**31, 2**63, 2**64, 1e300, "", "x", "\ud800", "0" * 300, [], [[]], {}, {"a": {}},
    [0, 0], [0, 2**62], [-1, 5], [2**62, 8], "F32", "I8", "F4", "BOOL",
]  # fmt: skip


def tensor_at(data, position):
    """Name of the tensor that holds this byte of the file; None for the header."""
    header, body = split(data)
    offset = position - (len(data) - len(body))
    for name, entry in header.items():
        if name != "__metadata__" and entry["data_offsets"][0] <= offset < entry["data_offsets"][1]:
            return name
    return None


def flip(data, position, bit):
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


def _change(rng, node):
    """Changes, drops, doubles or renames one random part of a JSON value, in place."""
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(node[key], (dict, list)) and node[key] and rng.random() < 0.7:
            node = node[key]
            continue
        how = rng.randrange(4)
        if how == 0:
            node[key] = rng.choice(ODD)
        elif how == 1:
            del node[key]
        elif how == 2 and isinstance(node, dict):
            node[str(key) + "x"] = node.pop(key)
        else:
            node[key] = node[rng.choice(keys)]
        return


def _crafted(rng, data):
    header, body = split(data)
    names = [n for n in header if n != "__metadata__"]
    name, other = rng.sample(names, 2)
    text = json.dumps(header)
    huge = {"dtype": "I8", "shape": [2**31, 2**20], "data_offsets": [0, 2**51]}
    over = {"dtype": "F64", "shape": [2**62, 8], "data_offsets": [0, 0]}
    lengths = [2**63, 2**64 - 1, 2**40, len(data) * 2, len(data)]
    return rng.choice(
        [
            lambda: join(header | {name: header[other]}, body),  # overlap
            lambda: join({k: v for k, v in header.items() if k != name}, body),  # hole
            lambda: join(header, body + b"\0" * rng.randrange(1, 100)),  # bytes behind the end
            lambda: join(text.replace(f'"{name}"', f'"{other}"').encode(), body),  # key twice
            lambda: join(text.encode().replace(name.encode(), b"\xff\xfe" + name.encode()[2:]), body),
            lambda: join(b"[" * rng.randrange(1, 300_000), body),
            lambda: join(b'{"a":' * rng.randrange(1, 100_000), body),
            lambda: struct.pack("<Q", rng.choice(lengths)) + data[8:],
            lambda: join(header | {"huge": huge}, body),
            lambda: join(header | {"over": over}, body),
            lambda: data[: 8 + rng.randrange(len(text))],
            lambda: b"PK\x03\x04" + data,
        ]
    )()


def damaged(data, seed, number):
    """The file of this number, its kind, the damaged tensor when it is one, and whether it must fail.

    A change by meaning may leave a file that is right again; it must then give the
    right outputs, unless the change was signed: that is another model.
    """
    rng = random.Random(f"{seed} {number}")
    kind = KINDS[number % len(KINDS)]
    header, body = split(data)
    start = len(data) - len(body)
    if kind == "bit in a tensor":
        position = rng.randrange(start, len(data))
        return flip(data, position, rng.randrange(8)), kind, tensor_at(data, position), True
    if kind == "bit anywhere":
        position = rng.randrange(len(data))
        return flip(data, position, rng.randrange(8)), kind, tensor_at(data, position), True
    if kind == "cut":
        return data[: rng.randrange(len(data))], kind, None, True
    if kind == "bytes":
        changed = bytearray(data)
        begin = rng.randrange(len(data))
        for i in range(begin, min(len(data), begin + rng.randrange(1, 64))):
            changed[i] = rng.randrange(256)
        return bytes(changed), kind, None, bytes(changed) != data
    if kind == "header text":
        text = bytearray(json.dumps(header).encode())
        for _ in range(rng.randrange(1, 4)):
            i = rng.randrange(len(text))
            text[i : i + rng.randrange(3)] = bytes(rng.randrange(256) for _ in range(rng.randrange(3)))
        return join(bytes(text), body), kind, None, False
    if kind == "length":
        length = len(data) - len(body) - 8 + rng.choice([-8, -1, 1, 8, rng.randrange(10**4)])
        return struct.pack("<Q", max(0, length)) + data[8:], kind, None, True
    if kind == "crafted":
        return _crafted(rng, data), kind, None, True
    signed = rng.random() < 0.7
    manifest = manifest_of(header)
    if kind == "entry":
        _change(rng, {n: v for n, v in header.items() if n != "__metadata__"} if signed else header)
        try:
            if signed:
                sign_tensors(header, body, manifest)
        except Exception:
            signed = False  # no digest fits such a header
    else:
        _change(rng, manifest)
        sign(header, manifest)
    return join(header, body), kind + (" signed" if signed else ""), None, False


class Subject:
    """A model, its file, and a target with other weights."""

    def __init__(self, make, target, model_fn, x, path):
        save_quantized(make(), path)
        self.data, self.x, self.expected = path.read_bytes(), x, make()(x)
        self.target, self.model_fn = target, model_fn
        self.renew()

    def renew(self):
        self.live = self.target()
        self.before = self.live(self.x)
        self.state = {k: v.clone() for k, v in self.live.state_dict().items()}

    def changed(self):
        same = all(torch.equal(v, self.state[k]) for k, v in self.live.state_dict().items())
        return not same or not torch.equal(self.live(self.x), self.before)


def other_kinds_model():
    model = kinds_model()
    with torch.no_grad():
        model.recurrent.bias_ih_l0.add_(1)
        model.sparse.qweight.neg_()
    return model


def subjects(path):
    return [
        Subject(small_model, lambda: quantize_dynamic(small_float_model()), small_float_model,
                torch.randn(4, 24), path),
        Subject(kinds_model, other_kinds_model, Kinds, torch.randint(0, 11, (3, 5)), path),
    ]  # fmt: skip


def run(seed, first, last, out=sys.stdout):
    """One line per file; ends at the first file that is taken wrongly."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        both = subjects(path)
        for number in range(first, last):
            turn = number // len(KINDS)
            subject = both[turn % 2]
            changed, kind, tensor, must_fail = damaged(subject.data, seed, number)
            print(json.dumps({"number": number, "kind": kind}), file=out, flush=True)
            path.unlink(missing_ok=True)
            path.write_bytes(changed)
            options = ({"into": subject.live}, {}, {"model_fn": subject.model_fn})[turn // 2 % 3]
            problem = None
            message = ""
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            try:
                loaded = load_quantized(path, **options)
            except ValueError as error:
                message = str(error)
                if not message.startswith(f"load_quantized: '{path}': "):
                    problem = f"the text does not name the file: {message}"
                elif tensor is not None and f"'{tensor}'" not in message:
                    problem = f"the text does not name '{tensor}': {message}"
            except BaseException as error:
                problem = f"raised {type(error).__name__}: {error}"
            else:
                if must_fail:
                    problem = "loaded"
                elif "signed" not in kind and not torch.equal(loaded(subject.x), subject.expected):
                    problem = "loaded another model"
                if loaded is subject.live:  # right again: start over with a fresh target
                    subject.renew()
            if problem is None and message and "into" in options and subject.changed():
                problem = "the target changed"
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024
            if problem is None and grown > 2 * len(changed) + (64 << 20):
                problem = f"took {grown >> 20} MB for a file of {len(changed)} bytes"
            row = {"number": number, "kind": kind, "tensor": tensor, "message": message, "problem": problem}
            print(json.dumps(row), file=out, flush=True)


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
