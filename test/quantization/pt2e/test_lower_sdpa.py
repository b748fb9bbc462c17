"""Attention that stays float runs in this library's operator, where it means the same."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import torch_ao_ext
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86


class Attention(nn.Module):
    """A projection, attention of two heads with the given arguments, a projection."""

    def __init__(self, **arguments):
        super().__init__()
        torch.manual_seed(0)
        self.project, self.out, self.arguments = nn.Linear(8, 24), nn.Linear(8, 8), arguments

    def forward(self, x):
        q, k, v = self.project(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        if self.arguments.get("enable_gqa"):
            k, v = k[:, :1], v[:, :1]
        y = functional.scaled_dot_product_attention(q, k, v, **self.arguments)
        return self.out(y.transpose(1, 2).flatten(2))


def lowered(model, x, **options):
    batch = torch.export.Dim("batch")
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    graph = torch.export.export(model.eval(), (x,), dynamic_shapes=({0: batch},)).module()
    prepared = prepare_pt2e(graph, quantizer)
    prepared(x)
    converted = convert_pt2e(prepared)
    return converted, torch_ao_ext.lower(converted, (x,), **options)


def attention_rows(graph):
    return [row for row in torch_ao_ext.report(graph).rows if row.op == "scaled_dot_product_attention"]


TAKEN = [
    {},
    {"is_causal": True},
    {"scale": 0.3},
    {"attn_mask": torch.rand(5, 5) > 0.3},
    {"attn_mask": torch.randn(1, 2, 1, 5), "scale": 1.0},
]


@pytest.mark.parametrize("islands", [True, False])
@pytest.mark.parametrize("arguments", TAKEN)
def test_taken(arguments, islands):
    converted, graph = lowered(Attention(**arguments), torch.randn(3, 5, 8), islands=islands)
    (row,) = attention_rows(graph)
    assert (row.status, row.engine) == ("float", "native") and "torch.matmul" in row.reason
    assert row.macs == 2 * 5 * 4  # a query by 5 keys, its weights by 5 values
    for size in (1, 3, 4):
        x = torch.randn(size, 5, 8)
        want = converted(x)
        assert (graph(x) - want).abs().max() <= 0.02 * want.abs().max()


@pytest.mark.parametrize("arguments", [{"dropout_p": 0.5}, {"enable_gqa": True}, {"scale": -1.0}])
def test_left_to_torch(arguments):
    _, graph = lowered(Attention(**arguments), torch.randn(3, 5, 8))
    (row,) = attention_rows(graph)
    assert (row.status, row.engine, row.macs) == ("float", "torch", 2 * 5 * 4)


def test_bfloat16_is_left_to_torch():
    _, graph = lowered(Attention(), torch.randn(3, 5, 8), float_dtype=torch.bfloat16)
    (row,) = attention_rows(graph)
    assert (row.status, row.engine) == ("float", "torch")


def test_attention_alone_is_no_operator_of_quantized_tensors():
    graph = torch.export.export(Attention().eval(), (torch.randn(3, 5, 8),)).module()
    message = "must hold an operator of quantized tensors"
    with pytest.warns(UserWarning, match=message):
        lowered = torch_ao_ext.lower(graph)
    assert [row.engine for row in attention_rows(lowered)] == ["native"]
    with pytest.raises(ValueError, match=message):
        torch_ao_ext.lower(graph, strict=True)


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("make", [torch.jit.script, lambda g: torch.jit.trace(g, torch.randn(3, 5, 8))])
def test_runtimes(make):
    _, graph = lowered(Attention(attn_mask=torch.rand(5, 5) > 0.3), torch.randn(3, 5, 8))
    program, x = make(graph), torch.randn(2, 5, 8)
    assert torch.equal(program(x), graph(x))
