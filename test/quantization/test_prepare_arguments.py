"""Arguments of prepare and convert in eager mode: mappings, custom modules, refusals."""

import warnings

import pytest
import torch
from eager_models import small
from torch import nn
from torch_ao_peer import peer

from torch_ao_ext import quantization as tq
from torch_ao_ext.nn import intrinsic
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.quantization import (
    QuantStub,
    QuantWrapper,
    convert,
    default_qconfig,
    get_default_qconfig,
    prepare,
    quantize,
)


@pytest.fixture(autouse=True)
def _quiet(_warnings_are_errors):
    """torch.ao warns of its end, and its tensors of their dtypes."""
    warnings.filterwarnings("ignore", message=r"torch\.quantize_per_tensor")
    warnings.filterwarnings("ignore", message=r"torch\.ao\.quantization is deprecated")
    warnings.filterwarnings("ignore", message="Please use quant_min and quant_max")


class Observed(nn.Module):
    """A custom module between the two steps."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)

    @classmethod
    def from_float(cls, mod):
        return cls(mod)


class Quantized(nn.Module):
    """What becomes of it."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return x

    @classmethod
    def from_observed(cls, mod):
        return cls(float(mod.activation_post_process.calculate_qparams()[0]))


def test_custom_modules():
    model = small(nn.Tanhshrink(), nn.Linear(6, 6))
    config = {"float_to_observed_custom_module_class": {nn.Tanhshrink: Observed}}
    observed = prepare(model, prepare_custom_config_dict=config)
    assert type(observed.module[0]) is Observed
    observed(torch.randn(8, 6))
    config = {"observed_to_quantized_custom_module_class": {Observed: Quantized}}
    int8 = convert(observed, convert_custom_config_dict=config)
    assert type(int8.module[0]) is Quantized and 0 < int8.module[0].scale < 1
    with pytest.raises(
        ValueError, match="prepare: keys of the custom config dict must be among .*got 'classes'"
    ):
        prepare(model, prepare_custom_config_dict={"classes": {}})


def test_allow_list_and_non_leaf_modules():
    model = small(nn.Linear(6, 6), nn.ReLU())
    observed = prepare(model, allow_list={nn.ReLU}, observer_non_leaf_module_list=[nn.Sequential])
    names = [n for n, m in observed.named_modules() if isinstance(m, tq.MinMaxObserver)]
    assert names == ["module.1.activation_post_process", "module.activation_post_process"]


def test_mapping_of_the_user():
    class Mine(nn.Identity):
        @classmethod
        def from_float(cls, mod, use_precomputed_fake_quant=False):
            return cls()

    model = small(nn.Linear(6, 6))
    observed = prepare(model)
    observed(torch.randn(4, 6))
    table = {**tq.get_default_static_quant_module_mappings(), nn.Linear: Mine}
    assert type(convert(observed, table).module[0]) is Mine
    with pytest.raises(
        ValueError, match="convert: argument 'mapping' must have values with from_float, got <class 'int'>"
    ):
        convert(observed, {nn.Linear: int})


def test_swap_module_and_propagation():
    layer = nn.Linear(6, 6)
    assert tq.swap_module(layer, tq.get_default_static_quant_module_mappings()) is layer
    model = nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 6), nn.ReLU()))
    tq.propagate_qconfig_(model, {"": default_qconfig, nn.ReLU: None, "1": get_default_qconfig("onednn")})
    assert model[0].qconfig is default_qconfig and model[1][1].qconfig is None
    assert model[1][0].qconfig is model[1].qconfig is not default_qconfig


def test_add_quant_dequant():
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU()).eval()
    model[0].qconfig = default_qconfig
    wrapped = tq.add_quant_dequant(model)
    assert type(wrapped[0]) is QuantWrapper and type(wrapped[1]) is nn.ReLU
    int8 = quantize(wrapped, lambda m, x: m(x), [torch.randn(8, 6)])
    assert type(int8[0].module) is nnq.Linear and int8(torch.randn(2, 6)).dtype == torch.float32
    layer = nn.Linear(2, 2)
    layer.qconfig = default_qconfig
    assert type(tq.add_quant_dequant(layer)) is QuantWrapper


