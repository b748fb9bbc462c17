"""Float modules with fake-quantized weights."""

from torch_ao_ext.nn.qat.modules.conv import Conv1d, Conv2d, Conv3d
from torch_ao_ext.nn.qat.modules.embedding_ops import Embedding, EmbeddingBag
from torch_ao_ext.nn.qat.modules.linear import Linear

__all__ = ["Conv1d", "Conv2d", "Conv3d", "Embedding", "EmbeddingBag", "Linear"]
