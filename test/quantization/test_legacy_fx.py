"""State_dicts of graphs that torch.ao's FX graph mode has converted."""

import copy
import warnings

import pytest
import torch
from eager_models import images, resnet
from torch import nn
from torch_ao_peer import peer

from torch_ao_ext import quantization as tq
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.quantization import legacy
from torch_ao_ext.quantization.quantize_fx import prepare_fx


@pytest.fixture(autouse=True)
def _quiet(_warnings_are_errors):
    warnings.filterwarnings("ignore", message=r"torch\.quantize_per_tensor")
    warnings.filterwarnings("ignore", message=r"torch\.ao\.quantization is deprecated")
    warnings.filterwarnings("ignore", message="Please use quant_min and quant_max")
    warnings.filterwarnings("ignore", message="must run observer before")
    warnings.filterwarnings("ignore", message="To copy construct from a tensor")


def theirs(model, backend, batches, mapping=None):
    """torch.ao's converted graph."""
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = backend
    try:
        mapping = mapping or peer().get_default_qconfig_mapping(backend)
        observed = prepare_fx(model, mapping, (batches[0],))
        for batch in batches:
            observed(batch)
        return convert_fx(observed)
    finally:
        torch.backends.quantized.engine = before


def steps(want, have, scale):
    return float((want - have).abs().max() / scale)


@pytest.mark.parametrize("backend", ["x86", "onednn", "qnnpack"])
def test_residual_network(backend):
    from torch.ao.nn.quantized import FXFloatFunctional

    model = resnet(tq, nnq.FloatFunctional).requires_grad_(False)
    other = theirs(resnet(peer(), FXFloatFunctional, model), backend, images())
    observed = prepare_fx(model, tq.get_default_qconfig_mapping(backend), (images(1)[0],))
    before = copy.deepcopy(observed.state_dict())
    mine = legacy.convert_fx(observed, other.state_dict())
    x = images(1, seed=9)[0]
    scale = float(other.state_dict()["fc.scale"])
    want = other(x)
    assert steps(want, mine(x), scale) <= 3  # seven layers, each within a step
    assert 10 * torch.log10(want.pow(2).sum() / (want - mine(x)).pow(2).sum()) > 35
    state = mine.state_dict()
    weights = {k: v for k, v in state.items() if k.endswith("qweight")}
    assert len(weights) == 7
    for key, value in weights.items():
        name = key.removesuffix("_qweight")
        theirs_of = {k.replace(".", "_"): v for k, v in other.state_dict().items()}
        known = theirs_of.get(f"{name}_weight")
        if known is None:
            known = theirs_of[f"{name}__packed_params__packed_params"][0]
        assert torch.equal(value, known.int_repr()), key
    after = observed.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items())


class Functions(nn.Module):
    """Two sums; layers with and without relu."""

    def __init__(self, relu=torch.relu):
        super().__init__()
        torch.manual_seed(0)
        self.relu = relu
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        y = self.relu(self.a(x))
        z = self.b(y) + y
        return self.c(self.relu(z + y))


# torch.ao does not fuse torch.relu with a layer: it rounds between them, this library does not.
@pytest.mark.parametrize("relu, most", [(nn.functional.relu, 1.01), (torch.relu, 3)])
def test_functions_follow_their_order(relu, most):
    model = Functions(relu).eval().requires_grad_(False)
    torch.manual_seed(1)
    batches = [torch.randn(16, 8) for _ in range(3)]
    other = theirs(copy.deepcopy(model), "onednn", batches)
    mine = legacy.convert_fx(
        prepare_fx(model, tq.get_default_qconfig_mapping("onednn"), (batches[0],)), other.state_dict()
    )
    x = torch.randn(32, 8)
    assert steps(other(x), mine(x), float(other.state_dict()["c.scale"])) <= most


def test_a_float_layer_keeps_its_values():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)).eval().requires_grad_(False)
    batches = [torch.randn(16, 8)]
    mapping = peer().get_default_qconfig_mapping("onednn").set_module_name("1", None)
    other = theirs(copy.deepcopy(model), "onednn", batches, mapping)
    fresh = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)).eval().requires_grad_(False)
    mapping = tq.get_default_qconfig_mapping("onednn").set_module_name("1", None)
    mine = legacy.convert_fx(prepare_fx(fresh, mapping, (batches[0],)), other.state_dict())
    x = torch.randn(4, 8)
    assert (other(x) - mine(x)).abs().max() < 0.02


