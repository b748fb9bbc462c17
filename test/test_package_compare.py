"""compare and suggest_skip."""

import math

import pytest
import torch
from torch import nn

import torch_ao_ext
from torch_ao_ext import compare, suggest_skip
from torch_ao_ext.quantization import (
    QuantWrapper,
    get_default_qconfig,
    quantize,
    quantize_dynamic,
    quantize_weight_only,
)


class Deep(nn.Module):
    """Twenty linear layers; one has an outlier that spoils its scale."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(20))

    def forward(self, x):
        for i, layer in enumerate(self.layers):
            x = torch.relu(layer(x)) + x if i % 2 else layer(x)
        return x


def planted(index=7):
    model = Deep().eval().requires_grad_(False)
    model.layers[index].weight[:, 3] *= 200  # each row's scale is that of one column
    model.layers[index - 1].weight[3] = 0  # which gets nothing
    model.layers[index - 1].bias[3] = 0
    return model


def test_the_planted_layer_is_found_and_skipping_it_helps():
    model, x = planted(), torch.randn(64, 32)
    int8 = quantize_dynamic(model)
    found = compare(model, int8, x)
    assert [layer.fqn for layer in found.layers] == [f"layers.{i}" for i in range(20)]
    names = suggest_skip(found, 1)
    assert names == ["layers.7"] and found.worst(1)[0].local_db < found.worst(2)[1].local_db - 10
    healthy = Deep().eval().requires_grad_(False)
    best = compare(healthy, quantize_dynamic(healthy), x).output_db
    skipped = quantize_dynamic(
        model, {nn.Linear: torch_ao_ext.quantization.row_dynamic_qconfig, names[0]: None}
    )
    again = compare(model, skipped, x)
    assert len(again.layers) == 19
    assert again.output_db - found.output_db >= 0.9 * (best - found.output_db)


def test_static_models_and_what_a_layer_adds_alone():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    model = QuantWrapper(body).eval().requires_grad_(False)
    model.qconfig = get_default_qconfig("onednn")
    x = torch.randn(8, 3, 8, 8)
    int8 = quantize(model, lambda m, data: m(data), [x])
    found = compare(model, int8, x)
    names = [layer.fqn for layer in found.layers]
    assert names == ["quant", "module.0", "module.3", "dequant"]
    by_name = {layer.fqn: layer for layer in found.layers}
    assert by_name["dequant"].local_db == math.inf  # adds nothing
    assert by_name["module.3"].local_db >= by_name["module.3"].total_db - 0.5
    assert found.output_db == pytest.approx(by_name["dequant"].total_db)
    text = str(found)
    assert "module.3" in text and "alone dB" in text and f"output: {found.output_db:.1f} dB" in text


@pytest.mark.parametrize("quantized", [quantize_dynamic, quantize_weight_only])
def test_attention_and_dict_results(quantized):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.att, self.fc = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 4)

        def forward(self, x):
            y, _ = self.att(x, x, x, need_weights=False)
            return {"y": self.fc(y)}

    model = Net().eval().requires_grad_(False)
    found = compare(model, quantized(model), torch.randn(2, 5, 16))
    assert found.output_db > 20 and "fc" in [layer.fqn for layer in found.layers]


def test_a_model_that_is_one_layer_and_hooks_go():
    layer = nn.Linear(4, 2).eval()
    int8 = quantize_dynamic(layer)
    found = compare(layer, int8, torch.randn(3, 4))
    assert [e.fqn for e in found.layers] == [""] and not layer._forward_hooks and not int8._forward_hooks
    with pytest.raises(RuntimeError):
        compare(layer, int8, torch.randn(3, 5))
    assert not layer._forward_hooks


def test_refusals():
    layer = nn.Linear(4, 2)
    with pytest.raises(ValueError, match="'quantized_model' must have quantized layers"):
        compare(layer, nn.Linear(4, 2), torch.randn(3, 4))
    with pytest.raises(
        ValueError, match="compare: argument 'float_model' must be a Python nn.Module, got int"
    ):
        compare(3, layer)
    with pytest.raises(ValueError, match="'budget' must not be negative, got -1"):
        suggest_skip(torch_ao_ext._compare.Comparison(), -1)
