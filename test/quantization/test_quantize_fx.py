"""FX graph mode: prepare_fx, convert_fx, fuse_fx."""

import copy
import itertools
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from eager_models import RESNET_GROUPS, images, resnet
from torch import nn
from torch_ao_peer import peer

import torch_ao_ext
from torch_ao_ext import quantization as tq
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.quantization import QConfigMapping, default_qconfig, get_default_qconfig_mapping
from torch_ao_ext.quantization.fx.custom_config import (
    ConvertCustomConfig,
    FuseCustomConfig,
    PrepareCustomConfig,
)
from torch_ao_ext.quantization.pt2e.export_utils import move_exported_model_to_eval
from torch_ao_ext.quantization.quantize_fx import (
    convert_fx,
    convert_to_reference_fx,
    fuse_fx,
    prepare_fx,
    prepare_qat_fx,
)


@pytest.fixture(autouse=True)
def _quiet(_warnings_are_errors):
    """torch.ao warns of its end, its arguments, and of the dtypes of its tensors."""
    warnings.filterwarnings("ignore", message=r"torch\.quantize_per_tensor")
    warnings.filterwarnings("ignore", message=r"torch\.ao\.quantization is deprecated")
    warnings.filterwarnings("ignore", message="Please use quant_min and quant_max")


def sqnr(want, have):
    want, have = want.detach(), have.detach()
    return float(10 * torch.log10(want.pow(2).sum() / (want - have).pow(2).sum()))


def int8_rows(model):
    return {r.fqn: r.op for r in torch_ao_ext.report(model).rows if r.status == "int8" and r.macs}


def quantized(model, mapping, *batches, **options):
    observed = prepare_fx(model, mapping, tuple(batches[0]), **options)
    with torch.no_grad():
        for batch in batches:
            observed(*batch)
    return convert_fx(observed)


@pytest.fixture(scope="module")
def float_model():
    return resnet(tq, nnq.FloatFunctional).requires_grad_(False)


@pytest.fixture(scope="module")
def int8_model(float_model):
    return quantized(float_model, get_default_qconfig_mapping("onednn"), *[(x,) for x in images()])


@pytest.mark.parametrize("backend", ["x86", "onednn", "qnnpack"])
def test_residual_network_against_torch_ao(float_model, backend):
    from torch.ao.nn.quantized import FXFloatFunctional
    from torch.ao.quantization.quantize_fx import convert_fx as their_convert
    from torch.ao.quantization.quantize_fx import prepare_fx as their_prepare

    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = backend
    try:
        theirs = resnet(peer(), FXFloatFunctional, float_model)
        theirs = their_prepare(theirs, peer().get_default_qconfig_mapping(backend), (images(1)[0],))
        for batch in images():
            theirs(batch)
        theirs = their_convert(theirs)
        x = images(1, seed=9)[0]
        mine = quantized(float_model, get_default_qconfig_mapping(backend), *[(b,) for b in images()])
        want, have, other = float_model(x), mine(x), theirs(x)
    finally:
        torch.backends.quantized.engine = before
    # At 7 bits torch.ao's convolutions do not cut what its observer cuts.
    assert sqnr(want, have) > 28 and sqnr(want, have) > sqnr(want, other) - (1.5 if backend == "x86" else 1)
    assert set(int8_rows(mine).values()) == {"conv2d", "linear"} and len(int8_rows(mine)) == 7


def test_same_layers_and_numbers_as_eager_mode(float_model):
    qconfig = tq.get_default_qconfig("x86")
    int8_model = quantized(float_model, QConfigMapping().set_global(qconfig), *[(x,) for x in images()])
    eager = tq.fuse_modules(float_model, RESNET_GROUPS)
    eager.qconfig = qconfig
    eager = tq.prepare(eager)
    for batch in images():
        eager(batch)
    eager = tq.convert(eager)
    x = images(1, seed=9)[0]
    mine = {r.fqn for r in torch_ao_ext.report(eager).rows if r.status == "int8"}
    assert set(int8_rows(int8_model)) == mine
    assert (eager(x) - int8_model(x)).abs().max() <= 1.01 * eager.fc.scale


