"""Static quantization in eager mode: prepare, convert, quantize."""

import copy
import warnings

import pytest
import torch
from eager_models import RESNET_GROUPS, images, resnet
from torch import nn
from torch.nn.utils import parametrizations
from torch_ao_peer import peer

import torch_ao_ext
from torch_ao_ext import load_quantized, save_quantized
from torch_ao_ext import quantization as tq
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn import intrinsic
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.quantization import (
    DeQuantStub,
    QuantStub,
    QuantWrapper,
    convert,
    default_qconfig,
    fuse_modules,
    get_default_qconfig,
    prepare,
    quantize,
)


@pytest.fixture(autouse=True)
def _quiet(_warnings_are_errors):
    """torch.ao warns of its end, and its tensors of their dtypes."""
    warnings.filterwarnings("ignore", message=r"torch\.quantize_per_tensor")
    warnings.filterwarnings("ignore", message=r"torch\.ao\.quantization is deprecated")
    warnings.filterwarnings("ignore", message="Please use quant_min and quant_max")


def calibrated(q, model, groups, qconfig):
    model = q.fuse_modules(model, groups)
    model.qconfig = qconfig
    observed = q.prepare(model)
    for batch in images():
        observed(batch)
    return observed


@pytest.fixture(scope="module")
def float_model():
    return resnet(tq, nnq.FloatFunctional)


@pytest.fixture(scope="module")
def int8_model(float_model):
    return convert(calibrated(tq, float_model, RESNET_GROUPS, get_default_qconfig("x86")))


def sqnr(want, have):
    want, have = want.detach(), have.detach()
    return float(10 * torch.log10(want.pow(2).sum() / (want - have).pow(2).sum()))


@pytest.mark.parametrize("backend", ["x86", "onednn", "fbgemm", "qnnpack"])
def test_residual_network_against_torch_ao(float_model, backend):
    from torch.ao.nn.quantized import FloatFunctional

    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = backend
    try:
        theirs = resnet(peer(), FloatFunctional, float_model)
        mine = calibrated(tq, float_model, RESNET_GROUPS, get_default_qconfig(backend))
        other = calibrated(peer(), theirs, RESNET_GROUPS, peer().get_default_qconfig(backend))
        names = {n: m for n, m in mine.named_modules() if n.endswith("activation_post_process")}
        peers = {n: m for n, m in other.named_modules() if n.endswith("activation_post_process")}
        assert list(names) == list(peers)
        for name, observer in names.items():
            for a, b in zip(observer.calculate_qparams(), peers[name].calculate_qparams(), strict=True):
                assert torch.allclose(a.double(), b.double(), rtol=1e-5, atol=0)
        int8, int8_peer = convert(mine), peer().convert(other)
        x = images(1, seed=9)[0]
        want, y, z = float_model(x), int8(x), int8_peer(x)
    finally:
        torch.backends.quantized.engine = before
    kinds = {n: type(m).__name__ for n, m in int8.named_modules()}
    peer_kinds = {n: type(m).__name__ for n, m in int8_peer.named_modules() if "_packed_params" not in n}
    assert kinds == {n: k for n, k in peer_kinds.items() if not n.endswith("activation_post_process")}
    # One step at each layer adds up; the error of both is the same.
    assert (y - z).abs().max() <= 3.01 * int8.fc.scale
    assert sqnr(want, y) > 25 and sqnr(want, y) > sqnr(want, z) - 1


def test_report_and_input_model(float_model, int8_model):
    report = torch_ao_ext.report(int8_model)
    assert dict(report.int8) == {"ConvReLU2d": 3, "Conv2d": 3, "Linear": 1} and not report.float
    assert isinstance(float_model.conv, nn.Conv2d) and not hasattr(float_model, "qconfig")
    assert not any(
        hasattr(m, "qconfig") or hasattr(m, "activation_post_process") for m in int8_model.modules()
    )


def test_every_runtime_gives_the_same_numbers(int8_model, tmp_path):
    x = images(1, seed=9)[0]
    want = int8_model(x)
    assert torch.equal(torch.jit.trace(int8_model, x)(x), want)
    assert torch.equal(torch.export.export(int8_model, (x,)).module()(x), want)
    assert torch.equal(copy.deepcopy(int8_model)(x), want)
    path = tmp_path / "whole.pt"
    torch.save(int8_model, path)
    assert torch.equal(torch.load(path, weights_only=False)(x), want)
    state = tmp_path / "model.safetensors"
    save_quantized(int8_model, state)

    def model_fn():
        return fuse_modules(resnet(tq, nnq.FloatFunctional), RESNET_GROUPS)

    assert torch.equal(load_quantized(state, model_fn, meta=False)(x), want)


