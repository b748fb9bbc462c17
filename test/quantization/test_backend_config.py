"""BackendConfig: its forms, and what it leaves in float."""

import subprocess
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torch_ao_ext
from torch_ao_ext import quantization as tq
from torch_ao_ext.quantization import backend_config as bc
from torch_ao_ext.quantization.fx.custom_config import PrepareCustomConfig
from torch_ao_ext.quantization.quantize_fx import convert_fx, fuse_fx, prepare_fx

STATIC = bc.DTypeConfig(torch.quint8, torch.quint8, torch.qint8, torch.float32)
DYNAMIC = bc.DTypeConfig(torch.quint8, torch.float32, torch.qint8, torch.float32, is_dynamic=True)
MAPPING = tq.get_default_qconfig_mapping("onednn")
X = (torch.randn(4, 3, 8, 8),)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)
        self.weight = nn.Parameter(torch.randn(2, 4))

    def forward(self, x):
        y = torch.relu(self.conv(x)).mean([2, 3])
        return F.linear(self.fc(y) + y, self.weight)


def int8(config, mapping=MAPPING, model=None, inputs=X, **options):
    observed = prepare_fx(model or Net().eval(), mapping, inputs, backend_config=config, **options)
    observed(*inputs)
    rows = torch_ao_ext.report(convert_fx(observed, backend_config=config)).rows
    return sorted(r.op for r in rows if r.status == "int8" and "quantize_" not in r.op)


def config(*patterns, dtypes=(STATIC,)):
    entries = [bc.BackendPatternConfig(p).set_dtype_configs(list(dtypes)) for p in patterns]
    return bc.BackendConfig("mine").set_backend_pattern_configs(entries)


def test_alone_it_imports():
    """torch.ao's package needs another import before its getters work."""
    name = "torch_ao_ext.quantization.backend_config"
    code = f"import {name} as b; print(len(b.get_native_backend_config().configs))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and int(done.stdout) > 100, done.stderr


@pytest.mark.parametrize("name", ["native", "fbgemm", "x86", "qnnpack", "onednn"])
def test_the_librarys_own_leaves_nothing_out(name):
    made = getattr(bc, f"get_{name}_backend_config")()
    assert made.name == name and int8(made) == int8(None)
    dynamic = tq.QConfigMapping().set_global(tq.default_dynamic_qconfig)
    assert int8(made, dynamic) == int8(None, dynamic) == ["linear_dynamic", "linear_dynamic"]
    lstm = nn.Sequential(nn.LSTM(4, 4)).eval()
    inputs = (torch.randn(3, 2, 4),)
    assert int8(made, dynamic, lstm, inputs) == int8(None, dynamic, lstm, inputs)


@pytest.mark.parametrize("patterns, want", [
    ((nn.Conv2d,), ["conv2d"]), ((nn.Linear,), ["linear"]), ((F.linear,), ["linear"]),
    ((nn.Conv2d, nn.Linear, F.linear), ["conv2d", "linear", "linear"]),
])  # fmt: skip
def test_patterns_choose_layers_and_functions(patterns, want):
    found = [op for op in int8(config(*patterns)) if op in ("conv2d", "linear")]
    assert found == want


def test_dtypes_choose():
    other = bc.DTypeConfig(torch.qint8, torch.qint8, torch.qint8, torch.float32)
    with pytest.raises(ValueError, match="must annotate a node"):
        int8(config(nn.Conv2d, nn.Linear, dtypes=[other]))
    mapping = tq.QConfigMapping().set_global(tq.default_dynamic_qconfig)
    assert int8(config(nn.Linear, dtypes=[STATIC, DYNAMIC]), mapping) == ["linear_dynamic"]
    with pytest.raises(ValueError, match="must annotate a node"):
        int8(config(nn.Linear), mapping)


def test_constraints():
    narrow = bc.DTypeWithConstraints(torch.qint8, quant_min_lower_bound=-127, quant_max_upper_bound=127)
    limited = bc.DTypeConfig(torch.quint8, torch.quint8, narrow, torch.float32)
    message = "'mine' wants a weight observer with quant_min of at least -127, has -128"
    with pytest.warns(UserWarning, match=message):
        with pytest.raises(ValueError, match="must annotate a node"):
            int8(config(nn.Linear, dtypes=[limited]))
    weight = tq.PerChannelMinMaxObserver.with_args(
        dtype=torch.qint8, qscheme=torch.per_channel_symmetric, quant_min=-127, quant_max=127
    )
    act = tq.MinMaxObserver
    mapping = tq.QConfigMapping().set_global(tq.QConfig(act, weight))
    assert int8(config(nn.Linear, dtypes=[limited]), mapping) == ["linear"]
    scaled = bc.DTypeWithConstraints(torch.quint8, scale_min_lower_bound=2**-12)
    limited = bc.DTypeConfig(scaled, scaled, torch.qint8, torch.float32)
    with pytest.warns(UserWarning, match="wants an activation observer with eps of at least"):
        with pytest.raises(ValueError, match="must annotate a node"):
            int8(config(nn.Linear, dtypes=[limited]), mapping)
    mapping = tq.QConfigMapping().set_global(tq.QConfig(act.with_args(eps=2**-12), weight))
    assert int8(config(nn.Linear, dtypes=[limited]), mapping) == ["linear"]


