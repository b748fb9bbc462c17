"""nn.quantized.dynamic.Linear: numbers, state, every way to store or compile it."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import torch_ao_ext
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.intrinsic.quantized.dynamic import LinearReLU
from torch_ao_ext.nn.quantized.dynamic import DynamicQuant, Linear
from torch_ao_ext.quantization import (
    QConfig,
    default_dynamic_qconfig,
    mse_row_dynamic_qconfig,
    per_channel_dynamic_qconfig,
    row_dynamic_qconfig,
)
from torch_ao_ext.quantization.observer import RowPlaceholderObserver, default_weight_observer

QCONFIGS = {
    "row": row_dynamic_qconfig,
    "mse": mse_row_dynamic_qconfig,
    "per_tensor": default_dynamic_qconfig,
    "per_channel": per_channel_dynamic_qconfig,
    "symmetric": QConfig(
        RowPlaceholderObserver.with_args(per_row=True, symmetric=True), default_weight_observer
    ),
}


def float_linear(k=24, n=10, bias=True, qconfig=row_dynamic_qconfig, dtype=torch.float32):
    layer = nn.Linear(k, n, bias=bias, dtype=dtype)
    layer.qconfig = qconfig
    return layer


def quantized(**kwargs) -> Linear:
    return Linear.from_float(float_linear(**kwargs))


def reference_rows(x, layer):
    """The row rule of csrc/engines/linear.h, written out: float64 where it is exact."""
    rule = layer.dynamic_quant
    assert rule.per_row and not rule.reduce_range
    rows = x.reshape(-1, x.shape[-1]).float()
    low, high = rows.amin(1, keepdim=True).clamp_max(0), rows.amax(1, keepdim=True).clamp_min(0)
    if rule.symmetric:
        scale, point, lo, hi = torch.maximum(-low, high) / 127, torch.zeros_like(low), -127, 127
    else:
        scale, lo, hi = (high - low) / 255, 0, 255
        point = (-low / scale).round().clamp(lo, hi)
    q = ((rows * scale.reciprocal()).round() + point).clamp(lo, hi) - point
    acc = q.double() @ layer.qweight.double().t()
    y = acc.float() * (scale * layer.weight_scale.reshape(1, -1))
    return y if layer.qbias is None else y + layer.qbias


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["row", "mse", "symmetric"])
@pytest.mark.parametrize("shape", [(24,), (1, 24), (5, 24), (2, 3, 24), (0, 24), (2, 0, 24)])
def test_forward_follows_the_row_rule(name, bias, shape):
    layer = quantized(bias=bias, qconfig=QCONFIGS[name])
    x = torch.randn(shape) * 3
    y = layer(x)
    assert y.shape == (*shape[:-1], 10) and y.dtype == torch.float32 and y.is_contiguous()
    expected = reference_rows(x, layer).reshape(y.shape)
    # The rule: f32 steps from an exact accumulator, so a few ulp of the largest term.
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", ["per_tensor", "per_channel"])
def test_torch_ao_qconfig_gives_torch_ao_numbers(name):
    """The peer runs as it is in torch; only its answers are used."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch.ao.quantization as peer

        config = {
            "per_tensor": peer.default_dynamic_qconfig,
            "per_channel": peer.per_channel_dynamic_qconfig,
        }[name]
        model = nn.Sequential(nn.Linear(64, 48), nn.Linear(48, 16, bias=False))
        theirs = peer.quantize_dynamic(model, {nn.Linear: config})
        ours = torch_ao_ext.quantization.quantize_dynamic(model, {nn.Linear: QCONFIGS[name]})
        also_ours = torch_ao_ext.quantization.quantize_dynamic(model, {nn.Linear: config})
        for mine, other in zip(ours, theirs, strict=True):
            w = other.weight()
            assert torch.equal(mine.qweight, w.int_repr())
            scales = w.q_per_channel_scales() if name == "per_channel" else torch.tensor([w.q_scale()])
            assert torch.equal(mine.weight_scale, scales.float())
            assert mine.dynamic_quant == DynamicQuant(False, False, True)
        x = torch.randn(32, 64)
        first = theirs[0](x)
        assert torch.allclose(ours[0](x), first, rtol=1e-6, atol=2e-6)
        assert torch.equal(also_ours(x), ours(x))


