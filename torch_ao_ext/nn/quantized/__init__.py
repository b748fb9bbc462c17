"""Quantized modules."""

from torch_ao_ext.nn.quantized import dynamic
from torch_ao_ext.nn.quantized.modules import Embedding, EmbeddingBag, LinearWeightOnly

__all__ = ["Embedding", "EmbeddingBag", "LinearWeightOnly", "dynamic"]
