"""Layers of a prepared graph, by the names that they have in the model."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from torch_ao_ext._graph_ops import module_types
from torch_ao_ext.quantization.observer._base import _PER_CHANNEL
from torch_ao_ext.quantization.pt2e._graph import tensor_of
from torch_ao_ext.quantization.pt2e.prepare import is_observer
from torch_ao_ext.quantization.quantizer._targets import CONV, LINEAR, RANK, float_value, is_call
from torch_ao_ext.quantization.quantizer.utils import innermost_module

__all__ = ["Layer", "layers_of", "observer_at", "weighted_layers"]

_CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@dataclass(frozen=True)
class Layer:
    """A layer of torch.nn and its first operator.

    Args:
        fqn: name in the model.
        node: the operator.
    """

    fqn: str
    node: fx.Node

    @property
    def kind(self) -> type[nn.Module] | None:
        """nn.Linear, nn.Conv1d, 2d or 3d; None for other layers."""
        if is_call(self.node, LINEAR):
            return nn.Linear
        return _CONVS[RANK[self.node.target]] if is_call(self.node, CONV) else None

    @property
    def source(self) -> fx.Node:
        """Its input."""
        return self.node.args[0]

    def child(self, name: str) -> str:
        """Name of something that belongs to it."""
        return f"{self.fqn}.{name}" if self.fqn else name

    def channel_axis(self, ch_axis: int) -> int:
        """The axis of the input's channels: the last of a linear layer for torch.ao's default of 1."""
        return -1 if ch_axis == 1 and self.kind is nn.Linear else ch_axis


def observer_at(model: fx.GraphModule, node: Any) -> Any:
    """The observer whose result a node is, or None."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    found = model.get_submodule(node.target)
    return found if is_observer(found) else None


def layers_of(model: fx.GraphModule) -> list[Layer]:
    """Layers of torch.nn that take a float tensor, in graph order, each at its first call."""
    found: dict[str, Layer] = {}
    for node in model.graph.nodes:
        kinds = module_types(node) if node.op == "call_function" else []
        if not kinds or not kinds[-1].startswith("torch.nn.modules.") or ".container." in kinds[-1]:
            continue
        if node.args and isinstance(node.args[0], fx.Node) and float_value(node.args[0]):
            fqn = innermost_module(node)
            found.setdefault(fqn, Layer(fqn, node))
    return list(found.values())


def weighted_layers(model: fx.GraphModule) -> list[Layer]:
    """Linear layers and convolutions among them."""
    return [layer for layer in layers_of(model) if layer.kind is not None]


def weight_of(model: fx.GraphModule, layer: Layer) -> torch.Tensor | None:
    """The float weight of a linear layer or convolution; None when it is computed."""
    node = layer.node.args[1]
    value = tensor_of(model, node if observer_at(model, node) is None else node.args[0])
    return None if value is None else value.detach()


def is_per_channel(observer: Any) -> bool:
    """Whether an observer or fake-quantize module has a scale for each channel."""
    return getattr(observer, "qscheme", None) in _PER_CHANNEL
