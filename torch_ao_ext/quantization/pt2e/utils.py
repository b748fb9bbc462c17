"""Steps of pt2e that users call by their published names."""

from typing import Any

import torch
from torch import fx

from torch_ao_ext.quantization import _decomposed
from torch_ao_ext.quantization.pt2e._batch_norm import fold_batch_norm
from torch_ao_ext.quantization.pt2e._graph import tensor_of

__all__ = [
    "fold_bn_weights_into_conv_node",
    "fold_bn_weights_into_linear_node",
    "remove_tensor_overload_for_qdq_ops",
]


def _get_tensor_constant_from_node(node: fx.Node | None, m: torch.nn.Module) -> torch.Tensor | None:
    """The tensor that a get_attr node reads; None for None.

    Raises:
        ValueError: another kind of node, or no such tensor.
    """
    if node is None:
        return None
    if node.op != "get_attr":
        raise ValueError(f"pt2e: node '{node.name}' must be a get_attr, got {node.op}")
    value = tensor_of(m, node)
    if value is None:
        raise ValueError(f"pt2e: node '{node.name}' must name a tensor of the module, got '{node.target}'")
    return value


def _fold(name: str, product: fx.Node, norm: fx.Node, m: fx.GraphModule) -> None:
    if not fold_batch_norm(m, product, norm):
        raise ValueError(
            f"{name}: argument 'bn_node' must be a batch norm in evaluation mode with constants, as the "
            f"product's weight, got node '{norm.name}'"
        )
    m.graph.eliminate_dead_code()
    m.recompile()


def fold_bn_weights_into_conv_node(
    conv_node: fx.Node,
    conv_weight_node: fx.Node,
    conv_bias_node: fx.Node | None,
    bn_node: fx.Node,
    m: fx.GraphModule,
) -> None:
    """Folds a batch norm into the conv or transposed conv that it reads, in place.

    Args:
        conv_node: the conv; its only reader is bn_node.
        conv_weight_node: its weight, a get_attr node.
        conv_bias_node: its bias, or None.
        bn_node: the batch norm.
        m: the graph module.

    Raises:
        ValueError: the batch norm is in training mode, or something is not constant.
    """
    del conv_weight_node, conv_bias_node  # the conv's own arguments
    _fold("fold_bn_weights_into_conv_node", conv_node, bn_node, m)


def fold_bn_weights_into_linear_node(
    linear_node: fx.Node,
    linear_weight_node: fx.Node,
    linear_bias_node: fx.Node | None,
    bn_node: fx.Node,
    m: fx.GraphModule,
) -> None:
    """Folds a batch norm into the linear that it reads; as fold_bn_weights_into_conv_node."""
    del linear_weight_node, linear_bias_node
    _fold("fold_bn_weights_into_linear_node", linear_node, bn_node, m)


def remove_tensor_overload_for_qdq_ops(match_pattern: fx.GraphModule) -> None:
    """Replaces overloads of quantize, dequantize and clamp by their packets, in place.

    A pattern traced with tensors as qparams then matches what convert_pt2e writes.
    """
    ops: Any = _decomposed.operators()
    packets = [
        ops.quantize_per_tensor, ops.dequantize_per_tensor, ops.quantize_per_channel,
        ops.dequantize_per_channel,
    ]  # fmt: skip
    packet_of = {getattr(p, name): p for p in packets for name in p.overloads()}
    packet_of[torch.ops.aten.clamp.Tensor] = torch.ops.aten.clamp
    for node in match_pattern.graph.nodes:
        if node.op == "call_function" and node.target in packet_of:
            node.target = packet_of[node.target]
