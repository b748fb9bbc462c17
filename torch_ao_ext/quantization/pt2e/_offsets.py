"""Moves the offset of a batch norm behind a relu into the bias of the next conv or linear.

A batch norm cannot fold into the product before it over a relu. Its offset would take the zeros of the
relu, most of the tensor, to values between the steps of the next quantize; without it zero stays zero,
which every quantized tensor holds exactly. W (x + offset) = W x + W offset, in f64.
"""

from typing import Any

import torch
from torch import fx

from torch_ao_ext.quantization.pt2e._batch_norm import constant_affine
from torch_ao_ext.quantization.pt2e._graph import add_constant, tensor_of
from torch_ao_ext.quantization.quantizer._targets import (
    BATCH_NORM,
    CONV,
    HARDTANH,
    LINEAR,
    RELU,
    argument,
    aten,
    is_call,
    only_user,
)

_MAX_POOL = {aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default}
_MOVES = {
    aten.flatten.using_ints, aten.view.default, aten.reshape.default, aten.permute.default,
    aten.transpose.int, aten.squeeze.dim, aten.squeeze.dims, aten.squeeze.default, aten.unsqueeze.default,
    aten.contiguous.default, aten.clone.default,
}  # fmt: skip
# Linear: f(x + offset) = f(x) + f(offset). Of max_pool that holds where windows have one offset.
_LINEAR_MAPS = _MOVES | {
    aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default,
    aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default,
    aten.mean.dim,
}  # fmt: skip
_MOST = 2**25  # values of a tensor that is made to follow the offset


def _behind_relu(node: Any) -> bool:
    """Whether a tensor comes from a relu, pooled or not: many of its values are 0."""
    while is_call(node, _MAX_POOL):
        node = node.args[0]
    if is_call(node, HARDTANH):
        return "relu6" in str(node.target) or float(argument(node, 1, -1.0)) == 0
    return is_call(node, RELU)


def _next_product(norm: fx.Node) -> tuple[list[fx.Node], fx.Node] | None:
    """(operators between, conv or linear) where each has one reader, None when something else comes."""
    between: list[fx.Node] = []
    node = norm
    while (after := only_user(node)) is not None and after.args and after.args[0] is node:
        if is_call(after, LINEAR | CONV):
            return between, after
        if not is_call(after, _LINEAR_MAPS | _MAX_POOL):
            return None
        between.append(after)
        node = after
    return None


def _number(value: Any) -> Any:
    """A constant argument; of sizes that the model computes, those of the example inputs."""
    if isinstance(value, fx.Node):
        value = value.meta["val"]
    if isinstance(value, (list, tuple)):
        return [_number(v) for v in value]
    return value.node.hint if isinstance(value, torch.SymInt) else value


def _followed(offset: torch.Tensor, norm: fx.Node, between: list[fx.Node]) -> torch.Tensor | None:
    """The offset as it meets the product; None where a window mixes offsets, or a tensor is too large."""
    if "val" not in norm.meta:
        return None
    shape = _number(tuple(norm.meta["val"].shape))
    if torch.Size(shape).numel() > _MOST:
        return None
    value = offset.reshape(-1, *[1] * (len(shape) - 2)).expand(shape)
    for node in between:
        # A view of the model's tensor need not be one of this.
        target = aten.reshape.default if node.target is aten.view.default else node.target
        arguments = [_number(a) for a in node.args[1:]]
        options = {name: option for name, option in node.kwargs.items() if name != "dtype"}  # f64 stays
        before, value = value, target(value, *arguments, **options)
        if is_call(node, _MAX_POOL) and not torch.equal(value, -target(-before, *arguments)):
            return None
    return value


def _of_channels(value: torch.Tensor, product: fx.Node) -> torch.Tensor | None:
    """One value for each channel of the product's input, None where positions differ."""
    if is_call(product, CONV):
        if value.dim() != product.args[1].meta["val"].dim():  # without a batch
            return None
        value = value.movedim(1, -1)
    rows = value.reshape(-1, value.shape[-1])
    same = len(rows) > 0 and torch.allclose(rows, rows[:1].expand_as(rows), rtol=1e-12, atol=0)
    return rows[0] if same else None


def _added_bias(product: fx.Node, weight: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """W offset, f64."""
    wide = weight.detach().double()
    if is_call(product, LINEAR):
        return wide @ offset
    groups = argument(product, 6, 1)
    rows = wide.flatten(2).sum(2).reshape(groups, -1, wide.shape[1])
    return (rows @ offset.reshape(groups, -1, 1)).flatten()


def _pads(product: fx.Node) -> bool:
    """Whether a conv meets zeros that no offset was added to."""
    padding = argument(product, 4, 0) if is_call(product, CONV) else 0
    if isinstance(padding, str):
        return padding != "valid"
    return any(padding) if isinstance(padding, (list, tuple)) else bool(padding)


def move_offset(model: fx.GraphModule, norm: fx.Node) -> bool:
    """Moves one offset.

    Returns:
        Whether it could: behind a relu, with constants, and a conv without padding or a linear next.
    """
    found = _next_product(norm) if _behind_relu(norm.args[0]) else None
    if found is None or _pads(found[1]):
        return False
    between, product = found
    affine, weight = constant_affine(model, norm), tensor_of(model, product.args[1])
    bias_node = argument(product, 2)
    bias = tensor_of(model, bias_node)
    if affine is None or weight is None or (isinstance(bias_node, fx.Node) and bias is None):
        return False
    value = _followed(affine[1], norm, between)
    offset = None if value is None else _of_channels(value, product)
    if offset is None:
        return False
    added = _added_bias(product, weight, offset)
    if bias is not None:
        added += bias.detach().double()
    path = product.args[1].target.rpartition(".")[0]
    with model.graph.inserting_before(product):
        name = f"{path}.bias" if path else "bias"
        new = add_constant(model, name, added.to(weight.dtype), bias_node)
    product.args = (*product.args[:2], new, *product.args[3:])
    path = norm.args[3].target.rpartition(".")[0]
    with model.graph.inserting_before(norm):
        name = f"{path}.zeros" if path else "zeros"
        zeros = add_constant(model, name, torch.zeros_like(tensor_of(model, norm.args[3])))
    norm.args = (*norm.args[:2], zeros, zeros, *norm.args[4:])
    return True


def move_offsets(model: fx.GraphModule) -> int:
    """Moves the offset of every batch norm in evaluation mode behind a relu, where the next product takes it.

    Pooling, flatten and the like may stand between; nobody else may read what lies between.

    Returns:
        How many were moved.
    """
    count = sum(move_offset(model, norm) for norm in list(model.graph.nodes) if is_call(norm, BATCH_NORM))
    if count:
        model.graph.eliminate_dead_code()
        model.recompile()
    return count
