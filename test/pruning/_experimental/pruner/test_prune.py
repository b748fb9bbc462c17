"""prune(): smaller layers that compute what the masked model computed."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_peer import peer
from torch import nn

from torch_ao_ext.pruning._experimental.pruner import BaseStructuredSparsifier, SaliencyPruner


class Fixed(BaseStructuredSparsifier):
    """Masks every third row, one row at least."""

    def update_mask(self, module, tensor_name, **kwargs):
        module.parametrizations[tensor_name][0].mask[::3] = False


def randomize(m):
    for module in m.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return m.eval()


def prune_and_compare(m, x, prune_bias, layers=None):
    """Prunes all layers (or the named ones); outputs stay, up to dropped output rows."""
    randomize(m)
    pruner = Fixed({"prune_bias": prune_bias})
    config = None if layers is None else [{"tensor_fqn": f"{name}.weight"} for name in layers]
    pruner.prepare(m, config)
    pruner.step()
    expected = m(x)
    before = sum(p.numel() for p in m.parameters())
    pruned = pruner.prune()
    out = pruned(x)
    if out.shape != expected.shape:
        keep = torch.ones(expected.shape[1], dtype=torch.bool)
        keep[::3] = False
        expected = expected[:, keep]
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in pruned.parameters()) < before
    copy.deepcopy(pruned)
    return pruned


ACTIVATIONS = [
    nn.ReLU,
    nn.Sigmoid,
    nn.GELU,
    nn.Softplus,
    nn.Hardswish,
    nn.Tanh,
    nn.ELU,
    lambda: nn.PReLU(7),
    nn.RReLU,
]


@pytest.mark.parametrize("prune_bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: getattr(a, "__name__", "PReLU"))
@pytest.mark.parametrize("bias", [True, False])
def test_linear_chains(activation, bias, prune_bias):
    m = nn.Sequential(
        nn.Linear(5, 7, bias=bias), activation(), nn.Linear(7, 6), nn.BatchNorm1d(6),
        activation_of(activation, 6), nn.Linear(6, 4, bias=bias), nn.Linear(4, 9),
    )  # fmt: skip
    pruned = prune_and_compare(m, torch.randn(3, 5), prune_bias)
    sizes = [(x.in_features, x.out_features) for x in pruned.modules() if isinstance(x, nn.Linear)]
    assert sizes == [(5, 4), (4, 4), (4, 2), (2, 6)]


def activation_of(activation, channels):
    made = activation()
    return nn.PReLU(channels) if isinstance(made, nn.PReLU) else made


@pytest.mark.parametrize("prune_bias", [True, False])
@pytest.mark.parametrize(
    "pool", [nn.AvgPool2d(2), nn.MaxPool2d(2, padding=1), nn.AvgPool2d(3, 2, 1)], ids=repr
)
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Sigmoid(), nn.PReLU(8)], ids=repr)
def test_conv_chains(activation, pool, prune_bias):
    activation = copy.deepcopy(activation)
    m = nn.Sequential(
        nn.Conv2d(3, 8, 3), activation, pool, nn.Conv2d(8, 6, 2, padding=0), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 7, 1, bias=False), nn.Conv2d(7, 6, 1), nn.BatchNorm2d(6), nn.Sigmoid(),
        nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten(), nn.Linear(36, 5),
    )  # fmt: skip
    pruned = prune_and_compare(m, torch.randn(2, 3, 12, 12), prune_bias)
    convs = [x.out_channels for x in pruned.modules() if isinstance(x, nn.Conv2d)]
    constant = (
        not isinstance(pool, nn.AvgPool2d)
        or not pool.padding
        or (prune_bias and isinstance(activation, nn.ReLU))
    )
    first = 5 if constant or (prune_bias and isinstance(activation, nn.PReLU)) else 8
    assert convs == [first, 4, 4, 4]
    assert [x.in_features for x in pruned.modules() if isinstance(x, nn.Linear)] == [24]


@pytest.mark.parametrize(
    "padding, mode", [(1, "zeros"), ("same", "zeros"), (1, "reflect"), ("valid", "zeros")]
)
@pytest.mark.parametrize("prune_bias", [True, False])
def test_padding_keeps_only_channels_that_are_not_zero(padding, mode, prune_bias):
    m = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, padding=padding, padding_mode=mode),
        nn.Conv2d(6, 4, 1),
    )
    m[0].bias.data.abs_()
    pruned = prune_and_compare(m, torch.randn(2, 3, 9, 9), prune_bias, ["0", "2"])
    foldable = prune_bias or mode == "reflect" or padding == "valid"
    assert pruned.get_submodule("0").out_channels == (5 if foldable else 8)
    assert pruned.get_submodule("2").out_channels == 4


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 6, 1)
        self.d = nn.Linear(6, 4)

    def forward(self, x):
        x = self.b(F.max_pool2d(F.leaky_relu(self.a(x), 0.3), 2))
        x = self.c(F.avg_pool2d(torch.sigmoid(x), kernel_size=2))
        return self.d(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


@pytest.mark.parametrize("prune_bias", [True, False])
def test_functions_keep_their_arguments(prune_bias):
    pruned = prune_and_compare(Functional(), torch.randn(2, 3, 14, 14), prune_bias, ["a", "b"])
    assert (pruned.a.out_channels, pruned.b.out_channels) == (5, 4)


@given(
    sizes=st.lists(st.integers(2, 9), min_size=3, max_size=5),
    biases=st.lists(st.booleans(), min_size=5, max_size=5),
    prune_bias=st.booleans(),
    normal=st.booleans(),
    first=st.integers(0, 3),
)
@settings(max_examples=40, deadline=None)
def test_random_chains(sizes, biases, prune_bias, normal, first):
    layers = []
    for i, (a, b) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        layers += [nn.Linear(a, b, bias=biases[i])]
        if i < len(sizes) - 2:
            layers += [nn.BatchNorm1d(b)] if normal else []
            layers += [nn.Sigmoid()]
    linear = [str(i) for i, x in enumerate(layers) if isinstance(x, nn.Linear)]
    chosen = linear[min(first, len(linear) - 2) : -1]
    prune_and_compare(nn.Sequential(*layers), torch.randn(3, sizes[0]), prune_bias, chosen)


def test_equal_to_torch_ao_where_it_is_exact():
    def build():
        torch.manual_seed(9)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)), [
            {"tensor_fqn": f"{i}.weight", "prune_bias": b} for i, b in ((0, True), (2, False))
        ]

    outs, x = [], torch.randn(4, 6)
    for kind in (SaliencyPruner, peer("_experimental.pruner").SaliencyPruner):
        m, config = build()
        pruner = kind({"sparsity_level": 0.5})
        pruner.prepare(m, config)
        pruner.step()
        pruned = pruner.prune()
        outs.append((pruned(x), {k: v.shape for k, v in pruned.state_dict().items()}))
    assert outs[0][1] == outs[1][1]
    torch.testing.assert_close(outs[0][0], outs[1][0])


def test_output_layer_keeps_the_bias_of_kept_rows():
    for prune_bias in (True, False):
        m = nn.Sequential(nn.Linear(4, 6))
        bias = m[0].bias.detach().clone()
        pruned = prune_and_compare(m, torch.randn(2, 4), prune_bias)
        keep = torch.tensor([1, 2, 4, 5])
        assert torch.equal(pruned.get_submodule("0").bias, bias[keep])


class Residual(nn.Module):
    def __init__(self, shared=False):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.c = self.a if shared else nn.Linear(4, 4)

    def forward(self, x):
        y = self.a(x)
        return y * 2 + self.c(self.b(y))


class Grouped(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, groups=2))


class Twice(nn.Sequential):
    def __init__(self):
        a, b = nn.Linear(4, 4), nn.Linear(4, 4)
        super().__init__(a, b, a, b)


class TwoTensors(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.w = nn.Linear(4, 4), nn.Linear(4, 4), nn.Parameter(torch.ones(4))

    def forward(self, x):
        return self.b(F.prelu(self.a(x), self.w))


@pytest.mark.parametrize(
    "m, layer, error, text",
    [
        (Residual(), "a", RuntimeError, "a: the output of a is also read by mul"),
        (Residual(), "c", RuntimeError, "c: what follows it fits no pattern"),
        (Twice(), "0", RuntimeError, "called more than once"),
        (TwoTensors(), "a", RuntimeError, "a: prelu takes more than one tensor"),
        (Grouped(), "0", ValueError, "must have groups 1, got 2"),
        (nn.Sequential(nn.Linear(4, 1), nn.Linear(1, 2)), "0", ValueError, "at least one of 1 rows"),
        (
            nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 2)),
            "0", ValueError, "must have running statistics",
        ),
    ],
)  # fmt: skip
def test_refusals_leave_the_model_as_it_was(m, layer, error, text):
    pruner = Fixed({})
    pruner.prepare(m, [{"tensor_fqn": f"{layer}.weight"}])
    pruner.step()
    before = {k: v.clone() for k, v in m.state_dict().items()}
    with pytest.raises(error, match=text):
        pruner.prune()
    after = m.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)


def test_a_shared_weight_is_not_written():
    m = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    other = nn.Linear(4, 4)
    other.weight = m[0].weight
    before = other.weight.detach().clone()
    prune_and_compare(m, torch.randn(2, 4), True, ["0"])
    assert torch.equal(other.weight, before)


def test_own_patterns():
    calls = []

    def note(linear, activation):
        calls.append((linear, activation))
        from torch_ao_ext.pruning._experimental.pruner.prune_functions import prune_linear

        prune_linear(linear)

    m = nn.Sequential(nn.Linear(4, 6), nn.Softmax(-1))
    pruner = Fixed({}, patterns={(nn.Linear, nn.Softmax): note})
    pruner.prepare(m, None)
    pruner.step()
    assert pruner.prune()(torch.randn(2, 4)).shape == (2, 4) and calls == [(m[0], m[1])]
