"""Switches an exported graph between training and evaluation.

Only the flag of each dropout and batch norm changes: p, eps and momentum stay.
"""

import types
from typing import Any

import torch
from torch import fx

from torch_ao_ext.quantization.pt2e._graph import check_graph_module
from torch_ao_ext.quantization.pt2e._portable import TRAIN_EVAL

__all__ = [
    "allow_exported_model_train_eval",
    "model_is_exported",
    "move_exported_model_to_eval",
    "move_exported_model_to_train",
]

aten = torch.ops.aten
# Operator -> (index of its flag `training`, its default).
_FLAGS: dict[Any, int] = {
    aten.dropout.default: 2, aten.dropout_.default: 2, aten.feature_dropout.default: 2,
    aten.alpha_dropout.default: 2, aten.feature_alpha_dropout.default: 2,
    aten.batch_norm.default: 5, aten.instance_norm.default: 5,
}  # fmt: skip


def training_nodes(model: fx.GraphModule) -> list[fx.Node]:
    """Dropouts and batch norms that work as in training."""
    return [
        node
        for node in model.graph.nodes
        if node.op == "call_function"
        and node.target in _FLAGS
        and node.target is not aten.instance_norm.default
        and bool(node.args[_FLAGS[node.target]])
    ]


def model_is_exported(m: torch.nn.Module) -> bool:
    """Whether a module is a graph that torch.export made: its nodes know their values."""
    return isinstance(m, fx.GraphModule) and any("val" in node.meta for node in m.graph.nodes)


def switch(model: fx.GraphModule, training: bool) -> fx.GraphModule:
    """Sets the flags of dropouts and batch norms, in place."""
    for node in model.graph.nodes:
        if node.op == "call_function" and node.target in _FLAGS:
            if node.target is aten.instance_norm.default:
                continue  # without running statistics it normalises by its input in both modes
            arguments = list(node.args)
            arguments[_FLAGS[node.target]] = training
            node.args = tuple(arguments)
    model.recompile()
    for module in model.modules():
        if not isinstance(module, fx.GraphModule):
            module.training = training
    model.training = training
    return model


def move_exported_model_to_eval(model: fx.GraphModule) -> fx.GraphModule:
    """Dropout does nothing, batch norm uses its running statistics; in place.

    Raises:
        TypeError: not an exported graph module.
    """
    check_graph_module("move_exported_model_to_eval", model)
    return switch(model, training=False)


def move_exported_model_to_train(model: fx.GraphModule) -> fx.GraphModule:
    """Dropout drops, batch norm uses and tracks the statistics of the batch; in place.

    Raises:
        TypeError: not an exported graph module.
    """
    check_graph_module("move_exported_model_to_train", model)
    return switch(model, training=True)


def allow_exported_model_train_eval(model: fx.GraphModule) -> fx.GraphModule:
    """model.train() and model.eval() switch dropout and batch norm; nothing else changes.

    Raises:
        TypeError: not an exported graph module.
    """
    check_graph_module("allow_exported_model_train_eval", model)

    def train(self: fx.GraphModule, mode: bool = True) -> fx.GraphModule:
        return switch(self, training=mode)

    def evaluate(self: fx.GraphModule) -> fx.GraphModule:
        return switch(self, training=False)

    model.train = types.MethodType(train, model)  # type: ignore[method-assign]
    model.eval = types.MethodType(evaluate, model)  # type: ignore[method-assign]
    model.__dict__[TRAIN_EVAL] = allow_exported_model_train_eval
    return model


def disallow_train_eval(model: fx.GraphModule) -> fx.GraphModule:
    """model.train() and model.eval() raise: the graph is for one mode."""

    def refuse(name: str) -> Any:
        def method(self: fx.GraphModule, mode: bool = True) -> fx.GraphModule:
            raise NotImplementedError(
                f"{name}() does not reach into an exported graph; use "
                "pt2e.export_utils.move_exported_model_to_eval or allow_exported_model_train_eval"
            )

        return method

    model.train = types.MethodType(refuse("train"), model)  # type: ignore[method-assign]
    model.eval = types.MethodType(refuse("eval"), model)  # type: ignore[method-assign]
    model.__dict__[TRAIN_EVAL] = disallow_train_eval
    return model
