"""TorchScript programs of torch.ao: recurrent layers, tables, sparse and dynamic layers, functions."""

import warnings

import pytest
import torch
from test_legacy_archive import eager, engine, steps
from torch import nn
from torch_ao_peer import peer

import torch_ao_ext
from torch_ao_ext.quantization import legacy

ENGINES = ["x86", "onednn", "fbgemm", "qnnpack"]


@pytest.fixture(autouse=True)
def _quiet():
    """torch.ao and TorchScript are deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def saved(model, args, how, path):
    """The program of a model in a file."""
    program = torch.jit.script(model) if how == "script" else torch.jit.trace(model, args)
    program.save(path)
    return str(path)


def flat(value):
    return [value] if isinstance(value, torch.Tensor) else [part for v in value for part in flat(v)]


def ops(graph):
    return [row.op for row in torch_ao_ext.report(graph).rows if row.status == "int8"]


def check_scripted(graph, *args):
    """The graph is scripted again and gives the same."""
    for want, have in zip(flat(graph(*args)), flat(torch.jit.script(graph)(*args)), strict=True):
        assert torch.equal(want, have)


class WithStates(nn.Module):
    """A layer with initial states, second input of the model."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, h):
        return self.layer(x, (h, h * 0.5))


class Padded(nn.Module):
    """A layer over sequences of different lengths."""

    def __init__(self):
        super().__init__()
        self.layer = nn.LSTM(6, 5)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths)
        return nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0])[0]


def recurrent(kind, **options):
    torch.manual_seed(0)
    return kind(6, 5, **options)


