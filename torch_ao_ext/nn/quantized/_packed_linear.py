"""torch.ao's container of a linear weight, on plain tensors: the operators pack them on first use."""

from typing import Any

import torch

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized._observed import INT8
from torch_ao_ext.nn.quantized._state import CheckedLoad, keep_dtypes
from torch_ao_ext.nn.quantized._weight import check_finite
from torch_ao_ext.nn.quantized._weighted import weight_of_tensor

__all__ = ["LinearPackedParams", "check_bias", "described"]

# Spelling -> dtype of the buffer.
_STORED = {
    **dict.fromkeys(INT8, torch.int8),
    **{dtype: dtype for dtype in (torch.int16, torch.float16, torch.bfloat16)},
}
_INTEGERS = {torch.int8: INT8, torch.int16: (torch.int16,)}


def described(value: Any) -> str:
    """Dtype and sizes of an argument that does not fit, or its type."""
    known = hasattr(value, "dtype") and hasattr(value, "shape")
    return f"{value.dtype} {list(value.shape)}" if known else type(value).__name__


def check_bias(who: str, bias: torch.Tensor | None, channels: int) -> torch.Tensor | None:
    """A float32 copy of a bias `[N]`; None stays None.

    Raises:
        ValueError: another shape or dtype, values that are not finite.
    """
    if bias is None:
        return None
    fits = isinstance(bias, torch.Tensor) and tuple(bias.shape) == (channels,)
    if not fits or not bias.is_floating_point():
        raise ValueError(f"{who}: argument 'bias' must be float [{channels}], got {described(bias)}")
    check_finite(bias, f"{who}: argument 'bias'")
    return bias.detach().to(torch.float32, copy=True).contiguous()


