"""Normalizations between quantized tensors with float parameters, each one int8 operator.

Arguments as torch.ao's: those of the torch.nn class of the same name, the affine tensors and the
output's qparams between them. `dtype` is that of the parameters, `output_dtype` that of the result.
"""

from typing import Any

import torch
from torch import nn

from torch_ao_ext.nn.quantized._between import FloatToo, Norm

ao = torch.ops.torch_ao

__all__ = [
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "RMSNorm",
]


class LayerNorm(Norm, nn.LayerNorm):
    """Layer normalization.

    Args:
        normalized_shape: see torch.nn.LayerNorm.
        weight: of that shape, or None for ones.
        bias: of that shape, None for zeros, False for none.
        scale: of the output.
        zero_point: of the output.
        eps: see torch.nn.LayerNorm.
        elementwise_affine: see torch.nn.LayerNorm.
        device: of the parameters.
        dtype: of the parameters.
        output_dtype: torch.uint8 or torch.int8.
    """

    def __init__(
        self, normalized_shape: Any, weight: torch.Tensor | None = None,
        bias: torch.Tensor | bool | None = None, scale: float = 1.0, zero_point: int = 0, eps: float = 1e-5,
        elementwise_affine: bool = True, device: Any = None, dtype: torch.dtype | None = None, *,
        output_dtype: torch.dtype = torch.uint8,
    ) -> None:  # fmt: skip
        super().__init__(normalized_shape, eps, elementwise_affine, device=device, dtype=dtype)
        self._finish(weight, bias, scale, zero_point, output_dtype)

    @classmethod
    def _arguments(cls, mod: Any) -> dict[str, Any]:
        names = ("normalized_shape", "eps", "elementwise_affine")
        return {**{name: getattr(mod, name) for name in names}, "bias": mod.bias is not None}

    def _integers(self, data: torch.Tensor, scale: float, point: int) -> torch.Tensor:
        shape = list(self.normalized_shape)
        return ao.layer_norm.default(
            data, scale, point, self.weight, self.bias, *self.qparams, shape, self.eps
        )


class RMSNorm(FloatToo, Norm, nn.RMSNorm):
    """Division by the root of the mean square; arguments as LayerNorm without a bias.

    An eps of None is 2^-23, that of torch.nn.RMSNorm for float32.
    """

    def __init__(
        self, normalized_shape: Any, weight: torch.Tensor | None = None, scale: float = 1.0,
        zero_point: int = 0, eps: float | None = None, elementwise_affine: bool = True, device: Any = None,
        dtype: torch.dtype | None = None, *, output_dtype: torch.dtype = torch.uint8,
    ) -> None:  # fmt: skip
        super().__init__(normalized_shape, eps, elementwise_affine, device, dtype)
        self._finish(weight, None, scale, zero_point, output_dtype)

    @classmethod
    def _arguments(cls, mod: Any) -> dict[str, Any]:
        return {name: getattr(mod, name) for name in ("normalized_shape", "eps", "elementwise_affine")}

    def _integers(self, data: torch.Tensor, scale: float, point: int) -> torch.Tensor:
        shape = list(self.normalized_shape)
        return ao.rms_norm.default(data, scale, point, self.weight, *self.qparams, shape, self.eps)


class GroupNorm(Norm, nn.GroupNorm):
    """Group normalization; arguments as LayerNorm, torch.nn.GroupNorm's in the place of its own."""

    def __init__(
        self, num_groups: int, num_channels: int, weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None, scale: float = 1.0, zero_point: int = 0, eps: float = 1e-5,
        affine: bool = True, device: Any = None, dtype: torch.dtype | None = None, *,
        output_dtype: torch.dtype = torch.uint8,
    ) -> None:  # fmt: skip
        super().__init__(num_groups, num_channels, eps, affine, device, dtype)
        self._finish(weight, bias, scale, zero_point, output_dtype)

    @classmethod
    def _arguments(cls, mod: Any) -> dict[str, Any]:
        return {name: getattr(mod, name) for name in ("num_groups", "num_channels", "eps", "affine")}

    def _integers(self, data: torch.Tensor, scale: float, point: int) -> torch.Tensor:
        return ao.group_norm.default(
            data, scale, point, self.weight, self.bias, *self.qparams, self.num_groups, self.eps
        )


class _InstanceNorm(Norm):
    """Arguments as LayerNorm; affine is on unless it is False and no tensors are given."""

    def __init__(
        self, num_features: int, weight: torch.Tensor | None = None, bias: torch.Tensor | None = None,
        scale: float = 1.0, zero_point: int = 0, eps: float = 1e-5, momentum: float | None = 0.1,
        affine: bool = True, track_running_stats: bool = False, device: Any = None,
        dtype: torch.dtype | None = None, *, output_dtype: torch.dtype = torch.uint8,
    ) -> None:  # fmt: skip
        affine = affine or weight is not None
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self._finish(weight, bias, scale, zero_point, output_dtype)

    @classmethod
    def _arguments(cls, mod: Any) -> dict[str, Any]:
        return cls._features(mod)

    def _integers(self, data: torch.Tensor, scale: float, point: int) -> torch.Tensor:
        single = data.dim() == self._get_no_batch_dim()  # an image without a batch dimension
        data = data.unsqueeze(0) if single else data
        head, tail = (data, scale, point), (self.weight, self.bias, *self.qparams, self.eps)
        if self.running_mean is None:
            y = ao.instance_norm.default(*head, *tail)
        else:  # what evaluation mode normalizes by
            y = ao.batch_norm.default(*head, self.running_mean, self.running_var, *tail)
        return y.squeeze(0) if single else y


class InstanceNorm1d(_InstanceNorm, nn.InstanceNorm1d):
    """Instance normalization of `[N, C, L]`; arguments as torch.nn's and LayerNorm's tensors."""


class InstanceNorm2d(_InstanceNorm, nn.InstanceNorm2d):
    """Instance normalization of `[N, C, H, W]`; arguments as InstanceNorm1d."""


class InstanceNorm3d(_InstanceNorm, nn.InstanceNorm3d):
    """Instance normalization of `[N, C, D, H, W]`; arguments as InstanceNorm1d."""
