"""`lower`: a graph of quantize, float operator, dequantize becomes one of int8 operators."""

from torch_ao_ext._lower.lower import lower, lower_nodes

__all__ = ["lower", "lower_nodes"]
