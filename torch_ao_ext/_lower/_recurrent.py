"""Float recurrent layers and cells of a graph become one operator each, with weights quantized here."""

from operator import getitem
from typing import Any

import torch
from torch import fx

from torch_ao_ext._graph_ops import REASON, arguments_of
from torch_ao_ext._lower._weights import Constants, NotLowered
from torch_ao_ext.nn.quantized.dynamic.modules._recurrent_weights import (
    quantize_recurrent,
    weight_dtypes,
)
from torch_ao_ext.quantization.pt2e._graph import inherit_meta, tensor_of
from torch_ao_ext.quantization.qconfig import row_dynamic_qconfig

__all__ = ["MIXED", "RECURRENT", "lower_recurrent"]

aten, ao = torch.ops.aten, torch.ops.torch_ao

MIXED = "mixed"  # int8 and int16 by size, as quantize_dynamic's default

# ATen's operator -> ours, with the arguments that only ours has.
_FORMS = {
    aten.lstm: (ao.lstm.default, ()),
    aten.gru: (ao.gru.default, ()),
    aten.rnn_tanh: (ao.rnn.default, ("tanh",)),
    aten.rnn_relu: (ao.rnn.default, ("relu",)),
}
_CELLS = {
    aten.lstm_cell.default: (ao.lstm_cell.default, ()),
    aten.gru_cell.default: (ao.gru_cell.default, ()),
    aten.rnn_tanh_cell.default: (ao.rnn_cell.default, ("tanh",)),
    aten.rnn_relu_cell.default: (ao.rnn_cell.default, ("relu",)),
}
RECURRENT = {getattr(packet, name): form for packet, form in _FORMS.items() for name in ("input", "data")}


def _value(constants: Constants, node: Any) -> torch.Tensor:
    value = tensor_of(constants.model, node)
    if value is None or value.dtype not in (torch.float32, torch.bfloat16):
        raise NotLowered("its weights are not float constants")
    return value.detach()


def _weight(constants: Constants, node: Any, dtype: torch.dtype) -> tuple[fx.Node, fx.Node]:
    """The nodes of a weight and of its scales."""
    value, name = _value(constants, node), node.target
    data, scale = quantize_recurrent(value.float(), dtype, row_dynamic_qconfig, name)
    key = ("recurrent", name, dtype)
    return constants.add((*key, 0), f"{name}_q", data), constants.add((*key, 1), f"{name}_scale", scale)


def _bias(constants: Constants, node: Any) -> fx.Node:
    value = tensor_of(constants.model, node)
    if value is None or value.dtype not in (torch.float32, torch.bfloat16):
        raise NotLowered("its biases are not float constants")
    name = node.target
    return constants.add(("recurrent bias", name), f"{name}_f", value.detach().to(torch.float32, copy=True))


