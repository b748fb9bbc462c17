"""Lowered graphs in TorchScript: scripted and traced, their sizes stay free."""

import copy
import pickle

import pytest
import torch
from torch import nn

from torch_ao_ext.quantization import get_default_qconfig_mapping
from torch_ao_ext.quantization.fx.custom_config import PrepareCustomConfig
from torch_ao_ext.quantization.quantize_fx import convert_fx, prepare_fx


class Images(nn.Module):
    """Reads its batch size in a view, in arithmetic and in an expand."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)
        self.token = nn.Parameter(torch.randn(1, 1, 4))

    def forward(self, x):
        y = torch.relu(self.conv(x))
        rows = y.view(y.size(0), 4, -1).transpose(1, 2)
        rows = torch.cat([self.token.expand(x.shape[0], -1, -1), rows], 1)
        return self.fc(rows).reshape(x.shape[0] * rows.shape[1], 2)


class Numbers(nn.Module):
    """Takes its batch size as a number, for tensors and for a comparison."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        size = x.shape[0]
        rows = torch.arange(size) + torch.arange(1, size + 1) + torch.ones(size) + torch.full((size,), 0.5)
        rows = torch.where(rows < size, rows, torch.zeros(size))
        return self.fc(x) + rows[:, None]


class Halves(nn.Module):
    """Cuts by a size: a trace holds the cut."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(x)[: x.shape[0] // 2]


class Nested(nn.Module):
    """Several inputs and a structure of outputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, x, y):
        p, q = self.a(x), self.b(y)
        return p + q, (p, [q])


def int8(model, *inputs, **options):
    observed = prepare_fx(model.eval(), get_default_qconfig_mapping("onednn"), inputs, **options)
    with torch.no_grad():
        observed(*inputs)
    return convert_fx(observed)


def batch(size, *rest):
    torch.manual_seed(size)
    return torch.randn(size, *rest)


@pytest.fixture(scope="module")
def images():
    return int8(Images(), batch(2, 3, 8, 8))


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("how", ["script", "trace", "script of a copy", "script of a pickle", "saved"])
def test_free_batch(images, how, tmp_path):
    if how == "trace":
        program = torch.jit.trace(images, batch(2, 3, 8, 8))
    elif how == "script of a copy":
        program = torch.jit.script(copy.deepcopy(images))
    elif how == "script of a pickle":
        program = torch.jit.script(pickle.loads(pickle.dumps(images)))
    else:
        program = torch.jit.script(images)
    if how == "saved":
        torch.jit.save(program, tmp_path / "program.pt")
        program = torch.jit.load(tmp_path / "program.pt")
    for size in (1, 2, 5):
        x = batch(size, 3, 8, 8)
        want = images(x)
        assert want.shape == (size * 37, 2) and torch.equal(program(x), want)


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("make", [torch.jit.script, lambda graph: torch.jit.trace(graph, batch(4, 6))])
def test_sizes_as_numbers(make):
    graph = int8(Numbers(), batch(4, 6))
    program = make(graph)
    for size in (1, 4, 9):
        x = batch(size, 6)
        assert torch.equal(program(x), graph(x))


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_inputs_of_scripts_are_checked(images):
    program = torch.jit.script(images)
    with pytest.raises(torch.jit.Error, match=r"must have sizes \[-1, 3, 8, 8\] \(-1: any\), got \[5, 2"):
        program(batch(5, 2, 8, 8))
    with pytest.raises(torch.jit.Error, match="'x' must have c10::ScalarType 6, got 7"):
        program(batch(5, 3, 8, 8).double())


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_size_that_a_trace_cannot_hold():
    graph = int8(Halves(), batch(4, 6))
    program = torch.jit.script(graph)
    for size in (2, 4, 8):
        assert torch.equal(program(batch(size, 6)), graph(batch(size, 6)))
    with pytest.warns(torch.jit.TracerWarning, match="holds the sizes of its example inputs as constants"):
        torch.jit.trace(graph, batch(4, 6))


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_structures(images):
    graph = int8(Nested(), batch(2, 6), batch(3, 6)[:2])
    x, y = batch(5, 6), batch(7, 6)[:5]
    want, have = graph(x, y), torch.jit.script(graph)(x, y)
    assert torch.equal(want[0], have[0]) and torch.equal(want[1][0], have[1][0])
    assert isinstance(have[1][1], list) and torch.equal(want[1][1][0], have[1][1][0])


class Branch(nn.Module):
    """torch.export does not look inside."""

    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


@pytest.mark.filterwarnings("ignore:`torch.jit", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("kind", [nn.Sigmoid, Branch])
def test_modules_that_stay_whole_are_operators_of_scripts(kind):
    model = nn.Sequential(nn.Linear(6, 6), kind(), nn.Linear(6, 6))
    config = PrepareCustomConfig().set_non_traceable_module_classes([kind])
    graph = int8(model, batch(4, 6), prepare_custom_config=config)
    if kind is Branch:
        with pytest.raises(RuntimeError, match=r"called whole \(1\) must be .*; trace the model instead"):
            torch.jit.script(graph)
        return
    assert torch.equal(torch.jit.script(graph)(batch(5, 6)), graph(batch(5, 6)))
    assert torch.equal(torch.jit.trace(graph, batch(4, 6))(batch(5, 6)), graph(batch(5, 6)))
