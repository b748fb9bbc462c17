"""torch.ao's container of a sparse linear weight, on plain tensors."""

from typing import Any

import torch

from torch_ao_ext.nn.quantized._observed import INT8
from torch_ao_ext.nn.quantized._packed_linear import check_bias, described
from torch_ao_ext.nn.sparse.quantized._base import SparseLinearBase

__all__ = ["LinearPackedParams"]


class LinearPackedParams(SparseLinearBase):
    """Blocks of an int8 weight, and the bias.

    Buffers as in the sparse layers, and `weight_size` int64 `[2]`; `_packed_params` has them in the order in
    which `sparse_linear` and `sparse_linear_dynamic` take them. A state_dict may hold other sizes.

    Args:
        row_block_size: 1 (with 4 columns) or 8 (with 1 column).
        col_block_size: 4 or 1.
        dtype: torch.qint8 or int8.

    Raises:
        NotImplementedError: another dtype.
        ValueError: another block.

    Example:
        >>> import torch
        >>> from torch_ao_ext.nn.sparse import quantized
        >>> layer, packed = quantized.dynamic.Linear(8, 4), quantized.LinearPackedParams()
        >>> packed.set_weight_bias(layer.weight(), layer.bias(), 1, 4)
        >>> torch.ops.torch_ao.sparse_linear_dynamic(torch.randn(2, 8), *packed._packed_params).shape
        torch.Size([2, 4])
    """

    __jit_unused_properties__ = ("block_shape", "dtype", "_packed_params")

    weight_size: torch.Tensor

    def __init__(
        self, row_block_size: int = 1, col_block_size: int = 4, dtype: torch.dtype = INT8[-1]
    ) -> None:
        if dtype not in INT8:
            raise NotImplementedError(
                f"LinearPackedParams: argument 'dtype' must be torch.qint8 or int8, got {dtype}"
            )
        super().__init__(1, 1, row_block_size, col_block_size, bias=False)
        self.register_buffer("weight_size", torch.tensor([1, 1]))

    @property
    def dtype(self) -> torch.dtype:
        """torch.qint8."""
        return INT8[-1]

    @property
    def _packed_params(self) -> tuple[Any, ...]:
        """Blocks, sizes, scale and bias, as the operators take them."""
        return *self._blocks(), self.weight_scale, self.qbias

    def set_weight_bias(
        self, weight: Any, bias: torch.Tensor | None, row_block_size: int | None, col_block_size: int | None
    ) -> None:
        """Replaces weight, whose size is free, bias and block.

        Args:
            weight: `[N, K]`, a QuantizedTensor or torch's qint8 tensor with zero point 0.
            bias: float `[N]`, or None.
            row_block_size: 1 or 8.
            col_block_size: 4 or 1.

        Raises:
            AssertionError: no block size.
            ValueError: another dtype, shape, zero point or block.
        """
        who = "LinearPackedParams.set_weight_bias"
        for name, value in (("row_block_size", row_block_size), ("col_block_size", col_block_size)):
            if value is None:
                raise AssertionError(f"{who}: argument '{name}' must be a number, got None")
        if not getattr(weight, "is_quantized", False) or weight.dtype not in INT8 or weight.dim() != 2:
            got = described(weight)
            raise ValueError(f"{who}: argument 'weight' must be quantized to int8 [N, K], got {got}")
        bias, before = check_bias(who, bias, len(weight)), (self.out_features, self.in_features)
        self._set_size(*weight.shape)
        try:
            super().set_weight_bias(weight, bias, row_block_size, col_block_size)
        except ValueError:
            self._set_size(*before)
            raise

    def _set_size(self, rows: int, columns: int) -> None:
        # Python values for the operators, and a buffer so that every file format keeps them.
        self.out_features, self.in_features = rows, columns
        self.weight_size = torch.tensor([rows, columns])

    def _weight_bias(self) -> tuple[Any, torch.Tensor | None, int, int]:
        """The dense weight (a copy), the bias, rows and columns of a block."""
        return self.weight(), self.qbias, *self.block_shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x."""
        return x

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        size, errors = state_dict.get(prefix + "weight_size"), args[-1]
        if size is not None:
            if size.dtype != torch.int64 or size.shape != (2,) or int(size.min()) < 0:
                errors.append(f"{prefix}weight_size must be int64 [2] of values >= 0, got {size.tolist()}")
                return
            self._set_size(*size.tolist())
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _get_name(self) -> str:
        return "SparseQuantizedLinearPackedParams"
