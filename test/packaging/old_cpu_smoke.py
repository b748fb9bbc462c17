"""Runs every op of op_samples.py; test_old_cpus.py starts it on this CPU and on older ones.

    python old_cpu_smoke.py write FILE     the calls and what they give here
    python old_cpu_smoke.py check FILE     the same calls, on the CPU of this process

The calls are stored, not made again: torch's own normal_ gives other bits without AVX2.
"""

import copy
import json
import sys
from pathlib import Path

import torch

import torch_ao_ext

sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))
from op_samples import SETTINGS, all_samples, overload, registered  # noqa: E402

# Ops whose floats are this library's own arithmetic to the last bit. Others may use
# torch's float kernels, which round differently from CPU to CPU.
EXACT = ("linear", "quantize", "dequantize", "choose_qparams", "embedding")


def as_tuple(result):
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def compare(name, got, wanted):
    if not isinstance(wanted, torch.Tensor):  # nothing, or a report
        assert type(got) is type(wanted)
        return
    assert (got.dtype, got.shape, got.stride()) == (wanted.dtype, wanted.shape, wanted.stride())
    exact = not wanted.is_floating_point() or name.startswith(EXACT)
    tolerance = 0.0 if exact else 1e-5
    torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


def write(file):
    torch.manual_seed(0)
    calls = [(name, call) for name, all_calls in all_samples().items() for call in all_calls]
    # A copy runs: some ops write to their arguments.
    torch.save([(n, call, as_tuple(overload(n)(*copy.deepcopy(call)))) for n, call in calls], file)


def check_service():
    ops = torch.ops.torch_ao
    assert ops._init_error() == "" and ops._pack_count() > 0
    weight = torch.ones(2, 2, dtype=torch.int8)
    ops._set_dispatch_log(True)
    ops.linear_dynamic(torch.ones(1, 2), weight, torch.ones(1))
    ops._set_dispatch_log(False)
    assert len(json.loads(ops._explain(weight))["states"]) == 1
    ops._repack(weight)
    assert json.loads(ops._explain(weight))["states"] == []


def check(file):
    """Prints what ran where; an exception ends the process."""
    ran = set()
    for engine in ("", "native", "reference", "xnnpack"):
        torch_ao_ext.set_engine(engine)
        # Only the exact engines, which every machine shares.
        torch_ao_ext.set_deterministic(engine != "xnnpack")
        for name, call, wanted in torch.load(file, weights_only=False):
            try:
                result = as_tuple(overload(name)(*call))
            except NotImplementedError as error:
                assert engine == "xnnpack" and "xnnpack: " in str(error), (name, error)
                continue
            ran.add((engine, name))
            for got, expected in zip(result, wanted, strict=True) if engine != "xnnpack" else ():
                try:
                    compare(name, got, expected)
                except AssertionError as error:
                    raise AssertionError(f"{name} on engine '{engine}': {error}") from error
    names = {name for engine, name in ran if engine == ""}
    assert names == set(all_samples()) == registered() - SETTINGS
    assert ("xnnpack", "linear") in ran
    check_service()
    print(json.dumps({"isa": json.loads(torch.ops.torch_ao._info())["best_isa"], "ops": len(names)}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch_ao_ext.set_deterministic(True)
    {"write": write, "check": check}[sys.argv[1]](sys.argv[2])
