"""nn.quantized.Embedding and EmbeddingBag: numbers, state, every way to store or compile them."""

import copy
import io
import pickle
import warnings

import pytest
import safetensors.torch
import torch
from torch import nn

import torch_ao_ext
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized import Embedding, EmbeddingBag
from torch_ao_ext.quantization import (
    PerChannelMinMaxObserver,
    QConfig,
    default_dynamic_qconfig,
    float_qparams_weight_only_qconfig,
    float_qparams_weight_only_qconfig_4bit,
    quantize_dynamic,
    row_dynamic_qconfig,
)
from torch_ao_ext.quantization.observer import default_placeholder_observer

TWO_BITS = QConfig(
    default_placeholder_observer,
    PerChannelMinMaxObserver.with_args(
        dtype=torch.quint2x4, qscheme=torch.per_channel_affine_float_qparams
    ),
)
QCONFIGS = {
    "own": (row_dynamic_qconfig, 8),
    "none": (None, 8),
    "8": (float_qparams_weight_only_qconfig, 8),
    "4": (float_qparams_weight_only_qconfig_4bit, 4),
    "2": (TWO_BITS, 2),
}


def float_layer(kind, qconfig, dim=24, dtype=torch.float32, **options):
    layer = kind(50, dim, dtype=dtype, **options)
    layer.qconfig = qconfig
    return layer


def quantized(kind, name="own", **options):
    float_kind = {Embedding: nn.Embedding, EmbeddingBag: nn.EmbeddingBag}[kind]
    layer = float_layer(float_kind, QCONFIGS[name][0], **options)
    return layer, kind.from_float(layer)


def inputs(kind):
    indices = torch.randint(50, (6, 5))
    return (indices,) if kind is Embedding else (indices.flatten(), torch.tensor([0, 3, 3, 20]))


KINDS = [Embedding, EmbeddingBag]
ALL = [(kind, name) for kind in KINDS for name in QCONFIGS]


