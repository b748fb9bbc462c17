"""Each quantized layer of torch.ao that has a state, by its state_dict."""

import importlib
import inspect
import warnings

import pytest
import torch
import torch_ao_layers as layers

from torch_ao_ext.quantization import legacy


@pytest.fixture(autouse=True)
def _quiet():
    """torch.ao is deprecated."""
    before = torch.backends.quantized.engine
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.backends.quantized.engine = before


@pytest.mark.parametrize("name, engine", [c for c in layers.CASES if c[0] not in layers.WITHOUT_STATE])
def test_state_dict(name, engine):
    torch.backends.quantized.engine = engine
    theirs, ours = layers.theirs(name, engine), layers.ours(name)
    assert not legacy.load_state_dict(ours, theirs.state_dict()).missing_keys
    layers.check(name, layers.run_theirs(theirs, name), layers.run_ours(ours, name))


@pytest.mark.parametrize("name", layers.WITHOUT_STATE)
def test_qparams_that_a_file_lacks_are_named(name):
    with pytest.raises(RuntimeError, match="Missing key.*output_scale"):
        legacy.load_state_dict(layers.ours(name), layers.theirs(name, "x86").state_dict())


PLACES = (
    "quantized", "quantized.dynamic", "intrinsic.quantized", "intrinsic.quantized.dynamic",
    "sparse.quantized", "sparse.quantized.dynamic",
)  # fmt: skip
# Of float models; torch's own; packed parts of layers; built of other parts.
OTHERS = {
    "quantized.FloatFunctional", "quantized.FXFloatFunctional", "quantized.MaxPool2d", "quantized.LSTM",
    "quantized.MultiheadAttention", "sparse.quantized.LinearPackedParams",
}  # fmt: skip


def test_every_class_is_here():
    found = set()
    for place in PLACES:
        module = importlib.import_module(f"torch.ao.nn.{place}")
        for key, kind in vars(module).items():
            if inspect.isclass(kind) and issubclass(kind, torch.nn.Module):
                found.add(f"{place}.{key}")
    assert found - {layer.path for layer in layers.LAYERS.values()} == OTHERS
