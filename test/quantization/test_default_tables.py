"""Defaults that torch.ao has names for, beside torch.ao's own."""

import importlib
import warnings

import pytest
import torch
from torch import nn
from torch_ao_peer import peer

from torch_ao_ext import quantization as tq
from torch_ao_ext.quantization import backend_config as bc
from torch_ao_ext.quantization import fake_quantize, quantization_mappings
from torch_ao_ext.quantization.quantize_jit import script_qconfig, script_qconfig_dict

FAKE = [name for name in fake_quantize.__all__ if name.startswith(("default_", "fused_"))]


@pytest.mark.parametrize("name", FAKE)
def test_fake_quantization(name):
    """Kinds, ranges, and results in training and behind it."""
    warnings.filterwarnings("ignore", message="Please use quant_min and quant_max")  # torch.ao's own
    mine, other = getattr(fake_quantize, name)(), getattr(peer(), name)()
    assert type(mine).__name__ == type(other).__name__
    kinds = [type(module.activation_post_process).__name__ for module in (mine, other)]
    assert kinds[0] == kinds[1]
    for fact in ("dtype", "qscheme", "quant_min", "quant_max", "ch_axis", "is_per_channel"):
        assert getattr(mine, fact, None) == getattr(other, fact, None), fact
    torch.manual_seed(0)
    for _ in range(2):
        x = torch.randn(6, 8)
        torch.testing.assert_close(mine(x), other(x))
    mine.disable_observer(), other.disable_observer()
    torch.testing.assert_close(mine(2 * x), other(2 * x))


def path(kind):
    """Class or function, ours and torch.ao's by one name."""
    module = kind.__module__.replace("torch_ao_ext", "torch.ao").replace("nn._stubs", "quantization.stubs")
    return module.split(".modules")[0], kind.__qualname__


# What this library quantizes besides.
MORE = {
    "DEFAULT_DYNAMIC_QUANT_MODULE_MAPPINGS": {"MultiheadAttention", "RNN"},
    "DEFAULT_QAT_MODULE_MAPPINGS": {"Conv1d", "ConvReLU1d"},
    "DEFAULT_STATIC_QUANT_MODULE_MAPPINGS": {
        "BatchNorm1d", "CELU", "Conv1d", "ConvReLU1d", "Embedding", "EmbeddingBag", "Mish", "RMSNorm", "SELU",
        "SiLU", "Sigmoid", "Softmax", "Softmax2d",
    },
    "DEFAULT_MODULE_TO_ACT_POST_PROCESS": {"Softmax2d"},
}
TABLES = [
    "DEFAULT_DYNAMIC_QUANT_MODULE_MAPPINGS", "DEFAULT_QAT_MODULE_MAPPINGS",
    "DEFAULT_STATIC_QUANT_MODULE_MAPPINGS", "DEFAULT_REFERENCE_STATIC_QUANT_MODULE_MAPPINGS",
    "DEFAULT_STATIC_SPARSE_QUANT_MODULE_MAPPINGS", "DEFAULT_DYNAMIC_SPARSE_QUANT_MODULE_MAPPINGS",
]  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_mappings(name):
    theirs = importlib.import_module("torch.ao.quantization.quantization_mappings")
    mine = {path(k): path(v) for k, v in getattr(quantization_mappings, name).items()}
    other = {path(k): path(v) for k, v in getattr(theirs, name).items()}
    assert {key: mine.get(key) for key in other} == other
    assert {kind for _, kind in mine.keys() - other.keys()} == MORE.get(name, set())


def test_observers_of_known_ranges():
    theirs = importlib.import_module("torch.ao.quantization.quantization_mappings")
    table = quantization_mappings.DEFAULT_MODULE_TO_ACT_POST_PROCESS
    other = theirs.DEFAULT_MODULE_TO_ACT_POST_PROCESS
    more = {kind.__name__ for kind in table.keys() - other.keys()}
    assert more == MORE["DEFAULT_MODULE_TO_ACT_POST_PROCESS"]
    assert table[nn.Softmax2d] is table[nn.Softmax]
    for kind, factory in ((kind, table[kind]) for kind in other):
        want = other[kind]()
        assert factory().calculate_qparams() == want.calculate_qparams()


def test_names_of_engines_share_one_table():
    want = bc.get_native_backend_config().to_dict()
    for name in ("fbgemm", "qnnpack", "x86", "onednn"):
        found = getattr(bc, f"get_{name}_backend_config")().to_dict()
        assert found["name"] == name and found["configs"] == want["configs"]
    for name in ("tensorrt", "executorch"):
        made = getattr(bc, f"get_{name}_backend_config")()
        assert made.name == name and made.to_dict()["configs"] != want["configs"]


def test_qconfigs_for_scripts():
    given = tq.get_default_qconfig("onednn")
    found = script_qconfig(given)
    assert tq.qconfig_equals(found, given) and isinstance(found, tq.QConfig)
    assert script_qconfig_dict({"": given, "a": None}) == {"": found, "a": None}
    for call in (lambda: script_qconfig(3), lambda: script_qconfig_dict({"": 3})):
        with pytest.raises(ValueError, match="script_qconfig: argument 'qconfig' must be a QConfig, got 3"):
            call()
    with pytest.raises(ValueError, match="'qconfig_dict' must be a dict of module names"):
        script_qconfig_dict({nn.Linear: given})
