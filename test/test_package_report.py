"""report, explain, prepack, repack, set_engine, set_deterministic."""

import json

import pytest
import torch
from torch import nn

import torch_ao_ext
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized import dynamic as nnqd
from torch_ao_ext.nn.sparse import quantized as sparse
from torch_ao_ext.ops import service
from torch_ao_ext.quantization import quantize_dynamic


@pytest.fixture(autouse=True)
def _default_engine():
    yield
    torch_ao_ext.set_engine("")
    torch_ao_ext.set_deterministic(False)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 16)
        self.norm = nn.LayerNorm(16)
        self.fc1 = nn.Linear(16, 32)
        self.rnn = nn.GRU(32, 8)
        self.fc2 = nn.Linear(8, 4, bias=False)

    def forward(self, ids):
        return self.fc2(self.rnn(self.fc1(self.norm(self.embed(ids))))[0])


@pytest.fixture(name="model")
def _model():
    return quantize_dynamic(Net(), {nn.Linear: torch_ao_ext.quantization.row_dynamic_qconfig, "fc2": None})


def test_rows_and_counts(model):
    result = torch_ao_ext.report(model)
    rows = {row.fqn: (row.op, row.status, row.reason) for row in result.rows}
    assert rows == {
        "embed": ("Embedding", "float", "nn.Embedding not in qconfig_spec"),
        "norm": ("LayerNorm", "float", "no dynamic int8 module for nn.LayerNorm"),
        "fc1": ("Linear", "int8", ""),
        "rnn": ("GRU", "float", "nn.GRU not in qconfig_spec"),
        "fc2": ("Linear", "float", "qconfig_spec says None"),
    }
    assert result.int8 == {"Linear": 1}
    assert result.float == {"Embedding": 1, "LayerNorm": 1, "GRU": 1, "Linear": 1}
    assert result.functions == {"LayerNorm": 1}


def test_coverage_adds_up(model):
    result = torch_ao_ext.report(model)
    weights = sum(p.numel() for p in Net().parameters())
    assert sum(result.parameters.values()) == weights and result.parameters["int8"] == 16 * 32
    gru = 3 * 8 * 32 + 3 * 8 * 8
    assert result.macs == {"int8": 16 * 32, "float": gru + 8 * 4}
    for percent in (result.parameter_percent, result.mac_percent):
        assert percent["int8"] + percent["float"] == 100.0 and 0 < percent["int8"] < 100
    assert result.mac_percent["int8"] == round(100 * 512 / (512 + gru + 32), 1)


def test_tied_weights_count_once():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    result = torch_ao_ext.report(quantize_dynamic(model))
    assert result.parameters == {"int8": 16, "float": 0} and result.macs["int8"] == 32


def test_text_and_dict(model):
    result = torch_ao_ext.report(model)
    text = str(result)
    lines = text.splitlines()
    assert lines[0].split() == ["layer", "op", "runs", "in", "engine", "reason"]
    assert any(line.startswith("fc1") and " int8 " in line for line in lines)
    assert lines[-1].startswith("int8: Embedding 0/1, GRU 0/1, Linear 1/2; ")
    assert lines[-1].endswith(" % of multiply-accumulates; float besides: LayerNorm 1")
    assert json.loads(json.dumps(result.to_dict()))["rows"][2]["fqn"] == "fc1"


def test_unconverted_model_and_errors():
    rows = torch_ao_ext.report(Net()).rows
    assert {row.reason for row in rows} == {"not converted by torch_ao_ext"}
    assert str(torch_ao_ext.report(nn.ReLU())).splitlines()[-1].startswith("int8: no layers")
    with pytest.raises(ValueError, match="argument 'model' must be a Python nn.Module"):
        torch_ao_ext.report(torch.jit.script(nn.Linear(2, 2)))
    assert str(torch_ao_ext.explain(Net())) == "no int8 layers"
    with pytest.raises(ValueError, match="must be an nn.Module or a tensor, got int"):
        torch_ao_ext.explain(3)


