"""Folds a batch norm into the conv, transposed conv or linear before it."""

import torch
from torch import fx

from torch_ao_ext.nn._fold import norm_affine, scale_channels
from torch_ao_ext.quantization.pt2e._graph import add_constant, tensor_of
from torch_ao_ext.quantization.quantizer._targets import (
    BATCH_NORM,
    CONV,
    CONV_TRANSPOSE,
    LINEAR,
    argument,
    is_call,
)

_PRODUCTS = CONV | CONV_TRANSPOSE | LINEAR


def constant_affine(model: fx.GraphModule, norm: fx.Node) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(factor, offset) per channel of a batch norm in evaluation mode, None when not constant."""
    _, weight, bias, mean, variance, training, _, eps = norm.args[:8]
    if training:
        return None
    average, spread = tensor_of(model, mean), tensor_of(model, variance)
    if average is None or spread is None:
        return None
    for node in (weight, bias):
        if isinstance(node, fx.Node) and tensor_of(model, node) is None:
            return None
    return norm_affine(average, spread, tensor_of(model, weight), tensor_of(model, bias), eps)


def _scaled(node: fx.Node, weight: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    if is_call(node, CONV_TRANSPOSE):
        return scale_channels(weight, factor, transposed=True, groups=argument(node, 6, 1))
    return scale_channels(weight, factor)


def fold_batch_norm(model: fx.GraphModule, node: fx.Node, norm: fx.Node) -> bool:
    """Folds one batch norm into the product before it.

    Returns:
        Whether it could: in evaluation mode, with constant weights.
    """
    found = constant_affine(model, norm)
    weight = tensor_of(model, node.args[1])
    bias_node = argument(node, 2)
    bias = tensor_of(model, bias_node)
    if found is None or weight is None or (isinstance(bias_node, fx.Node) and bias is None):
        return False
    factor, offset = found
    new_weight = _scaled(node, weight, factor).to(weight.dtype)
    new_bias = offset if bias is None else bias.detach().double() * factor + offset
    path = node.args[1].target.rpartition(".")[0]
    names = ("weight", "bias") if not path else (f"{path}.weight", f"{path}.bias")
    with model.graph.inserting_before(node):
        weight_node = add_constant(model, names[0], new_weight, node.args[1])
        new_bias_node = add_constant(model, names[1], new_bias.to(weight.dtype), bias_node)
    arguments = list(node.args)
    arguments += [None] * (3 - len(arguments))
    arguments[1], arguments[2] = weight_node, new_bias_node
    node.args = tuple(arguments)
    norm.replace_all_uses_with(node)
    model.graph.erase_node(norm)
    return True


def fold_batch_norms(model: fx.GraphModule) -> int:
    """Folds every batch norm in evaluation mode behind a product that nobody else reads.

    W' = W g, b' = (b - mean) g + beta with g = gamma / sqrt(var + eps), in f64.

    Returns:
        How many were folded.
    """
    count = 0
    for norm in list(model.graph.nodes):
        if not is_call(norm, BATCH_NORM):
            continue
        node = norm.args[0]
        # A linear's channels are its last axis, a batch norm's its second.
        plain = is_call(node, _PRODUCTS) and len(node.users) == 1
        value = node.meta.get("val") if plain else None
        if is_call(node, LINEAR) and (value is None or value.dim() != 2):
            continue
        if plain and fold_batch_norm(model, node, norm):
            count += 1
    if count:
        model.graph.eliminate_dead_code()
        model.recompile()
    return count
