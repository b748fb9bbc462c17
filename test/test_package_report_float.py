"""report: what computes in float and is neither a product nor a lookup, in graphs and eager models."""

import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torch_ao_ext
from torch_ao_ext import quantization as tq
from torch_ao_ext._float_functions import _HAVE_INT8, _MOVES, FUNCTIONS
from torch_ao_ext.quantization import quantize_dynamic
from torch_ao_ext.quantization.quantize_fx import convert_fx, prepare_fx
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86


class Between(nn.Module):
    """Functions of torch between two convolutions, and behind them."""

    def __init__(self, function, tail=None):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.c = nn.Conv2d(4, 4, 3, padding=1)
        self.function, self.tail = function, tail or nn.Identity()

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        y = self.function(a, b)
        return self.tail(self.c(y))


_NONE, _WITH = "no int8 operator for aten.", " with these arguments"
# function of two quantized tensors -> rows of what it calls, (op, reason).
FUNCTIONS_BETWEEN = {
    "sub": (lambda a, b: a - b, [("sub", f"{_NONE}sub of two tensors")]),
    "log_softmax": (lambda a, b: F.log_softmax(a, 1), [("log_softmax", f"{_NONE}log_softmax")]),
    "max pool": (
        lambda a, b: F.adaptive_max_pool2d(a, 6), [("adaptive_max_pool2d", f"{_NONE}adaptive_max_pool2d")]
    ),
    "nearest-exact": (
        lambda a, b: F.interpolate(a, scale_factor=2, mode="nearest-exact"),
        [("_upsample_nearest_exact2d", f"{_NONE}_upsample_nearest_exact2d")],
    ),
    "mean": (lambda a, b: a * a.mean(1, True), [("mean", f"{_NONE}mean{_WITH}")]),
    "alpha": (lambda a, b: torch.add(a, b, alpha=2), [("add", f"{_NONE}add{_WITH}")]),
    "moves": (lambda a, b: a.permute(0, 2, 3, 1).flip(1).permute(0, 3, 1, 2)[..., 1:], []),
    "where": (lambda a, b: torch.where(torch.tensor(True), a, b), []),
}  # fmt: skip


def prepared_and_converted(flow, model, x):
    model.eval().requires_grad_(False)
    if flow == "fx":
        observed = prepare_fx(model, tq.get_default_qconfig_mapping("onednn"), (x,))
        observed(x)
        return convert_fx(observed)
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    ready = prepare_pt2e(torch.export.export(model, (x,)).module(), quantizer)
    ready(x)
    return torch_ao_ext.lower(convert_pt2e(ready), islands=flow == "pt2e islands")


def float_rows(model):
    return [(row.op, row.reason) for row in torch_ao_ext.report(model).rows if row.status == "float"]


@pytest.mark.parametrize("flow", ["fx", "pt2e", "pt2e islands"])
@pytest.mark.parametrize("name", FUNCTIONS_BETWEEN)
def test_float_operators_between_int8_ones_are_rows(name, flow):
    torch.manual_seed(0)
    function, wanted = FUNCTIONS_BETWEEN[name]
    graph = prepared_and_converted(flow, Between(function), torch.randn(2, 3, 8, 8))
    result, rows = torch_ao_ext.report(graph), float_rows(graph)
    assert [op for op, _ in rows if op in dict(wanted)] == [op for op, _ in wanted]
    assert all(row.reason and row.macs == 0 for row in result.rows if row.status == "float")
    if flow == "fx" or name in ("sub", "log_softmax", "moves", "where"):
        assert [row for row in rows if row[0] in dict(wanted)] == wanted
    if not wanted:
        assert rows == []
    assert result.int8["conv2d"] >= 2 and result.mac_percent["int8"] == 100.0
    assert float_rows(pickle.loads(pickle.dumps(graph))) == rows
    assert result.functions == result.float  # no layer is float
    besides = str(result).splitlines()[-1].partition("float besides: ")[2].split(", ")
    assert {f"{op} {n}" for op, n in result.float.items() if op not in result.int8} == {*besides} - {""}


def test_reasons_of_functions_that_have_an_int8_form():
    class Hand(nn.Module):
        def forward(self, q, y):
            x = torch.ops.torch_ao.dequantize_per_tensor(q, 0.1, 0)
            z = torch.ops.torch_ao.quantize_per_tensor(torch.cos(y)[:1], 0.1, 0, -128, 127, torch.int8)
            return torch.exp(x), x + y, z, x.mean(0), torch.sin(y), x / y, torch.atan(x.permute(1, 0)), q + 1

    example = (torch.ones(2, 4, dtype=torch.int8), torch.randn(2, 4))
    rows = dict(float_rows(torch.export.export(Hand(), example).module()))
    assert rows == {
        "exp": "its result is not quantized",
        "atan": "its result is not quantized",
        "add": "not all of its inputs are quantized",
        "cos": "its inputs are not quantized",
        "sin": "its neighbours are not quantized",
        "mean": f"{_NONE}mean{_WITH}",
        "div": f"{_NONE}div of two tensors",
    }