def test_state_dict_round_trip(float_model, int8_model):
    other = convert(calibrated(tq, float_model, RESNET_GROUPS, get_default_qconfig("onednn")))
    x = images(1, seed=9)[0]
    assert not torch.equal(other(x), int8_model(x))
    other.load_state_dict(int8_model.state_dict())
    assert torch.equal(other(x), int8_model(x))


def test_a_model_made_with_torch_ao_classes(float_model):
    from torch.ao.nn.quantized import FloatFunctional

    theirs = resnet(peer(), FloatFunctional, float_model)
    fused = peer().fuse_modules(theirs, RESNET_GROUPS)  # their containers, too
    fused.qconfig = get_default_qconfig("x86")
    observed = prepare(fused)
    mine = calibrated(tq, float_model, RESNET_GROUPS, get_default_qconfig("x86"))
    for batch in images():
        observed(batch)
    x = images(1, seed=9)[0]
    a, b = convert(observed), convert(mine)
    assert not any(type(m).__module__.startswith("torch.ao.") for m in a.modules())
    assert (a(x) - b(x)).abs().max() <= b.fc.scale * 1.01


def small(*layers):
    model = QuantWrapper(nn.Sequential(*layers)).eval()
    model.qconfig = default_qconfig
    return model


def test_against_pt2e():
    from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 16, 10),
    ).eval()  # fmt: skip
    batches = [torch.randn(16, 1, 8, 8) for _ in range(4)]
    eager = QuantWrapper(fuse_modules(net, [["0", "1"], ["2", "3"]])).eval()
    eager.qconfig = get_default_qconfig("onednn")  # 8 bits, as the quantizer
    eager = prepare(eager)
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    graph = prepare_pt2e(torch.export.export(net, (batches[0],)).module(), quantizer)
    for batch in batches:
        eager(batch)
        graph(batch)
    eager, graph = convert(eager), torch_ao_ext.lower(convert_pt2e(graph))
    y, z = eager(batches[0]), graph(batches[0])
    assert sum(torch_ao_ext.report(eager).int8.values()) == 3
    assert sum(r.macs > 0 for r in torch_ao_ext.report(graph).rows if r.status == "int8") == 3
    # The graph's last layer gives floats, the eager one rounds them once more.
    assert (y - z).abs().max() <= 1.01 * eager.module[5].scale


def test_quantize_in_one_call():
    model = small(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)).train()
    x = torch.randn(64, 6)
    seen = []

    def run(observed, data):
        seen.append(observed.training)
        observed(data)

    int8 = quantize(model, run, [x])
    assert seen == [False] and model.training and not hasattr(model.module[0], "activation_post_process")
    assert (int8(x) - model(x)).abs().max() < 0.1
    same = quantize(model, run, [x], inplace=True)
    assert same is model and type(model.module[0]) is nnq.Linear


def test_nested_qconfigs():
    model = small(
        nn.Linear(6, 6), nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 6), DeQuantStub(), nn.Linear(6, 6))
    )
    model.module[2][2].qconfig = None
    model.module[2][0].qconfig = get_default_qconfig("onednn")
    observed = prepare(model)
    observed(torch.randn(8, 6))
    int8 = convert(observed)
    kinds = [type(m) for m in (*int8.module[:2], *int8.module[2])]
    assert kinds == [nnq.Linear, nnq.Linear, nnq.Linear, nnq.DeQuantize, nn.Linear]
    assert int8.module[0].weight_scale.numel() == 1 and int8.module[2][0].weight_scale.numel() == 6
    assert int8(torch.randn(2, 6)).dtype == torch.float32


def test_a_float_module_in_an_int8_region_is_named():
    model = small(nn.Linear(6, 6), nn.Linear(6, 6))
    model.module[1].qconfig = None
    observed = prepare(model)
    observed(torch.randn(8, 6))
    int8 = convert(observed)
    with pytest.raises(
        TypeError, match=r"linear in Linear 'module\.1': arguments must be float tensors.*DeQuantStub"
    ):
        int8(torch.randn(2, 6))


def test_a_missing_quant_stub_is_named():
    model = nn.Sequential(nn.Linear(6, 6)).eval()
    model.qconfig = default_qconfig
    observed = prepare(model)
    observed(torch.randn(8, 6))
    with pytest.raises(
        TypeError, match=r"nn.quantized.Linear '0': argument 'input' must be a QuantizedTensor"
    ):
        convert(observed)(torch.randn(2, 6))