def test_every_runtime_gives_the_same_numbers(int8_model):
    x = images(1, seed=9)[0]
    want = int8_model(x)
    assert torch.equal(copy.deepcopy(int8_model)(x), want)
    assert torch.equal(pickle.loads(pickle.dumps(int8_model))(x), want)
    assert torch.equal(torch.jit.trace(int8_model, x)(x), want)
    assert torch.equal(torch.export.export(int8_model, (x,)).module()(x), want)


@pytest.mark.parametrize("batch", [1, 8])
def test_the_batch_stays_free(float_model, batch):
    x = images(1)[0]
    int8 = quantized(float_model, get_default_qconfig_mapping("onednn"), (x[:batch],))
    for size in (1, 2, 5):
        assert sqnr(float_model(x[:size]), int8(x[:size])) > 20


def test_a_model_that_needs_its_batch():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 4)

        def forward(self, x):
            return self.fc(x.reshape(3, 6))

    int8 = quantized(Fixed().eval(), get_default_qconfig_mapping("onednn"), (torch.randn(3, 6),))
    assert int8(torch.randn(3, 6)).shape == (3, 4)
    with pytest.raises(ValueError, match=r"input 'x' must have sizes \[3, 6\]"):
        int8(torch.randn(4, 6))


class Rules(nn.Module):
    """Layers and functions for each kind of rule."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
        self.conv = nn.Conv1d(1, 1, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(6, 6))

    def forward(self, x):
        x = self.b(self.a(x))
        x = F.linear(F.linear(x, self.weight), self.weight)
        return self.conv(x.unsqueeze(1)).squeeze(1)


ALL = {"a", "b.0", "b.1", "conv", "weight"}


def names_of(mapping):
    model = Rules().eval()
    int8 = quantized(model, mapping, (torch.randn(16, 6),))
    rows = torch_ao_ext.report(int8).rows
    found = [r.fqn for r in rows if r.status == "int8" and r.macs]
    functional = sum(name not in ALL for name in found)
    return {name for name in found if name in ALL}, functional


RULES = {
    "global": (lambda m: m, {"a", "b.0", "b.1", "conv"}, 2),
    "class": (lambda m: m.set_object_type(nn.Linear, None), {"conv"}, 2),
    "function": (lambda m: m.set_object_type(F.linear, None), {"a", "b.0", "b.1", "conv"}, 0),
    "name": (lambda m: m.set_module_name("a", None), {"b.0", "b.1", "conv"}, 2),
    "parent": (lambda m: m.set_module_name("b", None), {"a", "conv"}, 2),
    "child beats parent": (
        lambda m: m.set_module_name("b", None).set_module_name("b.1", default_qconfig),
        {"a", "b.1", "conv"}, 2,
    ),
    "regex": (lambda m: m.set_module_name_regex(r"b\.[0-9]", None), {"a", "conv"}, 2),
    "name beats regex": (
        lambda m: m.set_module_name_regex(r"b.*", None).set_module_name("b.0", default_qconfig),
        {"a", "b.0", "conv"}, 2,
    ),
    "order": (
        lambda m: m.set_module_name_object_type_order("", F.linear, 1, None), {"a", "b.0", "b.1", "conv"}, 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_rules(name):
    change, names, functional = RULES[name]
    mapping = change(QConfigMapping().set_global(default_qconfig))
    assert names_of(mapping) == (names, functional)
    assert names_of(mapping.to_dict()) == (names, functional)


class Lookups(nn.Module):
    """Rows, activations, arithmetic."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.rows, self.a, self.b = nn.Embedding(10, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.sigmoid, self.hardswish, self.c = nn.Sigmoid(), nn.Hardswish(), nn.Linear(16, 4)

    def forward(self, index):
        x = self.hardswish(self.a(self.rows(index)))
        y = self.sigmoid(self.b(x))
        return self.c(torch.cat([x * y], -1) + 0.5)


