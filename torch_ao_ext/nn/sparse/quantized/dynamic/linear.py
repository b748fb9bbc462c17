"""Linear with an int8 weight in blocks; the float input is quantized row by row."""

import torch
from torch import nn

from torch_ao_ext.nn.quantized.dynamic.modules.linear import DynamicQuant, dynamic_quant_of
from torch_ao_ext.nn.sparse.quantized._base import SparseLinearBase

__all__ = ["Linear"]

_sparse_linear_dynamic = torch.ops.torch_ao.sparse_linear_dynamic.default


class Linear(SparseLinearBase):
    """y = x W^T + b; every value equals that of the dense int8 layer with the same zeros.

    Args:
        in_features: K.
        out_features: N.
        row_block_size: 1 (with 4 columns) or 8 (with 1 column).
        col_block_size: 4 or 1.
        bias: with a bias.
        dtype: torch.qint8 or torch.int8.

    Example:
        >>> import torch, torch_ao_ext
        >>> layer = torch_ao_ext.nn.sparse.quantized.dynamic.Linear(20, 30, 1, 4)
        >>> layer(torch.randn(128, 20)).shape
        torch.Size([128, 30])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        row_block_size: int = 1,
        col_block_size: int = 4,
        bias: bool = True,
        dtype: torch.dtype = torch.int8,
    ) -> None:
        if dtype not in (torch.int8, getattr(torch, "qint8", torch.int8)):
            raise ValueError(f"Linear: argument 'dtype' must be torch.qint8 or int8, got {dtype}")
        super().__init__(in_features, out_features, row_block_size, col_block_size, bias)
        self._set_dynamic_quant(DynamicQuant())

    def _set_dynamic_quant(self, rule: DynamicQuant) -> None:
        self.rule = DynamicQuant(*map(bool, rule))
        self.register_buffer("act_quant", torch.tensor(self.rule, dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[*, K]` float32 or bfloat16 -> `[*, N]`, same dtype."""
        b = self._buffers
        return _sparse_linear_dynamic(x, *self._blocks(), b["weight_scale"], b["qbias"], *self.rule)

    def prepack(self, dtype: torch.dtype = torch.float32) -> None:
        """Packs the weight now instead of at the first call, for inputs of this dtype."""
        torch.ops.torch_ao._prepack_sparse_linear_dynamic(
            *self._blocks(), self.weight_scale, self.qbias, dtype, *self.rule, dtype
        )

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> "Linear":
        """Sparse int8 copy of a float layer.

        The block shape is `sparse_params["sparse_block_shape"]` of the layer, as
        `squash_mask` leaves it, or else that of `LinearBlockSparsePattern`.

        Args:
            mod: nn.Linear; its qconfig is used where it has one.
            use_precomputed_fake_quant: torch.ao's flag, not used here.
        """
        del use_precomputed_fake_quant
        new = cls(mod.in_features, mod.out_features, bias=mod.bias is not None)
        new._set_from(mod)
        if getattr(mod, "qconfig", None) is not None:
            new._set_dynamic_quant(dynamic_quant_of(mod.qconfig))
        return new.train(mod.training)

    from_dense = from_float

    def _load_from_state_dict(self, state_dict, prefix, *args):
        super()._load_from_state_dict(state_dict, prefix, *args)
        rule = state_dict.get(prefix + "act_quant")
        if rule is not None and tuple(rule.shape) == (3,):
            self._set_dynamic_quant(DynamicQuant(*map(bool, rule.tolist())))

    def _get_name(self) -> str:
        return "SparseQuantizedDynamicLinear"
