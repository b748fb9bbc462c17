"""One layer of each quantized class of torch.ao with a state, and its input."""

import importlib
from typing import NamedTuple

import torch
from torch import nn

ENGINES = ("x86", "onednn", "fbgemm", "qnnpack")
SCALE, POINT = 0.05, 60  # of inputs: 0..127, as x86 needs it


class Layer(NamedTuple):
    """A class, the arguments of its constructor, the sizes of its input."""

    path: str  # in torch.ao.nn
    args: tuple
    kwargs: dict
    size: tuple
    engines: tuple = ENGINES
    weight: tuple = ()  # sizes; the first is that of the channels


def _conv(rank, transposed=False, engines=ENGINES, path="quantized"):
    name = f"{path}.Conv{'Transpose' if transposed else ''}{rank}d"
    if rank == 3:
        engines = ENGINES[:3]  # qnnpack has none that can be saved
    sizes = (2, 4, *[7] * rank), (6, 4, *[3] * rank)
    return Layer(name, (4, 6, 3), {"stride": 2, "padding": 1}, sizes[0], engines, sizes[1])


OUTPUT = {"output_scale": 0.04, "output_zero_point": 64}
ONEDNN = ("onednn",)

STATIC = {
    "Linear": Layer("quantized.Linear", (8, 6), {}, (5, 8), weight=(6, 8)),
    "Linear without bias": Layer("quantized.Linear", (8, 6, False), {}, (5, 8), weight=(6, 8)),
    **{f"Conv{rank}d": _conv(rank) for rank in (1, 2, 3)},
    **{f"ConvTranspose{rank}d": _conv(rank, True) for rank in (1, 2, 3)},
    "QFunctional": Layer("quantized.QFunctional", (), {}, (3, 9)),
    "LinearReLU": Layer("intrinsic.quantized.LinearReLU", (8, 6), {}, (5, 8), weight=(6, 8)),
    "LinearLeakyReLU": Layer(
        "intrinsic.quantized.LinearLeakyReLU", (8, 6, 0.2), {}, (5, 8), ONEDNN, (6, 8)
    ),
    "LinearTanh": Layer("intrinsic.quantized.LinearTanh", (8, 6), {}, (5, 8), ONEDNN, (6, 8)),
    **{
        f"ConvReLU{rank}d": _conv(rank)._replace(path=f"intrinsic.quantized.ConvReLU{rank}d")
        for rank in (1, 2, 3)
    },
    **{
        name: Layer(f"intrinsic.quantized.{name}", (4, 4, 1), {}, (2, 4, 5, 5), ONEDNN, (4, 4, 1, 1))
        for name in ("ConvAdd2d", "ConvAddReLU2d")
    },
    "BatchNorm2d": Layer("quantized.BatchNorm2d", (4,), {}, (2, 4, 5, 5)),
    "BatchNorm3d": Layer("quantized.BatchNorm3d", (4,), {}, (2, 4, 3, 5, 5)),
    "BNReLU2d": Layer("intrinsic.quantized.BNReLU2d", (4,), {}, (2, 4, 5, 5)),
    "BNReLU3d": Layer("intrinsic.quantized.BNReLU3d", (4,), {}, (2, 4, 3, 5, 5)),
    "LayerNorm": Layer(
        "quantized.LayerNorm", ((6,), nn.Parameter(torch.rand(6)), nn.Parameter(torch.rand(6)), 0.04, 64), {},
        (3, 6),
    ),
    "GroupNorm": Layer(
        "quantized.GroupNorm", (2, 4, nn.Parameter(torch.rand(4)), nn.Parameter(torch.rand(4)), 0.04, 64), {},
        (3, 4, 5),
    ),
    **{
        f"InstanceNorm{rank}d": Layer(
            f"quantized.InstanceNorm{rank}d",
            (4, nn.Parameter(torch.rand(4)), nn.Parameter(torch.rand(4)), 0.04, 64), {}, (3, 4, *[5] * rank),
        )
        for rank in (1, 2, 3)
    },
    "Hardswish": Layer("quantized.Hardswish", (0.04, 64), {}, (3, 9)),
    "ELU": Layer("quantized.ELU", (0.04, 64), {"alpha": 0.7}, (3, 9)),
    "LeakyReLU": Layer("quantized.LeakyReLU", (0.04, 64), {"negative_slope": 0.3}, (3, 9)),
    "Sigmoid": Layer("quantized.Sigmoid", (1 / 256, 0), {}, (3, 9)),
    "Softmax": Layer("quantized.Softmax", (1,), {"scale": 1 / 256, "zero_point": 0}, (3, 9)),
    "PReLU": Layer("quantized.PReLU", (0.04, 64, 4), {}, (3, 4, 5)),
    "ReLU6": Layer("quantized.ReLU6", (), {}, (3, 9)),
    "Dropout": Layer("quantized.Dropout", (), {}, (3, 9)),
    "DeQuantize": Layer("quantized.DeQuantize", (), {}, (3, 9)),
}  # fmt: skip

