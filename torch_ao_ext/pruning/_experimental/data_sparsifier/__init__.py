"""Sparsity of tensors and embedding tables outside a model."""

from torch_ao_ext.pruning._experimental.data_sparsifier.base_data_sparsifier import BaseDataSparsifier
from torch_ao_ext.pruning._experimental.data_sparsifier.data_norm_sparsifier import DataNormSparsifier

__all__ = ["BaseDataSparsifier", "DataNormSparsifier"]
