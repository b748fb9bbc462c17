"""Linear layers with int8 weights in blocks."""

from torch_ao_ext.nn.sparse.quantized import dynamic
from torch_ao_ext.nn.sparse.quantized.convert import to_sparse_int8
from torch_ao_ext.nn.sparse.quantized.linear import Linear, LinearPackedParams
from torch_ao_ext.nn.sparse.quantized.utils import LinearBlockSparsePattern

__all__ = ["Linear", "LinearBlockSparsePattern", "LinearPackedParams", "dynamic", "to_sparse_int8"]