def test_modules_and_weights_used_twice():
    shared = nn.Linear(6, 6)
    tied = nn.Linear(6, 6)
    tied.weight = shared.weight
    model = small(shared, nn.ReLU(), shared, tied)
    observed = prepare(model)
    assert sum(isinstance(m, tq.MinMaxObserver) for m in observed.modules()) == 3
    observed(torch.randn(32, 6))
    int8 = convert(observed)
    assert int8.module[0] is int8.module[2]
    assert int8.module[3].qweight.data_ptr() == int8.module[0].qweight.data_ptr()


def test_hooks_of_the_user():
    log = []
    model = small(nn.Linear(6, 6))
    layer = model.module[0]
    before = layer.register_forward_pre_hook(lambda m, args: log.append(type(args[0]).__name__))
    after = layer.register_forward_hook(lambda m, args, out: log.append(type(out).__name__))
    int8 = quantize(model, lambda m, x: m(x), [torch.randn(4, 6)], inplace=True)
    assert log == ["Tensor", "Tensor"]
    int8(torch.randn(2, 6))
    assert log[2:] == ["QuantizedTensor", "QuantizedTensor"]
    before.remove()
    after.remove()
    int8(torch.randn(2, 6))
    assert len(log) == 4
    assert not int8.module[0]._forward_hooks


def test_layers_without_data_stay_float():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.quant, self.dequant = QuantStub(), DeQuantStub()
            self.used, self.unused = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x):
            return self.dequant(self.used(self.quant(x)))

    model = Two().eval()
    model.qconfig = default_qconfig
    observed = prepare(model)
    with pytest.raises(ValueError, match="convert: no observer saw data; run batches after prepare"):
        convert(observed)
    observed(torch.randn(8, 6))
    with pytest.warns(UserWarning, match="convert: stay float, no data came to them: 'unused'"):
        int8 = convert(observed)
    assert type(int8.unused) is nn.Linear and type(int8.used) is nnq.Linear
    row = next(r for r in torch_ao_ext.report(int8).rows if r.fqn == "unused")
    assert row.reason == "it saw no data between prepare and convert"
    assert not hasattr(int8.unused, "activation_post_process") and not int8.unused._forward_hooks


def test_what_has_no_static_module_stays_float_with_a_reason():
    parts = {"emb": nn.Embedding(10, 8), "rnn": nn.GRU(8, 8), "layer": nn.TransformerEncoderLayer(8, 2)}
    model = nn.ModuleDict({**parts, "fc": nn.Linear(8, 4)}).eval()
    model.qconfig = default_qconfig
    observed = prepare(model)
    observed["fc"](torch.randn(3, 8))
    int8 = convert(observed)
    reasons = {r.fqn: r.reason for r in torch_ao_ext.report(int8).rows if r.status == "float"}
    assert reasons["rnn"].startswith("no static int8 module for nn.GRU; quantize_dynamic has one")
    assert reasons["emb"] and type(int8["fc"]) is nnq.Linear
    x = torch.randn(3, 1, 8)
    assert torch.equal(int8["layer"](x), model["layer"](x))  # as before
    assert torch.equal(int8["rnn"](x)[0], model["rnn"](x)[0])


def test_embeddings_with_a_row_qconfig():
    model = nn.Sequential(nn.Embedding(10, 8)).eval()
    model[0].qconfig = tq.float_qparams_weight_only_qconfig
    int8 = convert(prepare(model))
    assert type(int8[0]) is nnq.Embedding
    assert (int8(torch.tensor([3])) - model(torch.tensor([3]))).abs().max() < 0.05


def test_parametrized_and_weight_normed_layers():
    model = small(parametrizations.weight_norm(nn.Linear(6, 6)), nn.Linear(6, 6))
    x = torch.randn(32, 6)
    int8 = quantize(model, lambda m, data: m(data), [x])
    assert type(int8.module[0]) is nnq.Linear
    assert (int8(x) - model(x)).abs().max() < 0.1
    with pytest.warns(FutureWarning):
        old = small(torch.nn.utils.weight_norm(nn.Linear(6, 6)))
    assert type(quantize(old, lambda m, data: m(data), [x], inplace=True).module[0]) is nnq.Linear


@pytest.mark.parametrize("kind", [nn.Sigmoid, nn.Softmax])
def test_known_ranges_ignore_the_qconfig(kind):
    model = small(kind(*([-1] if kind is nn.Softmax else [])))
    observed = prepare(model)
    assert isinstance(observed.module[0].activation_post_process, tq.FixedQParamsObserver)
    observed(torch.randn(4, 6))
    assert convert(observed).module[0].qparams == (1 / 256, 0, torch.uint8)


