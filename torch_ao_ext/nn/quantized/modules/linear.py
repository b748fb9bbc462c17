"""Linear layers between quantized tensors."""

import torch
from torch import nn

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized._observed import INT8
from torch_ao_ext.nn.quantized._reference import reference_layer, reference_weight
from torch_ao_ext.nn.quantized._static import (
    QuantizedOutput,
    integers,
    observer_of,
    output_qparams,
    product_of,
    static_weight,
)
from torch_ao_ext.nn.quantized._weighted import WeightedModule

__all__ = ["Linear"]

_linear = torch.ops.torch_ao.linear.default


class Linear(QuantizedOutput, WeightedModule):
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

    _CONVERTER = "convert"
    _POST_OPS = ""

    in_features: int
    out_features: int

    def __init__(
        self, in_features: int, out_features: int, bias_: bool = True, dtype: torch.dtype = INT8[-1]
    ) -> None:
        if dtype not in INT8:
            raise ValueError(f"Linear: argument 'dtype' must be torch.qint8 or int8, got {dtype}")
        super().__init__((out_features, in_features), out_features, bias_)
        self.in_features = in_features
        self.out_features = out_features
        self.post_op_args: list[float] = []
        self.set_output(1.0, 0, torch.uint8)

    def forward(self, x: QuantizedTensor) -> QuantizedTensor:
        """`[*, K]` -> `[*, N]` with the layer's output qparams.

        Raises:
            TypeError: a float tensor.
        """
        data, in_scale, in_point = integers(self, x)
        b = self._buffers
        scale, point, dtype = self.qparams
        y = _linear(
            data, in_scale, in_point, b["qweight"], b["weight_scale"], b["weight_zero_point"], b["qbias"],
            scale, point, dtype, self._POST_OPS, self.post_op_args,
        )  # fmt: skip
        return QuantizedTensor(y, scale, point)

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> "Linear":
        """Quantized copy of a float layer with qconfig and observed output.

        Args:
            mod: nn.Linear, or the container of this layer's name in `nn.intrinsic`. A layer
                trained with fake quantization gives the range of its `weight_fake_quant`.
            use_precomputed_fake_quant: take that range as it is, without looking at the
                weight once more.

        Raises:
            ValueError: another type, no qconfig or observer, a weight that is not finite, a
                qconfig that is not for int8.
        """
        linear = product_of(mod)
        if not isinstance(linear, nn.Linear):
            raise ValueError(
                f"{cls.__name__}.from_float: argument 'mod' must be nn.Linear or hold one, got "
                f"{type(mod).__name__}"
            )
        scale, point, dtype = output_qparams(observer_of(mod, cls.__name__), cls.__name__)
        new = cls._make(linear)
        new._set_state(static_weight(mod, linear, use_precomputed_fake_quant), linear.bias)
        new.set_output(scale, point, dtype)
        new._read_activation(mod)
        return new.train(mod.training)

    @classmethod
    def from_reference(cls, ref: nn.Module, output_scale: float, output_zero_point: int) -> "Linear":
        """Quantized copy of a reference layer.

        Args:
            ref: layer of `nn.quantized.reference` with a qint8 weight; for a class with an
                activation, its container in `nn.intrinsic`.
            output_scale: real units per step of the output, which is quint8.
            output_zero_point: the integer of real 0.

        Raises:
            ValueError: another type, a weight of another dtype or axis.
        """
        linear = reference_layer(cls.__name__, ref, nn.Linear, held=bool(cls._POST_OPS))
        new = cls._make(linear)
        weight = reference_weight(cls.__name__, linear, cls._CHANNEL_AXIS)
        new._set_state(weight, linear.bias)
        new.set_output(output_scale, output_zero_point, torch.uint8)
        new._read_activation(ref)
        return new.train(ref.training)

    @classmethod
    def _make(cls, linear: nn.Linear) -> "Linear":
        return cls(linear.in_features, linear.out_features, linear.bias is not None)

    def _read_activation(self, mod: nn.Module) -> None:
        """Numbers of the activation behind the layer."""

    def _get_name(self) -> str:
        return "QuantizedLinear"

    def extra_repr(self) -> str:
        """Shape, weight qscheme and output qparams."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.qbias is not None}, {self._output_repr()}, qscheme={self.weight().qscheme()}"
        )
