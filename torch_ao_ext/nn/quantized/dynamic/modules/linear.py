"""Linear layers with int8 weights and float inputs quantized on the fly."""

from typing import Any, NamedTuple

import torch
from torch import nn

from torch_ao_ext.nn.quantized._observed import (
    INT8,
    QuantizedWeight,
    check_weight_dtype,
    qconfig_of,
    quantize_weight,
)
from torch_ao_ext.nn.quantized._reference import reference_layer, reference_weight
from torch_ao_ext.nn.quantized._weighted import FORMAT_VERSION, WeightedModule

__all__ = ["DynamicQuant", "Linear"]

# The overloads, looked up once: attribute walks through torch.ops cost more than
# a small GEMM.
_linear_dynamic = torch.ops.torch_ao.linear_dynamic.default


class DynamicQuant(NamedTuple):
    """How the float input becomes integers, see `ops.linear_dynamic`.

    The default is this library's: each row has its own scale and zero point,
    values are 0..255. torch.ao's is `TORCH_AO_DYNAMIC_QUANT`.
    """

    per_row: bool = True
    symmetric: bool = False
    reduce_range: bool = False


# torch.ao: one scale for the whole input, values 0..127 (7 bits kept its AVX2
# kernels from saturating; ours never do).
TORCH_AO_DYNAMIC_QUANT = DynamicQuant(per_row=False, symmetric=False, reduce_range=True)


def dynamic_quant_of(qconfig: Any) -> DynamicQuant:
    """Input rule of a qconfig: ours when its activation observer names one."""
    activation = qconfig.activation() if qconfig.activation is not None else None
    return getattr(activation, "dynamic_quant", None) or TORCH_AO_DYNAMIC_QUANT


def _is_conv1d(module: nn.Module) -> bool:
    """A transformers `Conv1D`: a linear layer with its weight stored [K, N].

    Known by name and shape, because transformers is no dependency.
    """
    weight = getattr(module, "weight", None)
    features = getattr(module, "nf", None)
    return (
        type(module).__name__ == "Conv1D"
        and isinstance(features, int)
        and isinstance(weight, torch.Tensor)
        and weight.dim() == 2
        and weight.shape[1] == features
    )


