"""Embedding tables that round their rows; arguments and input of the float classes."""

from torch import nn

from torch_ao_ext.nn.quantized.reference.modules.utils import ReferenceQuantizedModule

__all__ = ["Embedding", "EmbeddingBag"]


class Embedding(ReferenceQuantizedModule, nn.Embedding):
    """nn.Embedding on the rounded table; see `ReferenceQuantizedModule`."""

    _FLOAT = nn.Embedding


class EmbeddingBag(ReferenceQuantizedModule, nn.EmbeddingBag):
    """nn.EmbeddingBag on the rounded table; see `ReferenceQuantizedModule`."""

    _FLOAT = nn.EmbeddingBag