class Observed(nn.Module):
    """A custom module between the two steps."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)

    @classmethod
    def from_float(cls, mod):
        return cls(mod)


class Quantized(nn.Module):
    """What becomes of it."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return x

    @classmethod
    def from_observed(cls, mod):
        return cls(float(mod.activation_post_process.calculate_qparams()[0]))


def test_custom_modules():
    model = small(nn.Tanhshrink(), nn.Linear(6, 6))
    config = {"float_to_observed_custom_module_class": {nn.Tanhshrink: Observed}}
    observed = prepare(model, prepare_custom_config_dict=config)
    assert type(observed.module[0]) is Observed
    observed(torch.randn(8, 6))
    config = {"observed_to_quantized_custom_module_class": {Observed: Quantized}}
    int8 = convert(observed, convert_custom_config_dict=config)
    assert type(int8.module[0]) is Quantized and 0 < int8.module[0].scale < 1
    with pytest.raises(
        ValueError, match="prepare: keys of the custom config dict must be among .*got 'classes'"
    ):
        prepare(model, prepare_custom_config_dict={"classes": {}})


def test_allow_list_and_non_leaf_modules():
    model = small(nn.Linear(6, 6), nn.ReLU())
    observed = prepare(model, allow_list={nn.ReLU}, observer_non_leaf_module_list=[nn.Sequential])
    names = [n for n, m in observed.named_modules() if isinstance(m, tq.MinMaxObserver)]
    assert names == ["module.1.activation_post_process", "module.activation_post_process"]


def test_mapping_of_the_user():
    class Mine(nn.Identity):
        @classmethod
        def from_float(cls, mod, use_precomputed_fake_quant=False):
            return cls()

    model = small(nn.Linear(6, 6))
    observed = prepare(model)
    observed(torch.randn(4, 6))
    table = {**tq.get_default_static_quant_module_mappings(), nn.Linear: Mine}
    assert type(convert(observed, table).module[0]) is Mine
    with pytest.raises(
        ValueError, match="convert: argument 'mapping' must have values with from_float, got <class 'int'>"
    ):
        convert(observed, {nn.Linear: int})


def test_swap_module_and_propagation():
    layer = nn.Linear(6, 6)
    assert tq.swap_module(layer, tq.get_default_static_quant_module_mappings()) is layer
    model = nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 6), nn.ReLU()))
    tq.propagate_qconfig_(model, {"": default_qconfig, nn.ReLU: None, "1": get_default_qconfig("onednn")})
    assert model[0].qconfig is default_qconfig and model[1][1].qconfig is None
    assert model[1][0].qconfig is model[1].qconfig is not default_qconfig


def test_add_quant_dequant():
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU()).eval()
    model[0].qconfig = default_qconfig
    wrapped = tq.add_quant_dequant(model)
    assert type(wrapped[0]) is QuantWrapper and type(wrapped[1]) is nn.ReLU
    int8 = quantize(wrapped, lambda m, x: m(x), [torch.randn(8, 6)])
    assert type(int8[0].module) is nnq.Linear and int8(torch.randn(2, 6)).dtype == torch.float32
    layer = nn.Linear(2, 2)
    layer.qconfig = default_qconfig
    assert type(tq.add_quant_dequant(layer)) is QuantWrapper


def test_root_that_is_a_layer():
    layer = nn.Linear(6, 6).eval()
    layer.qconfig = default_qconfig
    observed = prepare(layer)
    observed(torch.randn(4, 6))
    assert type(convert(observed)) is nnq.Linear and type(observed) is nn.Linear


def test_an_error_leaves_the_model_as_it_was():
    model = small(nn.Linear(6, 6), nn.Linear(6, 6))
    observed = prepare(model)
    observed(torch.randn(4, 6))
    observed.module[1].weight.data[0, 0] = float("inf")
    with pytest.raises(ValueError, match=r"convert: 'module\.1': weight must be finite, got an infinity"):
        convert(observed, inplace=True)
    assert type(observed.module[0]) is nn.Linear and type(observed.quant) is QuantStub
    counts = [len(m._forward_hooks) for m in (observed.quant, *observed.module)]
    assert counts == [1, 1, 1]  # they observe as before
    observed.module[1].weight.data[0, 0] = 0.0
    observed(torch.randn(4, 6) * 10)
    assert convert(observed).module[0].scale > 0


