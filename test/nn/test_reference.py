"""nn.quantized.reference: float layers that round their weights, against torch.ao's and the int8 layers."""

import copy
import io
import warnings

import pytest
import torch
from torch import nn

import torch_ao_ext.quantization as tq
from torch_ao_ext.nn import intrinsic, quantized
from torch_ao_ext.nn.quantized import reference
from torch_ao_ext.quantization.utils import get_qparam_dict

PER_TENSOR, PER_CHANNEL = torch.per_tensor_affine, torch.per_channel_affine
ROWS = torch.per_channel_affine_float_qparams
TOKENS = torch.tensor([[1, 2, 9], [0, 3, 3]])

# name: constructor, input
ONE_WEIGHT = {
    "Linear": (lambda: nn.Linear(30, 20), lambda: torch.randn(3, 30)),
    "Conv1d": (lambda: nn.Conv1d(4, 6, 3, groups=2), lambda: torch.randn(2, 4, 9)),
    "Conv2d": (lambda: nn.Conv2d(4, 6, 3, padding=1), lambda: torch.randn(2, 4, 9, 9)),
    "Conv3d": (lambda: nn.Conv3d(4, 6, 3, bias=False), lambda: torch.randn(2, 4, 5, 5, 5)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2), lambda: torch.randn(2, 4, 9)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2), lambda: torch.randn(2, 4, 9, 9)),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(4, 6, 2), lambda: torch.randn(2, 4, 5, 5, 5)),
    "Embedding": (lambda: nn.Embedding(10, 4, padding_idx=0), lambda: TOKENS),
    "EmbeddingBag": (lambda: nn.EmbeddingBag(10, 4, mode="sum"), lambda: TOKENS),
}
RECURRENT = {
    "LSTM": (lambda: nn.LSTM(5, 6, 2, bidirectional=True), lambda: torch.randn(7, 3, 5)),
    "GRU": (lambda: nn.GRU(5, 6, 2, batch_first=True), lambda: torch.randn(7, 3, 5)),
    "LSTMCell": (lambda: nn.LSTMCell(5, 6), lambda: torch.randn(3, 5)),
    "GRUCell": (lambda: nn.GRUCell(5, 6, bias=False), lambda: torch.randn(3, 5)),
    "RNNCell": (lambda: nn.RNNCell(5, 6, nonlinearity="relu"), lambda: torch.randn(3, 5)),
}


def qparams(weight, axis=None, dtype=torch.qint8):
    limits = {"quant_min": -(2**15), "quant_max": 2**15 - 1} if dtype == torch.qint32 else {}
    if axis is None:
        observer = tq.MinMaxObserver(dtype=dtype, qscheme=torch.per_tensor_affine, **limits)
    else:
        scheme = torch.per_channel_symmetric
        observer = tq.PerChannelMinMaxObserver(ch_axis=axis, dtype=dtype, qscheme=scheme, **limits)
    observer(weight.detach())
    return get_qparam_dict(observer)


def theirs(name):
    import torch.ao.nn.quantized.reference as module

    return getattr(module, name)


def first(y):
    return y[0] if isinstance(y, tuple) else y


@pytest.mark.parametrize("dtype", [torch.qint8, torch.quint8, torch.qint32])
@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("name", ONE_WEIGHT)
def test_one_weight_equals_torch_ao(name, axis, dtype):
    torch.manual_seed(1)
    layer, x = (make() for make in ONE_WEIGHT[name])
    found = qparams(layer.weight, axis, dtype)
    ours = getattr(reference, name).from_float(layer, found)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = theirs(name).from_float(layer, found)
        data = other.get_quantized_weight().int_repr()
        expected = other(x)
    assert torch.equal(ours.get_quantized_weight(), data)
    assert torch.equal(ours(x), expected)
    assert data.unique().numel() > 3


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_equals_torch_ao(name):
    torch.manual_seed(2)
    layer, x = (make() for make in RECURRENT[name])
    found = {k: qparams(w) for k, w in layer.named_parameters() if k.startswith("weight")}
    # Theirs takes Python numbers only.
    plain = {k: {**v} for k, v in found.items()}
    for entry in plain.values():
        entry.update(scale=float(entry["scale"]), zero_point=int(entry["zero_point"]))
    ours = getattr(reference, name).from_float(layer, found)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs(name).from_float(layer, {**plain, "is_decomposed": False})(x)
    y = ours(x)
    assert torch.equal(first(y), first(expected))
    assert not torch.equal(first(y), first(layer(x)))