def test_islands_keep_the_reasons():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    model = Between(lambda a, b: torch.tanh(a - b).mean(1, True) * b - a, nn.Softmax(1))
    plain, merged = (prepared_and_converted(flow, model, x) for flow in ("pt2e", "pt2e islands"))
    assert sorted(float_rows(merged)) == sorted(float_rows(plain)) and len(float_rows(plain)) > 3
    exported = torch.export.export(merged, (x,)).module()
    inside = {"sub", "tanh", "mean"}  # islands know them
    assert {op for op, _ in float_rows(exported)} >= inside & {op for op, _ in float_rows(plain)}


def test_a_graph_that_is_not_lowered_says_so_of_each_operator():
    x = torch.randn(2, 3, 8, 8)
    model = Between(lambda a, b: torch.erf(a - b)).eval()
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    ready = prepare_pt2e(torch.export.export(model, (x,)).module(), quantizer)
    ready(x)
    rows = float_rows(convert_pt2e(ready))
    assert {op for op, _ in rows} == {"conv2d", "sub", "erf"}
    assert {reason for _, reason in rows} == {"not lowered; call torch_ao_ext.lower"}


NO_FORM = {
    "plus": nn.Softplus(), "sign": nn.Softsign(), "shrink": nn.Softshrink(), "log": nn.LogSigmoid(),
    "tanh": nn.Tanhshrink(), "logs": nn.LogSoftmax(-1), "rows": nn.Softmin(-1),
    "response": nn.LocalResponseNorm(2), "indices": nn.MaxPool2d(2, return_indices=True),
    "exact": nn.Upsample(scale_factor=2, mode="nearest-exact"),
}  # fmt: skip
ON_INTEGERS = {
    "relu": nn.ReLU(), "pool": nn.MaxPool2d(2), "up": nn.Upsample(scale_factor=2), "dropout": nn.Dropout(),
    "flat": nn.Flatten(), "pad": nn.ZeroPad2d(1), "same": nn.Identity(), "shuffle": nn.PixelShuffle(2),
}  # fmt: skip


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.parts = nn.Linear(8, 8), nn.ModuleDict({**NO_FORM, **ON_INTEGERS})

    def forward(self, x):
        x = self.parts["relu"](self.fc(x))
        for name in ("plus", "sign", "shrink", "log", "tanh", "logs", "rows"):
            x = self.parts[name](x)
        x = self.parts["response"](self.parts["exact"](x.reshape(-1, 2, 2, 2)))
        return self.parts["indices"](x)[0]


def test_float_modules_of_an_eager_static_model_are_rows():
    torch.manual_seed(0)
    model, x = Parts().eval().requires_grad_(False), torch.randn(4, 8)
    model.qconfig = tq.get_default_qconfig("onednn")
    observed = tq.prepare(model, auto_edges=True)
    observed(x)
    int8 = tq.convert(observed)
    int8(x)
    result = torch_ao_ext.report(int8)
    rows = {r.fqn: (r.op, r.reason, r.engine, r.macs) for r in result.rows if r.status == "float"}
    wanted = {}
    for name, kind in ((name, type(module).__name__) for name, module in NO_FORM.items()):
        through = "int8 in and out, computed in float32"
        reason = through if name == "exact" else f"no int8 module for nn.{kind}"
        wanted[f"parts.{name}"] = (kind, reason, "torch", 0)
    assert rows == wanted
    assert result.int8 == {"Linear": 1} and result.functions == result.float
    assert str(result).splitlines()[-1].startswith("int8: Linear 1/1; ")
    assert result.macs == {"int8": 64, "float": 0}


def test_float_modules_of_a_dynamic_model_are_rows():
    class Scale(nn.Module):
        def forward(self, x):
            return x * 2

    model = nn.Sequential(nn.Linear(8, 8), *NO_FORM.values(), *ON_INTEGERS.values(), Scale(), nn.Softmax(1))
    assert torch_ao_ext.report(model).functions == {}  # not quantized
    rows = [(row.op, row.reason) for row in torch_ao_ext.report(quantize_dynamic(model)).rows[1:]]
    kinds = [type(m) for m in (*NO_FORM.values(), nn.ReLU(), nn.MaxPool2d(2), nn.Upsample(scale_factor=2))]
    wanted = [(k.__name__, f"no dynamic int8 module for nn.{k.__name__}") for k in (*kinds, nn.Softmax)]
    wanted.insert(-1, ("Scale", "no dynamic int8 module for Scale"))
    assert rows == wanted


def test_float_functional_that_is_not_converted_is_a_row():
    model = nn.ModuleDict({"fc": nn.Linear(4, 4), "sum": torch_ao_ext.nn.quantized.FloatFunctional()})
    rows = torch_ao_ext.report(quantize_dynamic(model)).rows
    assert [(row.fqn, row.status) for row in rows] == [("fc", "int8"), ("sum", "float")]


def test_tables_of_operators_name_operators_of_torch():
    names = torch._C._dispatch_get_all_op_names()
    known = {name.split("::")[1].split(".")[0] for name in names if name.startswith(("aten::", "prims::"))}
    short = {name.removesuffix("_").removesuffix("_copy") for name in known}
    assert {*FUNCTIONS, *_HAVE_INT8, *_MOVES} - short == set()
    assert not _MOVES & _HAVE_INT8
