"""Computes y = x W^T + b with an int8 W given by its nonzero blocks."""

from typing import NamedTuple

import torch

from torch_ao_ext.ops import _fake
from torch_ao_ext.ops._post_ops import check_other, check_post_ops, refuse_post_op_tensors

__all__ = [
    "BlockSparse",
    "from_block_sparse",
    "sparse_linear",
    "sparse_linear_dynamic",
    "to_block_sparse",
]

Tensor = torch.Tensor

BLOCKS = ((1, 4), (8, 1))


class BlockSparse(NamedTuple):
    """An int8 weight in block compressed rows, in the order that the ops take it."""

    weight: Tensor
    row_offsets: Tensor
    column_indices: Tensor
    weight_size: list[int]


def to_block_sparse(dense: Tensor, block: tuple[int, int] = (1, 4)) -> BlockSparse:
    """Keeps the blocks of `dense` that hold a nonzero.

    Args:
        dense: `[N, K]`, int8, any size.
        block: (1, 4), a run of four inputs, or (8, 1), one input of eight outputs.

    Returns:
        Values `[blocks, 1, 4]` or `[blocks, 8, 1]`, zero past the edge; int32 offsets
        of the rows of blocks; column indices in blocks, int16 where they fit.

    Example:
        >>> import torch, torch_ao_ext
        >>> w = torch.zeros(2, 8, dtype=torch.int8)
        >>> w[1, 5] = 7
        >>> torch_ao_ext.ops.to_block_sparse(w).weight.tolist()
        [[[0, 7, 0, 0]]]
    """
    if dense.dtype != torch.int8 or dense.dim() != 2:
        raise ValueError(
            f"to_block_sparse: argument 'dense' must be int8 [N, K], got {dense.dtype} {list(dense.shape)}"
        )
    if tuple(block) not in BLOCKS:
        raise ValueError(f"to_block_sparse: argument 'block' must be (1, 4) or (8, 1), got {block}")
    (rows, columns), (height, width) = dense.shape, block
    padded = torch.nn.functional.pad(dense, (0, -columns % width, 0, -rows % height))
    block_rows, block_columns = padded.shape[0] // height, padded.shape[1] // width
    blocks = padded.view(block_rows, height, block_columns, width).transpose(1, 2)
    used = (blocks != 0).any(3).any(2)
    offsets = torch.zeros(block_rows + 1, dtype=torch.int32)
    offsets[1:] = used.sum(1).cumsum(0)
    dtype = index_dtype(columns, width)
    return BlockSparse(
        blocks[used].contiguous(), offsets, used.nonzero()[:, 1].to(dtype), [rows, columns]
    )


