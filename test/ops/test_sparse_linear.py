"""Sparse linear equals the dense one with zeros, bit by bit; every index is checked."""

import random
import warnings

import pytest
import torch
from op_cases import ENGINES, random_int

import torch_ao_ext
from torch_ao_ext.ops import from_block_sparse, to_block_sparse

op, dynamic_op = torch.ops.torch_ao.sparse_linear, torch.ops.torch_ao.sparse_linear_dynamic
linear, linear_dynamic = torch.ops.torch_ao.linear, torch.ops.torch_ao.linear_dynamic
BLOCKS = [(1, 4), (8, 1)]


def sparse_weight(n, k, block, density):
    """int8 [n, k] whose nonzeros fill whole blocks, cut off at the edges."""
    keep = torch.rand(-(-n // block[0]), -(-k // block[1])) < density
    keep = keep.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)[:n, :k]
    return torch.where(keep, random_int(torch.int8, n, k), torch.zeros(n, k, dtype=torch.int8))


@pytest.fixture
def engine():
    yield torch_ao_ext.set_engine
    torch_ao_ext.set_engine("")


@pytest.fixture(autouse=True)
def exact():
    torch_ao_ext.set_deterministic(True)
    yield
    torch_ao_ext.set_deterministic(False)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_random_problems_equal_dense(block):
    rng = random.Random(str(block))
    for _ in range(150):
        n, k = (
            rng.choice([1, 3, 8, 9, 33, 64, 65, 130]),
            rng.choice([1, 3, 4, 5, 31, 64, 100, 257, 1030, 2500]),
        )
        m = rng.choice([1, 2, 3, 4, 8, 9, 15, 16, 17, 32, 33, 48, 49, 63, 64, 65, 130])
        dense = sparse_weight(n, k, block, rng.choice([0, 0.03, 0.1, 0.3, 0.8]))
        blocks = to_block_sparse(dense, block)
        scale, bias = torch.rand(rng.choice([1, n])) * 0.02 + 1e-3, torch.randn(n)
        x = random_int(rng.choice([torch.uint8, torch.int8]), m, k)
        dtype = rng.choice([torch.uint8, torch.int8, torch.float32, torch.bfloat16])
        out = (0.3, 9) if dtype in (torch.uint8, torch.int8) else (1.0, 0)
        post = rng.choice(["", "relu", "silu"])
        zero_point = rng.choice([0, 7, 127])
        got = op(x, 0.1, zero_point, *blocks, scale, bias, *out, dtype, post)
        assert torch.equal(got, linear(x, 0.1, zero_point, dense, scale, None, bias, *out, dtype, post))
        y, rule = torch.randn(m, k), [rng.random() < 0.5 for _ in range(3)]
        got = dynamic_op(y, *blocks, scale, bias, *rule)
        assert torch.equal(got, linear_dynamic(y, dense, scale, None, bias, *rule))


@pytest.mark.parametrize("rows", [1, 2, 3, 40])
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_full_rows_between_empty_ones_equal_dense(block, rows):
    dense = torch.zeros(200, 1000, dtype=torch.int8)
    dense[64:72], dense[100, 252:260], dense[191, -4:] = random_int(torch.int8, 8, 1000), 3, 5
    if block == (8, 1):
        dense[96:104, 256] = dense[184:192, 996:] = 7
    x, scale = random_int(torch.uint8, rows, 1000), torch.rand(200) * 0.02 + 1e-3
    blocks = to_block_sparse(dense, block)
    got = op(x, 0.1, 3, *blocks, scale, None, 1.0, 0, torch.float32)
    assert torch.equal(got, linear(x, 0.1, 3, dense, scale, None, None, 1.0, 0, torch.float32))
    assert "dense" not in str(torch.ops.torch_ao._explain(blocks.weight))


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_extreme_values_do_not_saturate(block):
    dense = torch.full((16, 2048), -128, dtype=torch.int8)
    dense[:, 1024:] = 0
    x = torch.full((40, 2048), 255, dtype=torch.uint8)
    out = op(x, 1.0, 0, *to_block_sparse(dense, block), torch.ones(1), None, 1.0, 0, torch.float32)
    assert bool((out == -128.0 * 255 * 1024).all())


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_engine(block, name, engine):
    torch_ao_ext.set_deterministic(name != "xnnpack")
    dense = sparse_weight(40, 64, block, 0.2)
    x, scale, bias = torch.randn(20, 64), torch.rand(40) * 0.01 + 1e-3, torch.randn(40)
    engine("reference")
    expected = linear_dynamic(x, dense, scale, None, bias)
    engine(name)
    blocks = to_block_sparse(dense, block)
    try:
        got = dynamic_op(x, *blocks, scale, bias)
    except NotImplementedError as error:
        pytest.skip(str(error))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("density, sparse", [(0.05, True), (0.9, False)])
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_explain_says_how_it_runs(block, density, sparse):
    blocks = to_block_sparse(sparse_weight(128, 128, block, density), block)
    op(random_int(torch.uint8, 20, 128), 0.1, 3, *blocks, torch.ones(1), None, 1.0, 0)
    text = str(torch.ops.torch_ao._explain(blocks.weight))
    if sparse:
        assert f"native sparse {block[0]}x{block[1]}" in text
    else:
        assert "is above the break-even of" in text and "runs dense" in text


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_packs_once_and_sees_changes(block):
    dense = sparse_weight(16, 32, block, 0.2)
    blocks = to_block_sparse(dense, block)
    x, scale = torch.randn(4, 32), torch.ones(1) * 0.01
    first = dynamic_op(x, *blocks, scale)
    count = torch.ops.torch_ao._pack_count()
    assert torch.equal(dynamic_op(x, *blocks, scale), first)
    assert torch.ops.torch_ao._pack_count() == count
    blocks.weight.neg_()
    changed = dynamic_op(x, *blocks, scale)
    assert torch.equal(changed, linear_dynamic(x, from_block_sparse(*blocks), scale))


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0), (1, 1), (7, 3), (8, 4), (255, 324)])
def test_conversion_round_trip(size, block):
    dense = sparse_weight(*size, block, 0.4)
    blocks = to_block_sparse(dense, block)
    assert torch.equal(from_block_sparse(*blocks), dense)
    out = dynamic_op(torch.randn(3, size[1]), *blocks, torch.ones(1))
    assert out.shape == (3, size[0])