DYNAMIC = {
    "Quantize": Layer("quantized.Quantize", (0.04, 64, torch.quint8), {}, (3, 9)),
    "dynamic Linear": Layer("quantized.dynamic.Linear", (8, 6), {}, (5, 8), weight=(6, 8)),
    "dynamic LinearReLU": Layer("intrinsic.quantized.dynamic.LinearReLU", (8, 6), {}, (5, 8), weight=(6, 8)),
    **{f"dynamic Conv{rank}d": _conv(rank, path="quantized.dynamic") for rank in (1, 2, 3)},
    **{f"dynamic ConvTranspose{rank}d": _conv(rank, True, path="quantized.dynamic") for rank in (1, 2, 3)},
    "LSTM": Layer(
        "quantized.dynamic.LSTM", (6, 5, 2), {"bidirectional": True, "batch_first": True}, (2, 7, 6)
    ),
    "GRU": Layer("quantized.dynamic.GRU", (6, 5), {}, (7, 2, 6)),
    "LSTMCell": Layer("quantized.dynamic.LSTMCell", (6, 5), {}, (3, 6)),
    "GRUCell": Layer("quantized.dynamic.GRUCell", (6, 5), {}, (3, 6)),
    "RNNCell": Layer("quantized.dynamic.RNNCell", (6, 5), {"nonlinearity": "relu"}, (3, 6)),
    "Embedding": Layer("quantized.Embedding", (20, 8), {}, (3, 4)),
    "EmbeddingBag": Layer("quantized.EmbeddingBag", (20, 8), {"mode": "sum"}, (3, 4)),
    "EmbeddingBag of 4 bits": Layer(
        "quantized.EmbeddingBag", (20, 8), {"mode": "sum", "dtype": torch.quint4x2}, (3, 4)
    ),
    "sparse dynamic Linear": Layer(
        "sparse.quantized.dynamic.Linear", (16, 8, 1, 4), {}, (5, 16), ("qnnpack",), (8, 16)
    ),
}
SPARSE = {
    "sparse Linear": Layer("sparse.quantized.Linear", (16, 8, 1, 4), {}, (5, 16), ("fbgemm",), (8, 16)),
}
# torch.ao keeps their qparams, and the slopes, in attributes: its state_dict is empty.
WITHOUT_STATE = ("ELU", "PReLU")
LAYERS = {**STATIC, **SPARSE, **DYNAMIC}
CASES = [(name, engine) for name, layer in LAYERS.items() for engine in layer.engines]


def _weight(layer, per_channel, generator):
    values = torch.randn(layer.weight, generator=generator) * 0.3
    if "Transpose" in layer.path:
        values = values.transpose(0, 1)
    if not per_channel:
        return torch.quantize_per_tensor(values, 0.01, 0, torch.qint8)
    scales = torch.rand(len(values), generator=generator) * 0.01 + 0.01
    points = torch.zeros(len(values), dtype=torch.int64)
    return torch.quantize_per_channel(values, scales, points, 0, torch.qint8)