def index_dtype(columns: int, width: int) -> torch.dtype:
    """Of the column indices of a weight with so many inputs, in blocks of `width` of them."""
    return torch.int16 if -(-columns // width) <= 32768 else torch.int32


def from_block_sparse(
    weight: Tensor, row_offsets: Tensor, column_indices: Tensor, weight_size: list[int]
) -> Tensor:
    """The dense int8 `[N, K]` of `to_block_sparse`."""
    height, width = weight.shape[1:]
    block_rows, block_columns = -(-weight_size[0] // height), -(-weight_size[1] // width)
    dense = torch.zeros(block_rows, block_columns, height, width, dtype=torch.int8)
    row = torch.repeat_interleave(torch.arange(block_rows), row_offsets.diff().long())
    dense[row, column_indices.long()] = weight
    full = dense.transpose(1, 2).reshape(block_rows * height, block_columns * width)
    return full[: weight_size[0], : weight_size[1]].contiguous()


def sparse_linear(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    weight: Tensor,
    row_offsets: Tensor,
    column_indices: Tensor,
    weight_size: list[int],
    weight_scale: Tensor,
    bias: Tensor | None,
    output_scale: float,
    output_zero_point: int,
    output_dtype: torch.dtype | None = None,
    post_ops: str = "",
    post_op_args: list[float] | None = None,
    other: Tensor | None = None,
    other_scale: float = 1.0,
    other_zero_point: int = 0,
) -> Tensor:
    """Computes y = post_ops(x W^T + b) on quantized values, as `linear` does with the zeros in place.

    Runs on the blocks alone, or densely where that is faster; `explain` tells.

    Args:
        input: `[*, K]`, uint8 or int8.
        input_scale: real units per step.
        input_zero_point: in the input's range.
        weight: `[blocks, 1, 4]` or `[blocks, 8, 1]`, int8, see `to_block_sparse`.
        row_offsets: `[rows of blocks + 1]`, int32.
        column_indices: `[blocks]`, int16 or int32, rising inside a row.
        weight_size: `[N, K]`.
        weight_scale: `[N]` or `[1]`, float32.
        bias: `[N]`, float32, or None.
        output_scale: 1.0 for a float output.
        output_zero_point: 0 for a float output.
        output_dtype: uint8, int8, float32 or bfloat16; default the input's.
        post_ops: as in `linear`.
        post_op_args: as in `linear`.
        other: operand of `add`, the output's shape.
        other_scale: of a quantized `other`.
        other_zero_point: of a quantized `other`.

    Returns:
        `[*, N]`, contiguous; every value is that of `linear`.

    Raises:
        TypeError: a tensor of the wrong dtype or layout.
        ValueError: sizes, offsets or qparams that do not fit.
        IndexError: a column index outside the weight.
    """
    return torch.ops.torch_ao.sparse_linear(
        input,
        input_scale,
        input_zero_point,
        weight,
        row_offsets,
        column_indices,
        weight_size,
        weight_scale,
        bias,
        output_scale,
        output_zero_point,
        output_dtype,
        post_ops,
        post_op_args or [],
        other,
        other_scale,
        other_zero_point,
    )


def sparse_linear_dynamic(
    input: Tensor,
    weight: Tensor,
    row_offsets: Tensor,
    column_indices: Tensor,
    weight_size: list[int],
    weight_scale: Tensor,
    bias: Tensor | None = None,
    per_row: bool = True,
    symmetric: bool = False,
    reduce_range: bool = False,
    output_dtype: torch.dtype | None = None,
    post_ops: str = "",
    post_op_args: list[float] | None = None,
    other: Tensor | None = None,
) -> Tensor:
    """Computes y = post_ops(x W^T + b) with x quantized at run time; as `linear_dynamic` otherwise.

    Example:
        >>> import torch, torch_ao_ext
        >>> w = torch.zeros(2, 8, dtype=torch.int8)
        >>> w[1, 5] = 100
        >>> blocks = torch_ao_ext.ops.to_block_sparse(w)
        >>> torch_ao_ext.ops.sparse_linear_dynamic(torch.ones(1, 8), *blocks, torch.tensor([0.01]))
        tensor([[0., 1.]])
    """
    return torch.ops.torch_ao.sparse_linear_dynamic(
        input,
        weight,
        row_offsets,
        column_indices,
        weight_size,
        weight_scale,
        bias,
        per_row,
        symmetric,
        reduce_range,
        output_dtype,
        post_ops,
        post_op_args or [],
        other,
    )


def _shape(op, input, weight, row_offsets, column_indices, weight_size, weight_scale, bias, dtype):
    """The checks that need no values, then an empty output."""
    if len(weight_size) != 2:
        _fake.refuse(op, "weight_size", "be [out_features, in_features]", list(weight_size))
    n, k = weight_size
    _fake.check_tensor(op, "weight", weight, (torch.int8,))
    _fake.check_value(
        0 <= n < 2**31 and 0 <= k < 2**31,
        op,
        "weight_size",
        "be two sizes >= 0 below 2^31",
        f"[{n}, {k}]",
    )
    _fake.check_rank(op, "weight", weight, 3)
    height, width = weight.shape[1:]
    if (height, width) not in BLOCKS:
        _fake.refuse(op, "weight", "have blocks of sizes [1, 4] or [8, 1]", f"[{height}, {width}]")
    _fake.check_tensor(op, "row_offsets", row_offsets, (torch.int32,))
    _fake.check_rank(op, "row_offsets", row_offsets, 1)
    _fake.check_size(op, "row_offsets", row_offsets, 0, -(-n // height) + 1, "rows of blocks + 1")
    _fake.check_tensor(op, "column_indices", column_indices, (torch.int16, torch.int32))
    _fake.check_rank(op, "column_indices", column_indices, 1)
    _fake.check_size(op, "column_indices", column_indices, 0, weight.shape[0], "weight.size(0)")
    _fake.check_columns(op, n, "weight_size[0]", weight_scale, None, bias)
    _fake.check_min_rank(op, "input", input, 1)
    _fake.check_size(op, "input", input, -1, k, "weight_size[1]")
    return input.new_empty([*input.shape[:-1], n], dtype=dtype)


@torch.library.register_fake("torch_ao::sparse_linear")
def _(
    input,
    input_scale,
    input_zero_point,
    weight,
    row_offsets,
    column_indices,
    weight_size,
    weight_scale,
    bias,
    output_scale,
    output_zero_point,
    output_dtype=None,
    post_ops="",
    post_op_args=(),
    other=None,
    other_scale=1.0,
    other_zero_point=0,
):
    op = "sparse_linear"
    _fake.check_tensor(op, "input", input, _fake.QUANTIZED)
    _fake.check_output_dtype(op, output_dtype)
    output = _shape(
        op, input, weight, row_offsets, column_indices, weight_size, weight_scale, bias, output_dtype
    )
    check_other(op, post_ops, other, output, (*_fake.FLOAT, *_fake.QUANTIZED))
    refuse_post_op_tensors(op, post_ops)
    check_post_ops(op, post_ops, post_op_args)
    return output


@torch.library.register_fake("torch_ao::sparse_linear_dynamic")
def _(
    input,
    weight,
    row_offsets,
    column_indices,
    weight_size,
    weight_scale,
    bias=None,
    per_row=True,
    symmetric=False,
    reduce_range=False,
    output_dtype=None,
    post_ops="",
    post_op_args=(),
    other=None,
):
    op = "sparse_linear_dynamic"
    _fake.check_tensor(op, "input", input, _fake.FLOAT)
    _fake.check_output_dtype(op, output_dtype, _fake.FLOAT)
    output = _shape(
        op, input, weight, row_offsets, column_indices, weight_size, weight_scale, bias, output_dtype
    )
    check_other(op, post_ops, other, output, _fake.FLOAT)
    refuse_post_op_tensors(op, post_ops)
    check_post_ops(op, post_ops, post_op_args)
    return output
