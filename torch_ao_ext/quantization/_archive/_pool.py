"""Pooling, means and sizes in a program."""

from typing import Any

import torch

from torch_ao_ext.quantization._archive._reader import Handler, Reader, ao

__all__ = ["HANDLERS"]


def pool(reader: Reader, node: Any) -> None:
    """Pooling keeps the qparams."""
    inputs = reader.inputs(node)
    x, kind = inputs[0], node.kind().split("::")[1]
    if not reader.is_quantized(x):
        return reader.other(node)
    qparams, target = reader.qparams[x], getattr(ao, kind).default
    if kind.startswith("max_pool"):
        stride = inputs[2] or None
        return reader.put(node, reader.call(target, x, inputs[1], stride, *inputs[3:]), qparams)
    rest = inputs[1:] if kind.startswith("adaptive") else [inputs[1], inputs[2] or None, *inputs[3:]]
    return reader.put(node, reader.call(target, x, *qparams[:2], *qparams, *rest), qparams)


def mean(reader: Reader, node: Any) -> None:
    """Mean over all places of an image is adaptive pooling."""
    x, dims, keep = reader.inputs(node)[:3]
    if not reader.is_quantized(x):
        return reader.other(node)
    rank = len(dims or ())
    if sorted(d % (rank + 2) for d in dims or ()) != list(range(2, rank + 2)) or rank not in (1, 2, 3):
        raise reader.fail(node, f"of quantized values over dimensions {dims}")
    qparams = reader.qparams[x]
    target = getattr(ao, f"adaptive_avg_pool{rank}d").default
    result = reader.call(target, x, *qparams[:2], *qparams, [1] * rank)
    if not keep:
        result = reader.call(torch.ops.aten.flatten.using_ints, result, 1)
    return reader.put(node, result, qparams)


def size(reader: Reader, node: Any) -> None:
    """aten::size."""
    x, *dim = reader.inputs(node)
    reader.put(node, reader.graph.call_method("size", (x, *dim)))


HANDLERS: dict[str, Handler] = {
    "aten::mean": mean,
    "aten::size": size,
    **{
        f"aten::{op}{rank}d": pool
        for op in ("max_pool", "avg_pool", "adaptive_avg_pool")
        for rank in (1, 2, 3)
    },
}