def test_padding_mode_is_obeyed():
    # torch.ao's reference convolutions pad with zeros whatever the mode.
    layer, x = nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), torch.randn(1, 3, 6, 6)
    ours = reference.Conv2d.from_float(layer, qparams(layer.weight, 0))
    rounded = copy.deepcopy(layer)
    rounded.weight.data = ours.get_weight().detach()
    assert torch.equal(ours(x), rounded(x))


def test_projections_and_packed_sequences():
    layer = nn.LSTM(5, 6, proj_size=3)
    layer.qconfig = tq.default_qconfig
    ours = reference.LSTM.from_float(layer)
    rounded = copy.deepcopy(layer)
    for name in ours.weight_names():
        getattr(rounded, name).data = getattr(rounded, name).data.clone()
        getattr(rounded, name).data.copy_(ours._dequantized(name))
    x = nn.utils.rnn.pack_sequence([torch.randn(4, 5), torch.randn(2, 5)])
    assert torch.equal(ours(x)[0].data, rounded(x)[0].data)


def test_transposed_output_size():
    layer, x = nn.ConvTranspose2d(3, 4, 3, stride=2), torch.randn(1, 3, 5, 5)
    ours = reference.ConvTranspose2d.from_float(layer, qparams(layer.weight))
    assert ours(x, output_size=[12, 12]).shape[2:] == (12, 12)


def test_float_points_and_four_bits():
    # Rows of embedding tables: float zero points, as core's quantize_per_channel takes them.
    layer = nn.Embedding(10, 8)
    low, high = layer.weight.detach().aminmax(dim=1)
    for dtype, levels in ((torch.quint8, 255), (torch.quint4x2, 15)):
        scale = (high - low) / levels
        found = {"qscheme": ROWS, "dtype": dtype, "scale": scale, "zero_point": -low / scale, "axis": 0}
        ours = reference.Embedding.from_float(layer, found)
        data = ours.get_quantized_weight()
        assert data.min() == 0 and data.max() == levels
        assert bool(((ours(TOKENS) - layer(TOKENS)).abs() <= scale[TOKENS][..., None] * 0.501).all())


def test_range_counts_when_decomposed():
    layer = nn.Linear(16, 4)
    found = {**qparams(layer.weight), "quant_min": -7, "quant_max": 7}
    assert reference.Linear.from_float(layer, found).get_quantized_weight().abs().max() > 7
    narrow = reference.Linear.from_float(layer, {**found, "is_decomposed": True})
    assert narrow.get_quantized_weight().abs().max() == 7


def test_no_qscheme_keeps_the_dtype():
    layer, x = nn.Linear(16, 4), torch.randn(2, 16)
    half = reference.Linear.from_float(layer, {"qscheme": None, "dtype": torch.float16})
    assert half.get_quantized_weight().dtype == torch.float16
    assert torch.equal(half.get_weight(), layer.weight.half().float())
    same = reference.Linear.from_float(layer, {"qscheme": None, "dtype": torch.float32})
    assert torch.equal(same(x), layer(x))


@pytest.mark.parametrize("name", [*ONE_WEIGHT, *RECURRENT])
def test_state_copies_and_graphs(name):
    torch.manual_seed(3)
    layer, x = (make() for make in {**ONE_WEIGHT, **RECURRENT}[name])
    layer.qconfig = tq.get_default_qconfig("onednn") if name in ONE_WEIGHT else tq.default_qconfig
    if "Transpose" in name:
        layer.qconfig = tq.default_qconfig
    ours = getattr(reference, name).from_float(layer)
    expected = first(ours(x))
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)
    new = getattr(reference, name).from_float(copy.deepcopy(layer))
    for value in [*new.buffers(), *new.parameters()]:
        value.data.zero_()
    new.load_state_dict(torch.load(file, weights_only=True))
    for twin in (new, copy.deepcopy(ours), torch.export.export(ours, (x,)).module()):
        assert torch.equal(first(twin(x)), expected)
    assert repr(ours).startswith(f"Quantized{name}(Reference)(")