def test_default_weight_rule():
    layer = float_linear(k=300, n=4)
    with torch.no_grad():
        layer.weight[1] = 0
        layer.weight[2] = 1e-42  # subnormal: the scale stays normal
        layer.weight[3] *= 1e-12  # far below torch.ao's smallest scale
    q = Linear.from_float(layer)
    largest = layer.weight.abs().amax(1)
    tiny = torch.finfo(torch.float32).tiny
    expected = torch.stack(
        [largest[0] / 127.5, torch.tensor(1.0), torch.tensor(tiny), largest[3] / 127.5]
    )
    assert torch.equal(q.weight_scale, expected.detach())
    assert q.weight_zero_point is None
    codes = (layer.weight * (1 / q.weight_scale)[:, None]).round().clamp(-128, 127)
    assert torch.equal(q.qweight, codes.to(torch.int8))
    assert q.qweight[0].abs().max() >= 127 and q.qweight[3].abs().max() >= 127


def test_mse_search_lowers_the_error():
    layer = float_linear(k=16384, n=4)
    with torch.no_grad():
        layer.weight.normal_()
        layer.weight[:, 0] = 5.5  # clipping it pays

    def error(config):
        layer.qconfig = config
        weight = Linear.from_float(layer).weight().dequantize()
        return (weight - layer.weight).square().sum(1)

    base, searched = error(row_dynamic_qconfig), error(mse_row_dynamic_qconfig)
    assert (searched <= base).all() and searched.sum() < 0.97 * base.sum()


def test_affine_weight_observer_keeps_its_zero_point():
    from torch_ao_ext.quantization import MinMaxObserver

    config = QConfig(
        RowPlaceholderObserver, MinMaxObserver.with_args(dtype=torch.int8, qscheme=torch.per_tensor_affine)
    )
    layer = float_linear(qconfig=config)
    with torch.no_grad():
        layer.weight.uniform_(0.1, 1.0)
    q = Linear.from_float(layer)
    assert q.weight_zero_point.dtype == torch.int32 and int(q.weight_zero_point) == -128
    assert (q.weight().dequantize() - layer.weight).abs().max() < 1.01 * q.weight().q_scale()
    x = torch.randn(6, 24)
    assert (q(x) - layer(x)).abs().max() < 0.1
    other = Linear(24, 10)
    other.load_state_dict(q.state_dict())
    assert torch.equal(other(x), q(x))


def test_bfloat16_input_gives_bfloat16():
    layer = quantized()
    x = torch.randn(4, 24).bfloat16()
    y = layer(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, layer(x.float()).bfloat16())


def test_bfloat16_model():
    layer = quantized(dtype=torch.bfloat16)
    assert layer.weight_scale.dtype == torch.float32 and layer.qbias.dtype == torch.float32
    assert layer(torch.randn(4, 24).bfloat16()).dtype == torch.bfloat16