LAYERS = {
    "lstm": lambda: (nn.Sequential(recurrent(nn.LSTM)), (torch.randn(7, 2, 6),)),
    "lstm, all arguments": lambda: (
        nn.Sequential(recurrent(nn.LSTM, num_layers=2, bidirectional=True, batch_first=True, dropout=0.5)),
        (torch.randn(2, 7, 6),),
    ),
    "lstm with states": lambda: (
        WithStates(recurrent(nn.LSTM)),
        (torch.randn(7, 2, 6), torch.randn(1, 2, 5)),
    ),
    "gru": lambda: (nn.Sequential(recurrent(nn.GRU)), (torch.randn(7, 2, 6),)),
    "gru, all arguments": lambda: (
        nn.Sequential(recurrent(nn.GRU, num_layers=2, bidirectional=True, batch_first=True)),
        (torch.randn(2, 7, 6),),
    ),
    "lstm cell": lambda: (nn.Sequential(recurrent(nn.LSTMCell)), (torch.randn(3, 6),)),
    "gru cell": lambda: (nn.Sequential(recurrent(nn.GRUCell)), (torch.randn(3, 6),)),
    "rnn cell": lambda: (nn.Sequential(recurrent(nn.RNNCell)), (torch.randn(3, 6),)),
    "rnn cell with relu": lambda: (
        nn.Sequential(recurrent(nn.RNNCell, nonlinearity="relu")),
        (torch.randn(3, 6),),
    ),
}
RECURRENT = {nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell, nn.RNNCell}


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.parametrize("backend", ["x86", "qnnpack"])
@pytest.mark.parametrize("name", LAYERS)
def test_recurrent(name, backend, how, tmp_path):
    torch.manual_seed(1)
    model, args = LAYERS[name]()
    with engine(backend):
        other = peer().quantize_dynamic(model.eval(), RECURRENT)
        path = saved(other, args, how, tmp_path / "theirs.pt")
        want = flat(other(*args))
    graph = legacy.load_archive(path)
    have = flat(graph(*args))
    assert ops(graph) == [name.split(",")[0].removesuffix(" with states")
                          .removesuffix(" with relu").replace(" ", "_")]  # fmt: skip
    assert len(want) == len(have)
    # By the same rule, of which qnnpack ignores reduce_range.
    most = 0.03 if backend == "qnnpack" else 0.003
    for a, b in zip(want, have, strict=True):
        assert a.shape == b.shape and (a - b).norm() < most * a.norm()
    # Our layer with the weights of the same state_dict gives the same integers.
    qconfig = torch_ao_ext.quantization.default_dynamic_qconfig
    ours = torch_ao_ext.quantization.quantize_dynamic(model, dict.fromkeys(RECURRENT, qconfig))
    legacy.load_state_dict(ours, other.state_dict())
    for a, b in zip(flat(ours(*args)), have, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    check_scripted(graph, *args)


def test_packed_sequences(tmp_path):
    torch.manual_seed(2)
    args = torch.randn(5, 3, 6), torch.tensor([5, 3, 2])
    with engine("x86"):
        other = peer().quantize_dynamic(Padded().eval(), {nn.LSTM})
        path = saved(other, args, "trace", tmp_path / "theirs.pt")
        want = other(*args)
    have = legacy.load_archive(path)(*args)
    assert have.shape == want.shape and (want - have).norm() < 0.03 * want.norm()
    assert not have[3:, 1].any() and not have[2:, 2].any()


class Bag(nn.Module):
    """A bag with every argument that torch.ao's takes."""

    def __init__(self, **options):
        super().__init__()
        self.bag = nn.EmbeddingBag(20, 10, mode="sum", **options)

    def forward(self, indices, offsets, weights):
        return self.bag(indices, offsets, weights)


def tables(model, bits):
    model.qconfig = getattr(peer(), f"float_qparams_weight_only_qconfig{bits}")
    return peer().convert(peer().prepare(model.eval()))


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("bits", ["", "_4bit"])
def test_bags(bits, backend, tmp_path):
    torch.manual_seed(3)
    args = torch.randint(20, (12,)), torch.tensor([0, 3, 3, 12]), torch.rand(12)
    with engine(backend):
        other = tables(Bag(include_last_offset=True), bits)
        # torch cannot read its own files of 4-bit tables.
        program = torch.jit.script(other) if bits else saved(other, args, "script", tmp_path / "theirs.pt")
        want = other(*args)
    graph = legacy.load_archive(program)
    torch.testing.assert_close(graph(*args), want, rtol=1e-3 if bits else 1e-5, atol=1e-3 if bits else 1e-5)
    assert ops(graph) == ["embedding_bag"]
    check_scripted(graph, *args)


@pytest.mark.parametrize("bits", ["", "_4bit"])
def test_embedding(bits, tmp_path):
    torch.manual_seed(4)
    args = (torch.randint(20, (4, 3)),)
    with engine("x86"):
        other = tables(nn.Sequential(nn.Embedding(20, 9)), bits)
        program = torch.jit.script(other) if bits else saved(other, args, "script", tmp_path / "theirs.pt")
        # Not other(x): torch.ao's 4-bit nn.Embedding cannot look up.
        want = other[0].weight().dequantize()[args[0]]
    graph = legacy.load_archive(program)
    torch.testing.assert_close(graph(*args), want, rtol=1e-3, atol=4e-3 if bits else 1e-6)
    assert ops(graph) == ["embedding"]
    check_scripted(graph, *args)


class Rows(nn.Module):
    """The operator on fused rows."""

    def __init__(self, bits):
        super().__init__()
        name = {8: "byte", 4: "4bit", 2: "2bit"}[bits]
        prepack = getattr(torch.ops.quantized, f"embedding_bag_{name}_prepack")
        self.register_buffer("table", prepack(torch.randn(20, 8)))
        self.bits = bits

    def forward(self, indices, offsets):
        if self.bits == 8:
            return torch.ops.quantized.embedding_bag_byte_rowwise_offsets(self.table, indices, offsets)
        if self.bits == 4:
            return torch.ops.quantized.embedding_bag_4bit_rowwise_offsets(self.table, indices, offsets)
        return torch.ops.quantized.embedding_bag_2bit_rowwise_offsets(self.table, indices, offsets)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_fused_rows(bits, tmp_path):
    model, args = Rows(bits).eval(), (torch.randint(20, (12,)), torch.tensor([0, 5]))
    graph = legacy.load_archive(saved(model, args, "trace", tmp_path / "theirs.pt"))
    torch.testing.assert_close(graph(*args), model(*args))


@pytest.mark.parametrize("dynamic, backend", [(True, "qnnpack"), (False, "fbgemm")])
def test_sparse_linear(dynamic, backend, tmp_path):
    import torch.ao.nn.sparse.quantized as theirs

    torch.manual_seed(5)
    q = peer()
    layer, x = nn.Linear(16, 8), torch.randn(5, 16)
    layer.weight.data[:, 4:12] = 0
    layer.sparse_params = {"sparse_block_shape": (1, 4)}
    layer.qconfig = q.default_dynamic_qconfig if dynamic else q.default_qconfig
    layer.activation_post_process = q.default_observer()
    layer.activation_post_process(layer(x))
    with engine(backend):
        if dynamic:
            model = theirs.dynamic.Linear.from_float(layer)
        else:
            nnq = torch.ao.nn.quantized
            quantize = nnq.Quantize(0.06, 64, torch.quint8)  # fbgemm's sums saturate above 127
            model = nn.Sequential(quantize, theirs.Linear.from_float(layer), nnq.DeQuantize())
        path = saved(model.eval(), (x,), "script", tmp_path / "theirs.pt")
        want = model(x)
    graph = legacy.load_archive(path)  # under an engine that has no sparse kernels
    if dynamic:
        assert (want - graph(x)).norm() < 0.02 * want.norm()
    else:
        assert steps(want, graph(x)) <= 1.01
    assert ("sparse_linear_dynamic" if dynamic else "sparse_linear") in ops(graph)
    check_scripted(graph, x)


@pytest.mark.parametrize("kind", ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d"])
def test_dynamic_convolutions(kind, tmp_path):
    import torch.ao.nn.quantized.dynamic as theirs

    torch.manual_seed(6)
    layer = getattr(nn, kind)(4, 6, 3, stride=2, padding=1)
    layer.qconfig = peer().default_dynamic_qconfig
    x = torch.randn(2, 4, *[7] * int(kind[-2]))
    with engine("qnnpack" if "Transpose" in kind else "x86"):  # x86 gives other results for transposed ones
        other = getattr(theirs, kind).from_float(layer)
        path = saved(nn.Sequential(other).eval(), (x,), "trace", tmp_path / "theirs.pt")
        rough = other(x)  # torch.ao rounds the result, too
        layer.weight.data = other.weight().dequantize()
        want = layer(x)
    graph = legacy.load_archive(path)
    assert graph(x).shape == want.shape and (want - graph(x)).norm() < 0.01 * want.norm()
    assert (rough - graph(x)).norm() < 0.06 * want.norm()
    check_scripted(graph, x)


class Functions(nn.Module):
    """What `nn.quantized` has beside products, each on the model's input."""

    def __init__(self):
        super().__init__()
        functional = torch.ao.nn.quantized.FloatFunctional
        self.quant, self.dequant = peer().QuantStub(), peer().DeQuantStub()
        self.bn, self.gn, self.ln = nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(6)
        self.norm, self.elu, self.prelu = nn.InstanceNorm2d(4, affine=True), nn.ELU(), nn.PReLU(4)
        self.softmax, self.dropout = nn.Identity(), nn.Dropout()
        self.more, self.less, self.twice, self.minus, self.product = (functional() for _ in range(5))
        self.pad = nn.ReflectionPad2d(1)

    def forward(self, x):
        x = self.quant(x)
        first, second = x.chunk(2, 1)
        n, c, h, w = x.size()
        return (
            self.dequant(self.bn(x)), self.dequant(self.gn(x)), self.dequant(self.ln(x)),
            self.dequant(self.norm(x)), self.dequant(self.elu(x)), self.dequant(self.prelu(x)),
            self.dequant(self.softmax(x)), self.dequant(self.dropout(x)),
            self.dequant(self.more.add_scalar(x, 0.25)), self.dequant(self.less.add_scalar(x, -30.0)),
            self.dequant(self.twice.mul_scalar(x, 2.0)), self.dequant(self.minus.mul_scalar(x, -0.5)),
            self.dequant(self.product.matmul(x, x.transpose(2, 3))), self.dequant(self.pad(x)),
            self.dequant(x.flip(3)),
            self.dequant(torch.cat([second, first], 1).view(n, 2, c // 2, h, w).transpose(1, 2)),
        )  # fmt: skip


# In the order above: what may differ, in steps of torch.ao's result.
FUNCTIONS = {
    "bn": 1.01, "gn": 1.01, "ln": 1.01, "norm": 1.01, "elu": 1.01, "prelu": 1.01, "softmax": 1.01,
    "dropout": 0, "add_scalar": 1e-3, "add_scalar beyond": 1.01, "mul_scalar": 1e-3, "mul_scalar below": 1e-3,
    "matmul": 1.01, "pad": 0, "flip": 1e-3, "chunk": 0,
}  # fmt: skip


@pytest.mark.parametrize("how", ["script", "trace"])
def test_functions(how, tmp_path):
    torch.manual_seed(7)
    x = torch.randn(3, 4, 6, 6)
    with engine("x86"):
        model = Functions().eval()
        model.prelu.weight.data = torch.tensor([1.0, 0.5, 0.25, 0.0])  # torch.ao's 1 must fit in their range
        model.prelu.qconfig = peer().default_qconfig  # torch.ao has no rows of its slopes
        model = eager(model, [x], "x86")
        model.softmax = torch.ao.nn.quantized.Softmax(1, 1 / 256, 0)
        path = saved(model, (x,), how, tmp_path / "theirs.pt")
        want = model(x)
    graph = legacy.load_archive(path)
    for (name, most), a, b in zip(FUNCTIONS.items(), want, graph(x), strict=True):
        assert a.shape == b.shape and steps(a, b) <= most, name


class Fused(nn.Module):
    """Layers that only torch.ao's engine onednn has."""

    def __init__(self):
        super().__init__()
        q, functional = peer(), torch.ao.nn.quantized.FloatFunctional
        self.quant, self.dequant = q.QuantStub(), q.DeQuantStub()
        self.conv, self.add, self.relu = nn.Conv2d(3, 3, 3, padding=1), functional(), nn.ReLU()
        self.fc1, self.leaky, self.fc2, self.tanh = (
            nn.Linear(5, 6),
            nn.LeakyReLU(0.2),
            nn.Linear(6, 4),
            nn.Tanh(),
        )

    def forward(self, x):
        x = self.relu(self.conv(x) + x)
        return self.tanh(self.fc2(self.leaky(self.fc1(x))))


def test_layers_of_onednn(tmp_path):
    from torch.ao.quantization.backend_config import get_onednn_backend_config
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    torch.manual_seed(8)
    x, config = torch.randn(2, 3, 5, 5), get_onednn_backend_config()
    with engine("onednn"):
        mapping = peer().QConfigMapping().set_global(peer().get_default_qconfig("onednn"))
        model = prepare_fx(Fused().eval(), mapping, (x,), backend_config=config)
        model(x)
        model = convert_fx(model, backend_config=config)
        kinds = {str(node.target) for node in model.graph.nodes}
        program = torch.jit.trace(model, x)
        want = model(x)
    found = {node.kind() for node in torch.jit.freeze(program.eval()).graph.nodes()}
    wanted = {"quantized::conv2d_add_relu", "quantized::linear_leaky_relu", "quantized::linear_tanh"}
    assert wanted <= found, kinds
    graph = legacy.load_archive(program)
    assert steps(want, graph(x)) <= 2.01  # three layers


def half_linear():
    return nn.Sequential(nn.Linear(4, 4)), {nn.Linear}, torch.randn(2, 4), r"its weights are float16"


def half_lstm():
    text = r"aten::quantized_lstm: it must have int8 weights, got quantized_fp16"
    return nn.Sequential(nn.LSTM(4, 4)), {nn.LSTM}, torch.randn(2, 1, 4), text


@pytest.mark.parametrize("case", [half_linear, half_lstm])
def test_half_weights_are_refused(case):
    model, kinds, x, text = case()
    with engine("x86"):
        other = peer().quantize_dynamic(model.eval(), kinds, dtype=torch.float16)
        program = torch.jit.trace(other, x)
    with pytest.raises(ValueError, match=text):
        legacy.load_archive(program)


def test_pruned_tables_are_refused():
    class Pruned(nn.Module):
        def __init__(self, packed):
            super().__init__()
            self.packed = packed

        def forward(self, x):
            return torch.ops.quantized.embedding_byte(self.packed, x, True)

    weight = tables(nn.Sequential(nn.Embedding(20, 8)), "")[0]._packed_params._packed_weight
    with pytest.raises(ValueError, match="quantized::embedding_byte: of pruned weights"):
        legacy.load_archive(torch.jit.script(Pruned(weight).eval()))