@pytest.mark.parametrize("dim", [1, 7, 24, 130])
@pytest.mark.parametrize(("kind", "name"), ALL)
def test_rows_are_within_half_a_step(kind, name, dim):
    layer, q = quantized(kind, name, dim=dim)
    bits = QCONFIGS[name][1]
    weight = layer.weight.detach()
    assert (q.bits, q.num_embeddings, q.embedding_dim) == (bits, 50, dim)
    assert q.qweight.dtype == torch.uint8 and q.qweight.dim() == 2
    step = (weight.amax(1) - weight.amin(1)) / (2**bits - 1)
    error = (q.weight().dequantize() - weight).abs().amax(1)
    # Scale and bias are float16 below 8 bits, and the zero point is scaled in float32.
    assert (error <= step * 0.51 + (1e-5 if bits == 8 else 8 * 2**-11)).all()
    with torch.no_grad():
        got, want = q(*inputs(kind)), layer(*inputs(kind))
    assert got.shape == want.shape and got.dtype == torch.float32


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("name", ["own", "4"])
def test_bag_is_the_float_bag_of_the_dequantized_rows(mode, name):
    for padding_idx in (None, 7):
        for last in (False, True):
            layer, q = quantized(
                EmbeddingBag, name, mode=mode, padding_idx=padding_idx, include_last_offset=last
            )
            with torch.no_grad():
                layer.weight.copy_(q.weight().dequantize())
            indices = torch.randint(50, (40,))
            for offsets in (torch.tensor([0, 0, 11, 40]), torch.tensor([0, 5, 40], dtype=torch.int32)):
                want = layer(indices, offsets.long())
                torch.testing.assert_close(q(indices, offsets), want.detach(), rtol=0, atol=1e-4)
            if mode == "sum":
                weights = torch.randn(40)
                want = layer(indices, torch.tensor([0, 40]), weights).detach()
                got = q(indices, torch.tensor([0, 40]), weights)
                torch.testing.assert_close(got, want, rtol=0, atol=1e-4)
            square = indices.view(8, 5)
            torch.testing.assert_close(q(square), layer(square).detach(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["8", "4"])
@pytest.mark.parametrize("kind", KINDS)
def test_torch_ao_qconfig_gives_torch_ao_rows(kind, name):
    """The peer runs as it is in torch; only its bytes and answers are used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch.ao.nn.quantized as peer
        from torch.ao.quantization import qconfig as peer_qconfigs

        suffix = "_4bit" if name == "4" else ""
        peer_qconfig = getattr(peer_qconfigs, f"float_qparams_weight_only_qconfig{suffix}")
        for scale in (1.0, 1e-4, 30.0):
            layer, _ = quantized(kind, name)
            with torch.no_grad():
                layer.weight.mul_(scale)
                layer.weight[3] = 1.5
            q = kind.from_float(layer)
            layer.qconfig = peer_qconfig
            # torch.ao's Embedding keeps 8 bits in its packed params whatever it is asked.
            theirs = getattr(peer, kind.__name__).from_float(layer) if kind is EmbeddingBag else None
            ours = kind.from_float(layer)  # their qconfig works here, too
            assert torch.equal(ours.qweight, q.qweight)
            observer = peer_qconfig.weight()
            observer(layer.weight)
            s, z = observer.calculate_qparams()
            w = torch.quantize_per_channel(layer.weight.detach(), s, z, 0, observer.dtype)
            packed = torch.ops.quantized.embedding_bag_prepack(w)
            by_tensor = kind(50, 24, dtype=observer.dtype)
            by_tensor.set_weight(w)
            assert torch.equal(by_tensor.qweight, q.qweight)
            indices, offsets = torch.randint(50, (30,)), torch.tensor([0, 3, 3, 20])
            op = getattr(torch.ops.quantized, f"embedding_bag_{'4bit' if name == '4' else 'byte'}")
            want = op(packed, indices, offsets)
            if kind is EmbeddingBag:
                q.mode = "sum"
                torch.testing.assert_close(theirs(indices, offsets).shape, want.shape)
                torch.testing.assert_close(q(indices, offsets), want, rtol=1e-5, atol=1e-5 * scale)
            else:
                rows = op(packed, indices, torch.arange(30))
                torch.testing.assert_close(q(indices), rows, rtol=1e-6, atol=1e-6 * scale)


def test_fused_rows_of_torch_are_taken_as_they_are():
    weight = torch.randn(50, 24)
    for bits, dtype, op in (
        (8, torch.quint8, "byte"), (4, torch.quint4x2, "4bit"), (2, torch.quint2x4, "2bit"),
    ):  # fmt: skip
        table = getattr(torch.ops.quantized, f"embedding_bag_{op}_prepack")(weight)
        layer = EmbeddingBag(50, 24, dtype=dtype)
        assert layer.qweight.shape == table.shape and layer.bits == bits
        layer.load_state_dict({**layer.state_dict(), "qweight": table})
        indices = torch.randint(50, (4, 5))
        rowwise = getattr(torch.ops.quantized, f"embedding_bag_{op}_rowwise_offsets")
        want = rowwise(table, indices.flatten(), torch.arange(0, 20, 5))
        torch.testing.assert_close(layer(indices), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_weight_goes_round(kind, name):
    _, q = quantized(kind, name)
    w = q.weight()
    assert isinstance(w, QuantizedTensor)
    assert w.qscheme() == torch.per_channel_affine_float_qparams and w.q_per_channel_axis() == 0
    assert w.int_repr().shape == (50, 24) and int(w.int_repr().max()) == 2**q.bits - 1
    other = kind(50, 24, dtype=q.dtype)
    other.set_weight(w)
    assert torch.equal(other.weight().int_repr(), w.int_repr())
    torch.testing.assert_close(other.weight().dequantize(), w.dequantize(), rtol=2e-3, atol=2e-3)
    assert torch.equal(
        w.q_per_channel_scales(), other.weight().q_per_channel_scales()
    )


def test_constant_rows_keep_their_value():
    for name in QCONFIGS:
        layer, _ = quantized(Embedding, name)
        with torch.no_grad():
            layer.weight[4] = 0
            layer.weight[5] = 1.25
        q = Embedding.from_float(layer)
        assert torch.equal(q(torch.tensor([4, 5])), layer(torch.tensor([4, 5])).detach())
        assert torch.equal(q.weight().dequantize()[4:6], layer.weight.detach()[4:6])


def test_max_norm_is_applied_once():
    layer = float_layer(nn.Embedding, row_dynamic_qconfig, max_norm=1.0)
    q = Embedding.from_float(layer)
    indices = torch.arange(50)
    torch.testing.assert_close(q(indices), layer(indices).detach(), rtol=0, atol=5e-3)


def test_low_precision_layers_answer_in_their_dtype():
    layer, q = quantized(Embedding, dtype=torch.bfloat16)
    assert q(torch.tensor([1])).dtype == torch.bfloat16
    restored = Embedding(50, 24)
    restored.load_state_dict(q.state_dict())
    assert torch.equal(restored(torch.arange(50)), q(torch.arange(50)))
    _, bag = quantized(EmbeddingBag, dtype=torch.bfloat16, mode="sum")
    weights = torch.rand(6, 5, dtype=torch.bfloat16)
    assert bag(torch.randint(50, (6, 5)), None, weights).dtype == torch.bfloat16
    assert layer.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_storage(kind, name, tmp_path):
    """Every way to store it gives the same bits, in plain tensors."""
    _, q = quantized(kind, name)
    x = inputs(kind)
    want = q(*x)
    state = q.state_dict()
    assert set(state) == {"qweight", "row_format", "format_version"}
    assert all(type(t) is torch.Tensor for t in state.values())
    torch.save(state, tmp_path / "state.pt")
    safetensors.torch.save_file(state, tmp_path / "state.safetensors")
    for loaded in (
        torch.load(tmp_path / "state.pt", weights_only=True),
        safetensors.torch.load_file(tmp_path / "state.safetensors"),
    ):
        fresh = kind(50, 24)  # 8 bits: the file decides
        fresh.load_state_dict(loaded)
        assert fresh.bits == q.bits and fresh.dtype == q.dtype
        if kind is EmbeddingBag:
            fresh.mode = q.mode
        assert torch.equal(fresh(*x), want)
    for other in (copy.deepcopy(q), pickle.loads(pickle.dumps(q))):
        assert torch.equal(other(*x), want)
        assert other.extra_repr() == q.extra_repr()


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k in KINDS for n in ("own", "4", "2")])
def test_runtimes(kind, name):
    _, q = quantized(kind, name)
    x = inputs(kind)
    want = q(*x)
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(q), buffer)
    buffer.seek(0)
    assert torch.equal(torch.jit.load(buffer)(*x), want)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(q, fullgraph=True, dynamic=True)
        assert torch.equal(compiled(*x), want)
        longer = (torch.cat([x[0], x[0]]), *x[1:])
        assert torch.equal(compiled(*longer), q(*longer))
    program = torch.export.export(q, x)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    assert torch.equal(torch.export.load(buffer).module()(*x), want)


@pytest.mark.parametrize("kind", KINDS)
def test_aot_inductor(kind, tmp_path):
    _, q = quantized(kind, "4")
    x = inputs(kind)
    with torch.no_grad():
        program = torch.export.export(q, x)
        path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "m.pt2"))
        assert torch.equal(torch._inductor.aoti_load_package(path)(*x), q(*x))


def test_bad_states_and_arguments():
    _, q = quantized(Embedding, "4")
    state = q.state_dict()
    fresh = Embedding(50, 24)
    for change, text in (
        ({"format_version": torch.tensor(2)}, "format_version must be <= 1, got 2"),
        ({"row_format": torch.tensor([5, 24, 0])}, r"row_format must be \[8, 4 or 2, 24"),
        ({"row_format": torch.tensor([4, 23, 0])}, r"row_format must be .*got \[4, 23, 0\]"),
        ({"row_format": torch.tensor([4, 24])}, "row_format must be"),
        ({"qweight": state["qweight"][:, :-1]}, "size mismatch for qweight"),
        ({"qweight": state["qweight"][1:]}, "size mismatch for qweight"),
    ):
        with pytest.raises(RuntimeError, match=text):
            fresh.load_state_dict({**state, **change})
    with pytest.raises(RuntimeError, match="load it into the float model"):
        fresh.load_state_dict(nn.Embedding(50, 24).state_dict(), strict=False)
    with pytest.raises(ValueError, match="'dtype' must be torch.quint8, quint4x2 or quint2x4, got"):
        Embedding(5, 4, dtype=torch.qint8)
    with pytest.raises(ValueError, match="'mode' must be 'sum', 'mean' or 'max', got 'min'"):
        EmbeddingBag(5, 4, mode="min")
    with pytest.raises(ValueError, match="must have a qconfig"):
        Embedding.from_float(nn.Embedding(5, 4))
    with pytest.raises(ValueError, match="must be nn.Embedding, got Linear"):
        Embedding.from_float(nn.Linear(5, 4))
    with pytest.raises(ValueError, match="must observe rows with float zero points"):
        Embedding.from_float(float_layer(nn.Embedding, default_dynamic_qconfig))
    broken = float_layer(nn.Embedding, row_dynamic_qconfig)
    with torch.no_grad():
        broken.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="weight must be finite"):
        Embedding.from_float(broken)
    huge = float_layer(nn.Embedding, float_qparams_weight_only_qconfig_4bit)
    with torch.no_grad():
        huge.weight[0, 0] = 1e7
    with pytest.raises(ValueError, match="range of torch.float16"):
        Embedding.from_float(huge)
    wrong = QuantizedTensor(torch.zeros(4, 24, dtype=torch.uint8), torch.ones(4), torch.zeros(4))
    with pytest.raises(ValueError, match=r"set_weight: weight must be \[50, 24\] in uint8, got \[4, 24\]"):
        fresh.set_weight(wrong)
    too_wide = QuantizedTensor(
        torch.full((50, 24), 16, dtype=torch.uint8), torch.ones(50), torch.zeros(50)
    )
    with pytest.raises(ValueError, match="must have codes below 16, got 16"):
        Embedding(50, 24, dtype=torch.quint4x2).set_weight(too_wide)
    with pytest.raises(IndexError, match="must hold numbers in"):
        q(torch.tensor([50]))


class Recommender(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(40, 12, padding_idx=0)
        self.bags = nn.EmbeddingBag(30, 12, mode="mean", padding_idx=2)
        self.more = nn.Embedding(40, 12)
        self.more.weight = self.words.weight  # tied
        self.top = nn.Linear(36, 3)

    def forward(self, words, bags):
        parts = [self.words(words).mean(1), self.bags(bags), self.more(words)[:, 0]]
        return self.top(torch.cat(parts, 1))


def test_quantize_dynamic_needs_no_special_qconfig():
    model = Recommender().eval()
    x = torch.randint(40, (5, 6)), torch.randint(30, (5, 7))
    q = quantize_dynamic(model, {nn.Linear, nn.Embedding, nn.EmbeddingBag}, strict=True)
    assert isinstance(q.words, Embedding) and isinstance(q.bags, EmbeddingBag)
    assert q.words.qweight is q.more.qweight and q.words.bits == 8
    torch.testing.assert_close(q(*x), model(*x).detach(), rtol=0, atol=0.05)
    report = torch_ao_ext.report(q)
    assert [(row.fqn, row.status) for row in report.rows] == [
        ("words", "int8"), ("bags", "int8"), ("more", "int8"), ("top", "int8"),
    ]  # fmt: skip
    assert report.parameter_percent["int8"] == 99.7  # all but the bias
    assert "embedding_bag: native, rows of 20 bytes" in str(torch_ao_ext.explain(q))
    graph = torch.export.export(q, x).module()
    assert [row.engine for row in torch_ao_ext.report(graph).rows[:3]] == ["native"] * 3
    assert "embedding_bag: native, rows of 20 bytes" in str(torch_ao_ext.explain(graph))
    assert torch_ao_ext.prepack(q) is q
    with torch.no_grad():
        torch._dynamo.reset()
        assert torch.equal(torch.compile(q, fullgraph=True)(*x)[:, :0], q(*x)[:, :0])

    mixed = {nn.Linear: row_dynamic_qconfig, nn.Embedding: float_qparams_weight_only_qconfig_4bit}
    q = quantize_dynamic(model, mixed)
    assert q.words.bits == 4 and isinstance(q.bags, nn.EmbeddingBag)
    assert torch_ao_ext.report(q).rows[0].op == "Embedding (4 bit)"
    q = quantize_dynamic(model, {"words": float_qparams_weight_only_qconfig})
    assert isinstance(q.words, Embedding) and isinstance(q.more, nn.Embedding)
    q = quantize_dynamic(model, {"bags"})
    assert isinstance(q.bags, EmbeddingBag)


def test_embeddings_stay_float_unless_asked_for():
    for spec in (None, {nn.Linear}, {""}, {"": default_dynamic_qconfig}):
        q = quantize_dynamic(Recommender(), spec)
        assert isinstance(q.words, nn.Embedding) and isinstance(q.bags, nn.EmbeddingBag)
        assert not isinstance(q.top, nn.Linear)
    with pytest.raises(ValueError, match="'words': qconfig.weight must observe rows with float"):
        quantize_dynamic(Recommender(), {nn.Embedding: default_dynamic_qconfig})


class Scaled(nn.Embedding):
    def forward(self, x):
        return super().forward(x) * 2


class Plain(nn.Embedding):
    pass


def test_subclasses():
    model = nn.Sequential(Plain(10, 4))
    assert isinstance(quantize_dynamic(model, {nn.Embedding})[0], Embedding)
    with pytest.raises(ValueError, match="subclass overrides forward of nn.Embedding"):
        quantize_dynamic(nn.Sequential(Scaled(10, 4)), {nn.Embedding}, strict=True)


def test_size_and_error_of_a_vocabulary():
    """The check of a word table: 50,000 x 512 in at most 0.27 of the size, one step of error."""
    layer = nn.Sequential(nn.Embedding(50_000, 512))
    q = quantize_dynamic(layer, {nn.Embedding})

    def size(m):
        buffer = io.BytesIO()
        torch.save(m.state_dict(), buffer)
        return buffer.tell()

    assert size(q) <= 0.27 * size(layer)
    weight = layer[0].weight.detach()
    indices = torch.randint(50_000, (64, 64))
    step = (weight.amax(1) - weight.amin(1)) / 255
    error = (q(indices) - layer(indices)).abs().amax(-1)
    assert (error <= step[indices]).all()
