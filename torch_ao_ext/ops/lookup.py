"""Any function of one 8-bit value, by a table."""

import torch

from torch_ao_ext.ops import _fake

__all__ = ["lookup"]

Tensor = torch.Tensor

_TABLE = (torch.uint8, torch.int8, torch.float32, torch.bfloat16)


def lookup(input: Tensor, table: Tensor, axis: int = 1) -> Tensor:
    """Computes y = table[input - min], min the lowest integer of input's dtype.

    A table holds what a function gives for each of the 256 values, so that the result is exactly
    that of the function: elu, celu, prelu, a sum with a number, whatever reads one value.

    Args:
        input: uint8 or int8, any shape.
        table: uint8, int8, float32 or bfloat16; `[256]` for all values, or `[input.size(axis), 256]`.
        axis: dimension of the channels of a table with 2 dimensions.

    Returns:
        Shape and strides of input, dtype of table.

    Raises:
        TypeError: wrong dtype.
        ValueError: sizes that do not fit.
        IndexError: input has no such axis.

    Example:
        >>> import torch, torch_ao_ext
        >>> q = torch.tensor([-128, -127, 127], dtype=torch.int8)
        >>> torch_ao_ext.ops.lookup(q, torch.arange(256.0) / 2)
        tensor([  0.0000,   0.5000, 127.5000])
    """
    return torch.ops.torch_ao.lookup(input, table, axis)


@torch.library.register_fake("torch_ao::lookup")
def _(input, table, axis=1):
    op = "lookup"
    _fake.check_tensor(op, "input", input, _fake.QUANTIZED)
    _fake.check_tensor(op, "table", table, _TABLE)
    _fake.check_value(table.dim() in (1, 2), op, "table", "have 1 or 2 dimensions", _fake.sizes(table))
    _fake.check_size(op, "table", table, -1, 256, "the number of 8-bit values")
    if table.dim() == 2:
        _fake.check_min_rank(op, "input", input, 1)
        axis = _fake.check_axis(op, "axis", axis, input.dim())
        _fake.check_size(op, "table", table, 0, input.shape[axis], "input.size(axis)")
    return _fake.empty_like(input, table.dtype)