def test_standalone_modules_have_their_own():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))).eval()
    inputs = (torch.randn(3, 4),)
    custom = PrepareCustomConfig().set_standalone_module_name("1", MAPPING, inputs, None, config(nn.Conv2d))
    with pytest.raises(ValueError, match="standalone module '1': .*must annotate a node"):
        int8(config(nn.Linear), model=model, inputs=inputs, prepare_custom_config=custom)
    custom = PrepareCustomConfig().set_standalone_module_name("1", MAPPING, inputs, None)
    found = int8(config(nn.Linear), model=model, inputs=inputs, prepare_custom_config=custom)
    assert found == ["linear"] * 3


def test_dict_forms():
    made = bc.get_native_backend_config()
    again = bc.BackendConfig.from_dict(made.to_dict())
    assert again.to_dict() == made.to_dict() and again.name == "native"
    assert bc.get_native_backend_config_dict() == made.to_dict()
    assert int8(made.to_dict()) == int8(None)
    exact = {"scale_exact_match": 1 / 256, "zero_point_exact_match": 0}
    bounds = bc.DTypeWithConstraints(torch.quint8, 0, 255, **exact)
    entry = bc.DTypeConfig(bounds, torch.quint8, is_dynamic=False)
    assert bc.DTypeConfig.from_dict(entry.to_dict()) == entry
    assert entry.to_dict() == {"input_dtype": bounds, "output_dtype": torch.quint8, "is_dynamic": False}


def test_dict_forms_are_torch_aos():
    warnings.simplefilter("ignore")
    import torch.ao.quantization.backend_config as theirs
    import torch.ao.quantization.backend_config.utils as their_utils

    other = theirs.get_native_backend_config()
    for pattern in (nn.Linear, torch.conv2d, nn.LSTM, nn.Embedding, (nn.Conv2d, nn.BatchNorm2d)):
        want = next(c for c in other.configs if c.pattern == pattern).to_dict()
        have = next(c for c in bc.get_native_backend_config().configs if c.pattern == pattern).to_dict()
        assert set(want) - {"fused_module"} <= set(have) | {"fuser_method"}
    mine = bc.utils.get_module_to_qat_module(bc.get_native_backend_config())
    for kind, trained in their_utils.get_module_to_qat_module(other).items():
        if isinstance(kind, type) and kind.__module__.startswith("torch.nn"):
            assert mine[kind].__name__ == trained.__name__


def test_tables():
    made = bc.get_native_backend_config()
    utils = bc.utils
    assert STATIC in utils.get_pattern_to_dtype_configs(made)[nn.Conv2d]
    assert torch_ao_ext.nn.qat.Linear in utils.get_qat_module_classes(made)
    reference = utils.get_root_module_to_quantized_reference_module(made)
    assert reference[nn.Linear] is torch_ao_ext.nn.quantized.reference.Linear
    assert utils.get_pattern_to_input_type_to_index(made)[F.linear] == {"weight": 1, "bias": 2}
    assert (nn.Conv2d, nn.BatchNorm2d) in utils.get_fuser_method_mapping(made)
    assert utils.get_fusion_pattern_to_root_node_getter(made) == {}
    assert utils.get_fusion_pattern_to_extra_inputs_getter(made) == {}
    container = torch_ao_ext.nn.intrinsic.LinearReLU
    fused = bc.BackendPatternConfig((nn.Linear, nn.ReLU)).set_fused_module(container)
    mine = bc.BackendConfig().set_backend_pattern_config(fused)
    assert utils.get_fused_module_classes(mine) == (container,)
    assert utils.pattern_to_human_readable((nn.Linear, "relu")) == ("torch.nn.modules.linear.Linear", "relu")
    assert utils.remove_boolean_dispatch_from_name(F.max_pool2d) == "torch.nn.functional.max_pool2d"
    shown = utils.entry_to_pretty_str(config(nn.Linear).configs[0].to_dict())
    assert "'pattern': torch.nn.modules.linear.Linear" in shown


REFUSED = {
    "type": (lambda: prepare_fx(Net().eval(), MAPPING, X, backend_config=3), "must be a BackendConfig or"),
    "key": (lambda: prepare_fx(Net().eval(), MAPPING, X, backend_config={"a": 1}), "keys must be among name"),
    "fuse": (lambda: fuse_fx(Net().eval(), backend_config=3), "fuse_fx: argument 'backend_config' must be"),
    "pattern": (
        lambda: bc.BackendConfig().set_backend_pattern_config(bc.BackendPatternConfig()), "have a pattern"
    ),
    "no pattern config": (
        lambda: bc.BackendConfig().set_backend_pattern_config(3), "must be a BackendPatternConfig"
    ),
    "pattern key": (lambda: bc.BackendPatternConfig.from_dict({"x": 1}), "keys must be among pattern"),
    "dtype key": (lambda: bc.DTypeConfig.from_dict({"x": 1}), "keys must be among input_dtype"),
    "no dict": (lambda: bc.BackendConfig.from_dict([]), "must be a dict, got list"),
    "two patterns": (
        lambda: bc.BackendPatternConfig(nn.Linear)._set_pattern_complex_format((nn.ReLU, nn.Linear)),
        "only one of",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()