DYNAMIC = tq.default_dynamic_qconfig
REFUSED = {
    "no module": (lambda: prepare(3), "prepare: argument 'model' must be a Python nn.Module, got int"),
    "scripted": (
        lambda: convert(torch.jit.script(nn.Linear(2, 2))),
        "convert: argument 'model' must be a Python nn.Module",
    ),
    "reference": (lambda: convert(nn.Linear(2, 2), is_reference=True), "'is_reference' must be False"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_arguments(name):
    run, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        run()


@pytest.mark.parametrize(
    "qconfig, message",
    [
        (
            DYNAMIC,
            r"'quant': qconfig.activation must be a static observer .*got one for dynamic torch.quint8",
        ),
        (
            tq.float16_static_qconfig,
            "must be a static observer for quint8 or qint8, got one for torch.float16",
        ),
        ("int8", "qconfig of '' must be a QConfig or None, got 'int8'"),
    ],
)
def test_bad_qconfigs(qconfig, message):
    model = QuantWrapper(nn.Linear(6, 6)).eval()
    model.qconfig = qconfig
    with pytest.raises(ValueError, match=message):
        prepare(model)


def test_no_qconfig_warns():
    with pytest.warns(UserWarning, match="prepare: no module has a qconfig"):
        prepare(nn.Linear(2, 2))


def test_tables_are_those_of_torch_ao():
    mine, theirs = (
        tq.get_default_static_quant_module_mappings(),
        peer().get_default_static_quant_module_mappings(),
    )
    names = {k.__name__: v.__name__ for k, v in mine.items() if ".qat." not in k.__module__}
    for kind, quantized in theirs.items():
        if ".qat." not in kind.__module__:
            assert names.pop(kind.__name__) == quantized.__name__
    assert names == {"Sigmoid": "Sigmoid", "Softmax": "Softmax"}  # torch.ao keeps these for graph mode
    assert tq.get_static_quant_module_class(nn.Conv2d) is nnq.Conv2d
    with pytest.raises(
        ValueError, match="get_static_quant_module_class: argument 'float_module_class' must be one of"
    ):
        tq.get_static_quant_module_class(nn.Tanh)
    assert intrinsic.ConvReLU2d in tq.get_default_qconfig_propagation_list()


def test_stubs_pass_values():
    x = torch.randn(3)
    assert QuantStub()(x) is x and DeQuantStub()(x) is x
    assert QuantStub(default_qconfig).qconfig is default_qconfig
    assert isinstance(nnq.Quantize(0.1, 0)(x.abs()), QuantizedTensor)


def test_a_sum_that_was_never_observed():
    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.quant, self.dequant = QuantStub(), DeQuantStub()
            self.used, self.numbers = nnq.FloatFunctional(), nnq.FloatFunctional()

        def forward(self, x, more=False):
            x = self.quant(x)
            x = self.numbers.add_scalar(self.used.add(x, x), 0.5)
            return self.dequant(self.numbers.add(x, x) if more else x)

    model = Sums().eval()
    model.qconfig = default_qconfig
    observed = prepare(model)
    x = torch.randn(8, 6)
    observed(x)
    int8 = convert(observed)
    assert (int8(x) - model(x)).abs().max() < 0.1
    other = convert(observed)
    other.load_state_dict(int8.state_dict())
    for converted in (int8, copy.deepcopy(int8), other):
        with pytest.raises(
            ValueError, match=r"QFunctional 'numbers': results must have been observed .*got none"
        ):
            converted(x, more=True)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_bad_qconfig_leaves_the_model_as_it_was(inplace):
    model = small(nn.Linear(6, 6), nn.Linear(6, 6))
    model.module[1].qconfig = tq.float16_static_qconfig
    with pytest.raises(
        ValueError, match=r"prepare: 'module\.1': qconfig.activation must be a static observer"
    ):
        prepare(model, inplace=inplace)
    assert not any(hasattr(m, "activation_post_process") or m._forward_hooks for m in model.modules())


def test_preparing_again_with_another_qconfig():
    model = nn.Sequential(nn.Embedding(10, 8)).eval()
    model.qconfig = default_qconfig
    prepare(model, inplace=True)
    assert type(convert(model)[0]) is nn.Embedding
    model[0].qconfig = tq.float_qparams_weight_only_qconfig
    assert type(convert(prepare(model))[0]) is nnq.Embedding


def test_compiled_whole(int8_model):
    x = images(1, seed=9)[0]
    torch._dynamo.reset()
    assert torch.equal(torch.compile(int8_model, fullgraph=True, backend="aot_eager")(x), int8_model(x))
