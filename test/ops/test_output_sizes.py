"""Results that no address reaches: refused by their sizes, before anything is allocated or read.

Inputs are repetitions of one element, or have no elements."""

import pytest
import torch

import torch_ao_ext  # noqa: F401  (registers the operators)

ops = torch.ops.torch_ao
U8, S8, S16, S32, S64, F32 = torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float32


def one(dtype, *sizes):
    return torch.ones(1, dtype=dtype).expand(sizes)


def norm(op, *sizes):
    shape = [[sizes[-1]]] if op == "layer_norm" else [1] if op == "group_norm" else []
    mean = [torch.zeros(sizes[1]), torch.ones(sizes[1])] if op == "batch_norm" else []
    return getattr(ops, op)(one(U8, *sizes), 0.1, 0, *mean, None, None, 1.0, 0, F32, *shape)


def sum_and_norm():
    x = one(U8, 2**61, 2)
    return ops.add_layer_norm_sum(x, 0.1, 0, x, 0.1, 0, None, None, 1.0, 0, U8, [2], sum_dtype=F32)


def recurrent(input, batch_sizes=None, output=1, hidden=1):
    projected = [torch.ones(output, hidden, dtype=S8)] * (output != hidden)
    weights = [torch.ones(4 * hidden, 1, dtype=S8), torch.ones(4 * hidden, output, dtype=S8), *projected]
    return ops.lstm(input, batch_sizes, None, None, weights, [torch.ones(1)] * len(weights), [])


def attention(op, dtype, *sizes):
    """Rows of one value; results have 16."""
    query, key, value = (one(dtype, *sizes[:-1], *last) for last in ((sizes[-1], 1), (1, 1), (1, 16)))
    qparams = (0.1, 0) if op == "attention" else ()
    return getattr(ops, op)(query, *qparams, key, *qparams, value, *qparams)


