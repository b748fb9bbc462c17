"""fuse_modules: every sequence against the float model and torch.ao, every refusal, hooks."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, weight_norm
from torch_ao_peer import peer

from torch_ao_ext.nn import intrinsic
from torch_ao_ext.quantization import fuse_known_modules, fuse_modules, fuse_modules_qat, quantize_dynamic
from torch_ao_ext.quantization.fuser_method_mappings import (
    _DEFAULT_OP_LIST_TO_FUSER_METHOD,
    fuse_conv_bn_relu,
    get_fuser_method,
    get_fuser_method_new,
)

SEQUENCES = list(_DEFAULT_OP_LIST_TO_FUSER_METHOD)
CONTAINERS = [
    name for name in intrinsic.__all__ if isinstance(getattr(intrinsic, name), type) and name[0].isupper()
]


def shape_of(sequence):
    name = sequence[0].__name__
    return (5, 6) if name == "Linear" else (2, 6, *[7] * int(name[-2]))


def layer(kind):
    if kind is nn.Linear:
        return nn.Linear(6, 4)
    if "Conv" in kind.__name__:
        return kind(6, 4, 3, padding=1, groups=2)
    if "Norm" in kind.__name__:
        return kind(4, eps=1e-2)
    return kind()


def build(sequence):
    torch.manual_seed(1)
    layers = [layer(kind) for kind in sequence]
    if "Norm" in sequence[0].__name__:
        layers[0] = sequence[0](6, eps=1e-2)
    for module in layers:
        if "Norm" in type(module).__name__:
            with torch.no_grad():
                for tensor in (module.weight, module.bias, module.running_mean):
                    tensor.normal_()
                module.running_var.uniform_(0.1, 3)
    return nn.Sequential(*layers)


def names(model):
    return [str(i) for i in range(len(model))]


def ids(sequence):
    return "-".join(kind.__name__ for kind in sequence)


def test_the_table_is_the_one_of_torch_ao():
    import torch.ao.quantization.fuser_method_mappings as theirs

    assert set(SEQUENCES) == set(theirs._DEFAULT_OP_LIST_TO_FUSER_METHOD)


@pytest.mark.parametrize("sequence", SEQUENCES, ids=ids)
def test_evaluation(sequence):
    model = build(sequence).eval()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(shape_of(sequence))
    fused = fuse_modules(model, names(model))
    assert torch.allclose(fused(x), model(x), atol=1e-5)
    assert [type(m) for m in fused[1:]] == [nn.Identity] * (len(sequence) - 1)
    assert all(not m.training for m in fused.modules())
    for name, value in model.state_dict().items():  # the model given is not changed
        assert torch.equal(value, kept[name])
    assert [type(m) for m in model] == list(sequence)
    if "Transpose" in sequence[0].__name__:  # torch.ao fails at groups > 1
        return
    theirs = peer().fuse_modules(model, names(model))
    assert type(fused[0]).__name__ == type(theirs[0]).__name__
    assert list(fused.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert torch.allclose(fused.state_dict()[name], value, atol=1e-5)


@pytest.mark.parametrize("sequence", SEQUENCES, ids=ids)
def test_training(sequence):
    model = build(sequence)
    x = torch.randn(shape_of(sequence))
    if "Transpose" in sequence[0].__name__:
        with pytest.raises(ValueError, match="no container for training"):
            fuse_modules_qat(model, names(model))
        return
    fused = fuse_modules_qat(model, names(model))
    assert all(m.training for m in fused.modules())
    theirs = peer().fuse_modules_qat(model, names(model))
    assert type(fused[0]).__name__ == type(theirs[0]).__name__
    assert list(fused.state_dict()) == list(theirs.state_dict())
    before = copy.deepcopy(model)
    assert torch.equal(fused(x), before(x))
    for (name, mine), value in zip(fused.state_dict().items(), before.state_dict().values(), strict=True):
        assert torch.equal(mine, value), name  # running statistics moved as well


@pytest.mark.parametrize("inplace", [False, True])
def test_names_with_dots_and_several_groups(inplace):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
            self.body = nn.ModuleDict({"fc": nn.Linear(4, 4), "act": nn.ReLU()})

        def forward(self, x):
            return self.body["act"](self.body["fc"](self.stem(x).mean((2, 3))))

    model = Net().eval()
    x = torch.randn(2, 3, 5, 5)
    expected = model(x)
    fused = fuse_modules(model, [["stem.0", "stem.1"], ["body.fc", "body.act"]], inplace=inplace)
    assert (fused is model) == inplace
    assert type(fused.body["fc"]) is intrinsic.LinearReLU and type(fused.stem[0]) is nn.Conv2d
    assert torch.allclose(fused(x), expected, atol=1e-6)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_folding_without_bias_or_affine_in_each_dtype(bias, affine, dtype):
    model = nn.Sequential(nn.Conv2d(6, 4, 3, bias=bias), nn.BatchNorm2d(4, affine=affine))
    model(torch.randn(8, 6, 5, 5))
    model = model.eval().to(dtype)
    x = torch.randn(2, 6, 5, 5, dtype=dtype)
    fused = fuse_modules(model, ["0", "1"])
    assert fused[0].weight.dtype == fused[0].bias.dtype == dtype
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 0.05}[dtype]
    assert torch.allclose(fused(x), model(x), atol=tolerance)


def test_frozen_parameters_stay_frozen():
    model = build((nn.Conv2d, nn.BatchNorm2d)).eval().requires_grad_(False)
    assert not any(p.requires_grad for p in fuse_modules(model, ["0", "1"]).parameters())


@pytest.mark.parametrize("fuse", [fuse_modules, fuse_modules_qat])
@pytest.mark.parametrize("inplace", [False, True])
def test_hooks_at_both_ends_move(fuse, inplace):
    log = []
    model = build((nn.Conv2d, nn.BatchNorm2d, nn.ReLU)).train(fuse is fuse_modules_qat)
    handles = [
        model[0].register_forward_pre_hook(lambda module, args: log.append("pre")),
        model[2].register_forward_hook(
            lambda module, args, kwargs, out: log.append("post"), with_kwargs=True
        ),
    ]
    x = torch.randn(2, 6, 7, 7)
    fused = fuse(model, ["0", "1", "2"], inplace=inplace)
    fused(x)
    assert log == ["pre", "post"]
    assert not fused[0][0]._forward_pre_hooks
    if inplace:
        for handle in handles:  # the handles of the caller go with them
            handle.remove()
        fused(x)
        assert log == ["pre", "post"]
    else:
        model(x)
        assert log == ["pre", "post"] * 2


def test_a_hook_of_a_fuser_method_stays():
    log = []

    def method(is_qat, conv, relu):
        fused = intrinsic.ConvReLU2d(conv, relu)
        fused.register_forward_hook(lambda *unused: log.append("own"))
        return fused

    model = build((nn.Conv2d, nn.ReLU)).eval()
    model[1].register_forward_hook(lambda *unused: log.append("moved"))
    custom = {"additional_fuser_method_mapping": {(nn.Conv2d, nn.ReLU): method}}
    fuse_modules(model, ["0", "1"], fuse_custom_config_dict=custom)(torch.randn(2, 6, 7, 7))
    assert sorted(log) == ["moved", "own"]


def register(kind, module):
    if kind == "backward":
        module.register_full_backward_hook(lambda *unused: None)
    elif kind == "pre":
        module.register_forward_pre_hook(lambda *unused: None)
    else:
        module.register_forward_hook(lambda *unused: None)


@pytest.mark.parametrize(
    "kind, index", [("backward", 0), ("backward", 2), ("pre", 1), ("pre", 2), ("post", 0)]
)
def test_hooks_inside_are_refused(kind, index):
    model = build((nn.Conv2d, nn.BatchNorm2d, nn.ReLU)).eval()
    register(kind, model[index])
    with pytest.raises(ValueError, match=rf"modules_to_fuse \['0', '1', '2'\].*hooks on layer {index}"):
        fuse_modules(model, ["0", "1", "2"])


class MyConv(nn.Conv2d):
    """A subclass: what it computes is unknown."""


def conv_bn(**norm):
    return nn.Sequential(nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4, **norm))


def spectral():
    model = conv_bn().eval()
    parametrize.register_parametrization(model[0], "weight", nn.Tanh())
    return model


def hooked():
    model = conv_bn().eval()
    with pytest.warns(FutureWarning):
        weight_norm(model[0])
    return model


def mixed():
    model = conv_bn()
    model[1].eval()
    return model


REFUSED = {
    "training": (conv_bn, ["0", "1"], "must be in evaluation mode, got training=True"),
    "modes": (mixed, ["0", "1"], r"training=True\), got training=False"),
    "statistics": (
        lambda: conv_bn(track_running_stats=False).eval(),
        ["0", "1"],
        "must have running statistics, got track_running_stats=False",
    ),
    "features": (
        lambda: nn.Sequential(nn.Conv2d(6, 4, 3), nn.BatchNorm2d(5)).eval(),
        ["0", "1"],
        r"has outputs \(4\), got 5",
    ),
    "lazy": (
        lambda: nn.Sequential(nn.LazyConv2d(4, 3), nn.BatchNorm2d(4)).eval(),
        ["0", "1"],
        "LazyConv2d, BatchNorm2d|must be a plain parameter",
    ),
    "parametrized": (spectral, ["0", "1"], "must be a plain parameter"),
    "weight_norm": (hooked, ["0", "1"], "must be a plain parameter|got a computed one, '0.weight'"),
    "subclass": (
        lambda: nn.Sequential(MyConv(6, 4, 3), nn.BatchNorm2d(4)).eval(),
        ["0", "1"],
        r"'op_list' must be one of .*got \(MyConv, BatchNorm2d\)",
    ),
    "unknown types": (lambda: conv_bn().eval(), ["1", "0"], r"got \(BatchNorm2d, Conv2d\)"),
    "no such name": (lambda: conv_bn().eval(), ["0", "7"], "must name modules of the model, got '7'"),
    "empty name": (lambda: conv_bn().eval(), ["0", ""], "must name modules of the model, got ''"),
    "twice": (lambda: conv_bn().eval(), [["0", "1"], ["0", "1"]], "each name once, got '0' twice"),
    "mixed list": (lambda: conv_bn().eval(), [["0"], "1"], "must be a list of names or a list"),
    "no list": (lambda: conv_bn().eval(), [[0, 1]], "must be a list of names or a list"),
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
@pytest.mark.parametrize("inplace", [False, True])
def test_refusals_leave_the_model_as_it_was(case, inplace):
    make, groups, message = REFUSED[case]
    model = make()
    before = list(model)
    with pytest.raises(ValueError, match=message) as error:
        fuse_modules(model, groups, inplace=inplace)
    assert str(error.value).startswith("fuse_modules: ")
    assert list(model) == before


def test_training_needs_an_affine_norm():
    with pytest.raises(ValueError, match="must be affine for training, got affine=False"):
        fuse_modules_qat(conv_bn(affine=False), ["0", "1"])


def test_a_later_refusal_restores_the_hooks_of_earlier_groups():
    log = []
    model = nn.Sequential(*build((nn.Conv2d, nn.ReLU)), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(3)).eval()
    model[0].register_forward_pre_hook(lambda *unused: log.append("pre"))
    before = list(model)
    with pytest.raises(ValueError, match=r"\['2', '3'\]"):
        fuse_modules(model, [["0", "1"], ["2", "3"]], inplace=True)
    model[0](torch.randn(1, 6, 7, 7))
    assert list(model) == before and log == ["pre"]


def test_a_custom_sequence_and_fuser_func():
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh()).eval()
    custom = {
        "additional_fuser_method_mapping": {(nn.Linear, nn.Tanh): lambda _, a, b: intrinsic.LinearTanh(a, b)}
    }
    fused = fuse_modules(model, ["0", "1"], fuse_custom_config_dict=custom)
    assert type(fused[0]) is intrinsic.LinearTanh
    with pytest.raises(ValueError, match="'additional_fuser_method_mapping' only, got 'mapping'"):
        fuse_modules(model, ["0", "1"], fuse_custom_config_dict={"mapping": {}})
    seen = []

    def func(modules, is_qat, mapping):
        seen.append((is_qat, mapping))
        return fuse_known_modules(modules, is_qat, mapping)

    relu = nn.Sequential(nn.Linear(6, 4), nn.ReLU())
    fuse_modules_qat(relu, ["0", "1"], fuser_func=func)
    assert seen == [(True, None)]


def test_fuser_methods_by_sequence():
    assert get_fuser_method((nn.Conv2d, nn.BatchNorm2d, nn.ReLU)) is fuse_conv_bn_relu
    assert get_fuser_method((int,), {(int,): abs}) is abs
    with pytest.raises(ValueError, match=r"must be one of .*got \(Linear,? ?Conv2d\)"):
        get_fuser_method((nn.Linear, nn.Conv2d))
    with pytest.raises(ValueError, match=r"must be one of \(Linear\), got \(ReLU\)"):
        get_fuser_method_new((nn.ReLU,), {(nn.Linear,): abs})


def test_containers_are_those_of_torch_ao_and_check_their_layers():
    import torch.ao.nn.intrinsic as theirs

    assert set(CONTAINERS) == set(theirs.__all__)
    for name in CONTAINERS:
        container = getattr(intrinsic, name)
        extra = [torch.add] if "Add" in name else []
        extra += [nn.ReLU()] if name == "ConvAddReLU2d" else []
        good = [layer(kind) for kind in container._TYPES]
        assert list(container(*good, *extra))[: len(good)] == good
        for i in range(len(good)):
            bad = [*good[:i], nn.Sigmoid(), *good[i + 1 :]]
            with pytest.raises(ValueError, match=rf"{name}: arguments must be .*got .*Sigmoid"):
                container(*bad, *extra)
    with pytest.raises(ValueError, match="got MyConv and ReLU"):
        intrinsic.ConvReLU2d(MyConv(6, 4, 3), nn.ReLU())


def test_residual_containers():
    x = torch.randn(2, 6, 7, 7)
    conv = nn.Conv2d(6, 4, 3, padding=1)
    y = torch.randn(2, 4, 7, 7)
    assert torch.equal(intrinsic.ConvAdd2d(conv, torch.add)(x, y), conv(x) + y)
    assert torch.equal(intrinsic.ConvAddReLU2d(conv, torch.add, nn.ReLU())(x, y), (conv(x) + y).relu())


def test_fused_linears_become_int8():
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3), nn.ReLU()).eval()
    q = quantize_dynamic(fuse_modules(model, [["0", "1"], ["2", "3"]]))
    assert type(q[2]) is intrinsic.quantized.dynamic.LinearReLU
    x = torch.randn(5, 6)
    assert (q(x) - model(x)).abs().max() < 0.05
