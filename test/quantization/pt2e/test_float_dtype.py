"""lower(float_dtype=torch.bfloat16): what stays float runs in bfloat16, and stays right."""

import copy
import math

import pytest
import torch
import torch.nn.functional as functional
from flow_models import MODELS, converted, export, make, targets
from torch import nn

import torch_ao_ext
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
from torch_ao_ext.quantization.quantizer import X86InductorQuantizer
from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86

BF16 = torch.bfloat16


def sqnr(want, got):
    return 10 * math.log10(want.square().sum() / (want - got).square().sum().clamp(min=1e-30))


def both(quantized, **kwargs):
    """The graph lowered with float32 and with bfloat16 inside."""
    kwargs.setdefault("islands", False)
    return torch_ao_ext.lower(quantized, **kwargs), torch_ao_ext.lower(quantized, float_dtype=BF16, **kwargs)


def dtypes(model, part):
    """Dtypes of what the operators with this in their name give."""
    nodes = [n for n in model.graph.nodes if n.op == "call_function" and part in str(n.target)]
    assert nodes, (part, targets(model))
    return {n.meta["val"].dtype for n in nodes if isinstance(n.meta["val"], torch.Tensor)}


def linear_only(model, example, **kwargs):
    """Linear layers in int8; attention, norms and additions are float."""
    q = X86InductorQuantizer()
    q.set_module_type_qconfig(nn.Linear, x86.get_default_x86_inductor_quantization_config())
    with torch.no_grad():
        ready = prepare_pt2e(export(model.eval(), example, **kwargs), q)
        ready(*example)
        return convert_pt2e(ready)


@pytest.mark.parametrize(
    "name, how",
    [(n, h) for n in MODELS for h in ("x86", "x86 matmul", "xnnpack")] + [("Encoder", "xnnpack dynamic")],
)
def test_near_float32_and_as_the_graph_says(name, how):
    _, example, quantized = converted(name, how)
    plain, low = both(quantized)
    seen = {}

    class Watch(torch.fx.Interpreter):
        def run_node(self, node):
            value = super().run_node(node)
            if isinstance(value, torch.Tensor) and "val" in node.meta:
                seen[node.name] = (value.dtype, node.meta["val"].dtype, value.shape)
            return value

    with torch.no_grad():
        want, got = plain(*example), low(*example)
        Watch(low).run(*example)
    assert got.dtype == want.dtype == torch.float32
    assert sqnr(want, got) > 30, sqnr(want, got)
    assert seen and all(real == noted for real, noted, _ in seen.values()), seen


