"""nn.quantized.dynamic Conv*: against the float layer of the int8 weights, torch.ao, files, runtimes."""

import copy
import warnings

import pytest
import torch
from torch import nn

import torch_ao_ext
from torch_ao_ext import load_quantized, save_quantized
from torch_ao_ext.nn.quantized import dynamic
from torch_ao_ext.quantization import (
    default_dynamic_qconfig,
    default_per_channel_qconfig,
    per_channel_dynamic_qconfig,
    quantize_dynamic,
)

CASES = {
    "plain": ("Conv", {}),
    "stride": ("Conv", {"stride": 2, "padding": 1}),
    "groups": ("Conv", {"groups": 2, "bias": False}),
    "reflect": ("Conv", {"padding": 1, "padding_mode": "reflect"}),
    "same": ("Conv", {"padding": "same"}),
    "transposed": ("ConvTranspose", {"stride": 2, "output_padding": 1}),
    "transposed groups": ("ConvTranspose", {"groups": 2}),
}


def make(name, rank, qconfig=per_channel_dynamic_qconfig):
    kind, options = CASES[name]
    torch.manual_seed(0)
    layer = getattr(nn, f"{kind}{rank}d")(4, 6, 3, **options).requires_grad_(False).eval()
    layer.qconfig = qconfig
    return layer, getattr(dynamic, f"{kind}{rank}d").from_float(layer), torch.randn(2, 4, *[7] * rank)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "qconfig", [per_channel_dynamic_qconfig, default_dynamic_qconfig], ids=["channel", "tensor"]
)
def test_against_the_formula(rank, name, qconfig):
    layer, int8, x = make(name, rank, qconfig)
    low, high = x.flatten(1).aminmax(dim=1)
    low, high = (v.reshape(2, *[1] * (rank + 1)) for v in (low.clamp(max=0), high.clamp(min=0)))
    scale = (high - low) / 255
    point = (-low / scale).round()
    rounded = ((x / scale).round() + point).clamp(0, 255).sub(point) * scale
    twin = copy.deepcopy(layer)
    groups, rest = layer.groups, [1] * rank
    scales = int8.weight_scale.expand(6)
    if int8._TRANSPOSED:
        factor = scales.reshape(groups, 1, -1).expand(-1, 4 // groups, -1).reshape(4, 6 // groups, *rest)
    else:
        factor = scales.reshape(6, 1, *rest)
    twin.weight.data = int8.qweight.float() * factor
    want = twin(rounded)
    assert torch.allclose(int8(x), want, rtol=1e-4, atol=1e-4)
    assert (int8(x) - layer(x)).abs().max() < 0.06
    assert torch.equal(int8(x)[:1], int8(x[:1]))
    assert torch.equal(int8(x[0]), int8(x[:1])[0])
    assert int8(x.bfloat16()).dtype == torch.bfloat16


def torch_ao_layer(layer, rank):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch.ao.nn.quantized.dynamic as theirs

        return getattr(theirs, f"Conv{rank}d").from_float(copy.deepcopy(layer))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_torch_ao_rounds_its_output_to_the_steps_of_the_input(rank):
    layer, _, x = make("stride", rank)
    peer = torch_ao_layer(layer, rank)
    w = peer.weight()
    op = getattr(torch.ops.torch_ao, f"conv{rank}d_dynamic")
    real = op(
        x, w.int_repr(), w.q_per_channel_scales().float(), None, layer.bias, False, False, True, None,
        layer.stride, layer.padding,
    )  # fmt: skip
    scale, point = torch.ops.torch_ao.choose_qparams(x, 0, 127)
    steps = ((real / scale).round() + point).clamp(0, 255) - point
    assert torch.allclose(peer(x), steps * scale, atol=1e-6)
    assert (real - layer(x)).pow(2).mean() < (peer(x) - layer(x)).pow(2).mean()


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_not_worse_than_torch_ao(rank):
    layer, int8, x = make("plain", rank)
    other = torch_ao_layer(layer, rank)(x)
    want = layer(x)
    assert (int8(x) - want).pow(2).mean() < (other - want).pow(2).mean() * 1.1


def test_model_file_and_runtimes(tmp_path):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2, stride=2), nn.Flatten(), nn.Linear(576, 5)
    )
    model = model.requires_grad_(False).eval()
    table = {
        nn.Conv2d: dynamic.Conv2d, nn.ConvTranspose2d: dynamic.ConvTranspose2d, nn.Linear: dynamic.Linear,
    }  # fmt: skip
    int8 = quantize_dynamic(model, set(table), mapping=table)
    assert [type(m) for m in (int8[0], int8[2], int8[4])] == list(table.values())
    x = torch.randn(2, 3, 8, 8)
    want = int8(x)
    assert (want - model(x)).abs().max() < 0.1
    assert dict(torch_ao_ext.report(int8).int8) == {"Conv2d": 1, "ConvTranspose2d": 1, "Linear": 1}
    other = torch.randn(2, 3, 8, 8) * 10  # another scale: nothing is packed anew, nothing baked in
    expected = int8(other)
    traced = torch.jit.trace(int8, x)
    assert torch.equal(traced(other), expected)
    exported = torch.export.export(int8, (x,)).module()
    assert torch.equal(exported(other), expected)
    packed = torch_ao_ext.explain(int8[0]).weights[""]["pack_count"]
    assert packed == 1
    path = tmp_path / "model.safetensors"
    save_quantized(int8, path)
    assert torch.equal(load_quantized(path)(x), want)
    fresh = quantize_dynamic(copy.deepcopy(model), set(table), mapping=table)
    fresh.load_state_dict(int8.state_dict())
    assert torch.equal(fresh(x), want)


def test_zeros_empty_and_extremes():
    _, int8, x = make("plain", 2)
    assert torch.allclose(int8(torch.zeros_like(x)), int8.qbias.reshape(-1, 1, 1).expand(2, 6, 5, 5))
    assert int8(x[:0]).shape == (0, 6, 5, 5)
    assert torch.isfinite(int8(x * 1e30)).all()
    x[1, 0, 3, 3] = float("nan")
    assert int8(x)[0].isfinite().all() and int8(x)[1].isnan().all()


def test_refusals():
    layer, int8, x = make("plain", 2)
    with pytest.raises(
        TypeError,
        match="nn.quantized.dynamic.Conv2d: argument 'input' must be float32 or bfloat16, got torch.int8",
    ):
        int8(x.to(torch.int8))
    with pytest.raises(ValueError, match="Conv1d.from_float: argument 'mod' must be nn.Conv1d, got Conv2d"):
        dynamic.Conv1d.from_float(layer)
    del layer.qconfig
    with pytest.raises(ValueError, match="Conv2d.from_float: argument 'mod' must have a qconfig"):
        dynamic.Conv2d.from_float(layer)
    layer.qconfig = default_per_channel_qconfig
    layer.weight.data[0] = float("inf")
    with pytest.raises(ValueError, match="weight must be finite, got an infinity"):
        dynamic.Conv2d.from_float(layer)
