"""Attention and encoders in every file format and runtime: the same bits as in eager."""

import copy
import pickle
import shutil
import warnings

import pytest
import safetensors.torch
import torch
from attention_cases import OPTIONS, B, E, L, S, encoder_layer, float_mha, inputs
from torch import nn

import torch_ao_ext
from torch_ao_ext.nn.quantized.dynamic import DynamicQuant, Linear, MultiheadAttention
from torch_ao_ext.quantization import default_dynamic_qconfig, quantize_dynamic, row_dynamic_qconfig

MODELS = ["mha split", "mha packed", "mha all options", "layer", "encoder"]


class Attend(nn.Module):
    """One output, so that every runtime returns a tensor."""

    def __init__(self, mha, need_weights=False):
        super().__init__()
        self.mha = mha
        self.need_weights = need_weights

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        y, weights = self.mha(query, key, value, need_weights=self.need_weights)
        if weights is not None:
            room = y.shape[-1] - weights.shape[-1]
            return torch.cat([y, torch.nn.functional.pad(weights, [0, room])], 1)
        return y


def make(name):
    """An int8 model and its inputs."""
    if name == "layer":
        return quantize_dynamic(encoder_layer(batch_first=True)), (torch.randn(B, L, E),)
    if name == "encoder":
        model = nn.TransformerEncoder(encoder_layer(batch_first=True), 2, nn.LayerNorm(E)).eval()
        return quantize_dynamic(model), (torch.randn(B, L, E),)
    options = {"batch_first": True}
    if name == "mha all options":
        options = OPTIONS["all"]
    mha = MultiheadAttention.from_float(float_mha(**options), packed_in_proj=name == "mha packed")
    return Attend(mha, need_weights=name == "mha split").eval(), inputs(options)


def blank(name, model):
    """The same model with other weights."""
    torch.manual_seed(99)
    other, x = make(name)
    with torch.no_grad():
        assert not torch.equal(other(*x), model(*x))
    return other


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save", "state_dict", "assign", "safetensors"])
def test_stored(name, how, tmp_path):
    model, x = make(name)
    file = tmp_path / "model"
    with torch.no_grad():
        expected = model(*x)
        if how == "deepcopy":
            other = copy.deepcopy(model)
        elif how == "pickle":
            other = pickle.loads(pickle.dumps(model))
        elif how == "torch.save":
            torch.save(model, file)
            other = torch.load(file, weights_only=False)
        else:
            other = blank(name, model)
            if how == "safetensors":
                safetensors.torch.save_file(model.state_dict(), file)
                other.load_state_dict(safetensors.torch.load_file(file))
            else:
                torch.save(model.state_dict(), file)
                state = torch.load(file, weights_only=True)
                other.load_state_dict(state, assign=how == "assign")
        assert torch.equal(other(*x), expected)
        assert {type(m) for m in other.modules()} == {type(m) for m in model.modules()}


def exported(model, x, tmp_path):
    program = torch.export.export(model, x)
    layers = sum(isinstance(m, Linear) for m in model.modules())
    # One input projection runs three times when query, key and value differ.
    runs = layers + 2 if getattr(getattr(model, "mha", None), "packed_in_proj", False) else layers
    assert sum("linear_dynamic" in str(n.target) for n in program.graph.nodes) == runs
    torch.export.save(program, tmp_path / "model.pt2")
    return torch.export.load(tmp_path / "model.pt2").module()


def scripted(model, x, tmp_path):
    with warnings.catch_warnings():  # nn.TransformerEncoder names its norm a constant
        warnings.filterwarnings("ignore", message="'norm' was found in ScriptModule constants")
        torch.jit.save(torch.jit.script(model), tmp_path / "model.pt")
    return torch.jit.load(tmp_path / "model.pt")


def traced(model, x, tmp_path):
    torch.jit.save(torch.jit.trace(model, x), tmp_path / "model.pt")
    return torch.jit.load(tmp_path / "model.pt")


def compiled(model, x, tmp_path):
    torch._dynamo.reset()
    # Eager kernels around ours: Inductor computes attention and norms in another order.
    return torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("runtime", [exported, scripted, traced, compiled])
def test_runtimes(name, runtime, tmp_path):
    model, x = make(name)
    with torch.no_grad():
        expected = model(*x)
        assert torch.equal(runtime(model, x, tmp_path)(*x), expected)


def test_scripted_encoder_takes_padding(tmp_path):
    model, (x,) = make("encoder")
    padding = torch.zeros(B, L, dtype=torch.bool)
    padding[0, -2:] = True
    with torch.no_grad():
        got = scripted(model, (x,), tmp_path)(x, src_key_padding_mask=padding)
        assert torch.equal(got, model(x, src_key_padding_mask=padding))


def test_scripted_attention_takes_a_mask(tmp_path):
    for packed in (False, True):
        q = MultiheadAttention.from_float(float_mha(batch_first=True), packed_in_proj=packed)
        x = inputs({"batch_first": True})
        mask = torch.rand(L, S) < 0.2
        for need_weights in (False, True):
            a = scripted(q, x, tmp_path)(*x, attn_mask=mask, need_weights=need_weights)
            b = q(*x, attn_mask=mask, need_weights=need_weights)
            assert torch.equal(a[0], b[0])


def test_aot_inductor(tmp_path):
    """Generated code computes float attention and norms in another order: not the same bits."""
    assert shutil.which("g++"), "AOTInductor needs g++, as the build of this library does"
    model, x = make("encoder")
    with torch.no_grad():
        path = torch._inductor.aoti_compile_and_package(
            torch.export.export(model, x), package_path=str(tmp_path / "m.pt2")
        )
        got, expected = torch._inductor.aoti_load_package(path)(*x), model(*x)
    # A difference of one ulp may move an activation by one of its 255 steps.
    assert (got - expected).abs().max() < 0.02 * expected.abs().max()
    assert (got - expected).abs().mean() < 2e-3 * expected.abs().max()