class Mixed(nn.Module):
    """Float attention between int8 layers, a factor, a norm, a mask of finfo.min."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(32, 32) for _ in range(4))
        self.factor = nn.Parameter(torch.rand(32))
        self.norm = nn.LayerNorm(32)

    def forward(self, x, keep):
        mask = (1.0 - keep.float())[:, None, None, :] * torch.finfo(torch.float32).min
        heads = [p(x).view(x.shape[0], x.shape[1], 4, 8).transpose(1, 2) for p in (self.q, self.k, self.v)]
        y = functional.scaled_dot_product_attention(*heads, attn_mask=mask)
        y = self.o(y.transpose(1, 2).reshape(x.shape))
        return self.norm(x * 0.5 + y * self.factor)


KEEP = torch.ones(3, 7, dtype=torch.int64)
KEEP[1, 4:] = 0
KEEP[2] = 0  # nothing to attend to: the mean in float32, nan if the mask became -inf
MIXED = (torch.randn(3, 7, 32, generator=torch.Generator().manual_seed(0)), KEEP)


def test_attention_runs_in_bfloat16_and_masked_rows_stay_finite():
    torch.manual_seed(1)
    model = Mixed()
    plain, low = both(linear_only(model, MIXED))
    assert dtypes(low, "scaled_dot_product") == {BF16}
    assert dtypes(low, "torch_ao.linear") == {BF16}
    assert dtypes(plain, "torch_ao.scaled_dot_product") == {torch.float32}
    with torch.no_grad():
        want, got = plain(*MIXED), low(*MIXED)
    assert got.isfinite().all() and got.dtype == torch.float32
    assert sqnr(want, got) > 35


def test_a_constant_mask_stays_finite():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
            self.register_buffer("mask", torch.zeros(6, 6).masked_fill(torch.eye(6) > 0, -torch.inf))
            self.mask[2] = torch.finfo(torch.float32).min

        def forward(self, x):
            heads = [p(x)[:, None] for p in (self.q, self.k, self.v)]
            return functional.scaled_dot_product_attention(*heads, attn_mask=self.mask)

    x = (torch.randn(2, 6, 8),)
    plain, low = both(linear_only(Masked(), x))
    with torch.no_grad():
        want, got = plain(*x), low(*x)
    assert got.isfinite().all() and sqnr(want, got) > 35


def test_numbers_beyond_bfloat16_keep_their_operator_in_float32():
    class Filled(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(16, 16)
            self.register_buffer("holes", torch.eye(16, dtype=torch.bool))

        def forward(self, x):
            scores = self.linear(x).masked_fill(self.holes, torch.finfo(torch.float32).min)
            return torch.softmax(scores, -1)

    x = (torch.randn(16, 16),)
    plain, low = both(linear_only(Filled(), x))
    assert dtypes(low, "masked_fill") == {torch.float32}
    with torch.no_grad():
        want, got = plain(*x), low(*x)
    assert got.isfinite().all() and (got.diagonal() == 0).all()
    assert sqnr(want, got) > 35


def test_constants_beside_bfloat16_values_follow_them():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(16, 16)
            self.weight = nn.Parameter(torch.rand(16, 16))
            self.factor = nn.Parameter(torch.rand(16))
            self.register_buffer("far", torch.full((16,), torch.finfo(torch.float32).min))

        def forward(self, x):
            y = torch.sin(self.linear(x) * self.factor)
            return torch.cos(y @ self.weight), torch.maximum(y, self.far)

    x = (torch.randn(4, 16),)
    _, low = both(linear_only(Scaled(), x))
    assert dtypes(low, "sin") == dtypes(low, "cos") == dtypes(low, "matmul") == {BF16}
    assert dtypes(low, "maximum") == {torch.float32}  # the constant has no finite bfloat16
    kept = {n: t.dtype for n, t in low.state_dict().items()}
    assert "weight" not in kept and kept["weight_bfloat16"] == BF16, kept


def test_values_written_to_are_read_where_they_are():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 8)
            self.register_buffer("total", torch.zeros(2, 8))

        def forward(self, x):
            y = self.linear(x)
            before = self.total @ y.t()
            self.total.add_(y)
            turned = y.t()
            y.index_add_(0, torch.tensor([1, 0]), x)
            return before, self.total @ y.t(), turned

    x = (torch.randn(2, 8),)
    quantized = linear_only(Counter(), x)
    plain, low = (copy.deepcopy(m) for m in both(quantized))
    with torch.no_grad():
        for _ in range(3):
            for want, got in zip(plain(*x), low(*x), strict=True):
                assert torch.allclose(want, got, rtol=0.05, atol=0.1), (want, got)
    assert low.total.dtype == torch.float32 and low.total.abs().max() > 0


def test_operators_without_a_bfloat16_kernel_stay_in_float32():
    class Solved(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x):
            y = self.linear(x)
            inverse = torch.linalg.inv(y + 9 * torch.eye(8))
            return inverse, torch.special.erfcx(y), torch.fft.rfft(y).abs(), torch.sin(y)

    x = (torch.rand(8, 8),)
    plain, low = both(linear_only(Solved(), x))
    assert dtypes(low, "sin") == {BF16}
    with torch.no_grad():
        for want, got in zip(plain(*x), low(*x), strict=True):
            assert sqnr(want, got) > 30


def test_in_every_runtime_with_any_batch():
    torch.manual_seed(2)
    batch = torch.export.Dim("batch", min=2, max=64)
    quantized = linear_only(Mixed(), MIXED, dynamic_shapes=({0: batch}, {0: batch}))
    low = torch_ao_ext.lower(quantized, MIXED, float_dtype=BF16, islands=False)
    x = (torch.randn(5, 7, 32), torch.ones(5, 7, dtype=torch.int64))
    with torch.no_grad():
        want = low(*x)
        exported = torch.export.export(low, MIXED, dynamic_shapes=({0: batch}, {0: batch})).module()
        forms = {
            "islands": torch_ao_ext.lower(quantized, MIXED, float_dtype=BF16, islands=True),
            "script": torch.jit.script(low),
            "trace": torch.jit.trace(low, MIXED, check_trace=False),
            "export": exported,
            "copy": copy.deepcopy(low),
        }
        for name, form in forms.items():
            assert torch.equal(form(*x), want), name
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("bad", [torch.float16, "bfloat16", None])
def test_other_dtypes_are_refused(bad):
    _, _, quantized = converted("Reused")
    with pytest.raises(
        ValueError, match="lower: argument 'float_dtype' must be torch.float32 or torch.bfloat16"
    ):
        torch_ao_ext.lower(quantized, float_dtype=bad)


def test_the_converted_model_is_left_as_it_is():
    model, example = make("Attention")
    quantized = linear_only(model, example)
    with torch.no_grad():
        before = quantized(*example)
        torch_ao_ext.lower(quantized, float_dtype=BF16)
        assert torch.equal(quantized(*example), before)