def _sides(
    constants: Constants, a: dict[str, Any], lstm: bool, dtype: torch.dtype | None
) -> tuple[list, list, list]:
    """Weights, scales and biases in the order of our operators."""
    params, cells = list(a["params"]), a["num_layers"] * (1 + a["bidirectional"])
    each = len(params) // cells
    plain = 4 if a["has_biases"] else 2
    if len(params) != each * cells or each not in ((plain, plain + 1) if lstm else (plain,)):
        raise NotLowered(f"it has {len(params)} weights and biases for {cells} layers and directions")
    weights, scales, biases = [], [], []
    for i in range(cells):
        cell = params[i * each : (i + 1) * each]
        ih, hh = (_value(constants, node) for node in cell[:2])
        first, others = weight_dtypes(dtype, ih, hh, i // (1 + a["bidirectional"]))
        for j, node in enumerate((*cell[:2], *cell[plain:])):
            data, scale = _weight(constants, node, others if j else first)
            weights.append(data)
            scales.append(scale)
        biases += [_bias(constants, node) for node in cell[2:plain]]
    return weights, scales, biases


def _lower_one(model: fx.GraphModule, node: fx.Node, constants: Constants, dtype: torch.dtype | None) -> None:
    a = arguments_of(node)
    target, more = RECURRENT[node.target]
    lstm = target is ao.lstm.default
    if a["train"] and a["dropout"] > 0:
        raise NotLowered("it is in training mode with dropout")
    if any(user.target is not getitem for user in node.users):
        raise NotLowered("its results are used as one tuple")
    weights, scales, biases = _sides(constants, a, lstm, dtype)
    graph, sizes = model.graph, a.get("batch_sizes")
    swapped = sizes is None and a["batch_first"]
    x = a["data"] if sizes is not None else a["input"]
    states = list(a["hx"]) if lstm else [a["hx"]]
    with graph.inserting_before(node):
        if swapped:
            x = _transposed(graph, x, x.meta.get("val"))
        arguments = (x, sizes, *states, weights, scales, biases, a["num_layers"], a["bidirectional"], *more)
        call = graph.call_function(target, arguments)
    inherit_meta(call, node)
    values = node.meta.get("val")
    if swapped and values is not None:
        call.meta["val"] = (values[0].transpose(0, 1), *values[1:])
    for user in list(node.users):
        with graph.inserting_before(user):
            part = graph.call_function(getitem, (call, user.args[1]))
            inherit_meta(part, user)
            if swapped and user.args[1] == 0:
                part.meta.pop("val", None)
                if values is not None:
                    part.meta["val"] = call.meta["val"][0]
                part = _transposed(graph, part, part.meta.get("val"))
        user.replace_all_uses_with(part)
        graph.erase_node(user)
    graph.erase_node(node)


def _lower_cell(
    model: fx.GraphModule, node: fx.Node, constants: Constants, dtype: torch.dtype | None
) -> None:
    a = arguments_of(node)
    target, more = _CELLS[node.target]
    sources = a["w_ih"], a["w_hh"]
    dtypes = weight_dtypes(dtype, *(_value(constants, source) for source in sources), None)
    sides = zip(sources, dtypes, strict=True)
    weights = [part for source, own in sides for part in _weight(constants, source, own)]
    given = [a.get(name) for name in ("b_ih", "b_hh")]
    if sum(value is None for value in given) == 1:
        raise NotLowered("it has one bias of two")
    biases = [None if value is None else _bias(constants, value) for value in given]
    states = a["hx"] if isinstance(a["hx"], (list, tuple)) else [a["hx"]]
    with model.graph.inserting_before(node):
        call = model.graph.call_function(target, (a["input"], *states, *weights, *biases, *more))
    inherit_meta(call, node)
    node.replace_all_uses_with(call)
    model.graph.erase_node(node)


def _transposed(graph: fx.Graph, node: fx.Node, value: Any) -> fx.Node:
    """[N, T, K] -> [T, N, K], or back."""
    made = graph.call_function(aten.transpose.int, (node, 0, 1))
    inherit_meta(made, node)
    made.meta.pop("val", None)
    if value is not None:
        made.meta["val"] = value.transpose(0, 1)
    return made


def lower_recurrent(model: fx.GraphModule, dtype: torch.dtype | str) -> None:
    """Replaces every recurrent layer and cell with constant weights; the others get the reason why not.

    Args:
        model: changed in place.
        dtype: torch.int8 or int16, a scale for each row, MIXED of these, or torch.bfloat16.

    Raises:
        ValueError: a weight that is not finite.
    """
    constants = Constants(model)
    for node in list(model.graph.nodes):
        if node.op != "call_function" or node.target not in {*RECURRENT, *_CELLS}:
            continue
        try:
            lower_one = _lower_cell if node.target in _CELLS else _lower_one
            lower_one(model, node, constants, None if dtype == MIXED else dtype)
        except NotLowered as reason:
            node.meta[REASON] = str(reason)
