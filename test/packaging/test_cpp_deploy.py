"""A C++ program without Python runs int8 models: test/cpp_deploy, built against this package."""

import importlib
import subprocess
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import torch_ao_ext
from torch_ao_ext.quantization import get_default_qconfig_mapping, quantize_dynamic
from torch_ao_ext.quantization.quantize_fx import convert_fx, prepare_fx

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "test" / "cpp_deploy"


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    build = tmp_path_factory.mktemp("build")
    run(
        "cmake", "-S", SOURCE, "-B", build, "-DCMAKE_BUILD_TYPE=Release",
        f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}",
        f"-DTORCH_AO_EXT_LIBRARY={torch_ao_ext.library_path()}",
    )  # fmt: skip
    run("cmake", "--build", build)
    binary = build / "run_model"
    assert "libpython" not in run("ldd", binary)
    return binary


def data(folder, x):
    """An archive with the tensor that the program reads."""

    class Data(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("x", x)

        def forward(self):
            return self.x

    torch.jit.script(Data()).save(folder / "data.pt")
    return folder / "data.pt"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean([2, 3]))


def static():
    x = torch.randn(4, 3, 8, 8)
    observed = prepare_fx(Net().eval().requires_grad_(False), get_default_qconfig_mapping("onednn"), (x,))
    observed(x)
    return convert_fx(observed), x


def dynamic():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4)).eval()
    return quantize_dynamic(model), torch.randn(4, 16)


@pytest.mark.parametrize("make", [static, dynamic])
@pytest.mark.parametrize("form", ["script", "trace", "package"])
def test_results_are_those_of_python(program, make, form, tmp_path):
    warnings.simplefilter("ignore")
    model, x = make()
    path = tmp_path / ("model.pt2" if form == "package" else "model.pt")
    if form == "script":
        torch.jit.script(model).save(path)
    elif form == "trace":
        torch.jit.trace(model, x).save(path)
    else:
        exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        torch._inductor.aoti_compile_and_package(exported, package_path=str(path))
    for size in (1, 4, 7):
        batch = torch.randn(size, *x.shape[1:])
        run(program, path, data(tmp_path, batch), tmp_path / "y.pt")
        have = torch.load(tmp_path / "y.pt")
        want = model(batch)
        assert have.shape == want.shape
        if form == "package" and make is dynamic:  # the float GELU between is the compiler's
            assert (have - want).abs().max() < 1e-3
        else:
            assert torch.equal(have, want)


def test_the_residual_block_of_the_docs(program, tmp_path, monkeypatch, capsys):
    """Its page as it stands: Python, TorchScript and C++ give the same bits."""
    page = (ROOT / "docs" / "residual_block.md").read_text()
    shown = page.split("```cpp\n")[1].split("```")[0]
    assert shown in (SOURCE / "residual_block.cpp").read_text()
    monkeypatch.chdir(tmp_path)
    code = tmp_path / "page.py"  # a file: TorchScript reads the source of a class
    code.write_text(page.split("```python\n")[1].split("```")[0])
    monkeypatch.syspath_prepend(tmp_path)
    names = vars(importlib.import_module("page"))
    assert float(capsys.readouterr().out.split()[-1]) < 0.02
    for size in (1, 3):
        batch = torch.randn(size, 32, 9, 11)
        want = names["int8"](batch)
        assert (want - names["block"](batch)).norm() < 0.05 * want.norm()
        assert torch.equal(torch.jit.load("block.pt")(batch), want)
        run(program.parent / "residual_block", "block.pt", data(tmp_path, batch), "y.pt")
        assert torch.equal(torch.load("y.pt"), want)


def test_a_wrong_file_is_an_error(program, tmp_path):
    done = subprocess.run([program, "none.pt", "none.pt", tmp_path / "y.pt"], capture_output=True, text=True)
    assert done.returncode == 1 and "none.pt" in done.stderr
