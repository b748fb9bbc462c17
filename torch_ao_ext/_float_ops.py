"""Float operators in an fx graph, and why they are float."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import fx, nn

from torch_ao_ext._float_functions import computes_in_float, name_of, not_lowered, why_float
from torch_ao_ext._graph_ops import (
    ATTENTION_REASON,
    REASON,
    SECOND_FACTORS,
    attribute_of,
    island_of,
    owner,
    product_macs,
    sizes_of,
)
from torch_ao_ext.ops.island import read_program

__all__ = ["FLOAT_LAYERS", "FloatOp", "float_ops"]

aten = torch.ops.aten
# Products, lookups and recurrent layers -> index of the argument that holds the weights, or the second
# factor.
FLOAT_LAYERS = {
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
_NOT_LOWERED = "not lowered; call torch_ao_ext.lower"


@dataclass(frozen=True)
class FloatOp:
    """One call of a float operator.

    Args:
        fqn: module that it belongs to; the node's name when that is unknown.
        op: ATen operator, e.g. "conv2d".
        reason: why it is float.
        macs: multiply-accumulates per input row or output position; 0 for a lookup.
        tensors: its constant weights and biases.
        layer: whether it is a product, a lookup or a recurrent layer.
    """

    fqn: str
    op: str
    reason: str
    macs: int
    tensors: tuple[torch.Tensor, ...]
    layer: bool = True


def _reason(node: fx.Node) -> str:
    if REASON in node.meta:
        return node.meta[REASON]
    if node.target in _RECURRENT:
        return "quantize_dynamic, a dynamic QConfig or lower(recurrent_dtype=...) make it one int8 operator"
    targets = [str(n.target) for n in node.all_input_nodes if n.op == "call_function"]
    if any("quantized_decomposed.dequantize" in target for target in targets):
        return _NOT_LOWERED
    if any("torch_ao.dequantize" in target for target in targets):
        return f"no int8 operator for aten.{node.target._schema.name.split('::')[1]}"
    if node.target is aten.scaled_dot_product_attention.default:
        return ATTENTION_REASON
    what = "weight is" if node.target in _LOOKUPS else "inputs are"
    return f"its {what} not quantized"


def _layer(module: fx.GraphModule, node: fx.Node, prefix: str) -> FloatOp:
    index = FLOAT_LAYERS[node.target]
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
    return FloatOp(prefix + owner(node), op, _reason(node), macs, tensors)


def float_ops(module: nn.Module, name: str) -> Iterator[FloatOp]:
    """Calls of operators that compute in floats in a graph module, in order; moves of data do not.

    Args:
        module: any module; its children are not looked at.
        name: its name in the model, "" for the root.
    """
    if not isinstance(module, fx.GraphModule):
        return
    prefix = f"{name}." if name else ""
    early = not_lowered(module.graph)
    for node in module.graph.nodes:
        island = island_of(module, node)
        if island is not None:
            for step in read_program(island[0])[0]:
                if step.float_reason:
                    op = name_of(step.target)
                    yield FloatOp(prefix + step.label, op, step.float_reason, 0, (), layer=False)
        elif node.op == "call_function" and node.target in FLOAT_LAYERS:
            yield _layer(module, node, prefix)
        elif computes_in_float(node):
            reason = _NOT_LOWERED if early else why_float(node)
            yield FloatOp(prefix + owner(node), name_of(node.target), reason, 0, (), layer=False)
