"""quantize_dynamic: what is converted, by which rule, and what it says about the rest."""

import copy
import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import torch_ao_ext
from torch_ao_ext.nn.intrinsic import LinearReLU
from torch_ao_ext.nn.quantized.dynamic import DynamicQuant, Linear, MultiheadAttention
from torch_ao_ext.quantization import (
    QConfig,
    default_dynamic_qconfig,
    mse_row_dynamic_qconfig,
    per_channel_dynamic_qconfig,
    quantize_dynamic,
    row_dynamic_qconfig,
)


class Block(nn.Module):
    def __init__(self, k=12, n=8):
        super().__init__()
        self.fc1 = nn.Linear(k, n)
        self.act = nn.ReLU()
        self.fc2 = nn.Linear(n, k)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(Block(), Block())
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.encoder(x))


def kinds(model):
    """fqn -> True for the layers that are int8."""
    layers = (nn.Linear, Linear)
    return {n: isinstance(m, Linear) for n, m in model.named_modules() if isinstance(m, layers)}


ALL = {"encoder.0.fc1", "encoder.0.fc2", "encoder.1.fc1", "encoder.1.fc2", "head"}


def test_default_converts_a_copy():
    model = Net()
    before = copy.deepcopy(model.state_dict())
    q = quantize_dynamic(model)
    assert set(kinds(q)) == ALL and all(kinds(q).values())
    assert not any(kinds(model).values())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training and not q.training
    assert not any(hasattr(m, "qconfig") for m in (*q.modules(), *model.modules()))
    x = torch.randn(5, 12)
    assert (q(x) - model(x)).abs().max() < 0.05


def test_copy_shares_nothing_with_the_original():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Embedding(5, 4))
    q = quantize_dynamic(model)
    x = torch.randn(2, 4)
    expected = q[0](x)
    theirs = {t.data_ptr() for t in model.state_dict().values()}
    assert not theirs & {t.data_ptr() for t in q.state_dict().values()}
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert torch.equal(q[0](x), expected) and q[1].weight.abs().sum() > 0


def test_inplace_converts_the_model_and_frees_the_floats():
    model = Net()
    weights = [weakref.ref(m.weight) for m in model.modules() if isinstance(m, nn.Linear)]
    q = quantize_dynamic(model, inplace=True)
    gc.collect()
    assert q is model and all(kinds(model).values())
    assert [w for w in weights if w() is not None] == []


def test_root_that_is_a_layer():
    layer = nn.Linear(4, 2)
    q = quantize_dynamic(layer)
    assert isinstance(q, Linear) and isinstance(layer, nn.Linear)
    assert isinstance(quantize_dynamic(layer, inplace=True), Linear)


SPECS = {
    "type": ({nn.Linear}, ALL),
    "name": ({"head"}, {"head"}),
    "subtree": ({"encoder.1"}, {"encoder.1.fc1", "encoder.1.fc2"}),
    "container type": ({Block}, ALL - {"head"}),
    "dict": ({"encoder": default_dynamic_qconfig}, ALL - {"head"}),
    "name None beats type": ({nn.Linear: default_dynamic_qconfig, "head": None}, ALL - {"head"}),
    "type beats inherited None": ({nn.Linear: default_dynamic_qconfig, "encoder": None}, ALL),
    "name inside None subtree": (
        {"encoder": None, "": default_dynamic_qconfig, "encoder.0.fc1": default_dynamic_qconfig},
        {"encoder.0.fc1", "head"},
    ),
}


@pytest.mark.parametrize("case", list(SPECS))
def test_spec_selects_as_torch_ao_does(case):
    import warnings

    spec, expected = SPECS[case]
    q = quantize_dynamic(Net(), spec)
    assert {name for name, int8 in kinds(q).items() if int8} == expected
    with warnings.catch_warnings():  # the peer, as it is in torch
        warnings.simplefilter("ignore")
        import torch.ao.quantization as peer

        theirs = copy.deepcopy(spec)
        if isinstance(theirs, dict):
            theirs = {k: v and peer.default_dynamic_qconfig for k, v in theirs.items()}
        t = peer.quantize_dynamic(Net(), theirs)
        peer_linear = torch.ao.nn.quantized.dynamic.Linear
        assert {n for n, m in t.named_modules() if isinstance(m, peer_linear)} == expected