def test_activations_rows_and_arithmetic():
    model = Lookups().eval()
    mapping = get_default_qconfig_mapping("onednn")
    mapping.set_object_type(nn.Embedding, tq.float_qparams_weight_only_qconfig)
    index = torch.randint(0, 10, (6, 5))
    int8 = quantized(model, mapping, (index,))
    ops = [r.op for r in torch_ao_ext.report(int8).rows if r.status == "int8"]
    assert [ops.count(op) for op in ("embedding", "linear", "requantize", "mul", "add")] == [1, 3, 2, 1, 1]
    assert not torch_ao_ext.report(int8).float
    assert sqnr(model(index), int8(index)) > 30
    sigmoid = next(n for n in int8.graph.nodes if "sigmoid" in n.args)
    assert sigmoid.args[3:6] == (1 / 256, 0, torch.uint8)


def test_dynamic_qconfigs_give_torch_aos_numbers():
    from torch.ao.quantization import quantize_fx as theirs

    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8)).eval(), torch.randn(16, 64)
    other = theirs.prepare_fx(model, peer().QConfigMapping().set_global(peer().default_dynamic_qconfig), (x,))
    want = theirs.convert_fx(other)(x)
    have = quantized(model, QConfigMapping().set_global(tq.default_dynamic_qconfig), (x,))(x)
    assert 20 * torch.log10(want.norm() / (want - have).norm()) > 100


@pytest.mark.parametrize(
    "kind, bits", list(itertools.product((nn.Embedding, nn.EmbeddingBag), ("", "_4bit")))
)
def test_tables_of_rows(kind, bits):
    torch.manual_seed(0)
    qconfig = getattr(tq, f"float_qparams_weight_only_qconfig{bits}")
    model, x = nn.Sequential(kind(20, 8), nn.Linear(8, 4)).eval(), torch.randint(20, (4, 3))
    int8 = quantized(model, QConfigMapping().set_object_type(kind, qconfig), (x,))
    eager = tq.quantize_dynamic(model, {kind: qconfig})
    torch.testing.assert_close(int8(x), eager(x))
    assert not torch.equal(int8(x), model(x))
    ops = [r.op for r in torch_ao_ext.report(int8).rows if r.status == "int8"]
    assert len(ops) == 1 and ops[0].lower().startswith(kind.__name__.lower())


def test_dynamic_qconfigs():
    model = Rules().eval()
    int8 = quantized(model, QConfigMapping().set_global(tq.default_dynamic_qconfig), (torch.randn(4, 6),))
    rows = torch_ao_ext.report(int8).rows
    assert [r.op for r in rows if r.status == "int8"].count("linear_dynamic") == 5
    x = torch.randn(4, 6)
    assert sqnr(model(x), int8(x)) > 25


def test_transposed_convolutions_per_channel():
    model = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2), nn.ReLU()).eval()
    x = torch.randn(2, 4, 5, 5)
    int8 = quantized(model, QConfigMapping().set_global(tq.get_default_qconfig("onednn")), (x,))
    assert int8_rows(int8) == {"0": "conv_transpose2d"} and sqnr(model(x), int8(x)) > 30


def test_attributes_survive():
    model = Rules().eval()
    model.classes = ["cat", "dog"]
    custom = PrepareCustomConfig().set_preserved_attributes(["classes"])
    int8 = quantized(model, QConfigMapping().set_global(default_qconfig), (torch.randn(4, 6),),
                     prepare_custom_config=custom)  # fmt: skip
    for graph in (int8, copy.deepcopy(int8), pickle.loads(pickle.dumps(int8))):
        assert graph.classes == ["cat", "dog"]
    observed = prepare_fx(
        model,
        QConfigMapping().set_global(default_qconfig),
        (torch.randn(4, 6),),
        {"preserved_attributes": ["classes"]},
    )
    observed(torch.randn(4, 6))
    observed.more = 3
    assert convert_fx(observed, ConvertCustomConfig().set_preserved_attributes(["more"])).more == 3
    with pytest.raises(
        ValueError, match="preserved_attributes must name attributes of the model, got 'colour'"
    ):
        fuse_fx(model, FuseCustomConfig().set_preserved_attributes(["colour"]))
    assert PrepareCustomConfig.from_dict(custom.to_dict()).preserved_attributes == ["classes"]
    with pytest.raises(
        ValueError, match="keys must be among preserved_attributes, got 'standalone_module_name'"
    ):
        FuseCustomConfig.from_dict({"standalone_module_name": []})


