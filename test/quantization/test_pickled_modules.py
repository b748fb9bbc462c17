"""Pickled modules of torch.ao, loaded in a process in which the old imports mean this library."""

import io
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch_ao_layers as layers
from torch import nn
from torch_ao_peer import peer

START = """
import io, sys, warnings
warnings.simplefilter("ignore")
from torch_ao_ext.quantization import legacy
legacy.redirect_imports()
import torch
sys.path.insert(0, sys.argv[1])
import torch_ao_layers as layers

def read(data):
    module = torch.load(io.BytesIO(data), weights_only=False)
    again = io.BytesIO()
    torch.save(module, again)  # in this library's own form
    again.seek(0)
    return torch.load(again, weights_only=False)

saved, found = torch.load(sys.argv[2], weights_only=False), {}
"""
END = """
torch.save(found, sys.argv[3])
"""


@pytest.fixture(autouse=True)
def _quiet():
    """torch.ao is deprecated."""
    before = torch.backends.quantized.engine
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.backends.quantized.engine = before


def pickled(module):
    file = io.BytesIO()
    torch.save(module, file)
    return file.getvalue()


def in_new_process(saved, program, folder):
    """What the program puts in `found`."""
    torch.save(saved, folder / "saved.pt")
    arguments = [str(v) for v in (Path(__file__).parent, folder / "saved.pt", folder / "found.pt")]
    code = START + program + END
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / "found.pt", weights_only=False)


def test_quantized_layers(tmp_path):
    saved, want = {}, {}
    for name, engine in layers.CASES:
        torch.backends.quantized.engine = engine
        module = layers.theirs(name, engine)
        saved[name, engine] = pickled(module)
        want[name, engine] = layers.run_theirs(module, name)
    found = in_new_process(
        saved,
        """
for (name, engine), data in saved.items():
    # torch packs sparse weights under some of its engines only; other layers load under each.
    torch.backends.quantized.engine = engine if "sparse" in name else "x86"
    module = read(data)
    assert type(module).__module__.startswith("torch_ao_ext."), type(module)
    found[name, engine] = layers.run_ours(module, name)
""",
        tmp_path,
    )
    for (name, engine), outputs in want.items():
        layers.check(name, outputs, found[name, engine])


def containers():
    """torch.ao's containers of packed weights, by place and class, with what is in them."""
    import torch.ao.nn.quantized.dynamic.modules.rnn as rnn
    from torch.ao.nn.quantized.modules.embedding_ops import EmbeddingPackedParams
    from torch.ao.nn.quantized.modules.linear import LinearPackedParams
    from torch.ao.nn.sparse.quantized import LinearPackedParams as SparsePackedParams

    weight, bias = torch.randn(6, 8), torch.randn(6)
    points = torch.zeros(6, dtype=torch.int64)
    int8 = torch.quantize_per_channel(weight, weight.abs().amax(1) / 127, points, 0, torch.qint8)
    scale, point = torch.full((6,), 0.02), torch.full((6,), 120.5)
    rows = torch.quantize_per_channel(weight, scale, point, 0, torch.quint8)
    made = [LinearPackedParams(), LinearPackedParams(torch.float16), EmbeddingPackedParams(2, 2)]
    made += [SparsePackedParams(), rnn.PackedParameter(rnn.pack_weight_bias(int8, bias, torch.qint8))]
    made += [rnn.LSTM(8, 6)._all_weight_values[0], rnn.PackedParameter(torch.ones(2))]
    made[0].set_weight_bias(int8, bias), made[1].set_weight_bias(weight, None), made[2].set_weight(rows)
    made[3].set_weight_bias(int8, bias, 1, 4)
    cell = made[5].param.__getstate__()[0]
    want = [made[0]._weight_bias(), made[1]._weight_bias(), (made[2]._weight(),), made[3]._weight_bias()]
    want += [(int8, bias), (cell[4][0].unpack()[0], cell[1][0], cell[4][1].unpack()[0], cell[1][1])]
    return made, [*want, (torch.ones(2),)]