def test_an_error_leaves_the_model_as_it_was():
    model = small(nn.Linear(6, 6), nn.Linear(6, 6))
    observed = prepare(model)
    observed(torch.randn(4, 6))
    observed.module[1].weight.data[0, 0] = float("inf")
    with pytest.raises(ValueError, match=r"convert: 'module\.1': weight must be finite, got an infinity"):
        convert(observed, inplace=True)
    assert type(observed.module[0]) is nn.Linear and type(observed.quant) is QuantStub
    counts = [len(m._forward_hooks) for m in (observed.quant, *observed.module)]
    assert counts == [1, 1, 1]  # they observe as before
    observed.module[1].weight.data[0, 0] = 0.0
    observed(torch.randn(4, 6) * 10)
    assert convert(observed).module[0].scale > 0


DYNAMIC = tq.default_dynamic_qconfig


REFUSED = {
    "no module": (lambda: prepare(3), "prepare: argument 'model' must be a Python nn.Module, got int"),
    "scripted": (
        lambda: convert(torch.jit.script(nn.Linear(2, 2))),
        "convert: argument 'model' must be a Python nn.Module",
    ),
    "reference": (lambda: convert(nn.Linear(2, 2), is_reference=True), "'is_reference' must be False"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_arguments(name):
    run, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        run()


@pytest.mark.parametrize(
    "qconfig, message",
    [
        (
            DYNAMIC,
            r"'quant': qconfig.activation must be a static observer .*got one for dynamic torch.quint8",
        ),
        (
            tq.float16_static_qconfig,
            "must be a static observer for quint8 or qint8, got one for torch.float16",
        ),
        ("int8", "qconfig of '' must be a QConfig or None, got 'int8'"),
    ],
)
def test_bad_qconfigs(qconfig, message):
    model = QuantWrapper(nn.Linear(6, 6)).eval()
    model.qconfig = qconfig
    with pytest.raises(ValueError, match=message):
        prepare(model)


def test_no_qconfig_warns():
    with pytest.warns(UserWarning, match="prepare: no module has a qconfig"):
        prepare(nn.Linear(2, 2))


def test_tables_are_those_of_torch_ao():
    mine, theirs = (
        tq.get_default_static_quant_module_mappings(),
        peer().get_default_static_quant_module_mappings(),
    )
    names = {k.__name__: v.__name__ for k, v in mine.items() if ".qat." not in k.__module__}
    for kind, quantized in theirs.items():
        if ".qat." not in kind.__module__:
            assert names.pop(kind.__name__) == quantized.__name__
    more = ("Sigmoid", "Softmax")  # torch.ao keeps these for graph mode
    more += ("BatchNorm1d", "CELU", "Mish", "RMSNorm", "SELU", "SiLU", "Softmax2d")
    assert names == {name: name for name in more}
    assert tq.get_static_quant_module_class(nn.Conv2d) is nnq.Conv2d
    with pytest.raises(
        ValueError, match="get_static_quant_module_class: argument 'float_module_class' must be one of"
    ):
        tq.get_static_quant_module_class(nn.Tanh)
    assert intrinsic.ConvReLU2d in tq.get_default_qconfig_propagation_list()


@pytest.mark.parametrize("inplace", [False, True])
def test_a_bad_qconfig_leaves_the_model_as_it_was(inplace):
    model = small(nn.Linear(6, 6), nn.Linear(6, 6))
    model.module[1].qconfig = tq.float16_static_qconfig
    with pytest.raises(
        ValueError, match=r"prepare: 'module\.1': qconfig.activation must be a static observer"
    ):
        prepare(model, inplace=inplace)
    assert not any(hasattr(m, "activation_post_process") or m._forward_hooks for m in model.modules())


def test_preparing_again_with_another_qconfig():
    model = nn.Sequential(nn.Embedding(10, 8)).eval()
    model.qconfig = default_qconfig
    prepare(model, inplace=True)
    assert type(convert(model)[0]) is nn.Embedding
    model[0].qconfig = tq.float_qparams_weight_only_qconfig
    assert type(convert(prepare(model))[0]) is nnq.Embedding