def test_explain_with_inputs_packs_times_and_traces(tmp_path):
    model = quantize_dynamic(nn.Sequential(nn.Linear(32, 16)))
    trace = tmp_path / "trace.json"
    explained = torch_ao_ext.explain(model, torch.randn(4, 32), trace=trace)
    assert explained.weights["0"]["states"]
    assert [row.op for row in explained.times.rows] == ["torch_ao::linear_dynamic"]
    assert "between operators" in str(explained).splitlines()[-1]
    assert '"traceEvents"' in trace.read_text()
    with pytest.raises(ValueError, match="explain: argument 'trace' needs the inputs"):
        torch_ao_ext.explain(model, trace=trace)
    with pytest.raises(ValueError, match="explain: argument 'inputs' must be empty for a weight"):
        torch_ao_ext.explain(model[0].qweight, torch.randn(4, 32))


def test_report_names_the_engine_that_runs(model):
    before = torch_ao_ext.report(model)
    engines = {row.fqn: row.engine for row in before.rows}
    assert engines["fc1"] in ("native", "onednn", "xnnpack") and engines["rnn"] == "torch"
    torch_ao_ext.repack(model)
    assert {row.fqn: row.engine for row in torch_ao_ext.report(model).rows}["fc1"] == "not packed"


@pytest.mark.parametrize("engine", ["native", "onednn", "xnnpack", "reference"])
def test_forced_engine_is_reported_and_explained(engine):
    torch_ao_ext.set_engine(engine)
    model = quantize_dynamic(nn.Sequential(nn.Linear(32, 16)))
    assert torch_ao_ext.report(model).rows[0].engine == engine
    entry = torch_ao_ext.explain(model).weights["0"]
    state = entry["states"][0]
    assert (state["op"], state["engine"]) == ("linear_dynamic", engine) and state["description"]
    text = str(torch_ao_ext.explain(model))
    assert text.startswith("0:") and engine in text and "warning" not in text
    x = torch.randn(4, 32)
    got = model(x)
    torch_ao_ext.set_engine("reference")
    assert torch.allclose(got, model(x), atol=1e-5)


def test_unknown_engine_lists_the_names():
    with pytest.raises(ValueError, match="'name' must be one of native, onednn, xnnpack, reference"):
        torch_ao_ext.set_engine("fbgemm")


def test_deterministic_mode_leaves_out_xnnpack():
    torch_ao_ext.set_engine("xnnpack")
    torch_ao_ext.set_deterministic(True)
    layer = torch.nn.Sequential(nn.Linear(8, 8))
    with pytest.raises(NotImplementedError, match="xnnpack"):
        quantize_dynamic(layer)


def test_prepack_and_repack(model):
    def packs():
        return torch_ao_ext.explain(model).weights["fc1"]["pack_count"]

    assert packs() == 1
    assert torch_ao_ext.prepack(model) is model and packs() == 1
    model(torch.arange(3))
    assert packs() == 1
    assert torch_ao_ext.repack(model) is model
    assert torch_ao_ext.explain(model).weights["fc1"]["states"] == []
    torch_ao_ext.prepack(model)
    assert packs() == 2 and len(torch_ao_ext.explain(model).weights["fc1"]["states"]) == 1
    with pytest.raises(ValueError, match="prepack: argument 'model' must be an nn.Module"):
        torch_ao_ext.prepack(3)


def test_repack_after_an_untracked_write():
    model = quantize_dynamic(nn.Sequential(nn.Linear(8, 4, bias=False)))
    x = torch.randn(2, 8)
    model(x)
    model[0].qweight.data.numpy()[...] = 0  # torch sees no write
    torch_ao_ext.repack(model)
    assert torch.equal(model(x), torch.zeros(2, 4))


def test_packed_too_often_is_said():
    layer = quantize_dynamic(nn.Sequential(nn.Linear(8, 4, bias=False)))[0]
    x = torch.randn(2, 8)
    for _ in range(3):
        torch.ops.torch_ao.linear_dynamic(x, layer.qweight[:], layer.weight_scale)
    text = str(torch_ao_ext.explain(layer))
    assert "packed 4 times" in text
    assert "packed" in str(torch_ao_ext.explain(layer.qweight))


def test_load_state_dict_then_prepack():
    a, b = quantize_dynamic(nn.Sequential(nn.Linear(8, 4))), quantize_dynamic(nn.Sequential(nn.Linear(8, 4)))
    b.load_state_dict(a.state_dict())
    torch_ao_ext.prepack(b)
    count = torch_ao_ext.explain(b).weights["0"]["pack_count"]
    x = torch.randn(2, 8)
    assert torch.equal(a(x), b(x))
    assert torch_ao_ext.explain(b).weights["0"]["pack_count"] == count


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(16, 8), nn.ReLU())
        self.last = nn.Linear(8, 4)
        self.plain = nn.Linear(4, 4)

    def forward(self, x):
        return self.plain(self.last(self.inner(x)).relu())