def test_qconfig_chooses_the_numerics():
    default = quantize_dynamic(Net(), {nn.Linear})
    assert default.head.dynamic_quant == DynamicQuant(True, False, False)
    assert default.head.weight_scale.shape == (3,)
    spec = {"head": default_dynamic_qconfig, "encoder.0": per_channel_dynamic_qconfig,
            "encoder.1": mse_row_dynamic_qconfig}  # fmt: skip
    q = quantize_dynamic(Net(), spec)
    assert q.head.dynamic_quant == DynamicQuant(False, False, True)
    assert q.head.weight_scale.shape == (1,)
    assert q.encoder[0].fc1.dynamic_quant == DynamicQuant(False, False, True)
    assert q.encoder[0].fc1.weight_scale.shape == (8,)
    assert q.encoder[1].fc1.dynamic_quant == DynamicQuant()


def test_qconfig_attribute_of_a_module_wins():
    model = Net()
    model.head.qconfig = None
    model.encoder.qconfig = default_dynamic_qconfig
    q = quantize_dynamic(model, {"head": row_dynamic_qconfig, nn.Linear: row_dynamic_qconfig})
    assert not kinds(q)["head"] and kinds(q)["encoder.0.fc1"]


def test_int8_and_qint8_are_the_same():
    assert all(kinds(quantize_dynamic(Net(), {nn.Linear}, dtype=torch.int8)).values())
    assert all(kinds(quantize_dynamic(Net(), {nn.Linear}, dtype=torch.qint8)).values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.quint8, torch.quint4x2])
def test_unsupported_dtype(dtype):
    with pytest.raises(ValueError, match="argument 'dtype' must be torch.qint8 or torch.int8, got"):
        quantize_dynamic(Net(), dtype=dtype)
    assert all(kinds(quantize_dynamic(Net(), {nn.Linear: row_dynamic_qconfig}, dtype=dtype)).values())


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"qconfig_spec": [nn.Linear]}, "argument 'qconfig_spec' must be a dict, a set or None, got list"),
        ({"qconfig_spec": {nn.Linear: 3}}, "must map .* to a QConfig or None, got 3"),
        ({"qconfig_spec": {3: None}}, "must have types and names as keys, got 3"),
        ({"mapping": {nn.Linear: nn.Identity}}, "'mapping' must have values with from_float, got .*Identity"),
        ({"model": torch.ones(1)}, "argument 'model' must be a Python nn.Module, got Tensor"),
        ({"qconfig_spec": {nn.Linear: QConfig(nn.Identity, None)._replace(
            weight=torch_ao_ext.quantization.PlaceholderObserver.with_args(dtype=torch.float16))}},
         r"'encoder.0.fc1': qconfig.weight must observe for int8 .*, got torch.float16"),
    ],
)  # fmt: skip
def test_bad_arguments(arguments, text):
    with pytest.raises(ValueError, match=text):
        quantize_dynamic(**{"model": Net(), **arguments})


def test_bad_qconfig_changes_nothing_in_place():
    axis1 = torch_ao_ext.quantization.default_per_channel_weight_observer.with_args(ch_axis=1)
    bad = QConfig(torch_ao_ext.quantization.default_dynamic_quant_observer, axis1)
    model = Net()
    with pytest.raises(ValueError, match="'head': qconfig.weight must have ch_axis 0 .*, got 1"):
        quantize_dynamic(model, {nn.Linear: row_dynamic_qconfig, "head": bad}, inplace=True)
    assert not any(kinds(model).values())


def test_scripted_model_is_refused():
    with pytest.raises(ValueError, match="must be a Python nn.Module"):
        quantize_dynamic(torch.jit.script(nn.Linear(2, 2)))


# --- what stays float, and how that is said ---------------------------------------------------


class Adapted(nn.Linear):
    def forward(self, x):
        return super().forward(x) + 1


class Renamed(nn.Linear):
    """A subclass that changes nothing about forward."""


def reason_of(model, name):
    return {row.fqn: row.reason for row in torch_ao_ext.report(model).rows}[name]


def test_subclass_without_own_forward_is_converted():
    q = quantize_dynamic(nn.Sequential(Renamed(4, 2)), {nn.Linear})
    assert isinstance(q[0], Linear)


def test_subclass_with_own_forward_is_reported():
    model = nn.Sequential(Adapted(4, 4), nn.Linear(4, 4))
    q = quantize_dynamic(model)
    assert type(q[0]) is Adapted and isinstance(q[1], Linear)
    assert reason_of(q, "0") == "subclass overrides forward of nn.Linear"
    with pytest.raises(ValueError, match="'0': subclass overrides forward of nn.Linear"):
        quantize_dynamic(model, strict=True)


