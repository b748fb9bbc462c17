"""One file per module family."""

from torch_ao_ext.nn.quantized.modules.embedding_ops import Embedding, EmbeddingBag
from torch_ao_ext.nn.quantized.modules.linear_weight_only import LinearWeightOnly

__all__ = ["Embedding", "EmbeddingBag", "LinearWeightOnly"]