@pytest.mark.parametrize("how", ["export", "fx", "child"])
def test_operators_of_a_graph_are_rows(how):
    model = Branches()
    q = quantize_dynamic(model, {"inner", "last"})
    x = torch.randn(2, 16)
    expected = torch_ao_ext.report(q)
    graph = torch.export.export(q, (x,)).module()
    if how == "fx":
        graph = torch.fx.experimental.proxy_tensor.make_fx(graph)(x)
    if how == "child":
        graph = nn.ModuleDict({"wrapped": graph})
    graph(x) if how != "child" else graph["wrapped"](x)
    result = torch_ao_ext.report(graph)
    rows = [(row.fqn, row.engine, row.macs) for row in result.rows if row.op == "linear_dynamic"]
    wanted = [(row.fqn, row.engine, row.macs) for row in expected.rows if row.status == "int8"]
    if how == "fx":  # make_fx names the weights itself
        rows, wanted = ([row[1:] for row in r] for r in (rows, wanted))
    if how == "child":
        wanted = [(f"wrapped.{fqn}", engine, macs) for fqn, engine, macs in wanted]
    assert rows == wanted and len(rows) == 2
    assert result.int8 == {"linear_dynamic": 2}
    assert result.parameters["int8"] == 16 * 8 + 8 * 4 and result.macs["int8"] == 16 * 8 + 8 * 4
    assert [entry["states"][0]["engine"] for entry in torch_ao_ext.explain(graph).weights.values()] == [
        row[-2] for row in rows
    ]


def test_operators_without_a_weight_and_weights_that_are_inputs():
    class Mixed(nn.Module):
        def forward(self, x, weight, scale):
            q = torch.ops.torch_ao.quantize_per_tensor(x, 0.1, 0, -128, 127, torch.int8)
            x = torch.ops.torch_ao.dequantize_per_tensor(q, 0.1, 0)
            return torch.ops.torch_ao.linear_dynamic(x, weight, scale)

    call = (torch.randn(2, 8), torch.ones(4, 8, dtype=torch.int8), torch.ones(1))
    result = torch_ao_ext.report(torch.export.export(Mixed(), call).module())
    assert [(row.fqn, row.engine, row.macs) for row in result.rows] == [
        ("quantize_per_tensor", "native", 0),
        ("dequantize_per_tensor", "native", 0),
        ("linear_dynamic", "not packed", 32),
    ]
    assert torch_ao_ext.explain(torch.export.export(Mixed(), call).module()).weights == {}


def sparse_layers():
    """A dynamic and a static layer with a weight of 1x4 and 8x1 blocks, and their inputs."""
    torch.manual_seed(0)
    layer = nn.Linear(64, 32)
    layer.weight.data[:, :48] = 0
    moving = sparse.to_sparse_int8(nn.Sequential(layer))[0]
    still = sparse.Linear(64, 32, 8, 1)
    still.set_weight_bias(moving.weight(), moving.bias(), 8, 1)
    x = torch.randint(0, 255, (3, 64), dtype=torch.uint8)
    return {"moving": (moving, torch.randn(3, 64)), "still": (still, QuantizedTensor(x, 0.1, 128))}


