"""int8 LSTM, GRU and RNN layers in a frozen TorchScript program."""

from typing import Any

import torch

from torch_ao_ext.nn.quantized.dynamic.modules._recurrent_weights import (
    quantize_recurrent,
    rule_of,
    weight_dtypes,
)

__all__ = ["RECURRENT", "constants_of", "recurrent_to_int8"]

# ATen's operator -> ours, how many states it has, and the argument that only ours has.
RECURRENT = {
    "aten::lstm": ("torch_ao::lstm", 2, None),
    "aten::gru": ("torch_ao::gru", 1, None),
    "aten::rnn_tanh": ("torch_ao::rnn", 1, "tanh"),
    "aten::rnn_relu": ("torch_ao::rnn", 1, "relu"),
}


def _constant(value: Any) -> Any:
    return value.toIValue() if value.node().kind() == "prim::Constant" else None


def _of_rows(node: Any) -> bool:
    """Whether it takes the rows and counts of a PackedSequence; these have the list one place later."""
    return isinstance(list(node.inputs())[3].type(), torch._C.ListType)


def constants_of(node: Any) -> list[torch.Tensor] | None:
    """The weights and biases of a recurrent operator; None when one is no constant."""
    value = list(node.inputs())[2 + _of_rows(node)]
    if value.node().kind() == "prim::ListConstruct":
        found = [_constant(item) for item in value.node().inputs()]
    else:
        found = _constant(value) or [None]
    return found if all(isinstance(item, torch.Tensor) for item in found) else None


def recurrent_to_int8(graph: Any, node: Any, params: list[torch.Tensor], qconfig: Any) -> bool:
    """Replaces the operator by ours.

    Args:
        graph: of the program.
        node: one of RECURRENT.
        params: from constants_of.
        qconfig: of its module.

    Returns:
        False, with nothing changed, when it is in training mode with dropout or its sizes are not
        constants.

    Raises:
        ValueError: a weight that is not finite, a QConfig without int8, int16 or bfloat16 weights.
    """
    kind, states, nonlinearity = RECURRENT[node.kind()]
    rows, inputs = _of_rows(node), list(node.inputs())
    flags = [_constant(value) for value in inputs[3 + rows :]]
    if any(flag is None for flag in flags):
        return False
    biased, layers, dropout, train, both = flags[:5]
    if train and dropout > 0:
        return False
    rule = rule_of(qconfig)
    each, plain = len(params) // (layers * (1 + both)), 4 if biased else 2
    weights, scales, biases = [], [], []
    for i, value in enumerate(params):
        if 2 <= i % each < plain:
            biases.append(value.detach().float())
        else:
            ih, hh = params[i // each * each :][:2]
            dtype = weight_dtypes(rule.dtype, ih, hh, i // each // (1 + both))[i % each > 0]
            data, scale = quantize_recurrent(value.detach().float(), dtype, qconfig, "weight")
            weights.append(data)
            scales.append(scale)
    graph.setInsertPoint(node)
    tensors = torch._C.ListType(torch._C.TensorType.get())

    def listed(values: list[torch.Tensor]) -> Any:
        made = graph.insertNode(
            graph.create("prim::ListConstruct", [graph.insertConstant(v) for v in values], 1)
        )
        made.output().setType(tensors)
        return made.output()

    def transposed(value: Any) -> Any:
        axes = [graph.insertConstant(axis) for axis in (0, 1)]
        return graph.insertNode(graph.create("aten::transpose", [value, *axes], 1)).output()

    swapped = not rows and flags[5]
    x, sizes = inputs[0], inputs[1] if rows else graph.insertConstant(None)
    given = inputs[1 + rows]
    if states == 2:
        unpacked = list(graph.insertNode(graph.create("prim::ListUnpack", [given], 2)).outputs())
        for value in unpacked:
            value.setType(torch._C.TensorType.get())
    else:
        unpacked = [given]
    arguments = [
        transposed(x) if swapped else x, sizes, *unpacked, listed(weights), listed(scales), listed(biases),
        graph.insertConstant(layers), graph.insertConstant(both),
    ]  # fmt: skip
    if nonlinearity is not None:
        arguments.append(graph.insertConstant(nonlinearity))
    arguments += [graph.insertConstant(flag) for flag in (rule.per_row, rule.reduce_range)]
    made = graph.insertNode(graph.create(kind, arguments, 1 + states))
    results = list(made.outputs())
    if swapped:
        results[0] = transposed(results[0])
    for old, new in zip(node.outputs(), results, strict=True):
        old.replaceAllUsesWith(new)
    node.destroy()
    return True
