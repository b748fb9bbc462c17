"""Embedding tables of 8-, 4- or 2-bit rows: lookups, bags, float to rows and back.

A row is torch's fused row-wise format in uint8: D codes of 8, 4 or 2 bits (the first
element in the lowest bits), then scale and bias, float32 at 8 bits and float16 below.
"""

import torch

from torch_ao_ext.ops import _fake

__all__ = ["embedding", "embedding_bag", "embedding_prepack", "embedding_unpack"]

Tensor = torch.Tensor

INDICES = (torch.int32, torch.int64)


def embedding(
    weight: Tensor,
    indices: Tensor,
    bits: int = 8,
    embedding_dim: int | None = None,
    mapping: Tensor | None = None,
    output_dtype: torch.dtype | None = None,
) -> Tensor:
    """Computes y[i] = scale[r] * code[r] + bias[r] with r = indices[i].

    Args:
        weight: uint8 `[N, bytes]`, fused rows; from `embedding_prepack`, or torch's own.
        indices: `[*]`, int32 or int64, each in `[0, N)`.
        bits: 8, 4 or 2.
        embedding_dim: D, when it does not fill the last byte; default all the row holds.
        mapping: int32 `[M]`; then r = mapping[indices[i]], indices are in `[0, M)` and
            -1 is a pruned row, which reads as zeros.
        output_dtype: float32 (default) or bfloat16.

    Returns:
        `[*, D]`, contiguous.

    Raises:
        TypeError: wrong dtype.
        ValueError: bad sizes or bits.
        IndexError: an index or an entry of the mapping is out of range; it is named.

    Source: torch.nn.functional.embedding; torch.ops.quantized.embedding_byte.

    Example:
        >>> import torch, torch_ao_ext
        >>> table = torch_ao_ext.ops.embedding_prepack(torch.tensor([[0.0, 255.0], [1.0, 256.0]]))
        >>> torch_ao_ext.ops.embedding(table, torch.tensor([1]))
        tensor([[  1., 256.]])
    """
    return torch.ops.torch_ao.embedding(weight, indices, bits, embedding_dim, mapping, output_dtype)


def embedding_bag(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor | None = None,
    bits: int = 8,
    embedding_dim: int | None = None,
    mode: str = "sum",
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
    mapping: Tensor | None = None,
    output_dtype: torch.dtype | None = None,
) -> Tensor:
    """Computes y[b] = sum, mean or max over bag b of row(indices[i]).

    As torch.nn.functional.embedding_bag. A bag of more than 512 indices is summed in
    runs of 512, so the result does not depend on the number of threads.

    Args:
        weight: uint8 `[N, bytes]`, see `embedding`.
        indices: `[B, L]`, B bags of L; or `[n]`, cut by offsets. int32 or int64.
        offsets: int32 or int64 `[B]` (`[B + 1]` with include_last_offset): where bags
            begin; from 0 on, ascending. None when indices are `[B, L]`.
        bits: 8, 4 or 2.
        embedding_dim: D, when it does not fill the last byte.
        mode: 'sum', 'mean' or 'max'.
        per_sample_weights: float32 or bfloat16 with indices' sizes; only with 'sum'.
        include_last_offset: the last offset is the end of the last bag.
        padding_idx: indices equal to it are not counted; negative: from the end.
        mapping: int32 `[M]`, see `embedding`; a pruned row is one of zeros.
        output_dtype: float32 (default) or bfloat16.

    Returns:
        `[B, D]`; zeros for an empty bag.

    Raises:
        TypeError: wrong dtype.
        ValueError: bad sizes, bits, mode or combination.
        IndexError: an index, an offset or an entry of the mapping is out of range.

    Source: torch.nn.functional.embedding_bag;
    torch.ops.quantized.embedding_bag_byte_rowwise_offsets.

    Example:
        >>> import torch, torch_ao_ext
        >>> table = torch_ao_ext.ops.embedding_prepack(torch.tensor([[0.0, 255.0], [1.0, 256.0]]))
        >>> torch_ao_ext.ops.embedding_bag(table, torch.tensor([0, 1, 1]), torch.tensor([0, 2]))
        tensor([[  1., 511.],
                [  1., 256.]])
    """
    return torch.ops.torch_ao.embedding_bag(
        weight,
        indices,
        offsets,
        bits,
        embedding_dim,
        mode,
        per_sample_weights,
        include_last_offset,
        padding_idx,
        mapping,
        output_dtype,
    )