def test_compiles():
    torch._dynamo.reset()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    for key in ("0", "3"):
        layer = model.get_submodule(key)
        kind = getattr(reference, type(layer).__name__)
        model._modules[key] = kind.from_float(layer, qparams(layer.weight))
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="eager")(x), model(x))


def test_state_of_another_shape_of_qparams():
    layer = nn.Linear(8, 4)
    rows = reference.Linear.from_float(layer, qparams(layer.weight, 0))
    new = reference.Linear(8, 4)
    new.load_state_dict(rows.state_dict())
    assert new.weight_qscheme == PER_CHANNEL and new.weight_dtype == torch.qint8
    assert torch.equal(new.get_weight(), rows.get_weight())


@pytest.mark.parametrize("axis", [None, "rows"])
@pytest.mark.parametrize("name", [n for n in ONE_WEIGHT if "Embedding" not in n])
def test_int8_layer_of_reference_layer(name, axis):
    torch.manual_seed(4)
    layer, x = (make() for make in ONE_WEIGHT[name])
    found = qparams(layer.weight, axis and int("Transpose" in name))
    ours = getattr(reference, name).from_float(layer.eval(), found)
    q = quantized.Quantize(float(x.abs().max()) / 127, 128, torch.quint8)(x)
    expected = ours(q.dequantize()).detach()
    scale = float(expected.abs().max()) / 127
    int8 = getattr(quantized, name).from_reference(ours, scale, 128)
    assert torch.equal(int8.weight().int_repr(), ours.get_quantized_weight())
    assert bool(((int8(q).dequantize() - expected).abs() <= 0.51 * scale).all())


def test_containers_of_reference_layers():
    torch.manual_seed(5)
    linear, conv = nn.Linear(16, 8), nn.Conv2d(4, 4, 3, padding=1)
    ref = reference.Linear.from_float(linear, qparams(linear.weight, 0))
    ref_conv = reference.Conv2d.from_float(conv, qparams(conv.weight, 0))
    x = quantized.Quantize(0.05, 128, torch.quint8)(torch.randn(2, 16))
    image = quantized.Quantize(0.05, 128, torch.quint8)(torch.randn(1, 4, 6, 6))
    nniq = intrinsic.quantized

    def holding(container, layer):
        container[0] = layer
        return container.eval()

    for int8, float_, value in (
        (nniq.LinearReLU, holding(intrinsic.LinearReLU(linear, nn.ReLU()), ref), x),
        (nniq.LinearLeakyReLU, holding(intrinsic.LinearLeakyReLU(linear, nn.LeakyReLU(0.2)), ref), x),
        (nniq.ConvReLU2d, holding(intrinsic.ConvReLU2d(conv, nn.ReLU()), ref_conv), image),
    ):
        y = int8.from_reference(float_, 0.02, 100)(value)
        expected = float_(value.dequantize()).detach().clamp(-2.0, 3.1)
        assert bool(((y.dequantize() - expected).abs() <= 0.0101).all())
        assert expected.std() > 0.1
    added = nniq.ConvAdd2d.from_reference(holding(intrinsic.ConvAdd2d(conv, torch.add), ref_conv), 0.02, 100)
    expected = (ref_conv(image.dequantize()) + image.dequantize()).detach().clamp(-2.0, 3.1)
    assert bool(((added(image, image).dequantize() - expected).abs() <= 0.0101).all())


def test_dynamic_layer_of_reference_layer():
    layer, x = nn.Linear(32, 8), torch.randn(4, 32)
    ref = reference.Linear.from_float(layer, qparams(layer.weight, 0))
    int8 = quantized.dynamic.Linear.from_reference(ref)
    assert torch.equal(int8.weight().int_repr(), ref.get_quantized_weight())
    assert (int8(x) - ref(x)).norm() < 0.01 * ref(x).norm()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_table_of_reference_layer(kind, bits):
    layer = kind(10, 8, **({"mode": "sum"} if kind is nn.EmbeddingBag else {}))
    name = "float_qparams_weight_only_qconfig" + ("_4bit" if bits == 4 else "")
    layer.qconfig = getattr(tq, name)
    ref = getattr(reference, kind.__name__).from_float(layer)
    table = getattr(quantized, kind.__name__).from_reference(ref)
    assert table.bits == bits
    # Scales below 8 bits are float16.
    torch.testing.assert_close(table(TOKENS), ref(TOKENS), rtol=2e-3, atol=1e-6 if bits == 8 else 5e-3)