class Linear(WeightedModule):
    r"""y = x W^T + b with int8 W; x is quantized row by row inside the operator.

    Names and constructor follow `torch.ao.nn.quantized.dynamic.Linear`, but the
    state is plain tensors, in every file format the same on every machine:

    - `qweight` int8 `[N, K]`, `weight_scale` float32 `[1]` or `[N]`,
      `weight_zero_point` int32 of the scale's shape or None (all zero),
      `qbias` float32 `[N]` or None
    - `format_version` int64 `[]`, `act_quant` int64 `[3]`: per_row, symmetric, reduce_range

    Input `[*, K]` in float32 or bfloat16, output `[*, N]` in the input's dtype.
    Autocast does not change that: under `torch.autocast` a float32 input gives a
    float32 output. Scales and bias stay float32 under `.half()`, `.to(dtype)`.
    Inference only: a backward pass raises.

    Args:
        in_features: K.
        out_features: N.
        bias_: with a bias.
        dtype: torch.qint8 or torch.int8.

    Example:
        >>> import torch, torch_ao_ext
        >>> layer = torch_ao_ext.nn.quantized.dynamic.Linear(20, 30)
        >>> layer(torch.randn(128, 20)).shape
        torch.Size([128, 30])
    """

    _POST_OP = ""

    in_features: int
    out_features: int

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias_: bool = True,
        dtype: torch.dtype = INT8[-1],
    ) -> None:
        check_weight_dtype("Linear", dtype)
        super().__init__((out_features, in_features), out_features, bias_)
        self.in_features = in_features
        self.out_features = out_features
        self._set_dynamic_quant(DynamicQuant())

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`[*, K]` -> `[*, N]`, same dtype."""
        if torch.jit.is_scripting():
            y = torch.ops.torch_ao.linear_dynamic(
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
            # The buffer dict: nn.Module.__getattr__ costs 0.3 us a name.
            b = self._buffers
            if self.is_default:
                y = _linear_dynamic(
                    input, b["qweight"], b["weight_scale"], b["weight_zero_point"], b["qbias"]
                )
            else:
                y = _linear_dynamic(
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

    @property
    def dynamic_quant(self) -> DynamicQuant:
        """How the input is quantized."""
        return DynamicQuant(self.per_row, self.symmetric, self.reduce_range)

    def _set_dynamic_quant(self, rule: DynamicQuant) -> None:
        # Python bools for forward, and a buffer so that every file format keeps them.
        self.per_row = bool(rule.per_row)
        self.symmetric = bool(rule.symmetric)
        self.reduce_range = bool(rule.reduce_range)
        self.is_default = self.dynamic_quant == DynamicQuant()
        self.register_buffer("act_quant", torch.tensor(self.dynamic_quant, dtype=torch.int64))

    def prepack(self, dtype: torch.dtype = torch.float32) -> None:
        """Packs the weight now instead of at the first call, for inputs of this dtype."""
        torch.ops.torch_ao._prepack_linear_dynamic(
            self.qweight,
            self.weight_scale,
            self.weight_zero_point,
            self.qbias,
            dtype,
            self.per_row,
            self.symmetric,
            self.reduce_range,
            dtype,
            self._POST_OP,
        )

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> "Linear":
        """Quantized copy of a float layer whose `qconfig` is set.

        Args:
            mod: nn.Linear (or a subclass with its forward), or transformers' Conv1D.
            use_precomputed_fake_quant: torch.ao's flag, for QAT modules; not used here.

        Raises:
            ValueError: no qconfig, a weight that is not finite, an unsupported qconfig.
        """
        del use_precomputed_fake_quant
        qconfig = qconfig_of(cls, mod)
        if not isinstance(mod, nn.Linear) and not _is_conv1d(mod):
            raise ValueError(
                f"{cls.__name__}.from_float: argument 'mod' must be nn.Linear or Conv1D, "
                f"got {type(mod).__name__}"
            )
        weight = mod.weight.detach()
        if _is_conv1d(mod):
            weight = weight.t()
        return cls._from_parts(
            quantize_weight(weight, qconfig), mod.bias, dynamic_quant_of(qconfig)
        )

    @classmethod
    def from_reference(cls, ref: nn.Module) -> "Linear":
        """Quantized copy of a reference layer; the input is quantized by the default rule.

        Args:
            ref: `nn.quantized.reference.Linear` with a qint8 weight; for a class with an
                activation, its container in `nn.intrinsic`.

        Raises:
            ValueError: another type, a weight of another dtype or axis.
        """
        linear = reference_layer(cls.__name__, ref, nn.Linear, held=bool(cls._POST_OP))
        weight = reference_weight(cls.__name__, linear, cls._CHANNEL_AXIS)
        return cls._from_parts(weight, linear.bias, DynamicQuant())

    @classmethod
    def _from_parts(
        cls, weight: QuantizedWeight, bias: torch.Tensor | None, rule: DynamicQuant
    ) -> "Linear":
        out_features, in_features = weight.data.shape
        # meta: no zero-filled weight is allocated only to be replaced.
        module = cls.__new__(cls)
        with torch.device("meta"):
            Linear.__init__(module, in_features, out_features, bias is not None)
        module._set_state(weight, bias)
        module.format_version = torch.tensor(FORMAT_VERSION)
        module._set_dynamic_quant(rule)
        module.eval()
        return module

    def _after_load(self) -> None:
        if tuple(self.act_quant.shape) == (3,) and not self.act_quant.is_meta:
            self._set_dynamic_quant(DynamicQuant(*map(bool, self.act_quant.tolist())))

    def _get_name(self) -> str:
        return "DynamicQuantizedLinear"

    def extra_repr(self) -> str:
        """Shape, qscheme and the input rule, as print(model) shows them."""
        text = (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.qbias is not None}, dtype=torch.int8, qscheme={self.weight().qscheme()}"
        )
        if not self.is_default:
            text += (
                f", per_row={self.per_row}, symmetric={self.symmetric}, "
                f"reduce_range={self.reduce_range}"
            )
        return text
