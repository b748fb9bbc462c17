"""Linear layers whose weight alone is quantized, to 8 or 4 bits."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext.nn.quantized._state import CheckedLoad, keep_dtypes
from torch_ao_ext.nn.quantized._weight import check_finite, quantize_rows, symmetric_row_scale
from torch_ao_ext.nn.quantized._weight4 import quantize_groups, unpack_groups
from torch_ao_ext.nn.quantized.dynamic.modules.linear import _is_conv1d

__all__ = ["LinearWeightOnly"]

_linear_weight_only = torch.ops.torch_ao.linear_weight_only.default

GROUP_SIZES = (32, 64, 128)


def check_format(who: str, bits: int, group_size: int, input_bits: int) -> None:
    """Raises ValueError unless the operator has this format."""
    for name, value, allowed in (
        ("bits", bits, (8, 4)),
        ("group_size", group_size, (0,) if bits == 8 else GROUP_SIZES),
        ("input_bits", input_bits, (8, 16)),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
            rule = " or ".join(str(a) for a in allowed)
            also = f" with {bits} bits" if name == "group_size" else ""
            raise ValueError(f"{who}: argument '{name}' must be {rule}{also}, got {value!r}")


class LinearWeightOnly(CheckedLoad):
    """y = x W^T + b, W in 8 bits with a scale per output or in 4 bits with a scale per group.

    x stays float for the caller; inside it has `input_bits` (`ops.linear_weight_only`).
    The state is plain tensors:

    - `qweight` int8 `[N, K]`, or uint8 `[N, ceil(K / 2)]` with two values a byte, even k low,
      each W + 8; `weight_scale` float32 `[N]` or `[N, ceil(K / group_size)]`;
      `qbias` float32 `[N]` or None
    - `format_version` int64 `[]`, `weight_format` int64 `[3]`: bits, group_size, input_bits

    Input `[*, K]` in float32 or bfloat16, output `[*, N]` in its dtype. Scales and bias stay
    float32 under `.half()`, `.to(dtype)`. Inference only: a backward pass raises.

    Args:
        in_features: K.
        out_features: N.
        bias_: with a bias.
        bits: 8 or 4.
        group_size: values along K that share a scale: 0 with 8 bits; 32, 64 or 128 with 4.
        input_bits: of x inside the operator, 8 (16 where outliers need them) or 16.

    Example:
        >>> import torch, torch_ao_ext
        >>> layer = torch_ao_ext.nn.quantized.LinearWeightOnly(20, 30, bits=4, group_size=32)
        >>> layer(torch.randn(128, 20)).shape
        torch.Size([128, 30])
    """

    _CONVERTER = "quantize_weight_only"

    in_features: int
    out_features: int
    qweight: torch.Tensor
    weight_scale: torch.Tensor
    qbias: torch.Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias_: bool = True,
        bits: int = 8,
        group_size: int = 0,
        input_bits: int = 8,
    ) -> None:
        super().__init__()
        check_format("LinearWeightOnly", bits, group_size, input_bits)
        self.in_features = in_features
        self.out_features = out_features
        self.bits = bits
        self.group_size = group_size
        self.input_bits = input_bits
        if bits == 8:
            weight = torch.zeros(out_features, in_features, dtype=torch.int8)
            scale = torch.ones(out_features)
        else:
            weight = torch.full((out_features, (in_features + 1) // 2), 0x88, dtype=torch.uint8)
            scale = torch.ones(out_features, -(-in_features // group_size))
        self.register_buffer("qweight", weight)
        self.register_buffer("weight_scale", scale)
        self.register_buffer("qbias", torch.zeros(out_features) if bias_ else None)
        self.register_buffer("format_version", torch.tensor(self._FORMAT_VERSION))
        self.register_buffer("weight_format", torch.tensor([bits, group_size, input_bits]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[*, K]` -> `[*, N]`, same dtype."""
        if torch.jit.is_scripting():
            y = torch.ops.torch_ao.linear_weight_only(
                x, self.qweight, self.weight_scale, self.qbias, self.group_size, self.input_bits
            )
        else:
            # The buffer dict: nn.Module.__getattr__ costs 0.3 us a name.
            b = self._buffers
            y = _linear_weight_only(
                x, b["qweight"], b["weight_scale"], b["qbias"], self.group_size, self.input_bits
            )
        return y

    def prepack(self, dtype: torch.dtype = torch.float32) -> None:
        """Packs the weight now instead of at the first call, for inputs of this dtype."""
        torch.ops.torch_ao._prepack_linear_weight_only(
            self.qweight,
            self.weight_scale,
            self.qbias,
            self.in_features,
            self.group_size,
            self.input_bits,
            dtype,
        )

    def weight(self) -> torch.Tensor:
        """The weight in real values, float32 `[N, K]`, newly computed."""
        if self.bits == 8:
            return self.qweight * self.weight_scale.unsqueeze(1)
        scale = self.weight_scale.repeat_interleave(self.group_size, 1)[:, : self.in_features]
        return unpack_groups(self.qweight, self.in_features) * scale

    def bias(self) -> torch.Tensor | None:
        """The float32 bias `[N]`, or None."""
        return self.qbias

    @classmethod
    def from_float(
        cls, mod: nn.Module, bits: int = 8, group_size: int = 0, input_bits: int = 8
    ) -> "LinearWeightOnly":
        """Quantized copy of a float layer.

        The scale is max|w| / 127.5 of a row with 8 bits, max|w| / 7.5 of a group with 4.

        Args:
            mod: nn.Linear (or a subclass with its forward), or transformers' Conv1D.
            bits: 8 or 4.
            group_size: as in the constructor.
            input_bits: as in the constructor.

        Raises:
            ValueError: another module, a weight that is not finite, a bad format.
        """
        check_format(f"{cls.__name__}.from_float", bits, group_size, input_bits)
        if not isinstance(mod, nn.Linear) and not _is_conv1d(mod):
            raise ValueError(
                f"{cls.__name__}.from_float: argument 'mod' must be nn.Linear or Conv1D, "
                f"got {type(mod).__name__}"
            )
        weight = mod.weight.detach()
        weight = weight.t() if _is_conv1d(mod) else weight
        check_finite(weight, "weight")
        out_features, in_features = weight.shape
        # meta: no zero-filled weight is allocated only to be replaced.
        with torch.device("meta"):
            new = cls(in_features, out_features, mod.bias is not None, bits, group_size, input_bits)
        if bits == 8:
            new.weight_scale = symmetric_row_scale(weight)
            new.qweight = quantize_rows(weight, new.weight_scale)
        else:
            new.qweight, new.weight_scale = quantize_groups(weight, group_size)
        if mod.bias is not None:
            check_finite(mod.bias, "bias")
            new.qbias = mod.bias.detach().to(torch.float32, copy=True).contiguous()
        new.format_version = torch.tensor(cls._FORMAT_VERSION)
        new.weight_format = torch.tensor([bits, group_size, input_bits])
        return new.eval()

    def _apply(self, fn: Any, recurse: bool = True) -> "LinearWeightOnly":
        inner = super()._apply
        keep_dtypes(self, ("weight_scale", "qbias"), lambda: inner(fn, recurse))
        return self

    def _take_form(self, state_dict: dict[str, Any], prefix: str) -> str | None:
        found = state_dict.get(prefix + "weight_format")
        own = [self.bits, self.group_size, self.input_bits]
        if found is not None and found.tolist() != own:
            return f"{prefix}weight_format (bits, group_size, input_bits) must be {own}, got {found.tolist()}"
        if prefix + "qweight" in state_dict:
            bias = state_dict.get(prefix + "qbias")
            if bias is None:
                self._buffers["qbias"] = None
            elif self._buffers["qbias"] is None and bias.shape == (self.out_features,):
                self._buffers["qbias"] = self.weight_scale.new_empty(self.out_features)
        return None

    def extra_repr(self) -> str:
        """Shape and format, as print(model) shows them."""
        text = (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.qbias is not None}, bits={self.bits}"
        )
        if self.group_size:
            text += f", group_size={self.group_size}"
        return text + ("" if self.input_bits == 8 else f", input_bits={self.input_bits}")
