"""Results of 32 MB and more lie in huge pages; memory of 1 MB and more is kept for the next ones."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")
given = SWITCH.exists() and "[never]" not in SWITCH.read_text()


def huge_bytes(t):
    """What the kernel counts as huge pages around a tensor's memory."""
    address, inside, total = t.data_ptr() + t.nbytes // 2, False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *rest = line.split()
        if "-" in name and not name.endswith(":"):
            first, last = (int(part, 16) for part in name.split("-"))
            inside = first <= address < last
        elif inside and name == "AnonHugePages:":
            total += 1024 * int(rest[0])
    return total


@pytest.mark.skipif(not given, reason="this system gives no huge pages")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_large_results(layout):
    x = torch.randint(0, 256, (16, 64, 256, 256), dtype=torch.uint8).to(memory_format=layout)
    y = torch.ops.torch_ao.requantize(x, 0.1, 3, 0.1, 3, None, "relu")
    assert y.nbytes == 64 << 20 and huge_bytes(y) >= 32 << 20
    assert torch.equal(y, x.clamp(min=3)) and y.is_contiguous(memory_format=layout)


def _copy_of(x):
    return torch.ops.torch_ao.requantize(x, 0.1, 0, 0.1, 0, None)


def test_memory_of_large_results_is_kept():
    x = torch.randint(0, 256, (40 << 20,), dtype=torch.uint8)
    first, second = _copy_of(x), _copy_of(x)
    places = {first.data_ptr(), second.data_ptr()}
    view = second[5:]
    del first, second  # the view still holds its block
    third, fourth = _copy_of(x[: 36 << 20]), _copy_of(x)
    assert third.data_ptr() in places and fourth.data_ptr() not in places
    assert torch.equal(view, x[5:]) and torch.equal(third, x[: 36 << 20]) and torch.equal(fourth, x)
    fourth.resize_(60 << 20)  # grows in memory of torch's
    assert torch.equal(fourth[: 40 << 20], x)


@pytest.mark.parametrize("megabytes", [1, 12, 40])
def test_the_last_memory_is_handed_out_first(megabytes):
    x = torch.randint(0, 256, (megabytes << 20,), dtype=torch.uint8)
    first, second = _copy_of(x), _copy_of(x)
    places = [first.data_ptr(), second.data_ptr()]
    del first, second
    third = _copy_of(x)
    fourth = _copy_of(x)
    assert [fourth.data_ptr(), third.data_ptr()] == places
    assert torch.equal(third, x) and torch.equal(fourth, x)


# argv: the size of a result, and what there is for it beside the kept block, in MB.
_GIVEN_UP = """
import resource
import sys
import torch
import torch_ao_ext

size, left = (int(megabytes) << 20 for megabytes in sys.argv[1:])
x = torch.zeros(150 << 20, dtype=torch.uint8)
torch.ops.torch_ao.requantize(x[: 100 << 20], 0.1, 0, 0.1, 0, None)  # dies; its block is kept
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + left,) * 2)
assert torch.ops.torch_ao.requantize(x[:size], 0.1, 0, 0.1, 0, None).nbytes == size
"""


@pytest.mark.parametrize(("size", "left"), [(150, 100), (20, 10)])
def test_kept_memory_is_given_up_when_there_is_no_other(size, left):
    subprocess.run([sys.executable, "-c", _GIVEN_UP, str(size), str(left)], check=True)