def embedding_prepack(weight: Tensor, bits: int = 8) -> Tensor:
    """Quantizes float rows: bias = min, scale = (max - min) / (2^bits - 1), fused.

    Byte for byte what torch.ops.quantized.embedding_bag_{byte,4bit,2bit}_prepack give.

    Args:
        weight: `[N, D]`, float32 or bfloat16, finite; below 8 bits each row's minimum and
            scale must be in the range of float16.
        bits: 8, 4 or 2.

    Returns:
        uint8 `[N, D + 8]` at 8 bits, `[N, ceil(D * bits / 8) + 4]` below.

    Raises:
        TypeError: wrong dtype.
        ValueError: bad sizes or bits, values that are not finite (the row is named).

    Example:
        >>> import torch, torch_ao_ext
        >>> torch_ao_ext.ops.embedding_prepack(torch.tensor([[0.0, 15.0]]), 4).tolist()
        [[240, 0, 60, 0, 0]]
    """
    return torch.ops.torch_ao.embedding_prepack(weight, bits)


def embedding_unpack(
    weight: Tensor,
    bits: int = 8,
    embedding_dim: int | None = None,
    output_dtype: torch.dtype | None = None,
) -> Tensor:
    """Computes x = scale * code + bias for every row.

    Args:
        weight: uint8 `[N, bytes]`, see `embedding`.
        bits: 8, 4 or 2.
        embedding_dim: D, when it does not fill the last byte.
        output_dtype: float32 (default) or bfloat16.

    Returns:
        `[N, D]`.

    Raises:
        TypeError: wrong dtype.
        ValueError: bad sizes or bits.

    Example:
        >>> import torch, torch_ao_ext
        >>> table = torch_ao_ext.ops.embedding_prepack(torch.tensor([[0.0, 15.0]]), 4)
        >>> torch_ao_ext.ops.embedding_unpack(table, 4)
        tensor([[ 0., 15.]])
    """
    return torch.ops.torch_ao.embedding_unpack(weight, bits, embedding_dim, output_dtype)


def _check_bits(op: str, bits: int) -> int:
    _fake.check_value(bits in (8, 4, 2), op, "bits", "be 8, 4 or 2", bits)
    return bits


def _tail(bits: int) -> int:
    return 8 if bits == 8 else 4


def _check_table(op: str, weight: Tensor, bits: int, embedding_dim: int | None):
    """The embedding dimension of a table."""
    _fake.check_tensor(op, "weight", weight, (torch.uint8,))
    _fake.check_rank(op, "weight", weight, 2)
    tail, in_byte = _tail(_check_bits(op, bits)), 8 // bits
    stored = weight.shape[1]
    rule = f"have size(1) of at least {tail} bytes (scale and bias of a row)"
    _fake.check_value(stored >= tail, op, "weight", rule, stored)
    capacity = (stored - tail) * in_byte
    if embedding_dim is None:
        return capacity
    least = torch.sym_max(0, capacity - in_byte + 1)
    rule = f"fill the {stored - tail} bytes of codes in a row of weight ({least} to {capacity})"
    _fake.check_value(embedding_dim >= least, op, "embedding_dim", rule, embedding_dim)
    _fake.check_value(embedding_dim <= capacity, op, "embedding_dim", rule, embedding_dim)
    return embedding_dim


