"""Embedding tables of a program."""

from typing import Any

import torch

from torch_ao_ext.quantization import _packed
from torch_ao_ext.quantization._archive._reader import Handler, Reader, ao

__all__ = ["HANDLERS"]


def _table(reader: Reader, node: Any, packed: Any) -> tuple[Any, int, int | None]:
    """Rows, bits and, where it is known, the dimension."""
    if isinstance(packed, torch.Tensor):  # in the fused format, which is this library's
        bits = {"byte": 8, "4bit": 4, "2bit": 2}[node.kind().split("_")[2]]
        return reader.constant(packed, "qweight"), bits, None
    weight = _packed.table_weight(packed)
    try:
        table, bits = _packed.table_of(weight)
    except ValueError as error:
        raise reader.fail(node, f"its weight {error}") from error
    return reader.constant(table, "qweight"), bits, int(weight.shape[1])


def embedding(reader: Reader, node: Any) -> None:
    """quantized::embedding_byte and embedding_4bit; the width is that of the table."""
    packed, indices, pruned = reader.inputs(node)
    if pruned:
        raise reader.fail(node, "of pruned weights")
    table, bits, dim = _table(reader, node, packed)
    reader.put(node, reader.call(ao.embedding.default, table, indices, bits, dim))


def bag(reader: Reader, node: Any) -> None:
    """quantized::embedding_bag_byte, 4bit, 2bit: torch.ao's add, whatever the mode."""
    packed, indices, offsets, _, _, pruned, weights, mapping, last = reader.inputs(node)
    table, bits, dim = _table(reader, node, packed)
    if pruned and mapping is None:
        raise reader.fail(node, "of pruned weights without a mapping")
    mapping = mapping if pruned else None
    args = (table, indices, offsets, bits, dim, "sum", weights, bool(last), None, mapping)
    reader.put(node, reader.call(ao.embedding_bag.default, *args))


HANDLERS: dict[str, Handler] = {
    **{f"quantized::embedding_{bits}": embedding for bits in ("byte", "4bit")},
    **{f"quantized::embedding_bag_{bits}": bag for bits in ("byte", "4bit")},
    **{f"quantized::embedding_bag_{bits}_rowwise_offsets": bag for bits in ("byte", "4bit", "2bit")},
}