def test_autocast_leaves_the_layer_alone():
    layer = quantized()
    x = torch.randn(4, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.float32 and torch.equal(y, layer(x))


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double", "float"])
def test_casts_keep_scales_and_bias(cast):
    layer = quantized()
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    model = nn.Sequential(layer, nn.Linear(10, 2))
    getattr(model, cast)()
    after = layer.state_dict()
    assert all(torch.equal(before[k], after[k]) and before[k].dtype == after[k].dtype for k in before)
    assert model[1].weight.dtype == getattr(torch, cast)


def test_inference_only():
    layer = quantized()
    x = torch.randn(3, 24, requires_grad=True)
    y = layer(x)
    with pytest.raises(RuntimeError, match="inference"):
        y.sum().backward()


def test_input_errors_name_the_argument():
    layer = quantized()
    with pytest.raises(ValueError, match=r"linear_dynamic: argument 'input'.*size\(-1\).*24.*got 23"):
        layer(torch.randn(3, 23))
    with pytest.raises(TypeError, match="linear_dynamic: argument 'input'.*float32 or bfloat16, got float64"):
        layer(torch.randn(3, 24, dtype=torch.float64))


def test_state_is_plain_tensors():
    state = quantized().state_dict()
    assert list(state) == ["qweight", "weight_scale", "qbias", "format_version", "act_quant"]
    assert [v.dtype for v in state.values()] == [
        torch.int8, torch.float32, torch.float32, torch.int64, torch.int64,
    ]  # fmt: skip
    assert int(state["format_version"]) == 1


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", list(QCONFIGS))
def test_state_dict_round_trip(tmp_path, name, bias):
    layer = quantized(bias=bias, qconfig=QCONFIGS[name])
    x = torch.randn(7, 24)
    torch.save(layer.state_dict(), tmp_path / "state.pt")
    fresh = Linear(24, 10)  # with a bias and the default rule, whatever the file holds
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert fresh.dynamic_quant == layer.dynamic_quant
    assert torch.equal(fresh(x), layer(x))
    assigned = Linear(24, 10)
    assigned.load_state_dict(layer.state_dict(), assign=True)
    assert torch.equal(assigned(x), layer(x))


def test_load_state_dict_changes_the_result_of_a_packed_layer():
    first, second = quantized(), quantized()
    x = torch.randn(3, 24)
    expected = second(x)
    assert not torch.equal(first(x), expected)
    first.load_state_dict(second.state_dict())
    assert torch.equal(first(x), expected)


def test_newer_format_is_refused():
    state = quantized().state_dict()
    state["format_version"] = torch.tensor(99)
    with pytest.raises(RuntimeError, match="format_version must be <= 1, got 99"):
        Linear(24, 10).load_state_dict(state)


def test_wrong_shape_is_refused():
    with pytest.raises(RuntimeError, match="size mismatch"):
        Linear(24, 11).load_state_dict(quantized().state_dict())


def test_safetensors_round_trip(tmp_path):
    import safetensors.torch as safetensors

    model = nn.Sequential(quantized(), nn.ReLU(), quantized(k=10, n=3, qconfig=default_dynamic_qconfig))
    safetensors.save_model(model, tmp_path / "m.safetensors")
    fresh = nn.Sequential(Linear(24, 10), nn.ReLU(), Linear(10, 3))
    safetensors.load_model(fresh, tmp_path / "m.safetensors")
    x = torch.randn(5, 24)
    assert torch.equal(fresh(x), model(x))


def clones(layer, tmp_path):
    yield "deepcopy", copy.deepcopy(layer)
    yield "pickle", pickle.loads(pickle.dumps(layer))
    torch.save(layer, tmp_path / "m.pt")
    yield "torch.save", torch.load(tmp_path / "m.pt", weights_only=False)


@pytest.mark.parametrize("name", ["row", "per_tensor"])
@pytest.mark.parametrize("cls", [Linear, LinearReLU])
def test_copies_are_bit_equal(tmp_path, cls, name):
    if cls is Linear:
        layer = quantized(qconfig=QCONFIGS[name])
    else:
        layer = LinearReLU.from_float(fused(QCONFIGS[name]))
    layer.prepack()
    x = torch.randn(3, 24)
    expected = layer(x)
    for how, other in clones(layer, tmp_path):
        assert type(other) is cls and torch.equal(other(x), expected), how


def fused(qconfig):
    container = torch_ao_ext.nn.intrinsic.LinearReLU(nn.Linear(24, 10), nn.ReLU())
    container.qconfig = qconfig
    return container


@pytest.mark.parametrize("name", ["row", "per_tensor"])
def test_linear_relu_is_relu_of_linear(name):
    container = fused(QCONFIGS[name])
    layer = LinearReLU.from_float(container)
    container[0].qconfig = QCONFIGS[name]
    plain = Linear.from_float(container[0])
    x = torch.randn(9, 24)
    assert torch.equal(layer(x), plain(x).relu())
    assert (layer(x) == 0).any()


@pytest.mark.parametrize("name", ["row", "per_tensor"])
@pytest.mark.parametrize("cls", [Linear, LinearReLU])
def test_script_and_trace(cls, name):
    float_layer = float_linear(qconfig=QCONFIGS[name]) if cls is Linear else fused(QCONFIGS[name])
    layer = cls.from_float(float_layer)
    x = torch.randn(3, 24)
    expected = layer(x)
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(layer), buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)
    assert torch.equal(loaded(x), expected)
    assert torch.equal(torch.jit.freeze(loaded)(x), expected)
    traced = torch.jit.trace(layer, x)
    assert torch.equal(traced(x[:2]), layer(x[:2]))


def mlp(name):
    return nn.Sequential(
        quantized(qconfig=QCONFIGS[name]), nn.ReLU(), quantized(k=10, n=6, qconfig=QCONFIGS[name])
    )


@pytest.mark.parametrize("name", ["row", "per_tensor"])
def test_compile_fullgraph_dynamic(name):
    torch._dynamo.reset()
    model = mlp(name)
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for rows in (2, 5, 17):
            x = torch.randn(rows, 24)
            assert torch.equal(compiled(x), model(x))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", ["row", "per_tensor"])
def test_export_save_load(name, strict):
    model = mlp(name)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        model, (torch.randn(4, 24),), dynamic_shapes=({0: batch},), strict=strict
    )
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert targets.count(torch.ops.torch_ao.linear_dynamic.default) == 2
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    loaded = torch.export.load(buffer).module()
    for rows in (1, 9):
        x = torch.randn(rows, 24)
        assert torch.equal(loaded(x), model(x))


def test_aot_inductor(tmp_path):
    model = mlp("row")
    batch = torch.export.Dim("batch", min=1, max=64)
    with torch.no_grad():
        program = torch.export.export(model, (torch.randn(4, 24),), dynamic_shapes=({0: batch},))
        path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "m.pt2"))
        loaded = torch._inductor.aoti_load_package(path)
        for rows in (2, 9):
            x = torch.randn(rows, 24)
            assert torch.equal(loaded(x), model(x))


