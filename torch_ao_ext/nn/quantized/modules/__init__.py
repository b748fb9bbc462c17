"""One file per module family."""

from torch_ao_ext.nn.quantized.modules.embedding_ops import Embedding, EmbeddingBag

__all__ = ["Embedding", "EmbeddingBag"]
