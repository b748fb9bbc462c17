"""The quantize and dequantize that remain run on this library's kernels."""

from typing import Any

import torch
from torch import fx

from torch_ao_ext._lower._qdq import dequantized, quantize_qparams
from torch_ao_ext.quantization import _decomposed
from torch_ao_ext.quantization.pt2e._graph import replace_node

ao = torch.ops.torch_ao


def _call(model: fx.GraphModule, node: fx.Node, target: Any, arguments: tuple[Any, ...]) -> None:
    with model.graph.inserting_before(node):
        call = model.graph.call_function(target, arguments)
    replace_node(node, call)


def lower_rest(model: fx.GraphModule) -> None:
    """Replaces every static per-tensor quantize and dequantize of 8 bits.

    The others (per channel, with tensors as qparams, of other dtypes) stay as they are.
    """
    _decomposed.operators()
    for node in list(model.graph.nodes):
        if quantize_qparams(node) is not None:
            _call(model, node, ao.quantize_per_tensor.default, node.args)
            continue
        found = dequantized(node)
        if found is not None:
            source, qparams = found
            arguments = (source, qparams.scale, qparams.zero_point)
            _call(model, node, ao.dequantize_per_tensor.default, arguments)
