"""torch.ao's container of an embedding table, on a plain tensor of fused rows."""

from typing import Any

import torch

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized import _rows
from torch_ao_ext.nn.quantized._packed_linear import described
from torch_ao_ext.nn.quantized._state import CheckedLoad

__all__ = ["EmbeddingPackedParams"]

_QUINT8 = getattr(torch, "quint8", torch.uint8)


class EmbeddingPackedParams(CheckedLoad):
    """Rows of an embedding table.

    Buffers `qweight` uint8 `[num_embeddings, bytes]`, torch's fused rows, which `embedding` and
    `embedding_bag` take (`_packed_weight` is its other name); `row_format` int64 `[2]`, bits and
    embedding_dim; `format_version`. A state_dict may hold a table of another size.

    Args:
        num_embeddings: rows; zeros until `set_weight`.
        embedding_dim: D.
        dtype: torch.quint8 (or uint8), quint4x2 or quint2x4.

    Raises:
        NotImplementedError: another dtype.

    Example:
        >>> import torch
        >>> from torch_ao_ext.nn.quantized.modules.embedding_ops import EmbeddingPackedParams
        >>> packed = EmbeddingPackedParams(10, 12)
        >>> torch.ops.torch_ao.embedding(packed._packed_weight, torch.tensor([9, 6]), 8).shape
        torch.Size([2, 12])
    """

    __jit_unused_properties__ = ("dtype", "_packed_weight")

    qweight: torch.Tensor
    row_format: torch.Tensor

    def __init__(self, num_embeddings: int, embedding_dim: int, dtype: torch.dtype = _QUINT8) -> None:
        super().__init__()
        if dtype not in _rows.BITS:
            known = "torch.quint8, quint4x2 or quint2x4"
            raise NotImplementedError(f"EmbeddingPackedParams: argument 'dtype' must be {known}, got {dtype}")
        codes = torch.zeros(num_embeddings, embedding_dim, dtype=torch.uint8)
        zeros = torch.zeros(num_embeddings)
        self.register_buffer("qweight", None)
        self.register_buffer("row_format", None)
        self._put(_rows.Rows(codes, zeros + 1, zeros), _rows.BITS[dtype])
        self.register_buffer("format_version", torch.tensor(self._FORMAT_VERSION))

    def _put(self, rows: _rows.Rows, bits: int) -> None:
        self.qweight = _rows.fuse_rows(rows, bits)
        self.row_format = torch.tensor([bits, rows.codes.shape[1]])

    @property
    def dtype(self) -> torch.dtype:
        """torch.quint8, quint4x2 or quint2x4: torch.ao's name of the width."""
        bits = int(self.row_format[0])
        return _QUINT8 if bits == 8 else next(dtype for dtype, width in _rows.BITS.items() if width == bits)

    @property
    def _packed_weight(self) -> torch.Tensor:
        """The fused rows, as the operators take them."""
        return self.qweight

    def set_weight(self, weight: Any) -> None:
        """Replaces the table, whose size is free.

        Args:
            weight: `[rows, D]`, a QuantizedTensor with float zero points, or torch's tensor of the
                module's dtype.

        Raises:
            ValueError: another dtype, shape or axis.
        """
        who, bits = "EmbeddingPackedParams.set_weight", int(self.row_format[0])
        if not getattr(weight, "is_quantized", False) or weight.dim() != 2:
            raise ValueError(
                f"{who}: argument 'weight' must be a quantized tensor [rows, D], got {described(weight)}"
            )
        if weight.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            raise ValueError(
                f"{who}: argument 'weight' must have qparams of its rows, got {weight.qscheme()}"
            )
        try:
            self._put(_rows.rows_of_weight(weight, bits, tuple(weight.shape)), bits)
        except ValueError as error:
            raise ValueError(f"{who}: argument {error}") from error

    def _weight(self) -> QuantizedTensor:
        """The codes, uint8 `[rows, D]`, with float qparams per row (a copy)."""
        return _rows.as_quantized_tensor(_rows.split_rows(self.qweight, *self.row_format.tolist()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x."""
        return x

    def _take_form(self, state_dict: dict[str, Any], prefix: str) -> str | None:
        table, form = state_dict.get(prefix + "qweight"), state_dict.get(prefix + "row_format")
        if table is None or form is None:
            return None
        bits, dim = form.tolist() if form.shape == (2,) else (0, 0)
        if bits not in _rows.BITS.values() or dim < 0:
            return f"{prefix}row_format must be [8, 4 or 2, embedding_dim], got {form.tolist()}"
        stored = -(-dim // (8 // bits)) + _rows._tail_bytes(bits)
        if table.dtype != torch.uint8 or table.dim() != 2 or table.shape[1] != stored:
            return f"{prefix}qweight must be uint8 [rows, {stored}], got {table.dtype} {list(table.shape)}"
        self.qweight = torch.empty_like(table, device=self.format_version.device)
        return None

    def extra_repr(self) -> str:
        """Size and dtype, as print(model) shows them."""
        return f"{[len(self.qweight), int(self.row_format[1])]}, dtype={self.dtype}"
