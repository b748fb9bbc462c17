"""differential.csv: for each module of torch.ao's eager mode a test that runs torch.ao beside it."""

import ast
import csv
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROWS = list(csv.DictReader((HERE / "differential.csv").open()))
# Tests of this kind run torch.ao, by one of these.
_SIGNS = ("torch.ao", "peer(", "theirs", "torch_ao", "their_", "load_torch_ao")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["module"])
def test_row(row):
    ours = Path(HERE.parent / "torch_ao_ext", *row["module"].split("."))
    assert ours.with_suffix(".py").exists() or ours.is_dir(), "no such module"
    assert row["tests"]
    for name in row["tests"].split():
        file, function = name.split("::")
        source = (HERE / file).read_text()
        found = {n.name: n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)}
        assert function in found, name
        assert any(sign in source for sign in _SIGNS), f"{file} does not run torch.ao"


def test_every_module_has_a_row():
    """Public modules of eager mode, but for packages that only hand names on."""
    known = {row["module"] for row in ROWS}
    root = HERE.parent / "torch_ao_ext"
    missing = []
    for folder in ("nn/intrinsic", "nn/qat", "nn/quantizable", "nn/quantized"):
        for path in sorted((root / folder).rglob("*.py")):
            module = ".".join(path.relative_to(root).with_suffix("").parts)
            private = any(part.startswith("_") for part in path.relative_to(root).parts)
            if not private and not any(module == k or module.startswith(f"{k}.") for k in known):
                missing.append(module)
    assert missing == OWN


# What torch.ao does not have, or has elsewhere.
OWN = [
    "nn.quantized.dynamic.modules.activation", "nn.quantized.dynamic.modules.rnn_cells",
    "nn.quantized.dynamic.modules.transformer", "nn.quantized.modules.attention",
    "nn.quantized.modules.dropout", "nn.quantized.modules.linear_weight_only", "nn.quantized.modules.stubs",
]  # fmt: skip
