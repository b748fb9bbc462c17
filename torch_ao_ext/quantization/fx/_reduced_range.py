"""Seven-bit observers (reduce_range) choose a scale; the integers may use the whole byte.

torch.ao's kernels cut nothing at 127 either, nor does eager mode: what lies beyond the observed
range keeps its value.
"""

import torch
from torch import fx

from torch_ao_ext.quantization import _decomposed

__all__ = ["widen_reduced_ranges"]

_WHOLE = {(torch.uint8, 0, 127): (0, 255), (torch.int8, -64, 63): (-128, 127)}


def widen_reduced_ranges(model: fx.GraphModule) -> None:
    """Quantize and dequantize of 7 bits use 8, in place.

    Args:
        model: from convert_pt2e.
    """
    ops = _decomposed.operators()
    for node in model.graph.nodes:
        if node.target in (ops.quantize_per_tensor.default, ops.dequantize_per_tensor.default):
            value, scale, zero_point, low, high, dtype = node.args
            if (dtype, low, high) in _WHOLE:
                node.args = (value, scale, zero_point, *_WHOLE[(dtype, low, high)], dtype)
    model.recompile()
