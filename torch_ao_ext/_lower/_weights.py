"""Weights and biases of products, in the form that the operators take."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from torch_ao_ext.quantization import _decomposed
from torch_ao_ext.quantization.pt2e._batch_norm import constant_affine
from torch_ao_ext.quantization.pt2e._graph import add_constant, set_value, tensor_of


class NotLowered(Exception):
    """Why a float operator stays; the text goes into the report."""


@dataclass(frozen=True)
class Weight:
    """get_attr nodes of an int8 weight.

    Args:
        values: int8.
        scale: `[N]` or `[1]`, float32.
        zero_point: as scale, int64; None means 0.
    """

    values: fx.Node
    scale: fx.Node
    zero_point: fx.Node | None


def is_dequantize(node: Any) -> bool:
    """Whether a node makes floats of integers with constant qparams."""
    ops = _decomposed.operators()
    targets = (ops.dequantize_per_channel.default, ops.dequantize_per_tensor.default)
    return isinstance(node, fx.Node) and node.target in targets


class Constants:
    """Makes the constants of one graph, each once, as buffers of the root.

    `self.layers_0_qweight` is one lookup in every call, `self.layers.0.qweight` is three.

    Args:
        model: the graph module that is lowered.
    """

    def __init__(self, model: fx.GraphModule) -> None:
        self.model = model
        self._made: dict[Any, fx.Node] = {}
        # Constants stand before whatever reads them; no product is the first node.
        self._anchor = next(iter(model.graph.nodes))

    def add(self, key: Any, name: str, value: torch.Tensor) -> fx.Node:
        """The node of a constant; the same node for the same key."""
        if key not in self._made:
            with self.model.graph.inserting_before(self._anchor):
                node = add_constant(self.model, name.replace(".", "_"), value)
            set_value(node, value)
            self._made[key] = node
        return self._made[key]

    def _moved(self, node: fx.Node, value: torch.Tensor) -> fx.Node:
        """The constant of a get_attr node, at the start of the graph."""
        return self.add(("same", node.target), node.target, value.detach())

    @staticmethod
    def path(dequantize: fx.Node) -> str:
        """Name of the module that holds the constant behind a dequantize."""
        return dequantize.args[0].target.rpartition(".")[0]

    def weight(self, node: Any, channel_axis: int, groups: int) -> Weight:
        """The int8 weight behind a dequantize.

        Args:
            node: second argument of the product.
            channel_axis: axis of the output channels (of one group when transposed).
            groups: repeats of the scales; 1 unless transposed.

        Raises:
            NotLowered: not a dequantize of constant int8 values along that axis.
        """
        ops = _decomposed.operators()
        if not is_dequantize(node):
            raise NotLowered("its weight is not quantized")
        values = tensor_of(self.model, node.args[0])
        if values is None or values.dtype != torch.int8:
            raise NotLowered("its weight is not a constant of int8 values")
        source = self._moved(node.args[0], values)
        path = self.path(node)
        prefix = f"{path}.weight" if path else node.args[0].target
        if node.target is ops.dequantize_per_tensor.default:
            scale, zero_point = float(node.args[1]), int(node.args[2])
            scales = self.add((source, scale), f"{prefix}_scale", torch.tensor([scale]))
            zeros = None
            if zero_point:
                value = torch.tensor([zero_point])
                zeros = self.add((source, "zero", zero_point), f"{prefix}_zero_point", value)
            return Weight(source, scales, zeros)
        scale, zero_point = (tensor_of(self.model, a) for a in node.args[1:3])
        if scale is None or zero_point is None or node.args[3] != channel_axis:
            raise NotLowered(f"its weight is not quantized along axis {channel_axis}")
        if zero_point.is_floating_point():
            raise NotLowered("its weight has float zero points")
        if groups > 1:
            scales = self.add((source, node.args[1].target, groups), f"{prefix}_scale", scale.repeat(groups))
        else:
            scales = self._moved(node.args[1], scale)
        if not bool(zero_point.any()):
            return Weight(source, scales, None)
        key = (source, node.args[2].target, groups)
        return Weight(source, scales, self.add(key, f"{prefix}_zero_point", zero_point.repeat(groups)))

    def rows(self, node: Any) -> fx.Node:
        """A table of quantized rows, as `torch_ao::embedding` takes it.

        Raises:
            NotLowered: not a dequantize of constant uint8 values along axis 0.
        """
        ops = _decomposed.operators()
        if not isinstance(node, fx.Node) or node.target is not ops.dequantize_per_channel.default:
            raise NotLowered("its weight is not quantized by rows")
        values, scale, zero_point = (tensor_of(self.model, a) for a in node.args[:3])
        if values is None or values.dtype != torch.uint8 or values.dim() != 2 or node.args[3] != 0:
            raise NotLowered("its weight is not a constant table of uint8 rows")
        if scale is None or zero_point is None:
            raise NotLowered("its weight has no constant scales and zero points")
        source = node.args[0]
        # value = byte * scale + offset, both float32 at the end of the row
        offset = (-zero_point.double() * scale.double()).float()
        tail = torch.stack([scale.float(), offset], 1).contiguous().view(torch.uint8)
        path = self.path(node)
        name = f"{path}.rows" if path else "_rows"
        return self.add(("rows", source.target), name, torch.cat([values, tail], 1))

    def bias(self, node: Any, path: str) -> fx.Node | None:
        """A float32 bias, from a constant or the dequantize of one.

        Raises:
            NotLowered: not a constant of float32 values.
        """
        if node is None:
            return None
        value = tensor_of(self.model, node)
        if value is None and isinstance(node, fx.Node):
            value = self._dequantized_bias(node)
        if value is None or value.dtype != torch.float32:
            raise NotLowered("its bias is not a constant of float32 values")
        if node.op == "get_attr" and not isinstance(value, torch.nn.Parameter):
            return self._moved(node, value)
        # A parameter would take every call through autograd.
        name = f"{path}.qbias" if path else "_qbias"
        return self.add(
            ("bias", node.target if node.op == "get_attr" else node), name, value.detach().clone()
        )

    def slope(self, node: fx.Node) -> fx.Node:
        """float32 slopes of a prelu, a vector.

        Raises:
            NotLowered: not a constant of float32 values.
        """
        value = tensor_of(self.model, node)
        if value is None or value.dtype != torch.float32:
            raise NotLowered("the slopes behind it are not a constant of float32 values")
        name = node.target if isinstance(node.target, str) else "_slope"
        return self.add(("slope", node.target), f"{name}_slope", value.detach().reshape(-1).clone())

    def affine(self, norm: fx.Node) -> tuple[fx.Node, fx.Node] | None:
        """Factor and offset of a batch norm of float32 in evaluation mode, two vectors.

        Returns:
            None where its numbers are not constant and finite.
        """
        found = constant_affine(self.model, norm)
        if found is None or norm.meta["val"].dtype != torch.float32:
            return None
        values = [value.float() for value in found]
        if not all(bool(value.isfinite().all()) for value in values):
            return None
        path = norm.args[3].target.rpartition(".")[0] or "_norm"
        key = tuple(a.target if isinstance(a, fx.Node) else a for a in norm.args[1:8])
        factor, offset = (
            self.add(("affine", name, key), f"{path}.affine_{name}", value)
            for name, value in zip(("weight", "bias"), values, strict=True)
        )
        return factor, offset

    def _dequantized_bias(self, node: fx.Node) -> torch.Tensor | None:
        if not is_dequantize(node):
            return None
        arguments = [tensor_of(self.model, a) if isinstance(a, fx.Node) else a for a in node.args]
        if any(a is None for a in arguments):
            return None
        return node.target(*arguments)
