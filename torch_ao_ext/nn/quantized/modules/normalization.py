"""Normalizations between quantized tensors, computed in float32 with float parameters.

Arguments: those of the torch.nn class of the same name, then `scale`, `zero_point` and `dtype`
of the output.
"""

from typing import Any

import torch
from torch import nn

from torch_ao_ext.nn.quantized._between import ByFeatures, ThroughFloat

__all__ = [
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
]


class LayerNorm(ThroughFloat, nn.LayerNorm):
    """Layer normalization; arguments of torch.nn.LayerNorm and the output's qparams."""

    def __init__(
        self, normalized_shape: Any, scale: float = 1.0, zero_point: int = 0, eps: float = 1e-5,
        elementwise_affine: bool = True, bias: bool = True, dtype: torch.dtype = torch.uint8,
    ) -> None:  # fmt: skip
        super().__init__(normalized_shape, eps, elementwise_affine, bias)
        self.set_output(scale, zero_point, dtype)
        self.eval()

    @classmethod
    def _arguments(cls, mod: Any) -> dict[str, Any]:
        names = ("normalized_shape", "eps", "elementwise_affine")
        return {**{name: getattr(mod, name) for name in names}, "bias": mod.bias is not None}


class GroupNorm(ThroughFloat, nn.GroupNorm):
    """Group normalization; arguments of torch.nn.GroupNorm and the output's qparams."""

    def __init__(
        self, num_groups: int, num_channels: int, scale: float = 1.0, zero_point: int = 0, eps: float = 1e-5,
        affine: bool = True, dtype: torch.dtype = torch.uint8,
    ) -> None:  # fmt: skip
        super().__init__(num_groups, num_channels, eps, affine)
        self.set_output(scale, zero_point, dtype)
        self.eval()

    @classmethod
    def _arguments(cls, mod: Any) -> dict[str, Any]:
        return {name: getattr(mod, name) for name in ("num_groups", "num_channels", "eps", "affine")}


class InstanceNorm1d(ByFeatures, nn.InstanceNorm1d):
    """Instance normalization of `[N, C, L]`; qparams of the output."""


class InstanceNorm2d(ByFeatures, nn.InstanceNorm2d):
    """Instance normalization of `[N, C, H, W]`; qparams of the output."""


class InstanceNorm3d(ByFeatures, nn.InstanceNorm3d):
    """Instance normalization of `[N, C, D, H, W]`; qparams of the output."""