def test_forward_replaced_on_the_instance_is_reported():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[0].forward = lambda x: x
    q = quantize_dynamic(model)
    assert type(q[0]) is nn.Linear
    assert reason_of(q, "0") == "its forward was replaced on the instance"


def test_lazy_and_meta_layers_are_reported():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LazyLinear announces itself
        lazy = nn.LazyLinear(3)
    model = nn.Sequential(lazy, nn.Linear(2, 2, device="meta"), nn.Linear(2, 2))
    q = quantize_dynamic(model)
    assert reason_of(q, "0") == "lazy parameters are not initialised"
    assert reason_of(q, "1") == "weights are on device meta; needs cpu"


def test_nothing_quantized_warns_and_raises_when_strict():
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU())
    with pytest.warns(UserWarning, match=r"nothing was quantized: found nn.Conv2d; no dynamic int8"):
        assert type(quantize_dynamic(model)[0]) is nn.Conv2d
    with pytest.raises(ValueError, match="nothing was quantized"):
        quantize_dynamic(model, strict=True)
    with pytest.warns(UserWarning, match="nn.Linear not in qconfig_spec"):
        quantize_dynamic(Net(), {nn.LayerNorm})


def test_second_conversion_says_that_it_is_int8_already():
    q = quantize_dynamic(Net())
    with pytest.warns(UserWarning, match="5 modules that are int8 already"):
        quantize_dynamic(q)


def test_none_is_told_from_not_asked():
    q = quantize_dynamic(Net(), {"": row_dynamic_qconfig, "encoder.0": None})
    assert reason_of(q, "encoder.0.fc1") == "qconfig_spec says None"
    q = quantize_dynamic(Net(), {"head"})
    assert reason_of(q, "encoder.0.fc1") == "nn.Linear not in qconfig_spec"


def test_unknown_names_are_named():
    with pytest.warns(UserWarning, match="qconfig_spec names that no module has: 'decoder', 'hed'"):
        spec = {"decoder": None, "hed": row_dynamic_qconfig, nn.Linear: row_dynamic_qconfig}
        q = quantize_dynamic(Net(), spec)
    assert all(kinds(q).values())
    with pytest.raises(ValueError, match="'hed'"):
        quantize_dynamic(Net(), {"hed": None, nn.Linear: row_dynamic_qconfig}, strict=True)


def test_names_inside_a_layer_converted_whole_are_named():
    model = nn.Sequential(nn.MultiheadAttention(8, 2))
    spec = {nn.MultiheadAttention: row_dynamic_qconfig, "0.out_proj": None}
    text = "names without effect inside a layer converted whole: '0.out_proj'"
    with pytest.warns(UserWarning, match=text):
        assert isinstance(quantize_dynamic(model, spec)[0], MultiheadAttention)
    with pytest.raises(ValueError, match=text):
        quantize_dynamic(model, spec, strict=True)
    agreed = {**spec, "0.out_proj": row_dynamic_qconfig}
    assert isinstance(quantize_dynamic(model, agreed, strict=True)[0], MultiheadAttention)


def test_requested_type_without_int8_module_is_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 4))
    text = "1 requested modules stay float: '1': no dynamic int8 module for nn.LSTM"
    with pytest.warns(UserWarning, match=text):
        quantize_dynamic(model, {nn.Linear, nn.LSTM})
    q = quantize_dynamic(model)  # the defaults did not ask for it
    assert reason_of(q, "1") == "no dynamic int8 module for nn.LSTM"


def test_strict_passes_when_all_is_well():
    assert all(kinds(quantize_dynamic(Net(), strict=True)).values())


@pytest.mark.parametrize("bad, word", [(float("nan"), "NaN"), (float("-inf"), "an infinity")])
@pytest.mark.parametrize("inplace", [False, True])
def test_weight_that_is_not_finite_names_the_layer_and_changes_nothing(bad, word, inplace):
    model = Net()
    with torch.no_grad():
        model.encoder[1].fc2.weight[0, 0] = bad
    with pytest.raises(ValueError, match=f"'encoder.1.fc2.weight' must be finite, got {word}"):
        quantize_dynamic(model, inplace=inplace)
    assert not any(kinds(model).values())