class Bags(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.last = nn.EmbeddingBag(20, 8, mode="sum"), nn.Linear(8, 4)

    def forward(self, x):
        return self.last(self.table(x))


class Table(nn.Module):
    """A table whose rows go into a quantized layer."""

    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleDict({"table": nn.Embedding(20, 8)})
        self.last = nn.Linear(8, 4)

    def forward(self, x):
        return self.last(self.inner["table"](x))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleDict({"gru": nn.GRU(8, 8), "cell": nn.LSTMCell(8, 8)})
        self.last = nn.Linear(8, 4)

    def forward(self, x):
        return self.last(self.inner["cell"](self.inner["gru"](x)[0][-1])[0])


class Product(nn.Module):
    """A linear layer as a function."""

    def __init__(self):
        super().__init__()
        self.w, self.b = nn.Parameter(torch.randn(8, 8)), nn.Parameter(torch.randn(8))

    def forward(self, x):
        return nn.functional.linear(x, self.w, self.b)


class Products(nn.Module):
    """Functions in modules and outside of them, a convolution among them."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Product(), Product()
        self.w, self.b = nn.Parameter(torch.randn(4, 1, 3)), nn.Parameter(torch.randn(4))

    def forward(self, x):
        y = self.second(self.first(x)).unsqueeze(1)
        return nn.functional.conv1d(y, self.w, self.b, 1, 0, 1, 1)


def layers():
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


def dynamic(q):
    return q.QConfigMapping().set_global(q.default_dynamic_qconfig)


def rows(q, bits="", kind=nn.EmbeddingBag):
    table = getattr(q, f"float_qparams_weight_only_qconfig{bits}")
    return q.QConfigMapping().set_object_type(kind, table)


def table_and_layer(q):
    table = q.float_qparams_weight_only_qconfig
    return q.get_default_qconfig_mapping("x86").set_object_type(nn.Embedding, table)


def indices():
    return torch.randint(20, (4, 3))


# Model, its mapping, an input, and what may differ of the result's norm.
OTHER_LAYERS = {
    "dynamic": (layers, dynamic, lambda: torch.randn(5, 8), 1e-6),
    "dynamic function": (Product, dynamic, lambda: torch.randn(5, 8), 1e-6),
    "functions": (Products, lambda q: q.get_default_qconfig_mapping("x86"), lambda: torch.randn(5, 8), 0.01),
    "bag": (Bags, rows, indices, 1e-5),
    "bag of 4 bits": (Bags, lambda q: rows(q, "_4bit"), indices, 1e-3),
    "table": (Table, lambda q: rows(q, kind=nn.Embedding), indices, 1e-6),
    "table of 4 bits": (Table, lambda q: rows(q, "_4bit", nn.Embedding), indices, 1e-3),
    "table and layer": (Table, table_and_layer, indices, 0.01),
    "recurrent": (Recurrent, dynamic, lambda: torch.randn(5, 2, 8), 0.03),  # inputs by another rule
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_LAYERS)
def test_other_layers(name):
    make, mapping, values, most = OTHER_LAYERS[name]
    torch.manual_seed(3)
    model, batches = make().eval().requires_grad_(False), [values() for _ in range(3)]
    other = theirs(copy.deepcopy(model), "x86", batches, mapping(peer()))
    fresh = make().eval().requires_grad_(False)  # with other weights
    mine = legacy.convert_fx(prepare_fx(fresh, mapping(tq), (batches[0],)), other.state_dict())
    want, have = other(batches[1]), mine(batches[1])
    assert want.shape == have.shape and (want - have).norm() <= most * want.norm()


def test_rows_are_those_of_the_file():
    model = Table().eval().requires_grad_(False)
    mapping = rows(peer(), kind=nn.Embedding)
    state = theirs(model, "x86", [indices()], mapping).state_dict()
    observed = prepare_fx(Table().eval(), rows(tq, kind=nn.Embedding), (indices(),))
    key = "inner.table._packed_params._packed_weight"
    mine = legacy.convert_fx(observed, state)
    ids = torch.arange(21).reshape(7, 3) % 20
    read = nn.functional.linear(state[key].dequantize()[ids], state["last.weight"], state["last.bias"])
    assert torch.allclose(mine(ids), read, atol=1e-5)
    assert any(node.target is torch.ops.torch_ao.embedding.default for node in mine.graph.nodes)
    with pytest.raises(ValueError, match=f"must hold '{key}' in quint8, got torch.float32"):
        legacy.convert_fx(observed, {**state, key: state[key].dequantize()})
    with pytest.raises(ValueError, match="must hold 'inner.table.weight' as .20, 8., got .10, 8."):
        few = torch.quantize_per_channel(torch.ones(10, 8), torch.ones(10), torch.ones(10), 0, torch.quint8)
        legacy.convert_fx(observed, {**state, key: few})


def test_what_does_not_fit_is_refused():
    model = Functions().eval().requires_grad_(False)
    batches = [torch.randn(16, 8)]
    state = theirs(copy.deepcopy(model), "onednn", batches).state_dict()
    observed = prepare_fx(model, tq.get_default_qconfig_mapping("onednn"), (batches[0],))
    with pytest.raises(ValueError, match=r"must have its place in the graph for each entry, got \['more'\]"):
        legacy.convert_fx(observed, {**state, "more": torch.ones(1)})
    less = {k: v for k, v in state.items() if not k.startswith("b.scale")}
    with pytest.raises(ValueError, match="must have qparams for|must have its place"):
        legacy.convert_fx(observed, less)
    with pytest.raises(ValueError, match="must have qparams for 'x' of module ''"):
        legacy.convert_fx(observed, {k: v for k, v in state.items() if "input" not in k})
    wrong = {**state, "a._packed_params._packed_params": (torch.ones(8, 8), None)}
    with pytest.raises(ValueError, match="must hold 'a.weight' in qint8, got torch.float32"):
        legacy.convert_fx(observed, wrong)
    with pytest.raises(TypeError, match="must be a graph of prepare_fx, got Functions"):
        legacy.convert_fx(model, state)