def test_linear_relu_compiles_and_exports(tmp_path):
    model = nn.Sequential(LinearReLU.from_float(fused(row_dynamic_qconfig)), quantized(k=10, n=6))
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, dynamic=True)
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.export.export(model, (torch.randn(4, 24),), dynamic_shapes=({0: batch},))
        path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "m.pt2"))
        torch.export.save(program, tmp_path / "program.pt2")
        exported = torch.export.load(tmp_path / "program.pt2").module()
        for run in (compiled, exported, torch._inductor.aoti_load_package(path)):
            for rows in (2, 9):
                x = torch.randn(rows, 24)
                assert torch.equal(run(x), model(x))


def runtimes(model, x):
    """The same model under every way to run it that this file tests, as callables."""
    yield "eager", model
    yield "script", torch.jit.script(model)
    yield "freeze", torch.jit.freeze(torch.jit.script(model))
    yield "trace", torch.jit.trace(model, x)
    yield "export", torch.export.export(model, (x,)).module()
    torch._dynamo.reset()
    yield "compile", torch.compile(model, fullgraph=True, backend="aot_eager")


@torch.no_grad()
def test_no_runtime_packs_again():
    """At most one packing for each layer, at the first call; none after it."""
    model = mlp("row").eval()
    x = torch.randn(3, 24)
    expected = model(x)
    for how, run in runtimes(model, x):
        before = torch.ops.torch_ao._pack_count()
        for _ in range(2):  # TorchScript's profiling executor optimizes at the second call
            assert torch.equal(run(x), expected), how
        first = torch.ops.torch_ao._pack_count() - before
        for _ in range(5):
            run(x)
        assert first <= 4 and torch.ops.torch_ao._pack_count() - before == first, how


def test_symbolic_trace():
    model = mlp("row")
    graph = torch.fx.symbolic_trace(model)
    x = torch.randn(3, 24)
    assert torch.equal(graph(x), model(x))


def test_functional_call_uses_the_given_weight():
    layer, other = quantized(), quantized()
    x = torch.randn(3, 24)
    state = dict(other.state_dict())
    assert torch.equal(torch.func.functional_call(layer, state, (x,)), other(x))


def test_set_weight_bias_and_accessors():
    source, layer = quantized(), Linear(24, 10)
    layer.set_weight_bias(source.weight(), source.bias())
    x = torch.randn(2, 24)
    assert torch.equal(layer(x), source(x))
    assert layer.weight().qscheme() == torch.per_channel_affine
    assert torch.equal(layer.weight().int_repr(), source.qweight)
    layer.set_weight_bias(QuantizedTensor(source.qweight, torch.tensor([0.5])), None)
    assert layer.weight().qscheme() == torch.per_tensor_affine
    assert layer.weight().q_scale() == 0.5 and layer.bias() is None
    with pytest.raises(ValueError, match=r"'weight' must be int8 \[10, 24\], got torch.int8 \[3, 24\]"):
        layer.set_weight_bias(QuantizedTensor(source.qweight[:3], torch.tensor([0.5])), None)
    with pytest.raises(ValueError, match=r"argument 'bias' must be \[10\], got \[3\]"):
        layer.set_weight_bias(source.weight(), torch.zeros(3))


def test_from_float_errors():
    with pytest.raises(ValueError, match="must have a qconfig"):
        Linear.from_float(nn.Linear(2, 2))
    conv = nn.Conv1d(2, 2, 1)
    conv.qconfig = row_dynamic_qconfig
    with pytest.raises(ValueError, match="must be nn.Linear or Conv1D, got Conv1d"):
        Linear.from_float(conv)
    layer = float_linear()
    with torch.no_grad():
        layer.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="weight must be finite, got NaN"):
        Linear.from_float(layer)
    with pytest.raises(ValueError, match="dtype"):
        Linear(2, 2, dtype=torch.float16)


def test_repr_tells_what_it_is():
    text = repr(quantized())
    assert text.startswith("DynamicQuantizedLinear(in_features=24, out_features=10, bias=True")
    assert "per_channel_affine" in text and "per_row" not in text
    assert "per_row=False" in repr(quantized(qconfig=default_dynamic_qconfig))


def test_share_memory_and_meta_device():
    layer = quantized()
    x = torch.randn(2, 24)
    expected = layer(x)
    layer.share_memory()
    assert torch.equal(layer(x), expected)
    meta = copy.deepcopy(layer).to("meta")
    assert meta(torch.empty(5, 24, device="meta")).shape == (5, 10)
