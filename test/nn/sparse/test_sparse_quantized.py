"""Sparse int8 layers: equal to dense int8, saved and loaded, made from pruned models."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import torch_ao_ext
from torch_ao_ext import pruning
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.sparse import quantized as sparse
from torch_ao_ext.quantization import quantize_dynamic

BLOCKS = [(1, 4), (8, 1)]


def pruned(block, level=0.9, shape=(64, 48), bias=True):
    torch.manual_seed(1)
    m = nn.Sequential(nn.Linear(*shape, bias=bias), nn.ReLU(), nn.Linear(shape[1], 8))
    s = pruning.WeightNormSparsifier(level, block)
    s.prepare(m, [{"tensor_fqn": "0.weight"}])
    s.step()
    s.squash_mask(params_to_keep=("sparse_block_shape",))
    return m.eval()


@pytest.fixture(autouse=True)
def exact():
    torch_ao_ext.set_deterministic(True)
    yield
    torch_ao_ext.set_deterministic(False)


@pytest.mark.parametrize("shape", [(64, 48), (255, 324), (7, 9)])
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_equal_to_dense_int8(block, shape):
    m = pruned(block, shape=shape)
    ours, dense = sparse.to_sparse_int8(m), quantize_dynamic(m)
    assert type(ours[0]) is sparse.dynamic.Linear and ours[0].block_shape == block
    assert type(ours[2]) is nn.Linear and type(m[0]) is nn.Linear
    for rows in (1, 5, 40):
        x = torch.randn(rows, shape[0])
        assert torch.equal(ours[0](x), dense[0](x))
    assert torch.equal(ours[0].weight().int_repr(), dense[0].qweight)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_state_dict_round_trip(block, bias):
    layer = sparse.to_sparse_int8(pruned(block, bias=bias))[0]
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = sparse.dynamic.Linear(64, 48, *BLOCKS[0])
    other.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(3, 64)
    for copied in (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(copied(x), layer(x)) and copied.block_shape == block


def test_a_damaged_index_is_refused_on_use():
    layer = sparse.to_sparse_int8(pruned((1, 4)))[0]
    state = layer.state_dict()
    state["column_indices"] = state["column_indices"] + 1000
    layer.load_state_dict(state)
    with pytest.raises(IndexError, match="'column_indices' must be in"):
        layer(torch.randn(2, 64))
    state["row_offsets"] = state["row_offsets"].long()
    with pytest.raises(RuntimeError, match="row_offsets must have dtype torch.int32"):
        layer.load_state_dict(state)


def test_file_is_a_fifth_of_dense():
    m = nn.Sequential(nn.Linear(1024, 1024))
    s = pruning.WeightNormSparsifier(0.9, (1, 4))
    s.prepare(m, None)
    s.step()
    s.squash_mask()
    sizes = []
    for model in (sparse.to_sparse_int8(m), quantize_dynamic(m)):
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        sizes.append(file.tell())
    assert sizes[0] <= 0.2 * sizes[1]


def test_dense_layers_stay_and_shared_layers_stay_shared():
    shared = pruned((1, 4), shape=(16, 16))[0]
    m = nn.Sequential(shared, nn.Sequential(shared), nn.Linear(16, 16))
    ours = sparse.to_sparse_int8(m)
    assert ours[0] is ours[1][0] and type(ours[0]) is sparse.dynamic.Linear and type(ours[2]) is nn.Linear
    assert sparse.to_sparse_int8(m, inplace=True) is m and type(m[0]) is sparse.dynamic.Linear
    with pytest.raises(ValueError, match="'min_sparsity' must be in 0..1, got 2"):
        sparse.to_sparse_int8(m, min_sparsity=2)


def test_convert_of_a_sparsifier():
    m = nn.Sequential(nn.Linear(32, 32))
    s = pruning.WeightNormSparsifier(0.8, (1, 4))
    s.prepare(m, None)
    s.step()
    converted = s.convert(m, pruning.get_dynamic_sparse_quantized_mapping())
    s.squash_mask()
    x = torch.randn(4, 32)
    assert torch.equal(converted(x), quantize_dynamic(m)(x))
    assert pruning.get_static_sparse_quantized_mapping() == {nn.Linear: sparse.Linear}


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_static_layer(block):
    m = pruned(block)
    x = torch.randn(20, 64)
    observer = torch_ao_ext.quantization.MinMaxObserver(torch.uint8)
    observer(m[0](x))
    m[0].activation_post_process = observer
    layer = sparse.Linear.from_float(m[0])
    q = torch.ops.torch_ao.quantize_per_tensor(x, 0.03, 120, 0, 255, torch.uint8)
    y = layer(QuantizedTensor(q, torch.tensor([0.03]), torch.tensor([120], dtype=torch.int32)))
    scale, zero_point = y.q_scale(), y.q_zero_point()
    w = layer.weight()
    expected = torch.ops.torch_ao.linear(
        q, 0.03, 120, w.int_repr(), layer.weight_scale, None, layer.bias(), scale, zero_point
    )
    assert torch.equal(y.int_repr(), expected)
    other = sparse.Linear(64, 48)
    other.load_state_dict(layer.state_dict())
    assert other.block_shape == block and float(other.scale) == scale
    del m[0].activation_post_process
    with pytest.raises(ValueError, match="must have activation_post_process"):
        sparse.Linear.from_float(m[0])


def test_pattern_context():
    assert sparse.LinearBlockSparsePattern.block_size() == (1, 4)
    layer = nn.Linear(16, 16)
    with sparse.LinearBlockSparsePattern(8, 1):
        assert sparse.dynamic.Linear.from_float(layer).block_shape == (8, 1)
        with sparse.LinearBlockSparsePattern(1, 4):
            assert sparse.LinearBlockSparsePattern.block_size() == (1, 4)
        assert sparse.LinearBlockSparsePattern.block_size() == (8, 1)
    assert sparse.LinearBlockSparsePattern.block_size() == (1, 4)
    with pytest.raises(ValueError, match=r"must be \(1, 4\) or \(8, 1\), got \(2, 2\)"):
        sparse.LinearBlockSparsePattern(2, 2)


def test_half_keeps_scales():
    layer = sparse.to_sparse_int8(pruned((1, 4)))[0].bfloat16()
    assert layer.weight_scale.dtype == torch.float32
    assert layer(torch.randn(2, 64).bfloat16()).dtype == torch.bfloat16
    layer.prepack(torch.bfloat16)
    assert "blocks=1x4" in repr(layer)
