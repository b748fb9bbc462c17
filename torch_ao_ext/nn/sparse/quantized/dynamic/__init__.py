"""Linear layers with int8 weights in blocks and float inputs quantized on the fly."""

from torch_ao_ext.nn.sparse.quantized.dynamic.linear import Linear

__all__ = ["Linear"]
