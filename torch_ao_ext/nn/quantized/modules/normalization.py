"""Normalizations between quantized tensors, computed in float32 with float parameters.

Arguments: those of the torch.nn class of the same name, then `scale`, `zero_point` and `dtype`
of the output.
"""

from typing import Any

import torch
from torch import nn

from torch_ao_ext.nn.quantized._between import ThroughFloat

__all__ = [
    "BatchNorm2d",
    "BatchNorm3d",
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


class _ByFeatures(ThroughFloat):
    """Instance and batch norms: the same arguments, statistics in buffers."""

    def __init__(
        self, num_features: int, scale: float = 1.0, zero_point: int = 0, eps: float = 1e-5,
        momentum: float | None = 0.1, affine: bool = True, track_running_stats: bool = True,
        dtype: torch.dtype = torch.uint8,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats)
        self.set_output(scale, zero_point, dtype)
        self.eval()

    @classmethod
    def _arguments(cls, mod: Any) -> dict[str, Any]:
        mod = mod[0] if isinstance(mod, nn.Sequential) else mod
        names = ("num_features", "eps", "momentum", "affine", "track_running_stats")
        return {name: getattr(mod, name) for name in names}


class BatchNorm2d(_ByFeatures, nn.BatchNorm2d):
    """Batch normalization of `[N, C, H, W]` by running statistics; qparams of the output."""


class BatchNorm3d(_ByFeatures, nn.BatchNorm3d):
    """Batch normalization of `[N, C, D, H, W]` by running statistics; qparams of the output."""


class InstanceNorm1d(_ByFeatures, nn.InstanceNorm1d):
    """Instance normalization of `[N, C, L]`; qparams of the output."""


class InstanceNorm2d(_ByFeatures, nn.InstanceNorm2d):
    """Instance normalization of `[N, C, H, W]`; qparams of the output."""


class InstanceNorm3d(_ByFeatures, nn.InstanceNorm3d):
    """Instance normalization of `[N, C, D, H, W]`; qparams of the output."""
