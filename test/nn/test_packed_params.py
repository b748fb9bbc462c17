"""Containers of packed weights beside torch.ao's, whose objects are opaque; ours hold plain tensors."""

import copy
import importlib
import io
import pickle
import warnings

import pytest
import torch

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.nn.quantized import dynamic as nnqd
from torch_ao_ext.nn.quantized.dynamic.modules import rnn
from torch_ao_ext.nn.quantized.modules.embedding_ops import EmbeddingPackedParams
from torch_ao_ext.nn.quantized.modules.linear import LinearPackedParams
from torch_ao_ext.nn.sparse import quantized as sparse
from torch_ao_ext.ops import service
from torch_ao_ext.quantization import legacy

WEIGHT = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
BIAS = torch.randn(6, generator=torch.Generator().manual_seed(1))
SCALES, ZEROS = WEIGHT.abs().amax(1) / 127, torch.zeros(6, dtype=torch.int64)
X = torch.randint(0, 128, (5, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


@pytest.fixture(autouse=True)
def _torch_ao():
    """torch.ao is deprecated; fbgemm packs each of these weights."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.backends.quantized.engine = before


def theirs(place):
    return importlib.import_module(f"torch.ao.nn.{place}")


def per_channel():
    return torch.quantize_per_channel(WEIGHT, SCALES, ZEROS, 0, torch.qint8)


def per_tensor(zero_point=0):
    return torch.quantize_per_tensor(WEIGHT, 0.03, zero_point, torch.qint8)


def rows(dtype=torch.quint8):
    low = WEIGHT.amin(1)
    scale = (WEIGHT.amax(1) - low) / (255 if dtype == torch.quint8 else 15)
    return torch.quantize_per_channel(WEIGHT, scale, -low / scale, 0, dtype)


def blocks():
    weight = WEIGHT.clone()
    weight[:, :4] = 0
    return torch.quantize_per_channel(weight, SCALES, ZEROS, 0, torch.qint8)


def again(module):
    """Through files, copies and pickles."""
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert all(type(value) is torch.Tensor and not value.is_quantized for value in state.values())
    fresh = copy.deepcopy(module)
    for value in fresh.state_dict().values():
        value.zero_()
    assert not fresh.load_state_dict(state).missing_keys
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    pickled = torch.load(file, weights_only=False)
    return [fresh, pickled, copy.deepcopy(module), pickle.loads(pickle.dumps(module))]


def same(found, want):
    """Weights with equal integers and values; biases, numbers."""
    assert len(found) == len(want)
    for ours, reference in zip(found, want, strict=True):
        if isinstance(ours, QuantizedTensor):
            assert torch.equal(ours.int_repr(), reference.int_repr())
            assert ours.qscheme() == reference.qscheme()
            assert torch.equal(ours.dequantize(), reference.dequantize())
        elif isinstance(ours, torch.Tensor):
            assert torch.equal(ours, reference)
        else:
            assert ours == reference


@pytest.mark.parametrize("bias", [BIAS, None], ids=["bias", "no bias"])
@pytest.mark.parametrize(
    "weight, dtype",
    [
        (per_channel, torch.qint8), (per_tensor, torch.qint8), (lambda: per_tensor(3), torch.qint8),
        (lambda: WEIGHT * 1e5, torch.float16),  # beyond the range of float16
    ],
    ids=["channels", "tensor", "zero point", "float16"],
)  # fmt: skip
def test_linear(weight, dtype, bias):
    weight = weight()
    reference = theirs("quantized.modules.linear").LinearPackedParams(dtype)
    packed = LinearPackedParams(dtype)
    assert packed.dtype == reference.dtype == dtype
    assert list(packed._weight_bias()[0].shape) == list(reference._weight_bias()[0].shape) == [1, 1]
    reference.set_weight_bias(weight, bias), packed.set_weight_bias(weight, bias)
    want = reference._weight_bias()
    read = LinearPackedParams()
    legacy.load_state_dict(read, reference.state_dict())
    for module in (packed, read, *again(packed)):
        same(module._weight_bias(), want)
        assert module.dtype == dtype and torch.equal(module(X), X)
        assert torch.jit.script(module)(BIAS) is BIAS
    small = LinearPackedParams()
    small.load_state_dict(packed.state_dict())  # sizes and dtype are those of the file
    same(small._weight_bias(), want)
    if dtype == torch.qint8:
        operator = torch.ops.torch_ao.linear(X, 0.1, 7, *packed._packed_params, 0.2, 60)
        x = torch._make_per_tensor_quantized_tensor(X, 0.1, 7)
        peer = torch.ops.quantized.linear(x, reference._packed_params, 0.2, 60).int_repr()
        assert (operator.int() - peer.int()).abs().max() <= 1
        assert service.pack_count(packed.qweight) == 1
        layer = nnq.Linear(8, 6, bias is not None)
        layer.set_weight_bias(*packed._weight_bias())
        same((layer.weight(), layer.bias()), want)
        packed.set_weight_bias(layer.weight(), layer.bias())
        same(packed._weight_bias(), want)


def test_linear_refuses():
    weight, packed = per_channel(), LinearPackedParams()
    for dtype in (torch.quint8, torch.float32):
        with pytest.raises(NotImplementedError, match=f"'dtype' must be torch.qint8, .*got {dtype}"):
            LinearPackedParams(dtype)
    by_column = torch.quantize_per_channel(WEIGHT, torch.ones(8), torch.zeros(8), 1, torch.qint8)
    half, brain = LinearPackedParams(torch.float16), LinearPackedParams(torch.bfloat16)
    for module, arguments, said in [
        (packed, (WEIGHT, None), r"'weight' must be a QuantizedTensor or .*, got torch.float32 \[6, 8\]"),
        (packed, (rows(), None), r"'weight' must be torch.int8 \[N, K\], got torch.quint8 \[6, 8\]"),
        (packed, (weight, BIAS[:5]), r"'bias' must be float \[6\], got torch.float32 \[5\]"),
        (packed, (weight, [0.0] * 6), r"'bias' must be float \[6\], got list"),
        (packed, (weight, BIAS / 0), "'bias' must be finite, got an infinity"),
        (packed, (by_column, None), "'weight' must be quantized along axis 0, got axis 1"),
        (packed, ([[1.0]], None), "'weight' must be a QuantizedTensor .*got list"),
        (half, (weight, None), "'weight' must be a float tensor, got torch.qint8"),
        (half, (weight.int_repr(), None), r"'weight' must be torch.float16 \[N, K\], got torch.int8"),
        (brain, (WEIGHT / 0, None), "'weight' must be finite"),
    ]:
        with pytest.raises(ValueError, match=f"LinearPackedParams.set_weight_bias: argument {said}"):
            module.set_weight_bias(*arguments)
    same(packed._weight_bias(), LinearPackedParams()._weight_bias())  # left as it was
    packed.set_weight_bias(weight, BIAS)
    state = packed.state_dict()
    for key, value, said in [
        ("qweight", torch.zeros(6), r"qweight must be int8, .*\[N, K\], got torch.float32 \[6\]"),
        ("weight_scale", torch.ones(5), r"weight_scale must be torch.float32 of 1 or 6 values, got .*\[5\]"),
        ("qbias", torch.ones(6).double(), "qbias must be torch.float32 of 6 values, got torch.float64"),
    ]:
        with pytest.raises(RuntimeError, match=said):
            LinearPackedParams().load_state_dict({**state, key: value})


@pytest.mark.parametrize("dtype", [torch.quint8, torch.quint4x2], ids=["8 bit", "4 bit"])
def test_embedding(dtype):
    weight = rows(dtype)
    reference = theirs("quantized.modules.embedding_ops").EmbeddingPackedParams(3, 6, dtype)
    packed = EmbeddingPackedParams(3, 6, dtype)
    assert packed.dtype == dtype and list(packed._weight().shape) == list(reference._weight().shape) == [3, 6]
    assert not packed._weight().dequantize().any()
    reference.set_weight(weight), packed.set_weight(weight)
    read = EmbeddingPackedParams(1, 1)
    legacy.load_state_dict(read, reference.state_dict())
    small = EmbeddingPackedParams(1, 1)
    small.load_state_dict(packed.state_dict())
    bits, indices = (8 if dtype == torch.quint8 else 4), torch.tensor([5, 0, 3])
    lookup = {8: torch.ops.quantized.embedding_byte, 4: torch.ops.quantized.embedding_4bit}[bits]
    want = lookup(reference._packed_weight, indices, pruned_weights=False)
    layer = nnq.Embedding(6, 8, dtype=dtype)
    layer.set_weight(packed._weight())
    for module in (packed, read, small, *again(packed)):
        assert module.dtype == dtype
        torch.testing.assert_close(module._weight().dequantize(), layer.weight().dequantize())
        found = torch.ops.torch_ao.embedding(module._packed_weight, indices, bits, 8)
        torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-3 if bits == 4 else 1e-6)
    assert torch.equal(packed(X), X) and torch.jit.script(packed)(BIAS) is BIAS


def test_embedding_refuses():
    packed = EmbeddingPackedParams(3, 5)
    kinds = (EmbeddingPackedParams, theirs("quantized.modules.embedding_ops").EmbeddingPackedParams)
    for kind in kinds:
        with pytest.raises(NotImplementedError, match="dtype.*[gG]ot.* torch.qint8"):
            kind(3, 5, torch.qint8)
    for weight, said in [
        (WEIGHT, r"must be a quantized tensor \[rows, D\], got torch.float32 \[6, 8\]"),
        (rows(torch.quint4x2), "must have codes of 8 bits"),
        (torch.quantize_per_tensor(WEIGHT, 0.1, 0, torch.quint8), "must have qparams of its rows"),
    ]:
        with pytest.raises(ValueError, match=f"EmbeddingPackedParams.set_weight: argument '?weight'? {said}"):
            packed.set_weight(weight)
    state = packed.state_dict()
    for key, value, said in [
        ("row_format", torch.tensor([3, 5]), r"row_format must be \[8, 4 or 2, embedding_dim\], got \[3, 5"),
        ("qweight", torch.zeros(3, 4, dtype=torch.uint8), r"qweight must be uint8 \[rows, 13\], got"),
    ]:
        with pytest.raises(RuntimeError, match=said):
            EmbeddingPackedParams(1, 1).load_state_dict({**state, key: value})


@pytest.mark.parametrize("block", [(1, 4), (8, 1)])
@pytest.mark.parametrize("bias", [BIAS, None], ids=["bias", "no bias"])
def test_sparse(block, bias):
    torch.backends.quantized.engine = "fbgemm" if block == (1, 4) else "qnnpack"
    reference = theirs("sparse.quantized").LinearPackedParams(*block)
    packed = sparse.LinearPackedParams(*block)
    same(packed._weight_bias()[2:], reference._weight_bias()[2:])
    reference.set_weight_bias(blocks(), bias, *block), packed.set_weight_bias(blocks(), bias, *block)
    want = reference._weight_bias()
    read = sparse.LinearPackedParams()
    legacy.load_state_dict(read, reference.state_dict())
    small = sparse.LinearPackedParams()
    small.load_state_dict(packed.state_dict())
    dense = LinearPackedParams()
    dense.set_weight_bias(blocks(), bias)
    peer = torch.ops.torch_ao.linear(X, 0.1, 7, *dense._packed_params, 0.2, 60)
    for module in (packed, read, small, *again(packed)):
        weight, held, *sizes = module._weight_bias()
        if bias is None and held is not None:  # qnnpack has zeros
            assert module is read and not held.any()
            held = None
        same((weight, held, *sizes), (want[0], bias, *want[2:]))
        found = torch.ops.torch_ao.sparse_linear(X, 0.1, 7, *module._packed_params, 0.2, 60)
        assert torch.equal(found, peer)
    assert packed._get_name() == reference._get_name() and torch.jit.script(packed)(BIAS) is BIAS
    assert packed.qweight.numel() <= (24 if block == (1, 4) else 32)  # zeros are not stored


def test_sparse_refuses():
    packed = sparse.LinearPackedParams()
    for kind in (sparse.LinearPackedParams, theirs("sparse.quantized").LinearPackedParams):
        with pytest.raises(NotImplementedError):
            kind(1, 4, torch.quint8)
        with pytest.raises(AssertionError, match="block_size"):
            kind(1, 4).set_weight_bias(blocks(), None, None, 4)
    with pytest.raises(ValueError, match=r"must be \(1, 4\) or \(8, 1\), got \(2, 2\)"):
        sparse.LinearPackedParams(2, 2)
    for weight, said in [
        (WEIGHT, "'weight' must be quantized to int8 .*got torch.float32"),
        (per_tensor(3), "'w' must have zero point 0"),
    ]:
        with pytest.raises(ValueError, match=f"set_weight_bias: argument {said}"):
            packed.set_weight_bias(weight, None, 1, 4)
    with pytest.raises(ValueError, match="'bias' must be float"):
        packed.set_weight_bias(blocks(), BIAS[:2], 1, 4)
    same(packed._weight_bias(), sparse.LinearPackedParams()._weight_bias())  # left as it was
    with pytest.raises(RuntimeError, match=r"weight_size must be int64 \[2\] of values >= 0, got \[-1, 8\]"):
        packed.load_state_dict({**packed.state_dict(), "weight_size": torch.tensor([-1, 8])})


@pytest.mark.parametrize("dtype", [torch.qint8, torch.int16, torch.bfloat16])
def test_recurrent(dtype):
    """The cell's operator on what the containers hold is the cell."""
    torch.manual_seed(0)
    cell, x, h = nnqd.GRUCell(8, 2, dtype=dtype), torch.randn(3, 8), torch.randn(3, 2)
    sizes = {"weight_ih": (6, 8), "weight_hh": (6, 2)}
    weights = {name: torch.randn(size) for name, size in sizes.items()}
    if dtype == torch.qint8:
        weights = {n: torch.quantize_per_tensor(w, 0.02, 0, torch.qint8) for n, w in weights.items()}
    if dtype == torch.int16:
        scales = torch.rand(6) * 1e-4 + 1e-4
        integers = {n: (w / scales[:, None]).round().short() for n, w in weights.items()}
        weights = {n: QuantizedTensor(w, scales) for n, w in integers.items()}
    biases = {"bias_ih": BIAS, "bias_hh": -BIAS}
    given = {n: w.bfloat16() for n, w in weights.items()} if dtype == torch.bfloat16 else weights
    cell.set_weight_bias({**given, **biases})
    parts = [
        rnn.PackedParameter(rnn.pack_weight_bias(w, b, dtype))
        for w, b in zip(weights.values(), biases.values(), strict=True)
    ]
    assert list(parts[0].state_dict())[0] == "param.qweight"
    for pair in zip(*([part, *again(part)] for part in parts), strict=True):
        (w_ih, s_ih, _, b_ih), (w_hh, s_hh, _, b_hh) = (part.param._packed_params for part in pair)
        found = torch.ops.torch_ao.gru_cell(x, h, w_ih, s_ih, w_hh, s_hh, b_ih, b_hh)
        assert torch.equal(found, cell(x, h))


def test_recurrent_weights_are_those_of_torch_ao():
    peer = theirs("quantized.dynamic.modules.rnn")
    for weight, dtype in ((per_channel(), torch.qint8), (WEIGHT, torch.float16)):
        weight_of, bias = peer.pack_weight_bias(weight, BIAS, dtype).unpack()
        same(rnn.pack_weight_bias(weight, BIAS, dtype)._weight_bias(), (weight_of, bias))
    *_, scale, _, _ = (None, *rnn.pack_weight_bias(per_tensor(), BIAS, torch.qint8)._packed_params)
    assert torch.equal(scale, torch.full((6,), 0.03))  # as the operators take it
    held, other = (kind(torch.ones(2)) for kind in (rnn.PackedParameter, peer.PackedParameter))
    assert list(held.state_dict()) == list(other.state_dict()) == ["param"]
    for part in (held, other):
        part.load_state_dict({"param": torch.arange(3)})
        assert torch.equal(part.param, torch.arange(3))
    model = theirs("quantized.dynamic").LSTM(8, 6)
    part = rnn.PackedParameter(torch.nn.ModuleList([LinearPackedParams(), LinearPackedParams()]))
    legacy.load_state_dict(part, model._all_weight_values[0].state_dict())
    for name, packed in zip(("ih", "hh"), part.param, strict=True):
        weight, bias = packed._weight_bias()
        want = model.get_weight()[f"weight_{name}_l0"]
        assert torch.equal(weight.int_repr(), want.int_repr())
        assert torch.equal(weight.dequantize(), want.dequantize())
        assert torch.equal(bias, model.get_bias()[f"bias_{name}_l0"])


def test_recurrent_refuses():
    with pytest.raises(ValueError, match="'qweight' must have zero point 0, got tensor"):
        rnn.pack_weight_bias(per_tensor(3), None, torch.qint8)
    with pytest.raises(NotImplementedError, match="'dtype' must be torch.qint8"):
        rnn.pack_weight_bias(WEIGHT, None, torch.float32)
    wide = QuantizedTensor(torch.full((6, 8), 32640, dtype=torch.int16), torch.ones(6))
    with pytest.raises(ValueError, match="'qweight' must have integers of at most 32639, got 32640"):
        rnn.pack_weight_bias(wide, None, torch.int16)
    for weight, dtype in ((wide, torch.qint8), (per_tensor(), torch.int16)):
        with pytest.raises(ValueError, match=r"'weight' must be torch.int.* \[N, K\], got torch"):
            rnn.pack_weight_bias(weight, None, dtype)
    with pytest.raises(ValueError, match="'weight' must be a QuantizedTensor, got torch.float32"):
        rnn.pack_weight_bias(WEIGHT, None, torch.int16)
    with pytest.raises(TypeError, match="PackedParameter: argument 'param' must be a module .*got list"):
        rnn.PackedParameter([1])
