"""Float operators in an fx graph that have, or could have, an int8 form, and why they are float."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import fx, nn

from torch_ao_ext._graph_ops import (
    ATTENTION_REASON,
    REASON,
    SECOND_FACTORS,
    attribute_of,
    owner,
    product_macs,
    sizes_of,
)

__all__ = ["FloatOp", "float_ops"]

aten = torch.ops.aten
# Operator -> index of the argument that holds the weights (or the second factor).
_FLOAT_OPS = {
    getattr(getattr(aten, name), overload): index
    for name, overload, index in (
        ("conv1d", "default", 1), ("conv1d", "padding", 1), ("conv2d", "default", 1),
        ("conv2d", "padding", 1), ("conv3d", "default", 1), ("conv3d", "padding", 1),
        ("conv_transpose1d", "default", 1), ("conv_transpose2d", "input", 1),
        ("conv_transpose3d", "input", 1), ("linear", "default", 1), ("addmm", "default", 2),
        ("mm", "default", 1), ("matmul", "default", 1), ("bmm", "default", 1),
        ("scaled_dot_product_attention", "default", 1), ("embedding", "default", 0),
        ("embedding_bag", "padding_idx", 0), ("lstm", "input", 2), ("gru", "input", 2),
        ("rnn_tanh", "input", 2), ("rnn_relu", "input", 2), ("lstm_cell", "default", 2),
        ("gru_cell", "default", 2), ("rnn_tanh_cell", "default", 2), ("rnn_relu_cell", "default", 2),
    )
}  # fmt: skip
_KINDS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_CELLS = {getattr(aten, f"{name}_cell").default for name in _KINDS}
_RECURRENT = {*_CELLS, *(getattr(aten, name).input for name in _KINDS)}
_LOOKUPS = {aten.embedding.default, aten.embedding_bag.padding_idx}


@dataclass(frozen=True)
class FloatOp:
    """One call of a float operator that has, or could have, an int8 form.

    Args:
        fqn: module that it belongs to; the node's name when that is unknown.
        op: ATen operator, e.g. "conv2d".
        reason: why it is float.
        macs: multiply-accumulates per input row or output position; 0 for a lookup.
        tensors: its constant weights and biases.
    """

    fqn: str
    op: str
    reason: str
    macs: int
    tensors: tuple[torch.Tensor, ...]


def _reason(node: fx.Node) -> str:
    if REASON in node.meta:
        return node.meta[REASON]
    if node.target in _RECURRENT:
        return "quantize_dynamic, a dynamic QConfig or lower(recurrent_dtype=...) make it one int8 operator"
    targets = [str(n.target) for n in node.all_input_nodes if n.op == "call_function"]
    if any("quantized_decomposed.dequantize" in target for target in targets):
        return "not lowered; call torch_ao_ext.lower"
    if any("torch_ao.dequantize" in target for target in targets):
        return f"no int8 operator for aten.{node.target._schema.name.split('::')[1]}"
    if node.target is aten.scaled_dot_product_attention.default:
        return ATTENTION_REASON
    what = "weight is" if node.target in _LOOKUPS else "inputs are"
    return f"its {what} not quantized"


def float_ops(module: nn.Module, name: str) -> Iterator[FloatOp]:
    """Calls of float products, lookups and recurrent layers in a graph module, in order.

    Args:
        module: any module; its children are not looked at.
        name: its name in the model, "" for the root.
    """
    if not isinstance(module, fx.GraphModule):
        return
    prefix = f"{name}." if name else ""
    for node in module.graph.nodes:
        if node.op != "call_function" or node.target not in _FLOAT_OPS:
            continue
        index = _FLOAT_OPS[node.target]
        macs = product_macs(node)
        if node.target not in {*_LOOKUPS, *SECOND_FACTORS} and len(node.args) > index:
            weights = node.args[index : index + 2] if node.target in _CELLS else node.args[index]
            for size in sizes_of(module, weights):
                # A second factor that is no weight: one matrix, without its batch.
                matrix = size[-2:] if node.target in (aten.matmul.default, aten.bmm.default) else size
                if all(isinstance(s, int) for s in matrix):
                    macs += torch.Size(matrix).numel()
        op = node.target._schema.name.split("::")[1]
        constants = (attribute_of(module, source) for source in node.all_input_nodes)
        tensors = tuple(t for t in constants if t is not None)
        yield FloatOp(prefix + owner(node), op, _reason(node), macs, tensors)