def test_conversion_is_that_of_torch_sparse_bsr():
    dense = sparse_weight(16, 32, (8, 1), 0.3)
    blocks = to_block_sparse(dense, (8, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls BSR a beta
        theirs = dense.to_sparse_bsr((8, 1))
    assert torch.equal(blocks.weight, theirs.values())
    assert torch.equal(blocks.row_offsets.long(), theirs.crow_indices().long())
    assert torch.equal(blocks.column_indices.long(), theirs.col_indices().long())


def valid():
    dense = torch.zeros(9, 10, dtype=torch.int8)
    dense[0, 0], dense[0, 9], dense[8, 5] = 1, 2, 3
    return list(to_block_sparse(dense, (1, 4)))


def put(part, position, value):
    def change(blocks):
        blocks[part][position] = value

    return change


@pytest.mark.parametrize(
    "change, error, text",
    [
        (put(1, 0, 1), ValueError, "'row_offsets' must begin with 0, got 1"),
        (put(1, 1, 9), ValueError, "'row_offsets' must never fall"),
        (put(1, 9, 4), ValueError, r"'row_offsets' must end with the number of blocks \(3\), got 4"),
        (put(1, 3, -1), ValueError, "'row_offsets' must never fall"),
        (put(2, 1, 3), IndexError, r"'column_indices' must be in \[0, 2\], got 3 at position 1"),
        (put(2, 2, -1), IndexError, r"must be in \[0, 2\], got -1 at position 2"),
        (put(2, 1, 0), ValueError, "'column_indices' must rise inside a row of blocks, got 0 before 0"),
        (put(0, (1, 0, 3), 5), ValueError, "'weight' must be 0 past the edge of weight_size, got 5"),
        (put(3, 0, 10), ValueError, "'row_offsets' must have size.0. equal to rows of blocks"),
        (put(3, 1, -1), ValueError, "'weight_size' must be two sizes >= 0"),
    ],
)
def test_every_index_is_checked(change, error, text):
    blocks = valid()
    change(blocks)
    x = random_int(torch.uint8, 2, 10)
    with pytest.raises(error, match=text):
        op(x, 0.1, 3, *blocks, torch.ones(1), None, 1.0, 0)
    with pytest.raises(error, match=text):
        op(x[:0], 0.1, 3, *blocks, torch.ones(1), None, 1.0, 0)


def test_shapes_and_dtypes_are_checked():
    weight, offsets, columns, size = valid()
    x, one = random_int(torch.uint8, 2, 10), torch.ones(1)

    def call(*blocks):
        return op(x, 0.1, 3, *blocks, one, None, 1.0, 0)

    with pytest.raises(ValueError, match=r"blocks of sizes \[1, 4\] or \[8, 1\], got \[4, 1\]"):
        call(weight.transpose(1, 2), offsets, columns, size)
    with pytest.raises(TypeError, match="'row_offsets' must have dtype int32, got int64"):
        call(weight, offsets.long(), columns, size)
    with pytest.raises(TypeError, match="'column_indices' must have dtype int16 or int32, got uint8"):
        call(weight, offsets, columns.to(torch.uint8), size)
    with pytest.raises(ValueError, match="'weight_size' must be"):
        call(weight, offsets, columns, [9])
    with pytest.raises(ValueError, match="argument 'block' must be"):
        to_block_sparse(torch.zeros(2, 2, dtype=torch.int8), (2, 2))
    with pytest.raises(ValueError, match="argument 'dense' must be int8"):
        to_block_sparse(torch.zeros(2, 2))