# --- one input projection, or three -----------------------------------------------------------

CONFIGS = {"row": row_dynamic_qconfig, "torch.ao": default_dynamic_qconfig}


def pair(name, config, seed):
    """The same float module with three projections and with one."""
    torch.manual_seed(seed)
    mha = float_mha(**OPTIONS[name])
    mha.qconfig = CONFIGS[config]
    return [MultiheadAttention.from_float(mha, packed_in_proj=packed) for packed in (False, True)]


@pytest.mark.parametrize("config", list(CONFIGS))
@pytest.mark.parametrize("name", ["plain", "no bias", "bias_kv"])
@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("source", [0, 1], ids=["from split", "from packed"])
@pytest.mark.parametrize("target", [0, 1], ids=["to split", "to packed"])
def test_state_of_either_form_loads(source, target, name, config, assign):
    saved, fresh = pair(name, config, 1)[source], pair(name, config, 2)[target]
    x = inputs(OPTIONS[name])
    before = fresh(*x)[0]
    state = saved.state_dict()
    keys = list(state)
    fresh.load_state_dict(state, assign=assign)
    assert list(state) == keys, "the caller's dict is left alone"
    assert not torch.equal(fresh(*x)[0], before)
    assert torch.equal(fresh(*x)[0], pair(name, config, 1)[target](*x)[0])
    for layer in fresh.modules():
        if isinstance(layer, Linear):
            assert not layer.qweight._is_view() and layer.qweight.storage_offset() == 0


def test_zero_points_and_input_rule_follow():
    rule = DynamicQuant(per_row=False, symmetric=False, reduce_range=True)
    split, packed = pair("plain", "row", 1)
    for part in (split.q_proj, split.k_proj, split.v_proj):
        part._set_dynamic_quant(rule)
    split.k_proj.weight_zero_point = torch.randint(-9, 9, (E,), dtype=torch.int32)
    split.v_proj.weight_zero_point = torch.randint(-9, 9, (1,), dtype=torch.int32)
    packed.load_state_dict(split.state_dict())
    assert packed.in_proj.dynamic_quant == rule
    points = packed.in_proj.weight_zero_point
    assert torch.equal(points[:E], torch.zeros(E, dtype=torch.int32))
    assert torch.equal(points[E : 2 * E], split.k_proj.weight_zero_point)
    assert torch.equal(points[2 * E :], split.v_proj.weight_zero_point.expand(E))
    back = pair("plain", "row", 3)[0]
    back.load_state_dict(packed.state_dict())
    x = inputs({})
    assert torch.equal(back(*x)[0], split(*x)[0])


def test_encoder_loads_three_projections_and_one():
    """What another program stored as three layers goes into an encoder, which keeps one."""
    encoder, (x,) = make("encoder")
    expected = encoder(x)
    state = {}
    for key, value in encoder.state_dict().items():
        layer, dot, name = key.partition(".self_attn.in_proj.")
        if not dot:
            state[key] = value
            continue
        parts = value.chunk(3) if value.dim() and len(value) == 3 * E else [value] * 3
        for part, rows in zip("qkv", parts, strict=True):
            state[f"{layer}.self_attn.{part}_proj.{name}"] = rows
    assert len(state) > len(encoder.state_dict())
    other = blank("encoder", encoder)
    other.load_state_dict(state)
    assert torch.equal(other(x), expected)


def test_three_layers_that_cannot_be_one_are_named():
    split, packed = pair("plain", "row", 1)
    state = split.state_dict()
    state["v_proj.act_quant"] = torch.tensor([0, 0, 1])
    text = r"in_proj needs one input rule, got act_quant \[\[1, 0, 0\], \[1, 0, 0\], \[0, 0, 1\]\]"
    with pytest.raises(RuntimeError, match=text):
        packed.load_state_dict(state)
    state = split.state_dict()
    del state["k_proj.qbias"]
    with pytest.raises(RuntimeError, match=r"in_proj needs a bias in all .* got \[True, False, True\]"):
        packed.load_state_dict(state)
    state = split.state_dict()
    del state["k_proj.qweight"]
    with pytest.raises(RuntimeError, match="Missing key.*in_proj.qweight"):
        packed.load_state_dict(state)
    wrong = pair("plain", "row", 1)[1].state_dict()
    wrong["in_proj.qweight"] = wrong["in_proj.qweight"][:-1]
    with pytest.raises(RuntimeError, match="Missing key.*q_proj.qweight"):
        split.load_state_dict(wrong)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["plain", "kdim vdim"])
@pytest.mark.parametrize("strict", [False, True])
def test_float_state_is_named(name, packed, strict):
    mha = float_mha(**OPTIONS[name])
    q = MultiheadAttention.from_float(mha, packed_in_proj=packed)
    key = "in_proj_weight" if name == "plain" else "k_proj_weight"
    hint = "is a float weight; load it into the float model, then convert that with quantize_dynamic"
    with pytest.raises(RuntimeError, match=f"{key} {hint}"):
        q.load_state_dict(mha.state_dict(), strict=strict)
    with pytest.raises(RuntimeError, match=f"out_proj.weight {hint}"):
        q.load_state_dict(mha.state_dict(), strict=strict)
    # The way that the message names.
    mha.load_state_dict(float_mha(**OPTIONS[name]).state_dict())
    assert torch_ao_ext.report(quantize_dynamic(mha)).float == {}
