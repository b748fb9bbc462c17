"""TorchScript mode: quantize_jit, quantize_dynamic_jit and their steps."""

import copy
import warnings

import pytest
import torch
from eager_models import images, resnet
from torch import nn
from torch_ao_peer import peer

from torch_ao_ext import quantization as tq
from torch_ao_ext.nn import quantized as nnq


@pytest.fixture(autouse=True)
def _quiet(_warnings_are_errors):
    """torch.ao warns of the dtypes of its tensors, and of its own arguments."""
    warnings.filterwarnings("ignore", message=r"torch\.quantize_per_tensor")
    warnings.filterwarnings("ignore", message="Please use quant_min and quant_max")
    warnings.filterwarnings("ignore", message=".*torch.jit.*is deprecated", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor")
    warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
    warnings.filterwarnings("ignore", message="The input to trace is already a ScriptModule")


def sqnr(want, have):
    want, have = want.detach(), have.detach()
    return float(10 * torch.log10(want.pow(2).sum() / (want - have).pow(2).sum()))


def run(model, batches):
    for x in batches:
        model(x)


def ops_of(program):
    nodes = [n.kind() for n in program.inlined_graph.nodes()]
    return {kind: nodes.count(kind) for kind in nodes if kind.startswith("torch_ao::")}


class Net(nn.Module):
    """Convolution, batch norm, a branch by size, a view and linear layers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.c = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.c[1].running_mean.uniform_(-1, 1)
        self.head = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        self.classes = 2

    def forward(self, x):
        x = self.c(x)
        if x.size(2) > 3:
            x = x * 2
        return self.head(x.view(x.size(0), 4, -1).mean(2))


def program_of(model, how, x):
    return torch.jit.script(model) if how == "script" else torch.jit.trace(model, x)


@pytest.fixture(scope="module")
def float_model():
    return resnet(tq, nnq.FloatFunctional).requires_grad_(False)


@pytest.mark.parametrize("how", ["script", "trace"])
def test_static_programs(how, tmp_path):
    model, qconfig = Net().eval().requires_grad_(False), tq.get_default_qconfig("onednn")
    batches = [torch.randn(4, 3, 8, 8) for _ in range(4)]
    program = program_of(model, how, batches[0])
    int8 = tq.quantize_jit(program, {"": qconfig}, run, (batches,))
    assert isinstance(int8, torch.jit.ScriptModule)
    assert ops_of(int8)["torch_ao::conv2d"] == 1 and ops_of(int8)["torch_ao::linear"] == 2
    torch.jit.save(int8, tmp_path / "int8.pt")
    loaded = torch.jit.load(tmp_path / "int8.pt")
    sizes = (1, 2, 7) if how == "script" else (4,)  # this trace holds its batch: Net reads a size
    for size in sizes:
        x = torch.randn(size, 3, 8, 8)
        assert sqnr(model(x), int8(x)) > 25
        assert torch.equal(loaded(x), int8(x))
    assert torch.equal(program(batches[0]), program_of(model, how, batches[0])(batches[0]))


def test_against_torch_ao_and_fx(float_model):
    from torch.ao.nn.quantized import FXFloatFunctional

    theirs = torch.jit.script(resnet(peer(), FXFloatFunctional, float_model).eval())
    module = peer()
    their_int8 = module.quantize_jit(theirs, {"": module.get_default_qconfig("x86")}, run, [images()])
    mine = torch.jit.trace(float_model, images(1)[0])
    qconfig = tq.get_default_qconfig("onednn")
    int8 = tq.quantize_jit(mine, {"": qconfig}, run, [images()])
    from torch_ao_ext.quantization.quantize_fx import convert_fx, prepare_fx

    observed = prepare_fx(float_model, tq.QConfigMapping().set_global(qconfig), (images(1)[0],))
    run(observed, images())
    graph = convert_fx(observed)
    x = images(1, seed=9)[0]
    want = float_model(x)
    assert torch.equal(int8(x), graph(x))
    assert sqnr(want, int8(x)) > 28 and sqnr(want, int8(x)) > sqnr(want, their_int8(x)) - 1
    assert ops_of(int8)["torch_ao::conv2d"] == 6 and ops_of(int8)["torch_ao::linear"] == 1


@pytest.mark.parametrize("rules, convs, linears", [
    ({"": True, "head": None}, 1, 0), ({"head": True}, 0, 2), ({"": True, "head.0": None}, 1, 1),
])  # fmt: skip
def test_names_choose_layers(rules, convs, linears):
    qconfig = tq.get_default_qconfig("onednn")
    rules = {name: qconfig if wanted else None for name, wanted in rules.items()}
    x = torch.randn(4, 3, 8, 8)
    int8 = tq.quantize_jit(torch.jit.script(Net().eval()), rules, run, ([x],))
    assert ops_of(int8).get("torch_ao::conv2d", 0) == convs
    assert ops_of(int8).get("torch_ao::linear", 0) == linears


def test_traced_convolutions_of_all_kinds():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv3d(2, 4, 2), nn.Flatten(2, 3), nn.ConvTranspose2d(4, 3, 2, stride=2, output_padding=1),
        nn.Flatten(2), nn.Conv1d(3, 4, 3, padding=1, dilation=1), nn.ConvTranspose1d(4, 2, 3),
    ).eval().requires_grad_(False)  # fmt: skip
    x = torch.randn(2, 2, 3, 3, 3)
    program = torch.jit.trace(model, x)
    int8 = tq.quantize_jit(program, {"": tq.get_default_qconfig("onednn")}, run, ([x],))
    found = set(ops_of(int8))
    assert {f"torch_ao::{n}" for n in ("conv1d", "conv3d", "conv_transpose1d", "conv_transpose2d")} <= found
    assert sqnr(model(x), int8(x)) > 20


@pytest.mark.parametrize("how", ["script", "trace", "trace of a script"])
def test_dynamic_programs(how, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval().requires_grad_(False)
    x = torch.randn(5, 8)
    program = torch.jit.script(model) if "script" in how else model
    program = torch.jit.trace(program, x) if "trace" in how else program
    rules = {"": tq.default_dynamic_qconfig, "2": None}
    int8 = tq.quantize_dynamic_jit(program, {"": tq.default_dynamic_qconfig})
    half = tq.quantize_dynamic_jit(program, rules)
    assert ops_of(int8) == {"torch_ao::linear_dynamic": 2} and ops_of(half) == {"torch_ao::linear_dynamic": 1}
    eager = tq.quantize_dynamic(model, {nn.Linear: tq.default_dynamic_qconfig})
    torch.jit.save(int8, tmp_path / "int8.pt")
    for size in (1, 5, 9):
        y = torch.randn(size, 8)
        assert torch.equal(int8(y), eager(y))
        assert torch.equal(torch.jit.load(tmp_path / "int8.pt")(y), int8(y))
    assert torch.equal(program(x), model(x))


def test_dynamic_layers_in_branches():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, x):
            if bool(x.sum() > 0):
                return self.a(x)
            return self.b(x)

    model = Branch().eval().requires_grad_(False)
    int8 = tq.quantize_dynamic_jit(torch.jit.script(model), {"": tq.default_dynamic_qconfig})
    assert str(int8.graph).count("torch_ao::linear_dynamic") == 2
    for x in (torch.ones(2, 8), -torch.ones(2, 8)):
        assert sqnr(model(x), int8(x)) > 25


def test_calibration_sees_every_batch():
    qconfig = tq.QConfig(tq.MinMaxObserver, tq.default_weight_observer)
    prepared = tq.prepare_jit(torch.jit.script(nn.Linear(4, 2).eval()), {"": qconfig})
    prepared(torch.zeros(2, 4))
    prepared(torch.full((3, 4), 50.0))
    observers = [m for m in prepared.graph_module.modules() if isinstance(m, tq.MinMaxObserver)]
    assert max(float(o.max_val) for o in observers) == 50
    first, second = tq.convert_jit(prepared), tq.convert_jit(copy.deepcopy(prepared))
    assert torch.equal(first(torch.ones(1, 4)), second(torch.ones(1, 4)))


def test_preserved_attributes():
    prepared = tq.prepare_jit(torch.jit.script(Net().eval()), {"": tq.get_default_qconfig("onednn")})
    prepared(torch.randn(2, 3, 8, 8))
    assert tq.convert_jit(prepared, preserved_attrs=["classes"]).classes == 2
    for name in ("nope", "forward"):
        with pytest.raises(ValueError, match=f"must name attributes of the program, got '{name}'"):
            tq.convert_jit(prepared, preserved_attrs=[name])


def test_batch_norms_fold():
    model, x = Net().eval().requires_grad_(False), torch.randn(3, 3, 8, 8)
    fused = tq.fuse_conv_bn_jit(torch.jit.script(model))
    assert "batch_norm" not in str(fused.graph)
    assert (fused(x) - model(x)).abs().max() < 1e-4


class Search(nn.Module):
    """Loops over values."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        while bool(x.sum() < 100):
            x = self.fc(x).abs() + 1
        return x


def test_a_script_that_cannot_be_captured_says_why():
    prepared = tq.prepare_jit(torch.jit.script(Search().eval()), {"": tq.get_default_qconfig("onednn")})
    with pytest.raises(ValueError, match="prepare_jit: argument 'model' must be a program that torch can"):
        prepared(torch.ones(2, 4))


def linear():
    return torch.jit.script(nn.Linear(4, 2).eval())


STATIC, DYNAMIC = {"": tq.default_qconfig}, {"": tq.default_dynamic_qconfig}
REFUSED = {
    "python module": (lambda: tq.prepare_jit(nn.Linear(4, 2), STATIC), "must be a torch.jit.ScriptModule"),
    "training": (lambda: tq.prepare_jit(torch.jit.script(nn.Linear(4, 2)), STATIC), "in evaluation mode"),
    "inplace": (lambda: tq.prepare_jit(linear(), STATIC, inplace=True), "'inplace' must be False"),
    "inplace, dynamic": (lambda: tq.quantize_dynamic_jit(linear(), DYNAMIC, True), "'inplace' must be"),
    "a name": (lambda: tq.prepare_jit(linear(), {"fc": tq.default_qconfig}), "must name modules of"),
    "no dict": (lambda: tq.prepare_jit(linear(), tq.default_qconfig), "must be a dict of module names"),
    "no qconfig": (lambda: tq.prepare_jit(linear(), {"": 3}), "'qconfig' must be a QConfig, got 3"),
    "not run": (lambda: tq.convert_jit(tq.prepare_jit(linear(), STATIC)), "must have run on example data"),
    "not prepared": (lambda: tq.convert_jit(linear()), "must come from prepare_jit"),
    "not prepared, dynamic": (lambda: tq.convert_dynamic_jit(linear()), "must come from prepare_dynamic_jit"),
    "no layer": (
        lambda: tq.quantize_dynamic_jit(torch.jit.script(nn.ReLU().eval()), DYNAMIC), "must hold a linear"
    ),
    "attributes": (
        lambda: tq.convert_dynamic_jit(tq.prepare_dynamic_jit(linear(), DYNAMIC), preserved_attrs=["a"]),
        "'preserved_attrs' must be empty",
    ),
    "float16": (
        lambda: tq.quantize_dynamic_jit(linear(), {"": tq.float16_dynamic_qconfig}), "must observe for int8"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_nothing_to_quantize():
    prepared = tq.prepare_jit(torch.jit.script(nn.ReLU().eval()), STATIC)
    with pytest.raises(ValueError, match="prepare_jit: argument 'quantizer' must annotate a node"):
        prepared(torch.ones(2))
