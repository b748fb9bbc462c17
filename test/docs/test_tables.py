"""Tables in the docs are compared with the code: both would rot otherwise."""

import csv
import re
from pathlib import Path

import pytest
import torch

import torch_ao_ext

ROOT = Path(__file__).resolve().parents[2]
ENGINES = {"native", "onednn", "xnnpack", "reference"}


def support_table():
    with open(ROOT / "docs" / "op_support.csv", newline="") as file:
        return {row["op"]: row for row in csv.DictReader(file)}


def registered_ops():
    names = {s.name.removeprefix("torch_ao::") for s in torch._C._jit_get_all_schemas()
             if s.name.startswith("torch_ao::")}
    return {name for name in names if not name.startswith("_")}


def test_support_table_lists_exactly_the_registered_ops():
    assert set(support_table()) == registered_ops()


@pytest.mark.parametrize("op", ["linear", "linear_relu", "linear_leaky_relu", "linear_tanh", "linear_add",
                                "linear_add_relu", "linear_bn", "linear_bn_relu", "linear_dynamic",
                                "linear_relu_dynamic"])
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_engines_of_the_support_table(op, engine):
    """A forced engine runs the op with its plainest arguments, or refuses and is not listed."""
    weight, scale = torch.randint(-128, 128, (8, 16), dtype=torch.int8), torch.full((8,), 0.01)
    call = getattr(torch.ops.torch_ao, op)
    if op.endswith("dynamic"):
        arguments = (torch.randn(3, 16), weight, scale)
    else:
        x = torch.randint(0, 256, (3, 16), dtype=torch.uint8)
        batch_norm = (torch.zeros(8), torch.ones(8), None, None, 1e-5) if "_bn" in op else ()
        arguments = (x, 0.1, 3, weight, scale, None, None, *batch_norm, 0.5, 7)
    if "_add" in op:
        arguments += (None, torch.randint(0, 256, (3, 8), dtype=torch.uint8))
    torch_ao_ext.set_engine(engine)
    try:
        call(*arguments)
        runs = True
    except NotImplementedError as error:
        assert engine in str(error)
        runs = False
    finally:
        torch_ao_ext.set_engine("")
    if engine in ("native", "reference"):
        assert runs
    if runs or engine != "onednn":  # oneDNN needs VNNI to be exact: absent on older CPUs
        assert runs == (engine in support_table()[op]["engines"].split())


def test_readme_layout_names_the_folders_that_exist():
    readme = (ROOT / "README.md").read_text()
    layout = readme.split("## Layout")[1].split("## ")[0]
    listed = set(re.findall(r"^\| `([\w/]+)` ", layout, re.MULTILINE))
    assert listed, "README has no layout table"
    for folder in listed:
        assert (ROOT / folder).exists(), folder
    for folder in ("csrc", "torch_ao_ext"):
        inside = {f"{folder}/{p.name}" for p in (ROOT / folder).iterdir()
                  if p.is_dir() and p.name not in ("__pycache__", "lib", "licenses")}
        assert inside <= listed, inside - listed


def test_environment_variables_are_documented():
    code = "".join(p.read_text() for folder in ("csrc", "torch_ao_ext") for p in (ROOT / folder).rglob("*")
                   if p.suffix in (".cpp", ".h", ".py"))
    used = set(re.findall(r'"(TORCH_AO_EXT_[A-Z_]+)"', code))
    assert len(used) >= 5
    readme = (ROOT / "README.md").read_text()
    assert {name for name in used if name not in readme} == set()


def test_the_code_of_the_eager_page_runs(capsys):
    page = (ROOT / "docs" / "eager.md").read_text()
    names = {}
    for part in page.split("```python\n")[1:]:
        exec(part.split("```")[0], names)  # noqa: S102
    printed = capsys.readouterr().out
    assert "torch.Size([2, 10])" in printed and "ConvReLU2d 1/1, Linear 1/1" in printed
    assert "alone dB" in printed


def test_the_code_of_the_fx_page_runs(capsys):
    page = (ROOT / "docs" / "fx.md").read_text()
    exec(page.split("```python\n")[1].split("```")[0], {})  # noqa: S102
    printed = capsys.readouterr().out
    assert "torch.Size([5, 10])" in printed and "conv2d 1/1" in printed and "linear 1/1" in printed


def test_the_code_of_the_pt2e_page_runs(capsys):
    page = (ROOT / "docs" / "pt2e.md").read_text()
    exec(page.split("```python\n")[1].split("```")[0], {})  # noqa: S102
    printed = capsys.readouterr().out
    assert "conv2d 1/1" in printed and "max_pool2d 1/1" in printed
