"""Modules whose weights are sparse."""

from torch_ao_ext.nn.sparse import quantized

__all__ = ["quantized"]