def test_containers_of_packed_weights(tmp_path):
    torch.backends.quantized.engine = "fbgemm"
    torch.manual_seed(0)
    made, want = containers()
    found = in_new_process(
        [pickled(module) for module in made],
        """
torch.backends.quantized.engine = "fbgemm"

def parts(module):
    if hasattr(module, "param"):
        held = module.param
        inner = list(held) if isinstance(held, torch.nn.ModuleList) else [held]
        return [v for part in inner for v in ([part] if isinstance(part, torch.Tensor) else parts(part))]
    return list(module._weight_bias()) if hasattr(module, "_weight_bias") else [module._weight()]

for k, data in enumerate(saved):
    module = read(data)
    assert type(module).__module__.startswith("torch_ao_ext."), type(module)
    assert not [v for v in module.state_dict().values() if type(v) is not torch.Tensor]
    found[k] = [v.dequantize() if hasattr(v, "dequantize") else v for v in parts(module)]
""",
        tmp_path,
    )
    for k, values in enumerate(want):
        assert len(values) == len(found[k]), k
        for theirs, ours in zip(values, found[k], strict=True):
            if isinstance(theirs, torch.Tensor):
                torch.testing.assert_close(ours, theirs.detach().dequantize(), rtol=1e-6, atol=1e-6)
            else:
                assert ours == theirs


def static_model():
    q = peer()
    model = nn.Sequential(
        q.QuantStub(), nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Hardswish(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32, 5), q.DeQuantStub(),
    ).eval()  # fmt: skip
    x = torch.randn(4, 3, 6, 6)
    model.qconfig = q.get_default_qconfig("x86")
    model = q.prepare(q.fuse_modules(model, [["1", "2", "3"]]))
    model(x)
    return q.convert(model), x


def dynamic_model():
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)).eval()
    return peer().quantize_dynamic(model), torch.randn(5, 6)


def recurrent_model():
    model = nn.Sequential(nn.GRU(6, 4, 2)).eval()
    return peer().quantize_dynamic(model, {nn.GRU}), torch.randn(5, 2, 6)


def table_model():
    model = nn.Sequential(nn.EmbeddingBag(20, 8, mode="sum"), nn.Linear(8, 3)).eval()
    model[0].qconfig = peer().float_qparams_weight_only_qconfig
    return peer().convert(peer().prepare(model)), torch.randint(20, (4, 3))


MODELS = (static_model, dynamic_model, recurrent_model, table_model)
# Weights of the same integers; dynamic layers quantize their inputs by another rule.
MOST = {"static_model": 0.02, "dynamic_model": 0.03, "recurrent_model": 0.03, "table_model": 1e-5}


def test_converted_models(tmp_path):
    torch.backends.quantized.engine = "x86"
    torch.manual_seed(0)
    saved, want = {}, {}
    for make in MODELS:
        model, x = make()
        saved[make.__name__], want[make.__name__] = (pickled(model), x), layers._floats(model(x))
    found = in_new_process(
        saved,
        """
for name, (data, x) in saved.items():
    model = read(data)
    assert not [m for m in model.modules() if type(m).__module__.startswith("torch.ao.")]
    found[name] = layers._floats(model(x))
""",
        tmp_path,
    )
    for name, outputs in want.items():
        for a, b in zip(outputs, found[name], strict=True):
            assert (a - b).norm() <= MOST[name] * a.norm(), name


def seen(module, x):
    module(x)
    return module.eval()


