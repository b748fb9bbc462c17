"""The same file on CPUs without AVX: qemu-user stands in for them."""

import shutil
import subprocess
import sys
import textwrap

import pytest

QEMU = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")

SMOKE = textwrap.dedent("""
    import torch, torch_ao_ext
    torch.set_num_threads(1)
    torch.manual_seed(0)
    # Exact inputs: torch's own normal_ gives other bits on CPUs without AVX2.
    x = torch.randint(-4000, 4000, (5, 67)) / 1024
    w = torch.randint(-128, 128, (33, 67), dtype=torch.int8)
    s = torch.randint(1, 100, (33,)) / 8192
    b = torch.randint(-4000, 4000, (33,)) / 1024
    u = torch.randint(0, 256, (5, 67), dtype=torch.uint8)
    ops = torch.ops.torch_ao
    def digest(t):
        return (t.view(torch.int32).long() * torch.arange(1, t.numel() + 1).view(t.shape)).sum().item()
    for engine in ["", "native", "reference", "xnnpack"]:
        torch_ao_ext.set_engine(engine)
        try:
            y = ops.linear(u, 0.02, 7, w, s, None, b, 0.5, 3)
            d = ops.linear_dynamic(x, w, s, None, b)
        except NotImplementedError as error:
            assert engine == "xnnpack", error
            print("refused", error)
            continue
        print("result", engine or "auto", digest(y.int()), digest(d))
    torch_ao_ext.set_engine("")
    scale, zero_point = ops.choose_qparams(x, 0, 255)
    q = ops.quantize_per_tensor(x, scale.item(), zero_point.item(), 0, 255, torch.uint8)
    back = ops.dequantize_per_tensor(q, scale.item(), zero_point.item())
    print("result quantize", digest(q.int()), digest(back))
    print("isa", __import__("json").loads(ops._info())["best_isa"])
""")


def smoke(*prefix):
    command = [*prefix, sys.executable, "-c", SMOKE]
    result = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert result.returncode == 0, result.stderr[-2000:]
    return [line for line in result.stdout.splitlines() if line]


@pytest.fixture(scope="module")
def native():
    return smoke()


@pytest.mark.parametrize("cpu, isa", [("Nehalem", "portable"), ("Haswell", "avx2")])
def test_same_integers_on(cpu, isa, native):
    # make test installs qemu; a machine without it must not pass in silence.
    assert QEMU, "qemu-x86_64-static is missing: run third_party/system_packages.sh test"
    old = smoke(QEMU, "-cpu", cpu)
    assert f"isa {isa}" in old
    wanted = [line for line in native if line.startswith("result")]
    # XNNPACK's float results may differ in the last bits, and it may be the automatic choice.
    for kind in ("native", "reference", "quantize"):
        ours = [line for line in old if line.startswith(f"result {kind}")]
        assert len(ours) == 1
        assert ours == [line for line in wanted if line.startswith(f"result {kind}")]
