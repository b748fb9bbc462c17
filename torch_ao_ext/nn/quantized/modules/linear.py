"""Linear layers between quantized tensors."""

import torch
from torch import nn

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized._observed import INT8, check_weight_dtype
from torch_ao_ext.nn.quantized._packed_linear import LinearPackedParams
from torch_ao_ext.nn.quantized._product import StaticProduct
from torch_ao_ext.nn.quantized._static import integers
from torch_ao_ext.nn.quantized._weighted import WeightedModule

__all__ = ["Linear", "LinearPackedParams"]

_linear = torch.ops.torch_ao.linear.default


class Linear(StaticProduct, WeightedModule):
    """y = quantize(x W^T + b), x and y int8 with one scale each, W int8.

    Names follow `torch.ao.nn.quantized.Linear`; the state is plain tensors: `qweight` int8
    `[N, K]`, `weight_scale` float32 `[1]` or `[N]`, `weight_zero_point` or None, `qbias`
    float32 `[N]` or None, and the output's qparams (`scale`, `zero_point`, `dtype`).

    Args:
        in_features: K.
        out_features: N.
        bias_: with a bias.
        dtype: of the weight, torch.qint8 or torch.int8.

    Example:
        >>> import torch, torch_ao_ext
        >>> nnq = torch_ao_ext.nn.quantized
        >>> x = nnq.Quantize(0.1, 128, torch.quint8)(torch.randn(2, 8))
        >>> nnq.Linear(8, 4)(x).shape
        torch.Size([2, 4])
    """

    _FLOAT = nn.Linear

    in_features: int
    out_features: int

    def __init__(
        self, in_features: int, out_features: int, bias_: bool = True, dtype: torch.dtype = INT8[-1]
    ) -> None:
        check_weight_dtype("Linear", dtype)
        super().__init__((out_features, in_features), out_features, bias_)
        self.in_features = in_features
        self.out_features = out_features
        self.post_op_args: list[float] = []
        self.set_output(1.0, 0, torch.uint8)

    def forward(self, input: QuantizedTensor) -> QuantizedTensor:
        """`[*, K]` -> `[*, N]` with the layer's output qparams.

        Raises:
            TypeError: a float tensor.
        """
        data, in_scale, in_point = integers(self, input)
        b = self._buffers
        scale, point, dtype = self.qparams
        y = _linear(
            data, in_scale, in_point, b["qweight"], b["weight_scale"], b["weight_zero_point"], b["qbias"],
            scale, point, dtype, self._POST_OPS, self.post_op_args,
        )  # fmt: skip
        return QuantizedTensor(y, scale, point)

    @classmethod
    def _make(cls, linear: nn.Linear) -> "Linear":
        return cls(linear.in_features, linear.out_features, linear.bias is not None)

    def _get_name(self) -> str:
        return "QuantizedLinear"

    def extra_repr(self) -> str:
        """Shape, weight qscheme and output qparams."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.qbias is not None}, {self._output_repr()}, qscheme={self.weight().qscheme()}"
        )
