"""max(0, x W^T + b) with int8 weights, as one operator."""

import torch
from torch import nn

from torch_ao_ext.nn.quantized._observed import INT8
from torch_ao_ext.nn.quantized.dynamic.modules.linear import Linear

__all__ = ["LinearReLU"]

_linear_relu_dynamic = torch.ops.torch_ao.linear_relu_dynamic.default


class LinearReLU(Linear):
    """`nn.quantized.dynamic.Linear` with the ReLU inside the operator.

    Args:
        in_features: K.
        out_features: N.
        bias: with a bias.
        dtype: of the weight, torch.qint8 or torch.int8.

    Example:
        >>> import torch, torch_ao_ext
        >>> layer = torch_ao_ext.nn.intrinsic.quantized.dynamic.LinearReLU(20, 30)
        >>> layer(torch.randn(128, 20)).shape
        torch.Size([128, 30])
    """

    _POST_OP = "relu"

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, dtype: torch.dtype = INT8[-1]
    ) -> None:
        super().__init__(in_features, out_features, bias, dtype)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`[*, K]` -> `[*, N]`, same dtype."""
        if torch.jit.is_scripting():
            y = torch.ops.torch_ao.linear_relu_dynamic(
                input,
                self.qweight,
                self.weight_scale,
                self.weight_zero_point,
                self.qbias,
                self.per_row,
                self.symmetric,
                self.reduce_range,
            )
        else:
            b = self._buffers
            y = _linear_relu_dynamic(
                input,
                b["qweight"],
                b["weight_scale"],
                b["weight_zero_point"],
                b["qbias"],
                self.per_row,
                self.symmetric,
                self.reduce_range,
            )
        return y

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> "LinearReLU":
        """Quantized copy of a float LinearReLU (torch.ao's or ours) whose `qconfig` is set."""
        linear = mod[0]
        qconfig = getattr(mod, "qconfig", None)
        had = "qconfig" in linear.__dict__
        before = linear.__dict__.get("qconfig")
        linear.qconfig = qconfig
        try:
            return super().from_float(linear, use_precomputed_fake_quant)
        finally:
            if had:
                linear.qconfig = before
            else:
                del linear.qconfig

    def _get_name(self) -> str:
        return "DynamicQuantizedLinearReLU"
