"""Results of 32 MB and more lie in huge pages."""

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