BYTES = "fewer than 2\\^63 bytes"
ONE = torch.ones(1)
# name: argument, rule, call
CALLS = {
    "linear_weight_only": (
        "input", BYTES, lambda: ops.linear_weight_only(one(F32, 2**59, 4), one(S8, 8, 4), ONE),
    ),
    "sparse_linear": (
        "input", BYTES,
        lambda: ops.sparse_linear(
            one(U8, 2**60, 4), 0.1, 0, torch.ones(2, 1, 4, dtype=S8), torch.tensor([0, 1, 2], dtype=S32),
            torch.zeros(2, dtype=S16), [2, 4], ONE, None, 1.0, 0, F32),
    ),
    "conv1d": (
        "input", BYTES,
        lambda: ops.conv1d(one(U8, 1, 1, 2**45), 0.1, 0, one(S8, 2**18, 1, 1), ONE, None, None, 1.0, 0),
    ),
    "matmul": ("input", BYTES, lambda: ops.matmul(one(U8, 2**40, 0), 0.1, 0, one(U8, 0, 2**40), 0.1, 0)),
    "attention": ("query", BYTES, lambda: attention("attention", U8, 2**40, 2**20)),
    "scaled_dot_product_attention": (
        "query", BYTES, lambda: attention("scaled_dot_product_attention", F32, 2**37, 2**22),
    ),
    "scaled_dot_product_attention of heads": (
        "query", BYTES, lambda: attention("scaled_dot_product_attention", F32, 2**18, 2**19, 2**22),
    ),
    "add": ("input", BYTES, lambda: ops.add(one(U8, 2**40, 1), 0.1, 0, one(U8, 1, 2**40), 0.1, 0)),
    "requantize": ("input", BYTES, lambda: ops.requantize(one(U8, 2**61), 0.1, 0, output_dtype=F32)),
    "cat": ("tensors", BYTES, lambda: ops.cat([one(U8, 2**61)], [0.1], [0], 0, 1.0, 0, F32)),
    "cat of positions": (
        "tensors", "fewer than 2\\^63 positions along dim",
        lambda: ops.cat([one(U8, 2**62)] * 2, [0.1] * 2, [0] * 2),
    ),
    "max_pool1d": ("input", BYTES, lambda: ops.max_pool1d(one(U8, 2**62, 1, 1), [2], [1], [1])),
    "avg_pool1d": ("input", BYTES, lambda: ops.avg_pool1d(one(U8, 2**61, 1, 1), 0.1, 0, 1.0, 0, F32, [1])),
    "adaptive_avg_pool1d": (
        "input", "spatial sizes below 2\\^31",
        lambda: ops.adaptive_avg_pool1d(one(U8, 1, 1, 2**31), 0.1, 0, 0.1, 0, None, [2**31 - 1]),
    ),
    "adaptive_avg_pool2d": (
        "input", "at most 2\\^23 positions in a window",
        lambda: ops.adaptive_avg_pool2d(one(U8, 1, 1, 2**12, 2**12), 0.1, 0, 0.1, 0, None, [1, 1]),
    ),
    "interpolate": (
        "input", BYTES,
        lambda: ops.interpolate(one(U8, 2**20, 1, 1, 1), 0.1, 0, 0.1, 0, None, [2**22, 2**22]),
    ),
    "softmax": ("input", BYTES, lambda: ops.softmax(one(U8, 2**61, 2), 1, 0.1, output_dtype=F32)),
    "layer_norm": ("input", BYTES, lambda: norm("layer_norm", 2**61, 2)),
    "add_layer_norm_sum": ("input", BYTES, sum_and_norm),
    "group_norm": ("input", BYTES, lambda: norm("group_norm", 2**60, 2, 2)),
    "instance_norm": ("input", BYTES, lambda: norm("instance_norm", 2**60, 2, 2)),
    "batch_norm": ("input", BYTES, lambda: norm("batch_norm", 2**60, 2, 2)),
    "choose_qparams_per_token": (
        "input", BYTES, lambda: ops.choose_qparams_per_token(one(F32, 2**60, 1), 0, 255),
    ),
    "dequantize_per_tensor": ("input", BYTES, lambda: ops.dequantize_per_tensor(one(U8, 2**61), 0.1, 0)),
    "dequantize_per_token": (
        "input", BYTES, lambda: ops.dequantize_per_token(one(U8, 1, 2**61), one(F32, 1, 1), one(S32, 1, 1)),
    ),
    # A table without rows takes no memory, however long its rows are.
    "embedding": ("indices", BYTES, lambda: ops.embedding(one(U8, 0, 2**59), one(S64, 8))),
    "embedding_bag": (
        "offsets", BYTES,
        lambda: ops.embedding_bag(one(U8, 0, 2**59), one(S64, 0), torch.zeros(8, dtype=S64)),
    ),
    "embedding_prepack": ("weight", BYTES, lambda: ops.embedding_prepack(one(F32, 2**60, 1))),
    "lstm": ("input", BYTES, lambda: recurrent(one(F32, 2**30, 2**31, 1))),
    "lstm's state": ("input", BYTES, lambda: recurrent(one(F32, 0, 2**60, 1), output=2, hidden=1)),
    "lstm's cell": ("input", BYTES, lambda: recurrent(one(F32, 0, 2**60, 1), output=1, hidden=2)),
    # In 64 bits the sum of the counts is 2^62.
    "lstm of a packed sequence": (
        "batch_sizes", "sum to input.size\\(0\\) \\(4611686018427387904\\), got 4611686018427387904 [+]",
        lambda: recurrent(one(F32, 2**62, 1), torch.full((5,), 2**62)),
    ),
    "sparse_linear's blocks": (
        "weight", "fewer than 2\\^31 blocks",
        lambda: ops.sparse_linear(
            one(U8, 1, 4), 0.1, 0, one(S8, 2**31, 1, 4), torch.tensor([0, 1], dtype=S32), one(S16, 2**31),
            [1, 4], ONE, None, 1.0, 0, F32),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_sizes_beyond_any_memory(name):
    argument, rule, call = CALLS[name]
    op = name.split("'")[0].split(" ")[0]
    with pytest.raises(ValueError, match=f"^torch_ao::{op}: argument '{argument}' must .*{rule}"):
        call()


# No elements, but strides and numbers of matrices that 64 bits do not hold; UBSan sees them multiplied.
EMPTY = {
    "interpolate": lambda: ops.interpolate(one(U8, 0, 2**20, 1, 1), 0.1, 0, 0.1, 0, None, [2**22, 2**22]),
    "conv2d": lambda: ops.conv2d(
        one(U8, 0, 1, 1, 1), 0.1, 0, one(S8, 4, 1, 1, 1), ONE, None, None, 1.0, 0, padding=[2**31 - 1] * 2
    ),
    "scaled_dot_product_attention": lambda: ops.scaled_dot_product_attention(
        *[torch.empty(2**31, 2**31, 2, 0, 4)] * 3
    ),
}


@pytest.mark.parametrize("name", EMPTY)
def test_empty_results_of_large_sizes(name):
    assert EMPTY[name]().numel() == 0
