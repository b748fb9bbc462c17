"""Tables of other backends: entry by entry those of torch.ao, and what they leave in float."""

import importlib
import warnings
from dataclasses import astuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torch_ao_ext
from torch_ao_ext import quantization as tq
from torch_ao_ext.quantization import backend_config as bc
from torch_ao_ext.quantization.backend_config import native
from torch_ao_ext.quantization.quantize_fx import convert_fx, convert_to_reference_fx, prepare_fx

FIELDS = (
    "observation_type", "root_module", "qat_module", "reference_quantized_module", "fused_module",
    "_num_tensor_args_to_observation_type", "_input_type_to_index", "_root_node_getter",
    "_extra_inputs_getter",
)  # fmt: skip
GETTERS = {
    "executorch": ("get_executorch_backend_config", 84),
    "tensorrt": ("get_tensorrt_backend_config", 149),
    "native": ("get_test_only_legacy_native_backend_config", 194),
}
DTYPES = [name for name in native.__all__ if name.endswith("_dtype_config")]


def theirs():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch.ao.quantization.backend_config as package
        import torch.ao.quantization.backend_config.native
        import torch.ao.quantization.backend_config.utils  # noqa: F401  its getters need it
    return package


def named(value):
    """Classes by path, as if both libraries had one; enums by name."""
    if isinstance(value, tuple):
        return tuple(map(named, value))
    if isinstance(value, dict):
        return {key: named(v) for key, v in value.items()}
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}".replace("torch_ao_ext", "torch.ao")
    return getattr(value, "name", value)


def dtypes(config):
    kinds = ("input", "output", "weight")
    bounds = [astuple(getattr(config, f"{kind}_dtype_with_constraints")) for kind in kinds]
    return bounds, config.bias_dtype, bool(config.is_dynamic)


def table(config):
    return {
        named(c.pattern): (
            {f: named(getattr(c, f)) for f in FIELDS}, [dtypes(d) for d in c.dtype_configs],
            c.fuser_method is None,
        )
        for c in config.configs
    }  # fmt: skip


@pytest.mark.parametrize("name", GETTERS)
def test_entries_are_torch_aos(name):
    getter, count = GETTERS[name]
    package = native if name == "native" else bc
    other = theirs().native if name == "native" else theirs()
    mine, want = getattr(package, getter)(), getattr(other, getter)()
    assert mine.name == want.name and len(mine.configs) == count
    mine, want = table(mine), table(want)
    assert set(mine) == set(want)
    assert {k: (mine[k], want[k]) for k in want if mine[k] != want[k]} == {}


@pytest.mark.parametrize("name", GETTERS)
def test_fusers_make_what_their_entry_says(name):
    package = native if name == "native" else bc
    fused = [c for c in getattr(package, GETTERS[name][0])().configs if c.fuser_method is not None]
    assert fused
    for entry in fused:
        kinds = [nn.ReLU if kind is F.relu else kind for kind in entry.pattern]
        arguments = {nn.Linear: (4, 4), nn.ReLU: ()}
        modules = [k(*arguments.get(k, (4,) if "Norm" in k.__name__ else (4, 4, 1))).train() for k in kinds]
        made = entry.fuser_method("ConvTranspose" not in kinds[0].__name__, *map(_mode(kinds), modules))
        assert type(made) is (entry.fused_module or entry.root_module), entry.pattern


def _mode(kinds):
    """Transposed convolutions fuse in evaluation mode only."""
    return lambda m: m.eval() if "ConvTranspose" in kinds[0].__name__ else m


@pytest.mark.parametrize("name", DTYPES)
def test_dtypes_are_torch_aos(name):
    assert dtypes(getattr(native, name)) == dtypes(getattr(theirs().native, name))


ENGINES = ("fbgemm", "x86", "qnnpack", "onednn", "executorch")


@pytest.mark.parametrize("engine", ENGINES)
def test_dtypes_of_engines_are_torch_aos(engine):
    """Under all of torch.ao's names, which its programs take for tables of their own."""
    ours, other = (importlib.import_module(f"{p}.{engine}") for p in (bc.__name__, theirs().__name__))
    names = [n for n, v in vars(other).items() if type(v).__name__ in ("DTypeConfig", "DTypeWithConstraints")]
    assert len(names) >= 5
    for name in names:
        mine, want = getattr(ours, name), getattr(other, name)
        assert type(mine).__name__ == type(want).__name__
        read = dtypes if isinstance(mine, bc.DTypeConfig) else astuple
        assert read(mine) == read(want), name
    own = {name for name in names if name.startswith(engine)}
    assert own <= set(ours.__all__)


def test_dict_forms():
    for package, getter in ((bc, GETTERS["tensorrt"][0]), (native, GETTERS["native"][0])):
        made = bc.BackendConfig.from_dict(getattr(package, f"{getter}_dict")())
        assert table(made) == table(getattr(package, getter)()) and len(made.configs) > 100


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.up, self.fc = nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 4, 2), nn.Linear(4, 4)

    def forward(self, x):
        x = torch.sigmoid(self.up(F.relu(self.conv(x)))).mean([2, 3])
        return F.gelu(self.fc(x)) * x


def int8(config, mapping):
    x = (torch.randn(4, 3, 8, 8),)
    observed = prepare_fx(Net().eval(), mapping, x, backend_config=config)
    observed(*x)
    rows = torch_ao_ext.report(convert_fx(observed)).rows
    reference = convert_to_reference_fx(observed, backend_config=config)
    assert (reference(*x) - Net().eval()(*x)).abs().max() < 0.1
    return {r.op.split(".")[0] for r in rows if r.status == "int8" and "quantize_" not in r.op}


SIGNED = tq.QConfigMapping().set_global(
    tq.QConfig(
        tq.MinMaxObserver.with_args(dtype=torch.qint8, eps=2**-12),
        tq.MinMaxObserver.with_args(
            dtype=torch.qint8, qscheme=torch.per_tensor_symmetric, quant_min=-127, quant_max=127, eps=2**-12
        ),
    )
)


@pytest.mark.parametrize(
    ("config", "mapping", "has", "lacks"),
    [
        # Bytes: all but transposed convolutions, sigmoid and GELU.
        (bc.get_executorch_backend_config(), tq.get_default_qconfig_mapping("qnnpack"),
         {"conv2d", "linear", "mul"}, {"conv_transpose2d", "sigmoid", "gelu"}),
        (bc.get_executorch_backend_config(), SIGNED, {"conv2d", "linear", "mul"}, {"conv_transpose2d"}),
        (bc.get_tensorrt_backend_config(), SIGNED, {"conv2d", "conv_transpose2d", "linear", "mul"}, {"gelu"}),
        (native.get_test_only_legacy_native_backend_config(), tq.get_default_qconfig_mapping("onednn"),
         {"conv2d", "conv_transpose2d", "linear", "mul"}, {"gelu"}),
    ],
)  # fmt: skip
def test_tables_hold_what_prepare_fx_quantizes(config, mapping, has, lacks):
    found = int8(config, mapping)
    assert has <= found and not lacks & found, found


def test_tensorrt_takes_signed_values_only():
    with pytest.raises(ValueError, match="must annotate a node"):
        int8(bc.get_tensorrt_backend_config(), tq.get_default_qconfig_mapping("onednn"))