class LinearPackedParams(CheckedLoad):
    """Weight and bias of a linear layer.

    Buffers `qweight` `[N, K]`, `weight_scale` float32 `[1]` or `[N]`, `weight_zero_point` int32 of that shape
    or None, `qbias` float32 `[N]` or None; `format_version`. `_packed_params` has them in the order in
    which `linear` and `linear_dynamic` take them. A state_dict may hold other sizes than the module.

    Args:
        dtype: of the weight, torch.qint8 or int8; int16 (of recurrent operators alone); float16 and bfloat16
            keep float values in 16 bits (bfloat16 is what recurrent operators take, float16 no operator).

    Raises:
        NotImplementedError: another dtype.

    Example:
        >>> import torch
        >>> from torch_ao_ext.nn.quantized.modules.linear import Linear, LinearPackedParams
        >>> layer, packed = Linear(8, 4), LinearPackedParams()
        >>> packed.set_weight_bias(layer.weight(), layer.bias())
        >>> x = torch.zeros(2, 8, dtype=torch.uint8)
        >>> torch.ops.torch_ao.linear(x, 0.1, 128, *packed._packed_params, 0.2, 0).shape
        torch.Size([2, 4])
    """

    __jit_unused_properties__ = ("dtype", "_packed_params")

    qweight: torch.Tensor
    weight_scale: torch.Tensor
    weight_zero_point: torch.Tensor | None
    qbias: torch.Tensor | None

    def __init__(self, dtype: torch.dtype = INT8[-1]) -> None:
        super().__init__()
        if dtype not in _STORED:
            known = "torch.qint8, int8, int16, float16 or bfloat16"
            raise NotImplementedError(f"LinearPackedParams: argument 'dtype' must be {known}, got {dtype}")
        self.register_buffer("qweight", torch.zeros(1, 1, dtype=_STORED[dtype]))
        self.register_buffer("weight_scale", torch.ones(1))
        self.register_buffer("weight_zero_point", None)
        self.register_buffer("qbias", None)
        self.register_buffer("format_version", torch.tensor(self._FORMAT_VERSION))

    @property
    def dtype(self) -> torch.dtype:
        """torch.qint8, int16, float16 or bfloat16: torch.ao's name of the form."""
        stored = self.qweight.dtype
        return INT8[-1] if stored == torch.int8 else stored

    @property
    def _packed_params(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Weight, scale, zero point and bias, as the operators take them."""
        return self.qweight, self.weight_scale, self.weight_zero_point, self.qbias

    def set_weight_bias(self, weight: Any, bias: torch.Tensor | None) -> None:
        """Replaces weight and bias, whose sizes are free.

        Args:
            weight: `[N, K]`. For int8 a QuantizedTensor or torch's qint8 tensor, per tensor or per
                channel along axis 0; for int16 a QuantizedTensor; else a float tensor, whose values saturate
                at the largest of the dtype.
            bias: float `[N]`, or None.

        Raises:
            ValueError: another dtype, shape or axis; values that are not finite.
        """
        who, stored = f"{type(self).__name__}.set_weight_bias", self.qweight.dtype
        quantized = getattr(weight, "is_quantized", False)
        if quantized != (stored in _INTEGERS):
            wanted = "a QuantizedTensor" if stored in _INTEGERS else "a float tensor"
            wanted += " or torch's qint8 tensor" if stored == torch.int8 else ""
            raise ValueError(f"{who}: argument 'weight' must be {wanted}, got {described(weight)}")
        fits = weight.dtype in _INTEGERS[stored] if quantized else weight.is_floating_point()
        if weight.dim() != 2 or not fits:
            raise ValueError(f"{who}: argument 'weight' must be {stored} [N, K], got {described(weight)}")
        bias = check_bias(who, bias, weight.shape[0])
        if quantized:
            try:
                parts = weight_of_tensor(weight, 0)
            except ValueError as error:
                raise ValueError(f"{who}: argument 'weight' {error}") from error
            self.qweight, self.weight_scale = parts.data.contiguous(), parts.scale
            self.weight_zero_point = parts.zero_point
        else:
            check_finite(weight, f"{who}: argument 'weight'")
            most = torch.finfo(stored).max
            self.qweight = weight.detach().clamp(-most, most).to(stored, copy=True).contiguous()
            self.weight_scale, self.weight_zero_point = torch.ones(len(weight)), None
        self.qbias = bias

    def _weight_bias(self) -> tuple[Any, torch.Tensor | None]:
        """Weight and bias: a QuantizedTensor (shares memory), or float32 of what 16 bits hold."""
        if self.qweight.dtype in _INTEGERS:
            return QuantizedTensor(self.qweight, self.weight_scale, self.weight_zero_point), self.qbias
        return self.qweight.to(torch.float32), self.qbias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x."""
        return x

    def _take_form(self, state_dict: dict[str, Any], prefix: str) -> str | None:
        weight = state_dict.get(prefix + "qweight")
        if weight is None:
            return None
        if weight.dim() != 2 or weight.dtype not in _STORED.values():
            got = f"{weight.dtype} {list(weight.shape)}"
            return f"{prefix}qweight must be int8, int16, float16 or bfloat16 [N, K], got {got}"
        rows = len(weight)
        self.qweight = torch.empty_like(weight, device=self.format_version.device)
        for name, dtype, sizes in (
            ("weight_scale", torch.float32, (1, rows)), ("weight_zero_point", torch.int32, (1, rows)),
            ("qbias", torch.float32, (rows,)),
        ):  # fmt: skip
            value = state_dict.get(prefix + name)
            if value is None:
                if name != "weight_scale":  # the others may be None
                    self._buffers[name] = None
            elif value.dtype != dtype or value.dim() != 1 or len(value) not in sizes:
                got = f"{value.dtype} {list(value.shape)}"
                return f"{prefix}{name} must be {dtype} of {' or '.join(map(str, sizes))} values, got {got}"
            else:
                self._buffers[name] = torch.empty_like(value, device=self.format_version.device)
        return None

    def _apply(self, fn: Any, recurse: bool = True) -> "LinearPackedParams":
        inner = super()._apply
        keep_dtypes(self, ("qweight", "weight_scale", "qbias"), lambda: inner(fn, recurse))
        return self

    def extra_repr(self) -> str:
        """Sizes and dtype, as print(model) shows them."""
        return f"{list(self.qweight.shape)}, bias={self.qbias is not None}, dtype={self.dtype}"
