"""Convolutions, linears and embeddings of quantized tensors become one operator each."""

from typing import Any

import torch
from torch import fx

from torch_ao_ext._dimensions import each_dimension
from torch_ao_ext._lower._post_ops import Tail, read_tail, replace_tail
from torch_ao_ext._lower._qdq import dequantized, dynamically_quantized
from torch_ao_ext._lower._weights import Constants, NotLowered, Weight, is_dequantize
from torch_ao_ext.quantization.pt2e._graph import tensor_of
from torch_ao_ext.quantization.quantizer._targets import (
    CONV,
    CONV_TRANSPOSE,
    LINEAR,
    RANK,
    argument,
    aten,
    is_call,
)

EMBEDDING = {aten.embedding.default}
_REAL = (torch.float32, torch.bfloat16)
PRODUCTS = CONV | CONV_TRANSPOSE | LINEAR | EMBEDDING


def _padding(node: fx.Node, kernel: list[int], dilation: list[int]) -> list[int]:
    """Padding as numbers; "same" only where both sides are equal."""
    value = argument(node, 4, 0)
    if not isinstance(value, str):
        return each_dimension(value, len(kernel))
    if value == "valid":
        return [0] * len(kernel)
    total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if any(t % 2 for t in total):
        raise NotLowered("padding 'same' is wider on one side")
    return [t // 2 for t in total]


def _geometry(node: fx.Node, weight: torch.Tensor) -> tuple[Any, ...]:
    """stride, padding, (output_padding,) dilation and groups in the operator's order."""
    rank = RANK[node.target]
    value = node.args[0].meta.get("val")
    if value is not None and value.dim() != rank + 2:
        raise NotLowered(f"its input has {value.dim()} dimensions; needs {rank + 2}, with a batch")
    stride = each_dimension(argument(node, 3, 1), rank)
    if is_call(node, CONV_TRANSPOSE):
        return (
            stride, each_dimension(argument(node, 4, 0), rank), each_dimension(argument(node, 5, 0), rank),
            argument(node, 6, 1), each_dimension(argument(node, 7, 1), rank),
        )  # fmt: skip
    dilation = each_dimension(argument(node, 5, 1), rank)
    padding = _padding(node, list(weight.shape[2:]), dilation)
    return stride, padding, dilation, argument(node, 6, 1)


def _operator(node: fx.Node, suffix: str = "") -> Any:
    name = "linear"
    if not is_call(node, LINEAR):
        kind = "conv_transpose" if is_call(node, CONV_TRANSPOSE) else "conv"
        name = f"{kind}{RANK[node.target]}d"
    return getattr(torch.ops.torch_ao, name + suffix).default


def _constants(
    model: fx.GraphModule, node: fx.Node, constants: Constants
) -> tuple[Weight, Any, tuple[Any, ...]]:
    """Weight, bias and, of a convolution, its numbers in the operator's order."""
    transposed = is_call(node, CONV_TRANSPOSE)
    groups = argument(node, 6, 1) if transposed else 1
    weight = constants.weight(node.args[1], 1 if transposed else 0, groups)
    bias = constants.bias(argument(node, 2), constants.path(node.args[1]))
    if is_call(node, LINEAR):
        return weight, bias, ()
    values = tensor_of(model, weight.values)
    assert values is not None
    return weight, bias, _geometry(node, values)


def _other(tail: Tail) -> tuple[Any, float, int]:
    qparams = tail.other_qparams
    if qparams is None:
        return tail.other, 1.0, 0
    return tail.other, qparams.scale, qparams.zero_point


def _tensors(tail: Tail, constants: Constants) -> tuple[Any, ...]:
    """The operator's last arguments, as far as they are needed."""
    slope = None if tail.slope is None else constants.slope(tail.slope)
    if tail.affine is not None:
        return (slope, *tail.affine)
    return () if slope is None else (slope,)


def _lower_static(model: fx.GraphModule, node: fx.Node, constants: Constants) -> None:
    found = dequantized(node.args[0])
    if found is None:
        raise NotLowered("its input is not quantized")
    source, qparams = found
    weight, bias, geometry = _constants(model, node, constants)
    tail = read_tail(node, affine=constants.affine)
    out = tail.output
    arguments = (
        source, qparams.scale, qparams.zero_point, weight.values, weight.scale, weight.zero_point, bias,
        1.0 if out is None else out.scale, 0 if out is None else out.zero_point,
        torch.float32 if out is None else out.dtype,
        *geometry, ",".join(tail.names), tail.numbers, *_other(tail), *_tensors(tail, constants),
    )  # fmt: skip
    replace_tail(model, tail, _operator(node), arguments)


def _lower_dynamic(model: fx.GraphModule, node: fx.Node, constants: Constants) -> None:
    found = dynamically_quantized(node.args[0])
    assert found is not None
    if found.symmetric and (found.low, found.high) != (-127, 127):
        raise NotLowered(
            f"its input is quantized symmetrically to [{found.low}, {found.high}]; needs [-127, 127]"
        )
    if not found.symmetric and found.high - found.low not in (255, 127):
        raise NotLowered(f"its input is quantized to [{found.low}, {found.high}]; needs 8 or 7 bits")
    if found.per_row and not is_call(node, LINEAR):
        raise NotLowered("its input is quantized by rows; needs one scale for a sample")
    weight, bias, geometry = _constants(model, node, constants)
    tail = read_tail(node, affine=constants.affine)
    if tail.output is not None:  # the operator gives floats
        tail.nodes.pop()
        if not tail.output.full_range:
            tail.names.pop()
            del tail.numbers[-2:]
    arguments = (
        found.node, weight.values, weight.scale, weight.zero_point, bias, found.per_row, found.symmetric,
        found.high - found.low == 127, torch.float32, *geometry, ",".join(tail.names), tail.numbers,
        tail.other_float, *_tensors(tail, constants),
    )  # fmt: skip
    replace_tail(model, tail, _operator(node, "_dynamic"), arguments)


def _weight_only(model: fx.GraphModule, node: fx.Node, constants: Constants) -> bool:
    """A linear of floats with a weight in 8 bits around 0; nothing behind it is absorbed."""
    value = node.args[0].meta.get("val")
    real = isinstance(value, torch.Tensor) and value.dtype in _REAL
    if not (real and is_call(node, LINEAR) and is_dequantize(node.args[1])):
        return False
    weight, bias, _ = _constants(model, node, constants)
    if weight.zero_point is not None:
        raise NotLowered("its input is not quantized, and its weight has zero points")
    arguments = (node.args[0], weight.values, weight.scale, bias)
    return replace_tail(model, Tail([node]), torch.ops.torch_ao.linear_weight_only.default, arguments)


def _lower_embedding(model: fx.GraphModule, node: fx.Node, constants: Constants) -> None:
    rows = constants.rows(node.args[0])
    replace_tail(model, Tail([node]), torch.ops.torch_ao.embedding.default, (rows, node.args[1]))


def lower_product(
    model: fx.GraphModule, node: fx.Node, constants: Constants, weight_only: bool = True
) -> None:
    """Replaces a conv, linear or embedding, with all that it absorbs.

    Args:
        model: changed in place.
        node: the product.
        constants: of the graph.
        weight_only: take linears of floats, too.

    Raises:
        NotLowered: with the reason; the graph is as before.
    """
    if is_call(node, EMBEDDING):
        _lower_embedding(model, node, constants)
    elif dynamically_quantized(node.args[0]) is not None:
        _lower_dynamic(model, node, constants)
    elif dequantized(node.args[0]) is not None or not weight_only or not _weight_only(model, node, constants):
        _lower_static(model, node, constants)
