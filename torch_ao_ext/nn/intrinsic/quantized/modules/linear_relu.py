"""Linear layers with an activation inside the operator."""

import torch
from torch import nn

from torch_ao_ext.nn.quantized._observed import INT8
from torch_ao_ext.nn.quantized.modules.linear import Linear

__all__ = ["LinearLeakyReLU", "LinearReLU", "LinearTanh"]


class LinearReLU(Linear):
    """y = quantize(max(0, x W^T + b)); see `nn.quantized.Linear`.

    Args:
        in_features: K.
        out_features: N.
        bias: with a bias.
        dtype: of the weight, torch.qint8 or torch.int8.

    Example:
        >>> import torch, torch_ao_ext
        >>> nnq = torch_ao_ext.nn.quantized
        >>> x = nnq.Quantize(0.1, 128, torch.quint8)(torch.randn(2, 8))
        >>> torch_ao_ext.nn.intrinsic.quantized.LinearReLU(8, 4)(x).shape
        torch.Size([2, 4])
    """

    _POST_OPS = "relu"

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, dtype: torch.dtype = INT8[-1]
    ) -> None:
        super().__init__(in_features, out_features, bias, dtype)

    def _get_name(self) -> str:
        return "QuantizedLinearReLU"


class LinearLeakyReLU(Linear):
    """y = quantize(leaky_relu(x W^T + b)); see `nn.quantized.Linear`.

    Args:
        in_features: K.
        out_features: N.
        negative_slope: factor below 0.
        bias: with a bias.
        dtype: of the weight, torch.qint8 or torch.int8.
    """

    _POST_OPS = "leaky_relu"

    def __init__(
        self, in_features: int, out_features: int, negative_slope: float = 0.01, bias: bool = True,
        dtype: torch.dtype = INT8[-1],
    ) -> None:  # fmt: skip
        super().__init__(in_features, out_features, bias, dtype)
        self._set_slope(negative_slope)

    def _set_slope(self, negative_slope: float) -> None:
        self.negative_slope = float(negative_slope)
        self.post_op_args = [self.negative_slope]

    @classmethod
    def _make(cls, linear: nn.Linear) -> "LinearLeakyReLU":
        return cls(linear.in_features, linear.out_features, bias=linear.bias is not None)

    def _read_activation(self, mod: nn.Module) -> None:
        self._set_slope(mod[1].negative_slope)

    def _get_name(self) -> str:
        return "QuantizedLinearLeakyReLU"

    def extra_repr(self) -> str:
        """As Linear, and the slope."""
        return f"{super().extra_repr()}, negative_slope={self.negative_slope}"


class LinearTanh(Linear):
    """y = quantize(tanh(x W^T + b)); arguments as `LinearReLU`."""

    _POST_OPS = "tanh"

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, dtype: torch.dtype = INT8[-1]
    ) -> None:
        super().__init__(in_features, out_features, bias, dtype)

    def _get_name(self) -> str:
        return "QuantizedLinearTanh"
