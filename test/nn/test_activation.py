"""Multi-head attention and the encoder layers around it."""

import copy
import warnings

import pytest
import torch
from attention_cases import OPTIONS, B, E, H, L, S, encoder_layer, float_mha, inputs
from torch import nn

import torch_ao_ext
from torch_ao_ext.nn.quantized.dynamic import (
    Linear,
    MultiheadAttention,
    TransformerEncoder,
    TransformerEncoderLayer,
)
from torch_ao_ext.quantization import default_dynamic_qconfig, quantize_dynamic, row_dynamic_qconfig


def dequantized(mha, q):
    """The float module with q's weights: what is left is the rounding of activations."""
    reference = copy.deepcopy(mha)
    with torch.no_grad():
        if q.packed_in_proj:
            weight = q.in_proj.weight().dequantize()
            reference.in_proj_weight.copy_(weight)
        else:
            parts = [p.weight().dequantize() for p in (q.q_proj, q.k_proj, q.v_proj)]
            if mha._qkv_same_embed_dim:
                reference.in_proj_weight.copy_(torch.cat(parts))
            else:
                reference.q_proj_weight.copy_(parts[0])
                reference.k_proj_weight.copy_(parts[1])
                reference.v_proj_weight.copy_(parts[2])
        reference.out_proj.weight.copy_(q.out_proj.weight().dequantize())
    return reference


def assert_near(got, want):
    assert got.shape == want.shape
    assert (got - want).abs().max() < 0.03 * want.abs().max() + 0.01


MASKS = ["none", "bool 2d", "float 2d", "bool 3d", "padding", "float padding", "both"]


def masks(kind, length, source, batched=True):
    batch = B if batched else 1
    blocked = torch.rand(length, source) < 0.3
    blocked[:, 0] = False  # no row without a key
    padding = torch.zeros(batch, source, dtype=torch.bool)
    padding[0, -2:] = True
    if not batched:
        padding = padding[0]
    many = (torch.rand(batch * H, length, source) < 0.3).index_fill(2, torch.tensor([0]), False)
    return {
        "none": {},
        "bool 2d": {"attn_mask": blocked},
        "float 2d": {"attn_mask": torch.randn(length, source)},
        "bool 3d": {"attn_mask": many},
        "padding": {"key_padding_mask": padding},
        "float padding": {"key_padding_mask": torch.randn(padding.shape)},
        "both": {"attn_mask": blocked, "key_padding_mask": padding},
    }[kind]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("name", list(OPTIONS))
def test_follows_core(name, mask, batched):
    options = OPTIONS[name]
    mha = float_mha(**options)
    q = MultiheadAttention.from_float(mha)
    reference = dequantized(mha, q)
    x = inputs(options, batched=batched)
    extra = masks(mask, L, S, batched)
    for need_weights in (False, True):
        for average in (True, False) if need_weights else (True,):
            got, weights = q(*x, **extra, need_weights=need_weights, average_attn_weights=average)
            want, want_weights = reference(
                *x, **extra, need_weights=need_weights, average_attn_weights=average
            )
            assert_near(got, want)
            if need_weights:
                assert weights.shape == want_weights.shape
                assert (weights - want_weights).abs().max() < 0.02
            else:
                assert weights is None


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("config", [row_dynamic_qconfig, default_dynamic_qconfig])
def test_packed_and_split_projections_agree(batch_first, config):
    mha = float_mha(batch_first=batch_first)
    mha.qconfig = config
    split = MultiheadAttention.from_float(mha)
    packed = MultiheadAttention.from_float(mha, packed_in_proj=True)
    options = {"batch_first": batch_first}
    for x in (inputs(options, self_attention=True), inputs(options)):
        for need_weights in (False, True):
            assert torch.allclose(
                packed(*x, need_weights=need_weights)[0],
                split(*x, need_weights=need_weights)[0],
                rtol=1e-5,
                atol=1e-5,
            )


def test_self_attention_quantizes_the_input_once():
    mha = float_mha()
    packed = MultiheadAttention.from_float(mha, packed_in_proj=True)
    calls = []
    packed.in_proj.register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(L, B, E)
    packed(x, x, x)
    assert len(calls) == 1
    packed(x, y := torch.randn(S, B, E), y)
    assert len(calls) == 3


