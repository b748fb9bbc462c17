"""LSTM and GRU layers and cells of a program."""

from typing import Any

import torch

from torch_ao_ext.quantization import _packed
from torch_ao_ext.quantization._archive._reader import Handler, Reader, ao

__all__ = ["HANDLERS"]

aten = torch.ops.aten


def _cells(reader: Reader, node: Any, params: Any) -> list[_packed.Cell]:
    if not isinstance(params, list) or not all(isinstance(p, torch.ScriptObject) for p in params):
        raise reader.fail(node, "its weights are no constants")
    try:
        return [_packed.cell_of(cell) for cell in params]
    except ValueError as error:
        raise reader.fail(node, f"it {error}") from error


def _side(reader: Reader, cells: list[_packed.Cell], has_biases: bool) -> list[Any]:
    """Weights, scales and biases as the operators take them."""
    sides = list(zip(*cells, strict=True))[:3]
    names = ("qweight", "weight_scale", "bias")
    weights, scales, biases = (
        [reader.constant(part, name) for cell in side for part in cell]
        for side, name in zip(sides, names, strict=True)
    )
    return [weights, scales, biases if has_biases else []]


def sequence(reader: Reader, node: Any) -> None:
    """aten::quantized_lstm and quantized_gru, over equal lengths or packed sequences."""
    name = node.kind().removeprefix("aten::quantized_")
    overload = torch._C.parse_schema(node.schema()).overload_name
    if overload.endswith("_legacy"):
        raise reader.fail(node, "its weights are those of torch before 1.5; save the program again")
    inputs = reader.inputs(node)
    x, sizes = inputs[0], None
    if overload == "data":
        sizes = inputs.pop(1)
    _, states, params, has_biases, layers, dropout, train, both = inputs[:8]
    if train and dropout:
        raise reader.fail(node, f"in training mode with dropout {dropout}")
    first = overload == "input" and bool(inputs[8])
    swapped = reader.call(aten.transpose.int, x, 0, 1) if first else x
    if not isinstance(states, list):
        states = [states]
    cells = _cells(reader, node, params)
    side, rule = _side(reader, cells, bool(has_biases)), (False, any(c.reduce_range for c in cells))
    result = reader.call(
        getattr(ao, name).default, swapped, sizes, *states, *side, int(layers), bool(both), *rule
    )
    reader.unpack(node, result)
    if first:
        output = next(node.outputs()).debugName()
        reader.known[output] = reader.call(aten.transpose.int, reader.known[output], 0, 1)


def cell(reader: Reader, node: Any) -> None:
    """quantized::quantized_lstm_cell_dynamic and its kin: one step."""
    kind = node.kind().removeprefix("quantized::quantized_").removesuffix("_cell_dynamic")
    # The operator's own biases are not used: the packed weights have them.
    x, states, *packed = reader.inputs(node)[:4]
    try:
        found = [_packed.recurrent_weight(weight) for weight in packed]
    except ValueError as error:
        raise reader.fail(node, f"its weight {error}") from error
    sides = [
        reader.constant(part, name)
        for pair in found
        for part, name in zip(pair, ("qweight", "weight_scale"), strict=True)
    ]
    biases = [reader.constant(weight.unpack()[1], "bias") for weight in packed]
    name, _, nonlinearity = kind.partition("_")
    states = states if isinstance(states, list) else [states]
    # torch.ao's rule, whose cells always have 7 bits.
    rest = [*([nonlinearity] if nonlinearity else []), False, True]
    result = reader.call(getattr(ao, f"{name}_cell").default, x, *states, *sides, *biases, *rest)
    if node.outputsSize() == 1:
        reader.put(node, result)
    else:
        reader.unpack(node, result)


HANDLERS: dict[str, Handler] = {
    **{f"aten::quantized_{kind}": sequence for kind in ("lstm", "gru")},
    **{f"quantized::quantized_{kind}_cell_dynamic": cell for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")},
}
