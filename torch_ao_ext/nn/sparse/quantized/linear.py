"""Linear with an int8 weight in blocks between quantized tensors."""

import torch
from torch import nn

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.sparse.quantized._base import SparseLinearBase
from torch_ao_ext.nn.sparse.quantized._packed import LinearPackedParams

__all__ = ["Linear", "LinearPackedParams"]

_sparse_linear = torch.ops.torch_ao.sparse_linear.default


class Linear(SparseLinearBase):
    """y = quantize(x W^T + b) with the output scale and zero point of the layer.

    Args:
        in_features: K.
        out_features: N.
        row_block_size: 1 (with 4 columns) or 8 (with 1 column).
        col_block_size: 4 or 1.
        bias: with a bias.
        dtype: torch.qint8 or torch.int8.
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
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer("zero_point", torch.tensor(0))

    def forward(self, x: QuantizedTensor) -> QuantizedTensor:
        """`[*, K]` quantized per tensor -> `[*, N]` of the same integer dtype."""
        b = self._buffers
        scale, zero_point = float(b["scale"]), int(b["zero_point"])
        data = _sparse_linear(
            x.int_repr(),
            x.q_scale(),
            x.q_zero_point(),
            *self._blocks(),
            b["weight_scale"],
            b["qbias"],
            scale,
            zero_point,
        )
        return QuantizedTensor(data, torch.tensor([scale]), torch.tensor([zero_point], dtype=torch.int32))

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> "Linear":
        """Sparse int8 copy of a float layer whose output was observed.

        Args:
            mod: nn.Linear with `activation_post_process`; blocks as in the dynamic layer.
            use_precomputed_fake_quant: torch.ao's flag, not used here.
        """
        del use_precomputed_fake_quant
        observer = getattr(mod, "activation_post_process", None)
        if observer is None:
            raise ValueError("Linear.from_float: argument 'mod' must have activation_post_process")
        scale, zero_point = observer.calculate_qparams()
        new = cls(mod.in_features, mod.out_features, bias=mod.bias is not None)
        new._set_from(mod)
        new.scale = scale.detach().reshape(()).to(torch.float32)
        new.zero_point = zero_point.detach().reshape(()).to(torch.int64)
        return new.train(mod.training)

    from_dense = from_float

    def _get_name(self) -> str:
        return "SparseQuantizedLinear"
