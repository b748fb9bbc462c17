"""Embeddings with fake-quantized rows."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from torch_ao_ext.nn.qat.modules._base import QATModule

__all__ = ["Embedding", "EmbeddingBag"]


class _Rows(QATModule):
    def __init__(self, *args: Any, qconfig: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._set_qconfig(qconfig)
        found = getattr(self.weight_fake_quant, "qscheme", None)
        if found != torch.per_channel_affine_float_qparams:
            raise ValueError(
                f"{type(self).__name__}: qconfig.weight must have the qscheme "
                f"torch.per_channel_affine_float_qparams, got {found}"
            )

    def _float_product(self) -> nn.Module:
        product = self._FLOAT_BASE(**self._arguments(self), _weight=self.weight.detach().clone())
        return product.train(self.training)


class Embedding(_Rows, nn.Embedding):
    """`nn.Embedding` with fake-quantized rows; arguments of that, and `qconfig` by name.

    Raises:
        ValueError: no qconfig, or its weight is not for rows.
    """

    _FLOAT_MODULE = _FLOAT_BASE = nn.Embedding
    _ARGUMENTS = (
        "num_embeddings", "embedding_dim", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq",
        "sparse",
    )  # fmt: skip

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Indices `[*]` -> `[*, embedding_dim]`."""
        return F.embedding(
            input, self.weight_fake_quant(self.weight), self.padding_idx, self.max_norm, self.norm_type,
            self.scale_grad_by_freq, self.sparse,
        )  # fmt: skip


class EmbeddingBag(_Rows, nn.EmbeddingBag):
    """`nn.EmbeddingBag` with fake-quantized rows; arguments of that, and `qconfig` by name.

    Raises:
        ValueError: no qconfig, or its weight is not for rows.
    """

    _FLOAT_MODULE = _FLOAT_BASE = nn.EmbeddingBag
    _ARGUMENTS = (
        "num_embeddings", "embedding_dim", "max_norm", "norm_type", "scale_grad_by_freq", "mode", "sparse",
        "include_last_offset", "padding_idx",
    )  # fmt: skip

    def forward(
        self, input: torch.Tensor, offsets: torch.Tensor | None = None,
        per_sample_weights: torch.Tensor | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """As nn.EmbeddingBag."""
        return F.embedding_bag(
            input, self.weight_fake_quant(self.weight), offsets, self.max_norm, self.norm_type,
            self.scale_grad_by_freq, self.mode, self.sparse, per_sample_weights, self.include_last_offset,
            self.padding_idx,
        )  # fmt: skip