def _fill(module, layer, engine, generator):
    """Weights and qparams that are not those of the constructor."""
    if layer.weight:
        bias = torch.randn(layer.weight[0], generator=generator)
        per_channel = engine != "qnnpack" and "dynamic" not in layer.path and "Transpose" not in layer.path
        weight = _weight(layer, per_channel, generator)
        more = (1, 4) if "sparse" in layer.path else ()
        module.set_weight_bias(weight, None if False in layer.args else bias, *more)
        if hasattr(module, "scale"):
            module.scale, module.zero_point = 0.04, 64
    elif "BatchNorm" in layer.path or "BNReLU" in layer.path:
        module.scale.fill_(0.04), module.zero_point.fill_(64)
        module.weight.data.uniform_(0.5, 1.5, generator=generator)
        module.running_mean.normal_(generator=generator), module.running_var.uniform_(0.5, 1.5)
    elif "PReLU" in layer.path:  # torch.ao's 1 must fit in the range of the slopes
        slopes = torch.tensor([1.0, 0.5, 0.25, 0.0])
        module.set_weight(torch.quantize_per_tensor(slopes, 1 / 255, 0, torch.quint8))
    elif "QFunctional" in layer.path:
        module.scale, module.zero_point = 0.04, 64
    elif "Embedding" in layer.path:
        codes = torch.randn(20, 8, generator=generator)
        low, high = codes.aminmax(dim=1)
        levels = 15 if "dtype" in layer.kwargs else 255
        scale = (high - low) / levels
        qscheme = torch.quint4x2 if levels == 15 else torch.quint8
        module.set_weight(torch.quantize_per_channel(codes, scale, -low / scale, 0, qscheme))


def theirs(name, engine):
    """torch.ao's layer; the engine must be set."""
    layer = LAYERS[name]
    path, _, kind = layer.path.rpartition(".")
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    module = getattr(importlib.import_module(f"torch.ao.nn.{path}"), kind)(*layer.args, **layer.kwargs)
    _fill(module, layer, engine, generator)
    return module.eval()


def ours(name):
    """This library's layer, with the state of its constructor."""
    layer = LAYERS[name]
    path, _, kind = layer.path.rpartition(".")
    args = tuple(torch.ones_like(a) if isinstance(a, torch.Tensor) else a for a in layer.args)
    return getattr(importlib.import_module(f"torch_ao_ext.nn.{path}"), kind)(*args, **layer.kwargs).eval()


def values(name):
    """Floats or indices of the input."""
    layer = LAYERS[name]
    generator = torch.Generator().manual_seed(1)
    if "Embedding" in layer.path:
        return torch.randint(20, layer.size, generator=generator)
    return torch.randn(layer.size, generator=generator)


def is_static(name):
    """Whether its input is quantized."""
    return name in STATIC or name in SPARSE


def _call(module, x):
    kind = type(module).__name__
    if kind == "QFunctional":
        return module.add(x, x)
    return module(x, x) if "ConvAdd" in kind else module(x)


def _float_convolution(module, name):
    """What a convolution computes: torch.ao's transposed and dynamic ones are right on some engines only."""
    layer = LAYERS[name]
    product = getattr(nn, layer.path.rpartition(".")[2])(*layer.args, **layer.kwargs)
    product.weight.data, product.bias.data = module.weight().dequantize(), module.bias()
    x = values(name)
    if not is_static(name):
        return [product(x).detach()]
    y = product(torch.quantize_per_tensor(x, SCALE, POINT, torch.quint8).dequantize())
    return [torch.quantize_per_tensor(y.detach(), 0.04, 64, torch.quint8).dequantize()]


def run_theirs(module, name):
    """Float outputs of torch.ao's layer."""
    if "ConvTranspose" in name or "dynamic Conv" in name:
        return _float_convolution(module, name)
    x = values(name)
    if is_static(name):
        x = torch.quantize_per_tensor(x, SCALE, POINT, torch.quint8)
    return _floats(_call(module, x))


def run_ours(module, name):
    """Float outputs of this library's."""
    from torch_ao_ext.nn.quantized import Quantize

    x = values(name)
    return _floats(_call(module, Quantize(SCALE, POINT, torch.quint8)(x) if is_static(name) else x))


def _floats(y):
    if isinstance(y, (tuple, list)):
        return [part for value in y for part in _floats(value)]
    return [y if type(y) is torch.Tensor and not y.is_quantized else y.dequantize()]


def check(name, want, have):
    """Within one step; layers that quantize their inputs by another rule within 4 % of the norm."""
    assert len(want) == len(have)
    for a, b in zip(want, have, strict=True):
        assert a.shape == b.shape
        if is_static(name) or name == "Quantize":
            kept = name in ("ReLU6", "Dropout", "DeQuantize")
            scale = 1 / 256 if name in ("Sigmoid", "Softmax") else SCALE if kept else 0.04
            assert (a - b).abs().max() <= (1e-6 if kept else 1.001 * scale), name
            assert a.unique().numel() > 5
        else:
            most = 1e-3 if name.startswith("Embedding") else 0.04
            assert (a - b).norm() <= most * a.norm(), (name, (a - b).norm() / a.norm())