def _check_indices(op: str, indices: Tensor, mapping: Tensor | None) -> None:
    _fake.check_tensor(op, "indices", indices, INDICES)
    if mapping is not None:
        _fake.check_tensor(op, "mapping", mapping, (torch.int32,))
        _fake.check_rank(op, "mapping", mapping, 1)


def _check_output(op: str, output_dtype: torch.dtype | None) -> torch.dtype:
    dtype = torch.float32 if output_dtype is None else output_dtype
    _fake.check_dtype(op, "output_dtype", dtype, _fake.FLOAT)
    return dtype


@torch.library.register_fake("torch_ao::embedding")
def _(weight, indices, bits=8, embedding_dim=None, mapping=None, output_dtype=None):
    op = "embedding"
    dim = _check_table(op, weight, bits, embedding_dim)
    _check_indices(op, indices, mapping)
    return indices.new_empty((*indices.shape, dim), dtype=_check_output(op, output_dtype))


def _count_bags(op: str, indices: Tensor, offsets: Tensor | None, include_last_offset: bool):
    if indices.dim() == 2:
        rule = "be None when indices have 2 dimensions"
        _fake.check_value(offsets is None, op, "offsets", rule, "a tensor")
        return indices.shape[0]
    rule = "have 1 or 2 dimensions"
    _fake.check_value(indices.dim() == 1, op, "indices", rule, _fake.sizes(indices))
    rule = "be given when indices have 1 dimension"
    _fake.check_value(offsets is not None, op, "offsets", rule, "None")
    _fake.check_tensor(op, "offsets", offsets, INDICES)
    _fake.check_rank(op, "offsets", offsets, 1)
    count = offsets.shape[0]
    if not include_last_offset:
        return count
    rule = "have at least 1 element when include_last_offset is True"
    _fake.check_value(count > 0, op, "offsets", rule, "sizes [0]")
    return count - 1


@torch.library.register_fake("torch_ao::embedding_bag")
def _(
    weight,
    indices,
    offsets=None,
    bits=8,
    embedding_dim=None,
    mode="sum",
    per_sample_weights=None,
    include_last_offset=False,
    padding_idx=None,
    mapping=None,
    output_dtype=None,
):
    op = "embedding_bag"
    dim = _check_table(op, weight, bits, embedding_dim)
    _check_indices(op, indices, mapping)
    rule = "be 'sum', 'mean' or 'max'"
    _fake.check_value(mode in ("sum", "mean", "max"), op, "mode", rule, f"'{mode}'")
    bags = _count_bags(op, indices, offsets, include_last_offset)
    if per_sample_weights is not None:
        name = "per_sample_weights"
        _fake.check_tensor(op, name, per_sample_weights, _fake.FLOAT)
        _fake.check_value(mode == "sum", op, name, "be None unless mode is 'sum'", "a tensor")
        _fake.check_same_sizes(op, name, per_sample_weights, indices.shape, "indices")
    return indices.new_empty((bags, dim), dtype=_check_output(op, output_dtype))


@torch.library.register_fake("torch_ao::embedding_prepack")
def _(weight, bits=8):
    op = "embedding_prepack"
    _fake.check_tensor(op, "weight", weight, _fake.FLOAT)
    _fake.check_rank(op, "weight", weight, 2)
    in_byte = 8 // _check_bits(op, bits)
    stored = (weight.shape[1] + in_byte - 1) // in_byte + _tail(bits)
    return weight.new_empty((weight.shape[0], stored), dtype=torch.uint8)


@torch.library.register_fake("torch_ao::embedding_unpack")
def _(weight, bits=8, embedding_dim=None, output_dtype=None):
    op = "embedding_unpack"
    dim = _check_table(op, weight, bits, embedding_dim)
    return weight.new_empty((weight.shape[0], dim), dtype=_check_output(op, output_dtype))


@torch.library.register_fake("torch_ao::_prepack_embedding")
def _(weight):
    op = "_prepack_embedding"
    _fake.check_tensor(op, "weight", weight, (torch.uint8,))
    _fake.check_rank(op, "weight", weight, 2)