# --- shared things ----------------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 4), nn.Linear(6, 4, bias=False), nn.Linear(6, 4)
        self.b.weight = self.c.weight = self.a.weight
        self.c.bias = self.a.bias
        self.table = nn.Embedding(4, 6)
        self.table.weight = self.a.weight

    def forward(self, x):
        return self.a(x) + self.b(x) + self.c(x)


@pytest.mark.parametrize("inplace", [False, True])
def test_tied_weights_share_int8_tensors(inplace):
    model = Tied().eval()
    x = torch.randn(3, 6)
    expected = model(x)
    q = quantize_dynamic(model, inplace=inplace)
    assert q.a.qweight is q.b.qweight is q.c.qweight
    assert q.a.weight_scale is q.b.weight_scale
    assert q.b.qbias is None and q.a.qbias is q.c.qbias
    assert (q(x) - expected).abs().max() < 0.05
    assert q.table.weight.dtype == torch.float32
    again = copy.deepcopy(q)
    assert again.a.qweight is again.c.qweight and again.a.qweight is not q.a.qweight
    assert torch.equal(again(x), q(x))
    if not inplace:
        assert q.table.weight is not model.table.weight and model.a.weight is model.table.weight


def test_tied_weights_stay_shared_after_loading(tmp_path):
    import safetensors.torch as safetensors

    saved = quantize_dynamic(Tied())
    safetensors.save_model(saved, tmp_path / "m.safetensors")  # keeps one name of each tensor
    x = torch.randn(3, 6)
    for how in ("safetensors", "state_dict"):
        q = quantize_dynamic(Tied())
        assert not torch.equal(q(x), saved(x))
        if how == "safetensors":
            safetensors.load_model(q, tmp_path / "m.safetensors")
        else:
            q.load_state_dict(saved.state_dict())
        assert torch.equal(q(x), saved(x)), how
        assert q.a.qweight is q.c.qweight and q.a.weight_scale is q.c.weight_scale


def test_reused_module_stays_one_module():
    shared = nn.Linear(6, 6)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.Sequential(shared))
    q = quantize_dynamic(model)
    assert isinstance(q[0], Linear) and q[0] is q[2] is q[3][0]


def test_reused_container():
    block = Block()
    q = quantize_dynamic(nn.ModuleList([block, block]))
    assert q[0] is q[1] and all(kinds(q).values())


# --- other kinds of layers --------------------------------------------------------------------


class Conv1D(nn.Module):
    """The shape of transformers' Conv1D: weight stored [K, N]."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.randn(nx, nf))
        self.bias = nn.Parameter(torch.randn(nf))

    def forward(self, x):
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).reshape(
            *x.shape[:-1], self.nf
        )


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
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao.nn.intrinsic import LinearReLU as Theirs
    q = quantize_dynamic(nn.Sequential(Theirs(nn.Linear(6, 4), nn.ReLU())))
    assert type(q[0]) is torch_ao_ext.nn.intrinsic.quantized.dynamic.LinearReLU


def test_custom_mapping():
    class Mine(nn.Module):
        @classmethod
        def from_float(cls, mod):
            assert mod.qconfig is row_dynamic_qconfig
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
    import warnings

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


MEMORY = """
import ctypes, gc, re, sys
import torch, torch_ao_ext
from torch import nn

def megabytes(key):
    return int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

convert = torch_ao_ext.quantization.quantize_dynamic
convert(nn.Sequential(nn.Linear(64, 64)))(torch.randn(2, 64))  # what is allocated once
base = megabytes("VmRSS")
model = nn.Sequential(*[nn.Linear(2048, 2048) for _ in range(8)])
full = megabytes("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
model = convert(model, inplace=sys.argv[1] == "inplace")
gc.collect(); ctypes.CDLL(None).malloc_trim(0)
model(torch.randn(4, 2048))
print(megabytes("VmHWM") - full, megabytes("VmRSS") - base)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", ["inplace", "copy"])
def test_memory(how):
    """8 layers of 4 MB in int8, 16 MB in float32."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, how], capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(torch_ao_ext.__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    peak_extra, kept = map(float, done.stdout.split())
    assert kept <= 2.1 * 32 + 3, "plain and packed weights, and nothing else"
    # In place: one plain layer, one packed layer, one block of rows. A copy holds the
    # plain and packed layers beside the float model, but no second float model.
    assert peak_extra <= (12 if how == "inplace" else 2.1 * 32 + 12)
