"""matmul -> softmax -> matmul of integers become one operator, `attention`, where it means the same."""

import math

import pytest
import torch
from torch import fx, nn
from torch.nn import functional

import torch_ao_ext
from torch_ao_ext._graph_ops import FUSED, arguments_of
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86

ao = torch.ops.torch_ao
HEADS, WIDTH = 4, 8


class Bert(nn.Module):
    """Self-attention as transformers writes it: scores divided, a mask added, keys permuted at once."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key, self.value, self.out = (nn.Linear(32, 32) for _ in range(4))

    def heads(self, x):
        return x.view(*x.shape[:2], HEADS, WIDTH).permute(0, 2, 1, 3)

    def attend(self, q, k, v, mask):
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(WIDTH)
        return torch.matmul(torch.softmax(scores if mask is None else scores + mask, dim=-1), v)

    def forward(self, x, mask=None):
        y = self.attend(*map(self.heads, (self.query(x), self.key(x), self.value(x))), mask)
        return self.out(y.transpose(1, 2).reshape(x.shape))


class Vit(Bert):
    """One projection of all three, its own operator of attention with the given arguments."""

    def __init__(self, **arguments):
        super().__init__()
        self.qkv, self.arguments = nn.Linear(32, 96), arguments

    def forward(self, x, mask=None):
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, HEADS, WIDTH).permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v, mask, **self.arguments)
        return self.out(y.transpose(1, 2).reshape(x.shape))


class Permuted(Bert):
    """Keys that become k^T in one step; heads as one batch."""

    def forward(self, x, mask=None):
        k = self.key(x).view(*x.shape[:2], HEADS, WIDTH).permute(0, 2, 3, 1).reshape(-1, WIDTH, x.shape[1])
        q, v = (self.heads(linear(x)).reshape(-1, x.shape[1], WIDTH) for linear in (self.query, self.value))
        weights = functional.softmax(torch.bmm(q, k) * 0.3, dim=2)
        y = torch.bmm(weights, v).view(-1, HEADS, x.shape[1], WIDTH)
        return self.out(y.transpose(1, 2).flatten(2))


class Changed(Bert):
    """`attend` in another form."""

    def __init__(self, attend):
        super().__init__()
        self.attend = attend


def lowered(model, args, dynamic=None, more=(), **options):
    quantizer, config = x86.X86InductorQuantizer(), x86.get_default_x86_inductor_quantization_config()
    quantizer.set_global(config).set_function_type_qconfig(torch.matmul, config)
    graph = torch.export.export(model.eval(), args, dynamic_shapes=dynamic).module()
    prepared = prepare_pt2e(graph, quantizer)
    for data in (args, *more):
        prepared(*data)
    converted = convert_pt2e(prepared)
    return converted, torch_ao_ext.lower(converted, args, **options)


def operators(graph):
    found = torch_ao_ext.report(graph).int8
    return {name: found.get(name, 0) for name in ("attention", "matmul", "softmax")}


ONE = {"attention": 1, "matmul": 0, "softmax": 0}
THREE = {"attention": 0, "matmul": 2, "softmax": 1}


class Check(fx.Interpreter):
    """Runs a lowered graph; each attention is within its stated error of float64."""

    checked = 0

    def call_function(self, target, args, kwargs):
        y = super().call_function(target, args, kwargs)
        if target is not ao.attention.default:
            return y
        q, s_q, z_q, k, s_k, z_k, v, s_v, z_v, s_y, z_y, _, mask, _, scale = args
        q, k, v = ((t.double() - z) * s for t, s, z in ((q, s_q, z_q), (k, s_k, z_k), (v, s_v, z_v)))
        scores = q @ k.transpose(-1, -2) * scale + (0 if mask is None else mask.double())
        e = torch.exp(scores - scores.amax(-1, keepdim=True))
        want = e @ v / e.sum(-1, keepdim=True)
        apart = (v.unsqueeze(-3) - want.unsqueeze(-2)).abs() * (e > 0).unsqueeze(-1)
        most = 0.5 * apart.sum(-2) / torch.round(255 * e).sum(-1, keepdim=True)
        assert (((y.double() - z_y) * s_y - want).abs() <= 1.001 * most + 0.501 * s_y).all()
        self.checked += 1
        return y


def sqnr(want, have):
    return 20 * torch.log10(want.norm() / (have - want).norm())


def padded(length):
    mask = torch.zeros(2, 1, 1, length)
    mask[1, ..., -3:] = torch.finfo(torch.float32).min
    return mask


MODELS = {
    "BERT": lambda x: (Bert(), (x,)),
    "BERT, mask": lambda x: (Bert(), (x, padded(x.shape[1]))),
    "ViT": lambda x: (Vit(), (x,)),
    "ViT, booleans": lambda x: (Vit(), (x, padded(x.shape[1]) == 0)),
    "ViT, mask and scale": lambda x: (Vit(scale=0.2), (x, torch.randn(HEADS, x.shape[1], x.shape[1]))),
    "ViT, causal": lambda x: (Vit(is_causal=True), (x,)),
    "bmm": lambda x: (Permuted(), (x,)),
}


@pytest.mark.parametrize("name", MODELS)
def test_one_operator_within_its_error(name):
    x = torch.randn(2, 50, 32, generator=torch.Generator().manual_seed(1)) * 2
    model, args = MODELS[name](x)
    converted, graph = lowered(model, args, islands=False)
    assert operators(graph) == ONE
    run = Check(graph)
    y = run.run(*args)
    assert run.checked == 1
    want, rounded = model(*args), converted(*args)
    assert sqnr(want, y) > max(20, sqnr(want, rounded) - 0.5)  # weights are no less exact than the graph's
    merged = torch_ao_ext.lower(converted, args)
    assert operators(merged) == ONE and torch.equal(merged(*args), y)


def test_report_and_names():
    _, graph = lowered(Bert(), (torch.randn(2, 6, 32), torch.zeros(2, 1, 1, 6)), islands=False)
    (row,) = (row for row in torch_ao_ext.report(graph).rows if row.op == "attention")
    assert (row.status, row.engine, row.macs) == ("int8", "native", 2 * 6 * WIDTH)
    (node,) = (n for n in graph.graph.nodes if n.target is ao.attention.default)
    assert node.meta[FUSED].nodes == ("matmul", "div", "add", "softmax", "matmul_1")
    a = arguments_of(node)
    assert node.meta[FUSED].output == (a["output_scale"], a["output_zero_point"])
    torch_ao_ext.set_engine("reference")
    try:
        (row,) = (row for row in torch_ao_ext.report(graph).rows if row.op == "attention")
    finally:
        torch_ao_ext.set_engine("")
    assert row.engine == "reference"


def test_free_sizes_and_runtimes():
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    model = Bert()
    inputs = [torch.randn(batch, length, 32) for batch, length in ((2, 6), (1, 1), (3, 5), (2, 70))]
    _, graph = lowered(model, (inputs[0],), (sizes,), [(x,) for x in inputs[1:]])
    assert operators(graph) == ONE
    program = torch.jit.trace(graph, torch.randn(3, 5, 32))
    for x in inputs:
        assert sqnr(model(x), graph(x)) > 20
        assert torch.equal(program(x), graph(x))


def test_mask_of_bfloat16_graphs():
    x, lengths = torch.randn(2, 6, 32), torch.tensor([6, 4])

    class Masked(Bert):
        def forward(self, x, lengths):
            seen = torch.arange(6) < lengths[:, None, None, None]
            return super().forward(x, (1.0 - seen.float()) * -1e4)

    converted, graph = lowered(Masked(), (x, lengths), float_dtype=torch.bfloat16)
    assert operators(graph) == ONE
    assert (graph(x, lengths) - converted(x, lengths)).abs().max() <= 0.05 * converted(x, lengths).abs().max()


def _scores(q, k):
    return torch.matmul(q, k.transpose(-1, -2))


def test_scores_in_8_bits_keep_three_operators():
    x = torch.randn(2, 6, 32)
    converted, _ = lowered(Bert(), (x,))
    ops = torch.ops.quantized_decomposed
    (softmax,) = (n for n in converted.graph.nodes if n.target is torch.ops.aten.softmax.int)
    scores, qparams = softmax.args[0], (0.02, 128, 0, 255, torch.uint8)
    with converted.graph.inserting_before(softmax):
        bits = converted.graph.call_function(ops.quantize_per_tensor.default, (scores, *qparams))
        back = converted.graph.call_function(ops.dequantize_per_tensor.default, (bits, *qparams))
    bits.meta["val"], back.meta["val"] = scores.meta["val"].to(torch.uint8), scores.meta["val"]
    softmax.replace_input_with(scores, back)
    converted.recompile()
    graph = torch_ao_ext.lower(converted)
    assert operators(graph) == THREE
    assert (graph(x) - converted(x)).abs().max() <= 0.02 * converted(x).abs().max()


OTHERS = {
    "over queries": lambda q, k, v, mask: torch.matmul(torch.softmax(_scores(q, k), -2), v),
    "one head of keys": lambda q, k, v, mask: torch.matmul(torch.softmax(_scores(q, k[:, :1]), -1), v),
    "relu": lambda q, k, v, mask: torch.matmul(torch.softmax(_scores(q, k).relu(), -1), v),
    "weights twice": lambda q, k, v, mask: (
        lambda w: torch.matmul(w, v) + torch.matmul(w, v.flip(-1))
    )(torch.softmax(_scores(q, k), -1)),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_left_as_they_are(name):
    x = torch.randn(2, 6, 32)
    converted, graph = lowered(Changed(OTHERS[name]), (x,))
    found = operators(graph)
    assert found["attention"] == 0 and found["matmul"] >= 2 and found["softmax"] == 1
    assert (graph(x) - converted(x)).abs().max() <= 0.02 * converted(x).abs().max()