def test_tables():
    table = tq.get_default_static_quant_reference_module_mappings()
    import torch.ao.quantization.quantization_mappings as other

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {v.__name__ for v in other.get_default_static_quant_reference_module_mappings().values()}
    assert {value.__name__ for value in table.values()} == names
    assert tq.get_static_quant_module_class(nn.Linear, is_reference=True) is reference.Linear
    assert tq.get_static_quant_module_class(nn.Linear) is quantized.Linear


LINEAR = nn.Linear(4, 3)
GOOD = {"qscheme": PER_TENSOR, "dtype": torch.qint8, "scale": 0.1, "zero_point": 0}
ROWS_OF_3 = {**GOOD, "qscheme": PER_CHANNEL, "zero_point": torch.zeros(3, dtype=torch.int32), "axis": 0}


def with_nan():
    layer = nn.Linear(4, 3)
    layer.weight.data[1, 1] = float("nan")
    return layer


BAD = {
    "type": (lambda: reference.Conv2d.from_float(LINEAR, GOOD), "must be nn.Conv2d, got Linear"),
    "no qconfig": (lambda: reference.Linear.from_float(LINEAR), "must have a qconfig"),
    "key": (lambda: reference.Linear(4, 3, weight_qparams={"dtype": torch.qint8}), "qscheme"),
    "no scale": (lambda: reference.Linear(4, 3, weight_qparams={**GOOD} | {"qscheme": 3}), "qscheme"),
    "dtype": (lambda: reference.Linear(4, 3, weight_qparams={**GOOD, "dtype": torch.float16}), "dtype"),
    "scale": (lambda: reference.Linear(4, 3, weight_qparams={**GOOD, "scale": 0.0}), "positive"),
    "nan scale": (lambda: reference.Linear(4, 3, weight_qparams={**GOOD, "scale": float("nan")}), "positive"),
    "axis": (lambda: reference.Linear(4, 3, weight_qparams={**GOOD, "qscheme": PER_CHANNEL}), "axis"),
    "scales": (
        lambda: reference.Linear(4, 3, weight_qparams={**ROWS_OF_3, "scale": torch.ones(4)}),
        "one scale and zero point per index of axis 0",
    ),
    "one scale": (
        lambda: reference.Linear(4, 3, weight_qparams={**GOOD, "scale": torch.ones(3)}),
        "one scale",
    ),
    "nan": (lambda: reference.Linear.from_float(with_nan(), GOOD), "finite"),
    "rnn keys": (
        lambda: reference.LSTMCell(4, 3, weight_qparams_dict={"weight_ih": GOOD, "is_decomposed": False}),
        "weight_hh",
    ),
    "uint8": (
        lambda: quantized.Linear.from_reference(
            reference.Linear.from_float(LINEAR, {**GOOD, "dtype": torch.quint8}), 0.1, 0
        ),
        "must be qint8, got torch.quint8",
    ),
    "other axis": (
        lambda: quantized.Linear.from_reference(
            reference.Linear.from_float(LINEAR, qparams(LINEAR.weight, 1)), 0.1, 0
        ),
        "along axis 0, got axis 1",
    ),
    "float layer": (lambda: quantized.Linear.from_reference(LINEAR, 0.1, 0), "reference.Linear, got Linear"),
    "no container": (
        lambda: intrinsic.quantized.LinearReLU.from_reference(reference.Linear(4, 3), 0.1, 0),
        "container of nn.quantized.reference.Linear, got Linear",
    ),
    "container": (
        lambda: quantized.Linear.from_reference(intrinsic.LinearReLU(LINEAR, nn.ReLU()), 0.1, 0),
        "got LinearReLU",
    ),
    "zero point": (lambda: quantized.Linear.from_reference(ref_linear(), 0.1, 300), "'zero_point'"),
}


def ref_linear():
    return reference.Linear.from_float(LINEAR, GOOD)


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, text = BAD[name]
    with pytest.raises(ValueError, match=text):
        call()
