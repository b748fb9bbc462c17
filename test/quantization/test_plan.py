"""What quantize_dynamic leaves float, and how that is said."""

import copy
import warnings

import pytest
import torch
from float_models import Net, kinds, reason_of
from torch import nn

from torch_ao_ext.nn.quantized.dynamic import Linear, MultiheadAttention
from torch_ao_ext.quantization import (
    quantize_dynamic,
    row_dynamic_qconfig,
)


class Adapted(nn.Linear):
    def forward(self, x):
        return super().forward(x) + 1


class Renamed(nn.Linear):
    """A subclass that changes nothing about forward."""


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LazyLinear announces itself
        lazy = nn.LazyLinear(3)
    model = nn.Sequential(lazy, nn.Linear(2, 2, device="meta"), nn.Linear(2, 2))
    q = quantize_dynamic(model)
    assert reason_of(q, "0") == "lazy parameters are not initialised"
    assert reason_of(q, "1") == "weights are on device meta; needs cpu"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_dtype_that_the_ops_do_not_take_is_reported(dtype):
    """The first call would raise."""
    model = nn.Sequential(nn.Linear(4, 4, dtype=dtype), nn.MultiheadAttention(4, 2, dtype=dtype))
    mixed = nn.ModuleList([*copy.deepcopy(model), nn.Linear(4, 4)])
    text = f"weights have dtype {dtype}, and so will the input; needs torch.float32 or torch.bfloat16"
    q = quantize_dynamic(mixed)
    assert type(q[0]) is nn.Linear and type(q[1]) is nn.MultiheadAttention and isinstance(q[2], Linear)
    assert reason_of(q, "0") == reason_of(q, "1") == text
    assert q[0](torch.ones(2, 4, dtype=dtype)).dtype == dtype
    with pytest.warns(UserWarning, match=f"nothing was quantized: .*{text}"):
        quantize_dynamic(model)
    with pytest.raises(ValueError, match=f"'0': {text}"):
        quantize_dynamic(mixed, strict=True)


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
    model = nn.Sequential(nn.Linear(4, 4), nn.Bilinear(4, 4, 4))
    text = "1 requested modules stay float: '1': no dynamic int8 module for nn.Bilinear"
    with pytest.warns(UserWarning, match=text):
        quantize_dynamic(model, {nn.Linear, nn.Bilinear})
    q = quantize_dynamic(model)  # the defaults did not ask for it
    assert reason_of(q, "1") == "no dynamic int8 module for nn.Bilinear"


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