def float_parts():
    """Observers, fake quantization, training layers, containers: one of each kind, and its input."""
    import torch.ao.nn.intrinsic as nni
    import torch.ao.nn.intrinsic.qat as nniqat
    import torch.ao.nn.qat as nnqat
    import torch.ao.nn.quantized.reference as reference

    q, rows, image = peer(), torch.randn(6, 5), torch.randn(2, 3, 6, 6)
    qconfig = q.get_default_qat_qconfig("x86")
    weight = {"qscheme": torch.per_tensor_affine, "dtype": torch.qint8, "scale": 0.02, "zero_point": 0}
    on_rows = [
        q.MinMaxObserver(), q.MovingAverageMinMaxObserver(), q.PerChannelMinMaxObserver(),
        q.HistogramObserver(), q.FakeQuantize(q.MovingAverageMinMaxObserver, quant_min=0, quant_max=255),
        q.default_fused_act_fake_quant(), q.QuantStub(), q.QuantWrapper(nn.Linear(5, 2)),
        nni.LinearReLU(nn.Linear(5, 4), nn.ReLU()), nnqat.Linear(5, 4, qconfig=qconfig),
        nniqat.LinearReLU(5, 4, qconfig=qconfig), nniqat.LinearBn1d(5, 4, qconfig=qconfig),
        reference.Linear(5, 4, weight_qparams=weight),
    ]  # fmt: skip
    on_images = [
        nni.ConvReLU2d(nn.Conv2d(3, 4, 3), nn.ReLU()), nnqat.Conv2d(3, 4, 3, qconfig=qconfig),
        nniqat.ConvReLU2d(3, 4, 3, qconfig=qconfig), nniqat.ConvBnReLU2d(3, 4, 3, qconfig=qconfig),
    ]  # fmt: skip
    pairs = [(module, rows) for module in on_rows] + [(module, image) for module in on_images]
    return {type(m).__module__ + "." + type(m).__name__: (seen(m, x), x) for m, x in pairs}


def test_parts_of_models_before_conversion(tmp_path):
    torch.manual_seed(0)
    parts = float_parts()
    saved = {name: (pickled(module), x) for name, (module, x) in parts.items()}
    found = in_new_process(
        saved,
        """
for name, (data, x) in saved.items():
    module = read(data)
    assert type(module).__module__.startswith("torch_ao_ext."), name
    qparams = getattr(module, "calculate_qparams", tuple)()
    found[name] = module(x).detach(), qparams
""",
        tmp_path,
    )
    assert len(found) == 17
    for name, (module, x) in parts.items():
        output, qparams = found[name]
        torch.testing.assert_close(output, module(x).detach(), rtol=1e-6, atol=1e-6)
        for a, b in zip(getattr(module, "calculate_qparams", tuple)(), qparams, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=0, check_dtype=False)


def test_torch_ao_pickles_no_prepared_model():
    # So there is nothing to read: a prepared model travels by its state_dict.
    model = nn.Sequential(peer().QuantStub(), nn.Linear(4, 2)).eval()
    model.qconfig = peer().default_qconfig
    with pytest.raises(AttributeError, match="Can't pickle local object"):
        pickled(peer().prepare(model))


def test_what_is_built_of_other_parts_is_refused(tmp_path):
    torch.backends.quantized.engine = "x86"
    model = nn.Sequential(peer().QuantStub(), nn.LSTM(4, 3)).eval()
    model.qconfig = peer().default_qconfig
    model = peer().prepare(model)
    model(torch.randn(5, 2, 4))
    half = peer().quantize_dynamic(nn.Sequential(nn.LSTM(4, 3)).eval(), dtype=torch.float16)
    saved = {"static": pickled(peer().convert(model)), "half": pickled(half)}
    found = in_new_process(
        saved,
        """
for name, data in saved.items():
    try:
        torch.load(io.BytesIO(data), weights_only=False)
    except ValueError as error:
        found[name] = str(error)
""",
        tmp_path,
    )
    assert "must have a counterpart of the same parts, got _LSTMLayer of a static LSTM" in found["static"]
    assert "dynamic.modules.rnn.LSTM takes, got: LSTM: argument 'dtype' must be" in found["half"]