def test_fuse_finds_what_the_names_say(float_model):
    fused = fuse_fx(float_model)
    named = tq.fuse_modules(float_model, RESNET_GROUPS)
    x = images(1)[0]
    assert torch.allclose(fused(x), float_model(x), atol=1e-4)
    for name, module in named.named_modules():
        if "Conv" in type(module).__name__:
            assert type(fused.get_submodule(name)) is type(module), name


def test_fuse_leaves_layers_that_others_read():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn, self.twice = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)

        def forward(self, x):
            y = self.conv(x)
            return self.bn(y) + y + torch.relu(self.twice(self.twice(x)))

    model = Shared().eval()
    fused = fuse_fx(model)
    assert type(fused.bn) is nn.BatchNorm2d
    x = torch.randn(1, 2, 3, 3)
    assert torch.equal(fused(x), model(x))


MAPPING = QConfigMapping().set_global(default_qconfig)
X = (torch.randn(2, 2),)
REFUSED = {
    "no module": (
        lambda: prepare_fx(3, MAPPING, X),
        "prepare_fx: argument 'model' must be a Python nn.Module",
    ),
    "training": (lambda: prepare_fx(nn.Linear(2, 2), MAPPING, X), "must be in evaluation mode"),
    "mapping": (
        lambda: prepare_fx(nn.Linear(2, 2).eval(), default_qconfig, X),
        "'qconfig_mapping' must be a QConfigMapping or a dict, got QConfig",
    ),
    "inputs": (
        lambda: prepare_fx(nn.Linear(2, 2).eval(), MAPPING, X[0]),
        "'example_inputs' must be a tuple of inputs, got Tensor",
    ),
    "backend": (
        lambda: prepare_fx(nn.Linear(2, 2).eval(), MAPPING, X, backend_config=1),
        "'backend_config' must be a BackendConfig or a dict, got int",
    ),
    "equalization": (
        lambda: prepare_fx(nn.Linear(2, 2).eval(), MAPPING, X, _equalization_config=1),
        "'_equalization_config' must be a QConfigMapping",
    ),
    "custom": (
        lambda: prepare_fx(nn.Linear(2, 2).eval(), MAPPING, X, 5),
        "'prepare_custom_config' must be a PrepareCustomConfig or a dict, got int",
    ),
    "nothing": (
        lambda: prepare_fx(nn.Linear(2, 2).eval(), QConfigMapping(), X),
        "must annotate a node of the model",
    ),
    "no data": (lambda: convert_fx(prepare_fx(nn.Linear(2, 2).eval(), MAPPING, X)), "data"),
    "fuse backend": (
        lambda: fuse_fx(nn.Linear(2, 2).eval(), backend_config=1),
        "fuse_fx: argument 'backend_config'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    run, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        run()


def test_training_against_eager_mode():
    """The same losses and the same int8 model, for the same qconfig."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 36, 5),
    ]
    net = nn.Sequential(*layers).train()
    qconfig = tq.get_default_qat_qconfig("onednn")
    eager = tq.QuantWrapper(tq.fuse_modules_qat(net, ["0", "1", "2"])).train()
    eager.qconfig = qconfig
    eager = tq.prepare_qat(eager)
    graph = prepare_qat_fx(net, QConfigMapping().set_global(qconfig), (torch.randn(4, 3, 8, 8),))
    batches = [torch.randn(16, 3, 8, 8) for _ in range(3)]
    losses = []
    for model in (eager, graph):
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        losses.append([])
        for batch in batches:
            loss = (model(batch) - 1).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=3e-3)  # ties of rounding
    int8, other = tq.convert(eager.eval()), convert_fx(graph)
    x = batches[0]
    assert (int8(x) - other(x)).abs().max() <= 2.01 * int8.module[4].scale
    assert len(int8_rows(other)) == sum(torch_ao_ext.report(int8).int8.values()) == 2


def norms_behind_relus():
    """Three that no product can fold into its weight; factors of both signs."""
    torch.manual_seed(4)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU6(),
        nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(72, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 4),
    ).eval()  # fmt: skip
    for norm in (model[2], model[6], model[10]):
        nn.init.normal_(norm.weight)
        norm.bias.data.normal_()
        norm.running_mean.uniform_(0, 0.3)
        norm.running_var.uniform_(0.1, 0.5)
    return model


def test_batch_norms_behind_relus_are_computed_before_the_rounding():
    model, x = norms_behind_relus(), torch.randn(64, 3, 12, 12)
    mapping = get_default_qconfig_mapping("onednn")
    fused = quantized(model, mapping, (x,))
    observed = [n for n in prepare_fx(model, mapping, (x,)).graph.nodes if n.op == "call_module"]
    own = quantized(model, mapping.set_object_type(nn.BatchNorm2d, None), (x,))
    with torch.no_grad():
        assert sqnr(model(x), fused(x)) > 33 and sqnr(model(x), own(x)) > 33
    assert not any("relu" in str(n.args[0].target) for n in observed)
    assert "batch_norm" not in str(fused.graph) and str(own.graph).count("torch_ao.batch_norm") == 2


def test_training_of_batch_norms_behind_relus():
    """The converted model computes what the trained one did, within steps of the last tensors."""
    model, x = norms_behind_relus(), torch.randn(64, 3, 12, 12)
    mapping = tq.get_default_qat_qconfig_mapping("onednn")
    trained = prepare_qat_fx(model.train(), mapping, (x,))
    optimizer = torch.optim.SGD(trained.parameters(), 0.01)
    for _ in range(3):
        trained(x).square().mean().backward()
        optimizer.step()
    move_exported_model_to_eval(trained).apply(tq.disable_observer)
    int8 = convert_fx(trained)
    assert "batch_norm" not in str(int8.graph)
    with torch.no_grad():
        assert sqnr(trained(x), int8(x)) > 45


def test_training_default_mapping_with_fixed_ranges():
    model = nn.Sequential(nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 6), nn.ConvTranspose1d(3, 4, 1)).train()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.up = model[:3], model[3]

        def forward(self, x):
            return self.up(self.body(x).reshape(-1, 3, 2))

    net = Net().train()
    mapping = tq.get_default_qat_qconfig_mapping("onednn")
    graph = prepare_qat_fx(net, mapping, (torch.randn(4, 6),))
    assert any(isinstance(m, tq.FixedQParamsFakeQuantize) for m in graph.modules())
    graph(torch.randn(8, 6)).sum().backward()
    int8 = convert_fx(graph)
    x = torch.randn(5, 6)
    assert (int8(x) - net.eval()(x)).abs().max() < 0.1
    ops = [r.op for r in torch_ao_ext.report(int8).rows if r.status == "int8"]
    assert ops.count("linear") == 2 and ops.count("conv_transpose1d") == 1 and ops.count("requantize") == 1


def test_training_refusals():
    with pytest.raises(ValueError, match="prepare_qat_fx: argument 'model' must be in training mode"):
        prepare_qat_fx(nn.Linear(2, 2).eval(), MAPPING, X)
    with pytest.raises(ValueError, match=r"must have a config for training"):
        prepare_qat_fx(nn.Linear(2, 2).train(), MAPPING, X)


def test_reference_graph_is_what_convert_fx_starts_from(float_model):
    observed = prepare_fx(float_model, get_default_qconfig_mapping("onednn"), (images(1)[0],))
    for batch in images():
        observed(batch)
    observed.note = "kept"
    custom = ConvertCustomConfig().set_preserved_attributes(["note"])
    graph = convert_to_reference_fx(observed, custom)
    x = images(1, seed=9)[0]
    assert graph.note == "kept"
    assert torch.equal(torch_ao_ext.lower(graph)(x), convert_fx(observed)(x))
    targets = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    spaces = {target.namespace for target in targets if isinstance(target, torch._ops.OpOverload)}
    assert "aten" in spaces and torch.ops.aten.conv2d.default in targets
    int8 = [value for value in graph.state_dict().values() if value.dtype == torch.int8]
    assert int8 and all(value.dim() in (2, 4) for value in int8)
    torch.testing.assert_close(torch.export.export(graph, (x,)).module()(x), graph(x))
    with pytest.raises(ValueError, match="convert_to_reference_fx: argument 'backend_config'"):
        convert_to_reference_fx(observed, backend_config=1)
