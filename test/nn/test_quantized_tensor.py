"""QuantizedTensor: torch functions on it against torch's quantized tensors and the float formula."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from static_peer import ours, steps, theirs
from torch import nn

from torch_ao_ext._quantized_tensor import QuantizedTensor

MOVES = {
    "view": lambda t: t.view(2, -1),
    "reshape": lambda t: t.reshape(2, 4, 36),
    "torch.reshape": lambda t: torch.reshape(t, (2, -1)),
    "flatten": lambda t: torch.flatten(t, 1),
    "nn.Flatten": lambda t: nn.Flatten()(t),
    "permute": lambda t: t.permute(0, 2, 3, 1),
    "transpose": lambda t: t.transpose(1, 2).contiguous(),
    "getitem": lambda t: t[:, 1:3, ::2],
    "ellipsis": lambda t: t[..., 0],
    "unsqueeze": lambda t: t.unsqueeze(0).squeeze(0),
    "chunk": lambda t: torch.chunk(t, 2, dim=1)[1],
    "split": lambda t: t.split([1, 3], dim=1)[0],
    "narrow": lambda t: t.narrow(1, 1, 2),
    "select": lambda t: t.select(1, 0),
    "flip": lambda t: t.flip(2),
    "clone": lambda t: t.clone().detach(),
    "nn.Identity": lambda t: nn.Identity()(t),
    "shuffle": lambda t: F.channel_shuffle(t, 2),
    "pixel_shuffle": lambda t: F.pixel_shuffle(t, 2),
    "expand": lambda t: t[:1].expand(3, -1, -1, -1),
    "keyword": lambda t: torch.flatten(input=t, start_dim=1),
}


def float_run(function, q):
    return function(q.dequantize())


@pytest.mark.parametrize("name", MOVES)
def test_moves_keep_values_and_qparams(name):
    q = ours(2, 4, 6, 6)
    y = MOVES[name](q)
    assert isinstance(y, QuantizedTensor)
    assert (y.q_scale(), y.q_zero_point(), y.dtype) == (q.q_scale(), q.q_zero_point(), q.dtype)
    assert torch.equal(y.dequantize(), float_run(MOVES[name], q))


def test_view_of_channels_last():
    q = ours(2, 4, 6, 6)
    last = QuantizedTensor(q.int_repr().contiguous(memory_format=torch.channels_last), 0.05, 120)
    assert torch.equal(last.view(2, -1).int_repr(), q.int_repr().view(2, -1))
    assert last.is_contiguous(memory_format=torch.channels_last) and not last.is_contiguous()


KEPT = {
    "relu": torch.relu,
    "F.relu": F.relu,
    "nn.ReLU": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "hardtanh": nn.Hardtanh(-0.7, 0.4),
    "clamp": lambda t: torch.clamp(t, -0.5, 0.8),
    "clamp low": lambda t: t.clamp(min=0.2),
    "leaky_relu": nn.LeakyReLU(0.2),
    "max_pool1d": lambda t: nn.MaxPool1d(2)(t.flatten(2)),
    "max_pool2d": nn.MaxPool2d(3, 2, 1),
    "max_pool2d ceil": nn.MaxPool2d(4, 3, ceil_mode=True),
    "max_pool2d dilated": nn.MaxPool2d(2, 1, dilation=2),
    "avg_pool1d": lambda t: nn.AvgPool1d(3)(t.flatten(2)),
    "avg_pool2d": nn.AvgPool2d(2),
    "avg_pool2d odd": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "adaptive": nn.AdaptiveAvgPool2d(1),
    "adaptive odd": nn.AdaptiveAvgPool2d((2, 4)),
    "mean": lambda t: t.mean((2, 3)),
    "mean keepdim": lambda t: torch.mean(t, (2, 3), keepdim=True),
    "nearest": lambda t: F.interpolate(t, scale_factor=2),
    "bilinear": lambda t: F.interpolate(t, scale_factor=2, mode="bilinear", align_corners=False),
}


@pytest.mark.parametrize("name", KEPT)
def test_kept_qparams_against_torch(name):
    q = ours(2, 4, 7, 7)
    y = KEPT[name](q)
    # Ties of an average and multiplications in another order: one step.
    assert steps(y, KEPT[name](theirs(q))) <= (0 if "relu" in name and "leaky" not in name else 1)
    exact = float_run(KEPT[name], q)
    assert (y.dequantize() - exact).abs().max() <= 0.51 * q.q_scale()


RANGES = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "hardsigmoid": F.hardsigmoid, "nn.Tanh": nn.Tanh()}


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
def test_fixed_ranges(name, dtype):
    q = ours(3, 50)
    if dtype == torch.int8:
        q = QuantizedTensor((q.int_repr().int() - 128).to(torch.int8), 0.05, -8)
    y = RANGES[name](q)
    assert y.dtype == dtype
    assert (y.dequantize() - float_run(RANGES[name], q)).abs().max() <= 0.51 * y.q_scale() + 1.0 / 256
    if dtype == torch.uint8:
        assert steps(y, RANGES[name](theirs(q))) <= 1


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_pools_without_a_batch(rank):
    q = ours(2, *[6] * rank)
    for name in ("MaxPool", "AvgPool"):
        pool = getattr(nn, f"{name}{rank}d")(2)
        batched = pool(q.unsqueeze(0))
        assert torch.equal(pool(q).int_repr(), batched.int_repr()[0])


def test_inplace_relu_writes_into_the_integers():
    q = ours(4, 4)
    data = q.int_repr()
    y = nn.ReLU(inplace=True)(q)
    assert y.int_repr().data_ptr() == data.data_ptr() and int(data.min()) >= 120


def test_cat_of_equal_qparams():
    q = ours(2, 3)
    y = torch.cat([q, q], dim=1)
    assert torch.equal(y.int_repr(), torch.cat([q.int_repr()] * 2, 1)) and y.q_scale() == q.q_scale()


def test_dequantize_and_equal():
    q = ours(2, 3)
    assert torch.equal(torch.dequantize(q), (q.int_repr().float() - 120) * 0.05)
    assert torch.equal(q, q.clone()) and not torch.equal(q, ours(2, 3, seed=2))
    assert len(q) == 2 and q.numel() == 6 and q.ndim == 2 and q.is_quantized and q.cpu() is q
    assert q.size(1) == 3 and q.stride() == (3, 1)


def test_copies():
    q = ours(2, 3)
    for other in (copy.deepcopy(q), pickle.loads(pickle.dumps(q))):
        assert torch.equal(other, q)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        return self.fc(x)


OTHER = ours(2, 3)
DIFFERENT = QuantizedTensor(OTHER.int_repr(), 0.07, 120)
REFUSED = {
    "add": (lambda q: q + q, r"__add__.*use nn.quantized.FloatFunctional\(\).add"),
    "torch.add": (lambda q: torch.add(q, q), r"^add: .*FloatFunctional\(\).add"),
    "float + q": (lambda q: torch.ones(2, 3) + q, r"FloatFunctional\(\).add"),
    "mul": (lambda q: q * 2, r"FloatFunctional\(\).mul"),
    "matmul": (lambda q: q @ q, r"FloatFunctional\(\).matmul"),
    "cat": (lambda q: torch.cat([q, DIFFERENT]), r"^cat.*different qparams.*FloatFunctional\(\).cat"),
    "cat with a float": (lambda q: torch.cat([q, torch.ones(2, 3)]), "a float among them"),
    "softmax": (lambda q: q.softmax(-1), "softmax.*put a DeQuantStub before it and a QuantStub behind it"),
    "layer": (
        lambda q: Net()(q),
        "^linear in Linear: arguments must be float tensors, got a QuantizedTensor",
    ),
    "dropout": (lambda q: nn.Dropout()(q), r"training must be False for a QuantizedTensor"),
    "indices": (lambda q: F.max_pool1d(q, 2, return_indices=True), "max_pool1d_with_indices.*DeQuantStub"),
    "equal": (lambda q: torch.equal(q, torch.ones(2, 3)), "got a QuantizedTensor and a float"),
    "setitem": (lambda q: q.__setitem__(0, 1.0), "__setitem__"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_function_and_remedy(name):
    run, message = REFUSED[name]
    with pytest.raises((TypeError, NotImplementedError), match=message):
        run(ours(2, 3))


def test_refusal_names_the_module():
    from torch_ao_ext._describe import MODULE_PATH

    net = Net()
    net.fc.__dict__[MODULE_PATH] = "fc"
    with pytest.raises(TypeError, match=r"linear in Linear 'fc': arguments"):
        net(ours(2, 3))


def test_per_channel_tensors_do_not_run():
    q = QuantizedTensor(torch.zeros(2, 3, dtype=torch.int8), torch.tensor([0.1, 0.2]))
    with pytest.raises(RuntimeError, match="q_scale: qscheme must be per_tensor_affine"):
        torch.relu(q)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        q.nothing  # noqa: B018
    with pytest.raises(ValueError, match="must be int8, uint8 or int16, got torch.float32"):
        QuantizedTensor(torch.zeros(2), 0.1, 0)
