"""quantization.utils against torch.ao's."""

import importlib
import importlib.util
import re
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from torch_ao_ext import quantization as tq
from torch_ao_ext.quantization import utils

peer = importlib.import_module("torch.ao.quantization.utils")

peer_qconfig = importlib.import_module("torch.ao.quantization.qconfig")

# Of a qconfig without observer for one part torch.ao has no answer.
QCONFIGS = [
    name
    for name in tq.qconfig.__all__
    if name.endswith("qconfig") and hasattr(peer_qconfig, name) and "_only_qconfig" not in name
    if not name.startswith("get_")
]
FACTS = [
    "activation_dtype", "weight_dtype", "activation_is_statically_quantized",
    "activation_is_dynamically_quantized", "activation_is_int8_quantized",
    "activation_is_int32_quantized", "weight_is_quantized",
    "weight_is_statically_quantized", "op_is_int8_dynamically_quantized", "get_qconfig_dtypes",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet(_warnings_are_errors):
    """torch.ao warns of its own arguments."""
    warnings.filterwarnings("ignore", message="Please use quant_min and quant_max")


@pytest.mark.parametrize("name", QCONFIGS)
def test_facts_about_qconfigs(name):
    mine, theirs = getattr(tq, name), getattr(peer_qconfig, name)
    for fact in FACTS:
        assert getattr(utils, fact)(mine) == getattr(peer, fact)(theirs), fact
    try:
        want = peer.get_quant_type(theirs).name
    except Exception:  # an unknown pair
        with pytest.raises(ValueError, match="get_quant_type: argument 'qconfig' must have a known pair"):
            utils.get_quant_type(mine)
    else:
        assert utils.get_quant_type(mine).name == want


def test_schemes_and_dtypes():
    for scheme in (
        torch.per_tensor_affine, torch.per_tensor_symmetric, torch.per_channel_affine,
        torch.per_channel_symmetric, torch.per_channel_affine_float_qparams,
    ):  # fmt: skip
        assert utils.is_per_tensor(scheme) == peer.is_per_tensor(scheme)
        assert utils.is_per_channel(scheme) == peer.is_per_channel(scheme)
    for dtype in (
        torch.quint8,
        torch.qint8,
        torch.qint32,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.quint4x2,
    ):
        assert utils.to_underlying_dtype(dtype) == peer.to_underlying_dtype(dtype)
    with pytest.raises(ValueError, match="must be a quantized dtype, got torch.float32"):
        utils.to_underlying_dtype(torch.float32)


@pytest.mark.parametrize(
    "name", ["default_weight_observer", "default_per_channel_weight_observer", "default_observer"]
)
def test_qparam_dict(name):
    observer, other = (
        getattr(tq, name)(),
        getattr(importlib.import_module("torch.ao.quantization.observer"), name)(),
    )
    x = torch.randn(4, 6)
    observer(x)
    other(x)
    mine, theirs = utils.get_qparam_dict(observer), peer.get_qparam_dict(other)
    assert set(mine) == set(theirs)
    for key, value in mine.items():
        same = (
            torch.allclose(value.double(), theirs[key].double()) if isinstance(value, torch.Tensor) else None
        )
        assert same if same is not None else value == theirs[key], key
    assert utils.get_qparam_dict(tq.PlaceholderObserver())["qscheme"] is None


def test_bounds():
    inf = torch.tensor(float("inf"))
    assert utils.check_min_max_valid(torch.tensor(0.0), torch.tensor(1.0))
    assert not utils.check_min_max_valid(inf, -inf) and not utils.check_min_max_valid(
        torch.empty(0), torch.empty(0)
    )
    with pytest.raises(ValueError, match="'min_val' must be at most max_val"):
        utils.check_min_max_valid(torch.tensor([0.0, 3.0]), torch.tensor([1.0, 1.0]))
    utils.validate_qmin_qmax(-128, 127)
    with pytest.raises(ValueError, match="must have 0 between them, got 1 and 5"):
        utils.validate_qmin_qmax(1, 5)
    with pytest.raises(ValueError, match=r"'quant_min' must be below quant_max \(0\), got 0"):
        utils.validate_qmin_qmax(0, 0)


class Sub(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x, factor=2, shift=1):
        return self.fc(x) * factor + shift


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.sub = Sub()

    def forward(self, x):
        return self.sub(x, shift=5)


def test_example_inputs_of_modules():
    model, x = Net(), torch.randn(2, 3)
    mine, theirs = utils.get_fqn_to_example_inputs(model, (x,)), peer.get_fqn_to_example_inputs(model, (x,))
    assert set(mine) == set(theirs) and mine["sub"][1:] == (2, 5)
    for name, values in mine.items():
        assert torch.equal(values[0], theirs[name][0])
    assert not model.sub._forward_pre_hooks


def test_models_and_tables():
    model = Net()
    assert utils.getattr_from_fqn(model, "sub.fc") is model.sub.fc
    assert utils.has_no_children_ignoring_parametrizations(parametrizations.weight_norm(nn.Linear(2, 2)))
    assert not utils.has_no_children_ignoring_parametrizations(model)
    table = {nn.Linear: nn.ReLU}
    assert utils.get_swapped_custom_module_class(model.sub.fc, table, tq.default_qconfig) is nn.ReLU
    nested = {tq.QuantType.STATIC: table}
    assert utils.get_swapped_custom_module_class(model.sub.fc, nested, tq.default_qconfig) is nn.ReLU
    with pytest.raises(ValueError, match="must have ReLU, got Linear"):
        utils.get_swapped_custom_module_class(nn.ReLU(), table, tq.default_qconfig)
    with pytest.raises(
        ValueError, match="activation_dtype: argument 'qconfig' must have activation, got None"
    ):
        utils.activation_dtype(None)


SCHEMES = {
    "affine": (torch.per_tensor_affine, torch.uint8, 0, 255, False),
    "symmetric int8": (torch.per_tensor_symmetric, torch.int8, -128, 127, False),
    "symmetric uint8": (torch.per_tensor_symmetric, torch.uint8, 0, 255, False),
    "custom middle": (torch.per_tensor_symmetric, torch.uint8, 0, 100, True),
    "channels": (torch.per_channel_symmetric, torch.int8, -127, 127, True),
    "rows": (torch.per_channel_affine_float_qparams, torch.uint8, 0, 255, False),
}


@pytest.mark.parametrize("name", SCHEMES)
def test_qparams_of_ranges_against_torch_ao(name):
    import torch.ao.quantization.utils as theirs

    qscheme, dtype, least, most, custom = SCHEMES[name]
    eps = torch.tensor([2.0**-12])
    ends = [(torch.tensor(-1.5), torch.tensor(2.0)), (torch.tensor(0.5), torch.tensor(0.75))]
    ends += [(torch.tensor([-1.0, 0.0, -2.0]), torch.tensor([0.5, 0.0, 9.0]))]
    for low, high in ends:
        mine = utils.determine_qparams(low, high, least, most, dtype, eps, custom, qscheme)
        other = theirs.determine_qparams(low, high, least, most, dtype, eps, custom, qscheme)
        for a, b in zip(mine, other, strict=True):
            assert torch.equal(a, b) and a.dtype == b.dtype
    rest = (least, most, dtype, eps, custom, qscheme)
    with pytest.raises(ValueError, match="min_val"):
        utils.determine_qparams(torch.tensor(2.0), torch.tensor(1.0), *rest)
    with pytest.warns(UserWarning, match="no range was observed"):
        scale, point = utils.determine_qparams(torch.zeros(0), torch.zeros(0), *rest)
    assert (float(scale), int(point)) == (1.0, 0)


@pytest.mark.parametrize("reduce_range", [False, True])
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.quint4x2])
def test_integer_ranges_against_torch_ao(dtype, reduce_range):
    import torch.ao.quantization.utils as theirs

    wide = dtype == torch.int32
    arguments = (None, None, False, dtype, reduce_range)
    assert utils.calculate_qmin_qmax(*arguments) == theirs.calculate_qmin_qmax(*arguments)
    arguments = (-1000 if wide else 0, 1001 if wide else 11, True, dtype, reduce_range)
    assert utils.calculate_qmin_qmax(*arguments) == theirs.calculate_qmin_qmax(*arguments)
    with pytest.raises(ValueError, match="quant_min"):
        utils.calculate_qmin_qmax(3, 7, True, dtype, reduce_range)


def test_the_warning_names_what_there_is():
    text = utils.DEPRECATION_WARNING
    theirs = getattr(peer, "DEPRECATION_WARNING", text)  # older torch has none
    assert all(name in theirs and name in text for name in ("prepare_fx", "convert_pt2e"))
    owner, found = None, []
    for name in re.findall(r"(?:\btorch_ao_ext)?(?:\.\w+)+", text.partition("\n")[2]):
        if name.startswith("torch_ao_ext"):
            owner, _, name = name.rpartition(".")
        found.append(f"{owner}.{name.removeprefix('.')}")
    assert len(found) == 11
    for name in found[:-1]:
        owner, _, last = name.rpartition(".")
        assert callable(getattr(importlib.import_module(owner), last)), name
    assert importlib.util.find_spec(found[-1]) is not None and f"-m {found[-1]}." in text
