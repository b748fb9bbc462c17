"""Memory of a loaded model in a process of its own: `python memory_of.py FILE WORKERS [kinds]`.

The file holds linear layers in a row, or saved_models.big_kinds(). Prints a line of JSON:
bytes of weights, RSS growth after load and prepack and after a call, and the PSS of the
workers forked from here, each after a call. Also used by benchmarks/models/load.py.
"""

import ctypes
import gc
import json
import os
import sys
from pathlib import Path

import torch

import torch_ao_ext
from torch_ao_ext.quantization import quantize_dynamic


def rollup(name):
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def settled(name):
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return rollup(name)


def worker(model, x, report, release):
    """Runs the model, reports that, waits until all have, then reports its PSS."""
    model(x)
    os.write(report, b"r")
    os.read(release, 1)
    os.write(report, settled("Pss").to_bytes(8, "little"))
    os.read(release, 1)  # stay until all have measured
    os._exit(0)


def workers_pss(model, x, count):
    """PSS of each of `count` forked workers, all alive and warm."""
    ends = []
    for _ in range(count):
        report, release = os.pipe(), os.pipe()
        if os.fork() == 0:
            worker(model, x, report[1], release[0])
        ends.append((report[0], release[1]))
    for report, _ in ends:
        assert os.read(report, 1) == b"r"
    for _, release in ends:
        os.write(release, b"g")
    # All alive; this process holds its share of what it has in common with them.
    result = [int.from_bytes(os.read(report, 8), "little") for report, _ in ends]
    for _, release in ends:
        os.write(release, b"g")
    for _ in range(count):
        os.wait()
    return result


def main():
    path, count = sys.argv[1], int(sys.argv[2])
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)  # a child of a process with more threads runs serially, too
    warm = quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(64, 64)))
    warm(torch.randn(4, 64))
    torch_ao_ext.save_quantized(warm, path + ".warm")
    torch_ao_ext.load_quantized(path + ".warm")(torch.randn(4, 64))
    os.remove(path + ".warm")
    model_fn = None
    if sys.argv[3:] == ["kinds"]:
        from saved_models import Kinds, big_kinds, kinds_model

        model_fn = big_kinds
        torch_ao_ext.save_quantized(kinds_model(), path + ".warm")
        torch_ao_ext.load_quantized(path + ".warm", Kinds)(torch.arange(10).reshape(2, 5))
        os.remove(path + ".warm")

    before, before_anon = settled("Rss"), settled("Anonymous")
    model = torch_ao_ext.load_quantized(path, model_fn)
    loaded = settled("Rss") - before
    int8 = sum(b.nbytes for b in model.buffers() if b.dtype in (torch.int8, torch.uint8, torch.int16))
    x = torch.randn(4, model[0].in_features) if model_fn is None else torch.arange(20).reshape(4, 5)
    model(x)
    facts = {
        "int8_bytes": int8,
        "loaded_rss": loaded,
        "called_rss": settled("Rss") - before,
        "called_anonymous": settled("Anonymous") - before_anon,
    }
    facts["one_pss"] = settled("Pss")  # of this process, alone
    gc.freeze()  # a collection in a worker would write to every object of this process
    facts["workers_pss"] = workers_pss(model, x, count)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
