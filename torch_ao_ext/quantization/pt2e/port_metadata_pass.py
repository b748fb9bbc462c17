"""Gives quantize and dequantize nodes the module and source line of their operator."""

from typing import Any

from torch import fx
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from torch_ao_ext.quantization import _decomposed

__all__ = ["PortNodeMetaForQDQ"]

_KEYS = ("nn_module_stack", "stack_trace", "source_fn_stack", "torch_fn")


class PortNodeMetaForQDQ(PassBase):
    """A pass over an fx.GraphModule: q/dq belong to the operator that they serve.

    A dequantize (and a quantize in front of nothing but dequantizes of one operator)
    takes the metadata of its reader when it reads a constant or an input of the graph,
    else that of the operator that made the value.
    """

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        """Runs the pass; the result says whether the graph changed."""
        ops = _decomposed.operators()
        quantize = {
            ops.quantize_per_tensor.default, ops.quantize_per_tensor.tensor,
            ops.quantize_per_channel.default, ops.quantize_per_token.default,
        }  # fmt: skip
        dequantize = {
            ops.dequantize_per_tensor.default, ops.dequantize_per_tensor.tensor,
            ops.dequantize_per_channel.default, ops.dequantize_per_token.default,
        }  # fmt: skip
        choose = {
            ops.choose_qparams.tensor, ops.choose_qparams_symmetric.tensor,
            ops.choose_qparams_per_token_asymmetric.default,
        }  # fmt: skip
        changed = False
        for node in graph_module.graph.nodes:
            if node.op != "call_function" or node.target not in quantize | dequantize | choose:
                continue
            source = _source(node, quantize | dequantize)
            if source.op in ("get_attr", "placeholder") or node.target in dequantize:
                donor = _reader(node, quantize | dequantize | choose)
            else:
                donor = source
            if donor is not None:
                changed |= _port(node, donor)
        return PassResult(graph_module, changed)


def _source(node: fx.Node, pairs: set[Any]) -> fx.Node:
    source = node.args[0]
    while source.op == "call_function" and source.target in pairs:
        source = source.args[0]
    return source


def _reader(node: fx.Node, pairs: set[Any]) -> fx.Node | None:
    """The first operator that reads the value."""
    for user in node.users:
        if user.op == "call_function" and user.target not in pairs and "getitem" not in str(user.target):
            return user
        found = _reader(user, pairs) if user.op == "call_function" else None
        if found is not None:
            return found
    return None


def _port(node: fx.Node, donor: fx.Node) -> bool:
    changed = False
    for key in _KEYS:
        value = donor.meta.get(key)
        if value is not None and node.meta.get(key) != value:
            node.meta[key] = value
            changed = True
    return changed
