"""nn.quantized.functional against torch.ao's."""

import warnings

import pytest
import torch
from static_peer import ours, steps, theirs

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized import functional


@pytest.fixture(autouse=True)
def _quiet(_warnings_are_errors):
    """torch.ao's tensors warn of their dtypes, its upsampling of its name."""
    warnings.filterwarnings("ignore", message=r"torch\.quantize_per_tensor")
    warnings.filterwarnings("ignore", message=r".*(upsample|interpolate).*")


def peer():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch.ao.nn.quantized.functional as module

    return module


IMAGE, VOLUME, LINE = (2, 4, 8, 8), (2, 4, 6, 6, 6), (2, 4, 9)
CASES = {
    "avg_pool2d": (IMAGE, (3, 2, 1), {}),
    "avg_pool3d": (VOLUME, (2,), {}),
    "adaptive_avg_pool2d": (IMAGE, ((3, 2),), {}),
    "adaptive_avg_pool3d": (VOLUME, (2,), {}),
    "max_pool1d": (LINE, (2,), {}),
    "max_pool2d": (IMAGE, (3, 2, 1), {}),
    "celu": (IMAGE, (0.04, 30), {"alpha": 0.7}),
    "elu": (IMAGE, (0.04, 30), {"alpha": 0.7}),
    "hardswish": (IMAGE, (0.04, 10), {}),
    "leaky_relu": (IMAGE, (0.2,), {}),
    "leaky_relu with qparams": (IMAGE, (0.2, False, 0.04, 40), {}),
    "hardtanh": (IMAGE, (-0.5, 0.7), {}),
    "clamp": (IMAGE, (-0.5, 0.7), {}),
    "threshold": (IMAGE, (0.12, -0.3), {}),
    "hardsigmoid": (IMAGE, (), {}),
    "interpolate": (IMAGE, (), {"scale_factor": 2}),
    "interpolate bilinear": (IMAGE, (), {"size": (11, 5), "mode": "bilinear", "align_corners": False}),
    "upsample": (IMAGE, (), {"scale_factor": 2}),
    "upsample_nearest": (IMAGE, (), {"scale_factor": 2}),
    "upsample_bilinear": (IMAGE, (), {"size": (9, 9)}),
}


@pytest.mark.parametrize("name", CASES)
def test_against_torch_ao(name):
    sizes, args, kwargs = CASES[name]
    function = name.split()[0]
    q = ours(*sizes)
    y = getattr(functional, function)(q, *args, **kwargs)
    assert steps(y, getattr(peer(), function)(theirs(q), *args, **kwargs)) <= 1


def test_names_are_those_of_torch_ao():
    assert set(functional.__all__) == set(peer().__all__)


def weights(*shape, per_channel):
    torch.manual_seed(0)
    data = torch.randint(-128, 128, shape, dtype=torch.int8)
    scale = torch.rand(shape[0]) * 0.01 + 0.001 if per_channel else torch.tensor([0.004])
    real = data.float() * scale.reshape(-1, *[1] * (len(shape) - 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if per_channel:
            zeros = torch.zeros(shape[0], dtype=torch.int64)
            other = torch.quantize_per_channel(real, scale.double(), zeros, 0, torch.qint8)
        else:
            other = torch.quantize_per_tensor(real, 0.004, 0, torch.qint8)
    assert torch.equal(other.int_repr(), data)
    return QuantizedTensor(data, scale), other


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_conv(rank, per_channel, mode):
    q = ours(2, 4, *[7] * rank)
    w, other = weights(6, 2, *[3] * rank, per_channel=per_channel)
    bias = torch.randn(6)
    options = {"stride": 2, "padding": 1, "groups": 2, "padding_mode": mode, "scale": 0.06, "zero_point": 120}
    y = getattr(functional, f"conv{rank}d")(q, w, bias, **options)
    if mode == "zeros":
        assert steps(y, getattr(peer(), f"conv{rank}d")(theirs(q), other, bias, **options)) <= 1
    else:
        padded = torch.nn.functional.pad(q.dequantize(), [1, 1] * rank, mode="reflect")
        real = getattr(torch.nn.functional, f"conv{rank}d")(padded, w.dequantize(), bias, 2, 0, 1, 2)
        want = (real / 0.06 + 120).clamp(0, 255)
        assert (y.int_repr() - want).abs().max() <= 0.51


@pytest.mark.parametrize("per_channel", [False, True])
def test_linear(per_channel):
    q = ours(5, 16)
    w, other = weights(8, 16, per_channel=per_channel)
    bias = torch.randn(8)
    for options in ({}, {"scale": 0.08, "zero_point": 130}):
        y = functional.linear(q, w, bias, **options)
        assert steps(y, peer().linear(theirs(q), other, bias, **options)) <= 1


REFUSED = {
    "float input": (lambda q, f: functional.avg_pool2d(f, 2), TypeError, "avg_pool2d: argument 'input' must"),
    "float weight": (lambda q, f: functional.linear(q, f), TypeError, "linear: argument 'weight' must"),
    "indices": (
        lambda q, f: functional.max_pool2d(q, 2, return_indices=True),
        ValueError,
        "'return_indices' must be",
    ),
    "half qparams": (lambda q, f: functional.leaky_relu(q, scale=0.1), ValueError, "given together, got 0.1"),
    "threshold": (lambda q, f: functional.threshold(q, None, 1), ValueError, "'threshold' must be a number"),
    "mode": (
        lambda q, f: functional.conv2d(q, q, None, padding_mode="mirror"),
        ValueError,
        "'padding_mode' must be zeros",
    ),
    "dtype": (
        lambda q, f: functional.conv2d(q, q, None, dtype=torch.float32),
        ValueError,
        "'dtype' must be torch.quint8",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    run, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        run(ours(*IMAGE), torch.zeros(*IMAGE))


def test_padding_and_resizing_of_quantized_tensors():
    q = QuantizedTensor(torch.randint(0, 256, (2, 3, 6, 5), dtype=torch.uint8), 0.05, 100)
    x = q.dequantize()
    for mode in ("constant", "reflect", "replicate", "circular"):
        y = torch.nn.functional.pad(q, (1, 2, 0, 1), mode=mode)
        assert torch.allclose(y.dequantize(), torch.nn.functional.pad(x, (1, 2, 0, 1), mode=mode))
        assert (y.q_scale(), y.q_zero_point()) == (0.05, 100)
    y = torch.nn.functional.pad(q, (1, 1), value=0.52)
    assert y.int_repr()[..., 0].eq(110).all()
    for arguments in ({"scale_factor": 2.0}, {"size": (3, 9)}, {"scale_factor": (0.5, 1.5)}):
        for extra in ({"mode": "nearest"}, {"mode": "bilinear"}, {"mode": "bilinear", "align_corners": True}):
            real = torch.nn.functional.interpolate(x, **arguments, **extra)
            y = torch.nn.functional.interpolate(q, **arguments, **extra)
            assert y.shape == real.shape
            assert (y.dequantize() - real).abs().max() <= 0.0251
    y = torch.nn.functional.interpolate(q, scale_factor=2, mode="bicubic")
    assert y.shape == (2, 3, 12, 10)