def test_sparse_layers_are_listed():
    layers = sparse_layers()
    model = nn.ModuleDict({name: layer for name, (layer, _) in layers.items()})
    blocks = sum(layer.qweight.numel() for layer in model.values())
    assert blocks == 2 * 16 * 32  # a quarter of each weight
    result = torch_ao_ext.report(model)
    rows = {row.fqn: (row.op, row.status, row.engine, row.macs) for row in result.rows}
    assert rows == {
        "moving": ("Linear (sparse 1x4)", "int8", "not packed", 16 * 32),
        "still": ("Linear (sparse 8x1)", "int8", "not packed", 16 * 32),
    }
    assert result.int8 == {"Linear (sparse 1x4)": 1, "Linear (sparse 8x1)": 1} and not result.float
    assert result.parameters == {"int8": blocks, "float": 2 * 32} and result.macs["int8"] == blocks
    assert result.mac_percent == {"int8": 100.0, "float": 0.0}
    for layer, x in layers.values():
        layer(x)
    assert {row.engine for row in torch_ao_ext.report(model).rows} <= {"native", "reference"}
    entries = torch_ao_ext.explain(model).weights
    ops = {name: entry["states"][0]["op"] for name, entry in entries.items()}
    assert ops == {"moving": "sparse_linear_dynamic", "still": "sparse_linear"}
    assert "sparse 1x4" in str(torch_ao_ext.explain(model))
    dense = nn.Sequential(sparse.dynamic.Linear(64, 32))
    weight = torch.randint(1, 127, (32, 64), dtype=torch.int8)
    dense[0].set_weight_bias(QuantizedTensor(weight, 0.1), None)
    dense(torch.randn(3, 64))
    assert torch_ao_ext.report(dense).rows[0].macs == 32 * 64
    assert "dense" in str(torch_ao_ext.explain(dense))  # above the density that pays


def test_sparse_layer_with_many_blocks_says_why_it_runs_dense():
    full = sparse.to_sparse_int8(nn.Sequential(nn.Linear(64, 32)), min_sparsity=0.0)
    assert torch_ao_ext.report(full).rows[0].reason == ""  # not packed yet
    full(torch.randn(20, 64))
    (row,) = torch_ao_ext.report(full).rows
    assert row.status == "int8" and "above the break-even of" in row.reason and "runs dense" in row.reason
    few = nn.Sequential(sparse_layers()["moving"][0])
    few(torch.randn(20, 64))
    assert torch_ao_ext.report(few).rows[0].reason == ""


@pytest.mark.parametrize("graph", [False, True])
def test_each_layer_and_direction_of_a_recurrent_layer_is_explained(graph):
    torch.manual_seed(0)
    rnn, x = nn.LSTM(8, 6, 2, bidirectional=True, proj_size=3), torch.randn(4, 2, 8)
    model = quantize_dynamic(nn.ModuleDict({"rnn": rnn}))
    names = [f"weight_ih_{end}" for end in ("l0", "l0_reverse", "l1", "l1_reverse")]
    assert list(torch_ao_ext.explain(model["rnn"]).weights) == names
    if graph:
        model = torch.export.export(nn.Sequential(model["rnn"]), (x,)).module()
        model(x)
        names = [f"0.{name}" for name in names]
    else:
        names = [f"rnn.{name}" for name in names]
    entries = torch_ao_ext.explain(model).weights
    assert list(entries) == names
    assert all(entry["states"][0]["op"] == "lstm" for entry in entries.values())
    lines = str(torch_ao_ext.explain(model)).splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [f"{name}:" for name in names]
    torch_ao_ext.repack(model)
    assert str(torch_ao_ext.explain(model)) == "\n".join(f"{name}: not packed" for name in names)
    one = quantize_dynamic(nn.Sequential(nn.GRU(8, 6)))
    assert list(torch_ao_ext.explain(one).weights) == ["0"]


@pytest.mark.parametrize("kind", ["sparse", "lstm", "cell"])
def test_prepack_and_repack_reach_every_layer(kind):
    torch.manual_seed(0)
    if kind == "sparse":
        layer, x = sparse_layers()["moving"]
        weight = layer.qweight
    else:
        layer, x = {
            "lstm": (nnqd.LSTM(8, 6), torch.randn(4, 2, 8)), "cell": (nnqd.GRUCell(8, 6), torch.randn(2, 8)),
        }[kind]  # fmt: skip
        for buffer in layer.get_weight().values():
            buffer.int_repr().random_(-128, 128)
        weight = layer._side()[0][0]
    model = nn.Sequential(layer)
    torch_ao_ext.prepack(model)
    assert service.pack_count(weight) == 1
    first = layer(x)
    assert service.pack_count(weight) == 1
    weight.data.zero_()  # torch does not count it
    torch_ao_ext.repack(model)
    assert torch_ao_ext.report(model).rows[0].engine == "not packed"
    y, old = (v[0] if isinstance(v, tuple) else v for v in (layer(x), first))
    assert service.pack_count(weight) == 2 and not torch.equal(y, old)
