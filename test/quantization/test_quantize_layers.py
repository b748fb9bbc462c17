"""quantize_dynamic on every kind of layer and on models of transformers."""

import warnings

import pytest
import torch
from float_models import ALL, Net, reason_of
from torch import nn
from torch.nn.utils import parametrize

import torch_ao_ext
from torch_ao_ext.nn.intrinsic import LinearReLU
from torch_ao_ext.nn.quantized.dynamic import Linear, MultiheadAttention
from torch_ao_ext.quantization import (
    default_dynamic_qconfig,
    mixed_dynamic_qconfig,
    quantize_dynamic,
)


class Conv1D(nn.Module):
    """The shape of transformers' Conv1D: weight stored [K, N]."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.randn(nx, nf))
        self.bias = nn.Parameter(torch.randn(nf))

    def forward(self, x):
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).reshape(*x.shape[:-1], self.nf)


def test_transformers_conv1d():
    model = nn.Sequential(Conv1D(10, 6))
    x = torch.randn(2, 3, 6)
    for spec in (None, {Conv1D}, {"0"}):
        q = quantize_dynamic(model, spec)
        assert isinstance(q[0], Linear) and (q[0].in_features, q[0].out_features) == (6, 10)
        assert (q(x) - model(x)).abs().max() < 0.1
    mixed = nn.Sequential(Conv1D(6, 6), nn.Linear(6, 6))
    q = quantize_dynamic(mixed, {nn.Linear})
    assert type(q[0]) is Conv1D and reason_of(q, "0") == "Conv1D not in qconfig_spec"


@pytest.mark.parametrize("spec", [None, {nn.Linear}, {LinearReLU}])
def test_fused_linear_relu(spec):
    model = nn.Sequential(LinearReLU(nn.Linear(6, 4), nn.ReLU()))
    q = quantize_dynamic(model, spec)
    assert type(q[0]) is torch_ao_ext.nn.intrinsic.quantized.dynamic.LinearReLU
    x = torch.randn(5, 6)
    assert (q(x) - model(x)).abs().max() < 0.05 and (q(x) >= 0).all()


def test_torch_ao_fused_linear_relu_is_known_by_name():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao.nn.intrinsic import LinearReLU as Theirs
    q = quantize_dynamic(nn.Sequential(Theirs(nn.Linear(6, 4), nn.ReLU())))
    assert type(q[0]) is torch_ao_ext.nn.intrinsic.quantized.dynamic.LinearReLU


def test_custom_mapping():
    class Mine(nn.Module):
        @classmethod
        def from_float(cls, mod):
            assert mod.qconfig is mixed_dynamic_qconfig
            new = cls()
            new.size = mod.out_features
            return new

    q = quantize_dynamic(Net(), {nn.Linear}, mapping={nn.Linear: Mine})
    assert type(q.head) is Mine and q.head.size == 3


class Doubled(nn.Module):
    def forward(self, w):
        return 2 * w


def test_parametrized_weight():
    layer = nn.Linear(6, 4)
    parametrize.register_parametrization(layer, "weight", Doubled())
    x = torch.randn(3, 6)
    q = quantize_dynamic(nn.Sequential(layer))
    assert type(q[0]) is Linear
    assert (q(x) - layer(x)).abs().max() < 0.1


def test_weight_norm_hook():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = nn.utils.weight_norm(nn.Linear(6, 4))
    with torch.no_grad():
        layer.weight_g.mul_(3)  # the weight attribute is stale until the hook runs
    expected = layer(x := torch.randn(3, 6))
    with torch.no_grad():
        layer.weight_g.mul_(1.0)
    q = quantize_dynamic(nn.Sequential(layer), inplace=True)
    assert (q(x) - expected).abs().max() < 0.2 and not q[0]._forward_pre_hooks


def test_forward_hooks_are_carried_over():
    model = nn.Sequential(nn.Linear(4, 2))
    calls = []
    model[0].register_forward_pre_hook(lambda m, a: calls.append("pre"))
    model[0].register_forward_hook(lambda m, a, k, y: calls.append("post"), with_kwargs=True)
    handle = model[0].register_forward_hook(lambda m, a, y: calls.append("removed"))
    q = quantize_dynamic(model, inplace=True)
    handle.remove()
    q(torch.randn(1, 4))
    assert calls[:2] == ["pre", "post"]


def test_bfloat16_model():
    model = Net().bfloat16()
    q = quantize_dynamic(model)
    x = torch.randn(4, 12).bfloat16()
    assert q(x).dtype == torch.bfloat16
    assert (q(x).float() - model(x).float()).abs().max() < 0.1
    # Packed at conversion for the dtype that it will get, so never again.
    assert {e["pack_count"] for e in torch_ao_ext.explain(q).weights.values()} == {1}


def test_default_is_more_accurate_than_torch_ao_numerics(sqnr):
    model = nn.Sequential(nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 64))
    x = torch.randn(64, 256) * torch.logspace(-1, 1, 64).unsqueeze(1)
    ours = sqnr(model(x), quantize_dynamic(model)(x))
    theirs = sqnr(model(x), quantize_dynamic(model, {nn.Linear: default_dynamic_qconfig})(x))
    assert ours > theirs + 3


def test_mapping_getters():
    from torch_ao_ext.quantization import (
        get_default_dynamic_quant_module_mappings,
        get_dynamic_quant_module_class,
    )

    table = get_default_dynamic_quant_module_mappings()
    table.clear()
    assert get_dynamic_quant_module_class(nn.Linear) is Linear
    assert get_dynamic_quant_module_class(nn.MultiheadAttention) is MultiheadAttention
    assert get_dynamic_quant_module_class(nn.Conv1d, {nn.Conv1d: Linear}) is Linear
    with pytest.raises(ValueError, match="must be one of .*Linear.*got .*Conv1d"):
        get_dynamic_quant_module_class(nn.Conv1d)


def test_packed_before_the_first_call():
    q = quantize_dynamic(Net())
    counts = {name: e["pack_count"] for name, e in torch_ao_ext.explain(q).weights.items()}
    assert set(counts) == ALL and set(counts.values()) == {1}
    q(torch.randn(3, 12)), q(torch.randn(1, 12))
    assert {e["pack_count"] for e in torch_ao_ext.explain(q).weights.values()} == {1}


def test_transformers_bert():
    import transformers

    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    model = transformers.BertModel(config).eval()
    q = quantize_dynamic(model)
    result = torch_ao_ext.report(q)
    assert result.int8["Linear"] == 2 * 6 + 1 and result.float["Linear"] == 0
    ids = torch.randint(0, 50, (2, 9))
    with torch.no_grad():
        expected, got = model(ids).last_hidden_state, q(ids).last_hidden_state
    assert (got - expected).abs().max() < 0.2 * expected.abs().max()


def test_transformers_gpt2():
    import transformers

    config = transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=32)
    model = transformers.GPT2LMHeadModel(config).eval()
    q = quantize_dynamic(model)
    assert torch_ao_ext.report(q).int8["Linear"] == 2 * 4 + 1  # 4 Conv1D a layer, tied lm_head
    ids = torch.randint(0, 50, (2, 9))
    with torch.no_grad():
        assert (q(ids).logits - model(ids).logits).abs().max() < 0.2