@pytest.mark.parametrize("name", ["plain", "bias_kv"])
def test_causal_hint(name):
    mha = float_mha(**OPTIONS[name])
    q = MultiheadAttention.from_float(mha)
    x = torch.randn(L, B, E)
    mask = nn.Transformer.generate_square_subsequent_mask(L)
    explicit = q(x, x, x, attn_mask=mask, need_weights=False)[0]
    hinted = q(x, x, x, attn_mask=mask, need_weights=False, is_causal=True)[0]
    assert torch.allclose(hinted, explicit, atol=1e-5)
    with pytest.raises(RuntimeError, match="is_causal needs attn_mask"):
        q(x, x, x, is_causal=True)


@pytest.mark.parametrize("name", ["plain", "all"])
def test_autocast_and_bfloat16(name):
    options = OPTIONS[name]
    mha = float_mha(**options)
    q = MultiheadAttention.from_float(mha)
    x = inputs(options)
    padding = torch.zeros(B, S, dtype=torch.bool)
    padding[0, -2:] = True
    for need_weights in (False, True):
        want = q(*x, key_padding_mask=padding, need_weights=need_weights)[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = q(*x, key_padding_mask=padding, need_weights=need_weights)[0]
        assert_near(got.float(), want)
        low = [t.bfloat16() for t in x]
        y = q(*low, key_padding_mask=padding, need_weights=need_weights)[0]
        assert y.dtype == torch.bfloat16
        assert_near(y.float(), want)


def test_bad_masks_are_named():
    q = MultiheadAttention.from_float(float_mha())
    x = torch.randn(L, B, E)
    with pytest.raises(ValueError, match=r"argument 'attn_mask' must be \[5, 5\]"):
        q(x, x, x, attn_mask=torch.zeros(4, 5))
    with pytest.raises(ValueError, match=r"argument 'attn_mask' must be \[12, 5, 5\]"):
        q(x, x, x, attn_mask=torch.zeros(3, 5, 5))
    with pytest.raises(ValueError, match=r"argument 'key_padding_mask' must be \[3, 5\]"):
        q(x, x, x, key_padding_mask=torch.zeros(2, 5))
    with pytest.raises(ValueError, match="argument 'attn_mask' must be bool or float, got torch.int64"):
        q(x, x, x, attn_mask=torch.zeros(5, 5, dtype=torch.int64))


def test_quantize_dynamic_swaps_whole():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.mha = float_mha(batch_first=True)
            del self.mha.qconfig
            self.fc = nn.Linear(E, 2)

    q = quantize_dynamic(Net())
    assert isinstance(q.mha, MultiheadAttention) and not q.mha.packed_in_proj
    assert torch_ao_ext.report(q).int8 == {"Linear": 5}
    only = quantize_dynamic(Net(), {nn.Linear})
    assert isinstance(only.mha, nn.MultiheadAttention)
    rows = {row.fqn: row.reason for row in torch_ao_ext.report(only).rows}
    assert rows["mha"] == "nn.MultiheadAttention not in qconfig_spec"
    assert rows["mha.out_proj"].startswith("inside nn.MultiheadAttention")
    x = torch.randn(B, L, E)
    with torch.no_grad():
        only.mha(x, x, x)  # still core's, fused path included


def test_subclass_with_own_forward_stays():
    class Mine(nn.MultiheadAttention):
        def forward(self, x):
            return super().forward(x, x, x)[0]

    with pytest.warns(UserWarning, match="subclass overrides forward of nn.MultiheadAttention"):
        q = quantize_dynamic(nn.ModuleList([Mine(E, H)]))
    assert type(q[0]) is Mine
    with torch.no_grad():
        q[0](torch.randn(L, B, E))


# --- encoder and decoder layers ---------------------------------------------------------------


def layer_options():
    for batch_first in (False, True):
        for norm_first in (False, True):
            for activation in ("relu", "gelu"):
                yield {"batch_first": batch_first, "norm_first": norm_first, "activation": activation}


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("options", list(layer_options()), ids=str)
def test_encoder_layer(options, grad):
    layer = encoder_layer(**options)
    q = quantize_dynamic(layer)
    assert type(q) is TransformerEncoderLayer and isinstance(q, nn.TransformerEncoderLayer)
    assert torch_ao_ext.report(q).int8 == {"Linear": 4} and q.self_attn.packed_in_proj
    shape = (B, L, E) if options["batch_first"] else (L, B, E)
    x = torch.randn(shape)
    padding = torch.zeros(B, L, dtype=torch.bool)
    padding[0, -2:] = True
    mask = nn.Transformer.generate_square_subsequent_mask(L)
    keep = ~padding if options["batch_first"] else ~padding.t()
    with torch.set_grad_enabled(grad):
        assert_near(q(x), layer(x))
        assert_near(q(x, src_mask=mask, is_causal=True), layer(x, src_mask=mask, is_causal=True))
        got, want = q(x, src_key_padding_mask=padding), layer(x, src_key_padding_mask=padding)
        assert_near(got[keep], want[keep])


@pytest.mark.parametrize("spec", [{nn.Linear}, {nn.MultiheadAttention}, {"linear1"}, {"self_attn"}])
@pytest.mark.parametrize("grad", [False, True])
def test_partly_converted_encoder_layer(spec, grad):
    """The fused float path would crash on, or pass by, the int8 part."""
    layer = encoder_layer(batch_first=True)
    q = quantize_dynamic(layer, spec)
    calls = []
    for module in q.modules():
        if isinstance(module, Linear):
            module.register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(B, L, E)
    with torch.set_grad_enabled(grad):
        assert_near(q(x), layer(x))
    assert len(calls) == torch_ao_ext.report(q).int8["Linear"] > 0


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_encoder_with_padding(batch_first, grad):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # core warns about nested tensors
        model = nn.TransformerEncoder(encoder_layer(batch_first=batch_first), 2, nn.LayerNorm(E)).eval()
        q = quantize_dynamic(model)
        assert type(q) is TransformerEncoder
        x = torch.randn((B, L, E) if batch_first else (L, B, E))
        padding = torch.zeros(B, L, dtype=torch.bool)
        padding[0, -2:] = True
        keep = ~padding if batch_first else ~padding.t()
        with torch.set_grad_enabled(grad):
            want = model(x, src_key_padding_mask=padding)
    with torch.set_grad_enabled(grad):
        assert_near(q(x, src_key_padding_mask=padding)[keep], want[keep])
        mask = nn.Transformer.generate_square_subsequent_mask(L)
        assert_near(q(x, mask=mask), model(x, mask=mask))


@pytest.mark.parametrize("grad", [False, True])
def test_training_mode_drops_out(grad):
    q = quantize_dynamic(nn.TransformerEncoder(encoder_layer(batch_first=True, dropout=0.5), 2))
    x = torch.randn(B, L, E)
    with torch.set_grad_enabled(grad):
        expected = q(x)
        q.train()
        assert not torch.equal(q(x), q(x))
        q.eval()
        assert torch.equal(q(x), expected)


@pytest.mark.parametrize("batch_first", [False, True])
def test_encoder_classes_can_be_constructed(batch_first):
    float_layer = encoder_layer(batch_first=batch_first)
    model = TransformerEncoder(float_layer, 2, nn.LayerNorm(E)).eval()
    reference = nn.TransformerEncoder(float_layer, 2, nn.LayerNorm(E), enable_nested_tensor=False).eval()
    x = torch.randn((B, L, E) if batch_first else (L, B, E))
    assert torch.allclose(model(x), reference(x), atol=1e-6)
    assert_near(quantize_dynamic(model)(x), reference(x))


def test_user_subclasses_of_encoders_do_not_crash():
    class MyLayer(nn.TransformerEncoderLayer):
        pass

    class MyEncoder(nn.TransformerEncoder):
        pass

    model = MyEncoder(MyLayer(E, H, 32, batch_first=True), 2).eval()
    q = quantize_dynamic(model)
    assert type(q) is MyEncoder and type(q.layers[0]) is MyLayer
    x = torch.randn(B, L, E)
    padding = torch.zeros(B, L, dtype=torch.bool)
    padding[0, -2:] = True
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            assert_near(q(x), model(x))
            assert q(x, src_key_padding_mask=padding).shape == x.shape


def test_whole_transformer():
    model = nn.Transformer(E, H, 1, 2, 32, batch_first=True).eval()
    q = quantize_dynamic(model)
    report = torch_ao_ext.report(q)
    assert report.float == report.functions == {"LayerNorm": 3 + 2 * 3 + 1}
    assert q.decoder.layers[0].self_attn.packed_in_proj
    assert not q.decoder.layers[0].multihead_attn.packed_in_proj
    src, tgt = torch.randn(B, S, E), torch.randn(B, L, E)
    mask = nn.Transformer.generate_square_subsequent_mask(L)
    with torch.no_grad():
        assert_near(q(src, tgt, tgt_mask=mask), model(src, tgt, tgt_mask=mask))
