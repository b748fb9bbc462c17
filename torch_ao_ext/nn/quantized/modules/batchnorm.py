"""Batch norms between quantized tensors by running statistics, one int8 operator each."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext.nn.quantized._between import FloatToo, Norm

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d"]


class _BatchNorm(Norm):
    """Arguments as torch.ao's; the output's qparams and what else torch.nn takes by keyword."""

    _POST_OPS = ""
    _RANKS: tuple[int, ...] = ()

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, device: Any = None,
        dtype: torch.dtype | None = None, *, affine: bool = True, track_running_stats: bool = True,
        scale: float = 1.0, zero_point: int = 0, output_dtype: torch.dtype = torch.uint8,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self._finish(None, None, scale, zero_point, output_dtype)

    @classmethod
    def from_reference(cls, bn: nn.Module, output_scale: float, output_zero_point: int) -> Any:
        """Of the float module of this name and the qparams of its output, uint8; parameters are copied."""
        return super().from_reference(bn, output_scale, output_zero_point)

    @classmethod
    def _arguments(cls, mod: Any) -> dict[str, Any]:
        return cls._features(mod)

    def _integers(self, data: torch.Tensor, scale: float, point: int) -> torch.Tensor:
        if data.dim() not in self._RANKS:
            ranks = " or ".join(map(str, self._RANKS))
            raise ValueError(
                f"{type(self).__name__}: argument 'input' must have {ranks} dimensions, got {data.dim()}"
            )
        return torch.ops.torch_ao.batch_norm.default(
            data, scale, point, self.running_mean, self.running_var, self.weight, self.bias, *self.qparams,
            self.eps, self._POST_OPS,
        )  # fmt: skip

    def float_reason(self) -> str:
        """Why forward computes in float32; empty when an int8 operator runs."""
        return super().float_reason() if self.running_mean is not None else "no running statistics"


class BatchNorm1d(FloatToo, _BatchNorm, nn.BatchNorm1d):
    """Batch normalization of `[N, C]` or `[N, C, L]` by running statistics; qparams of the output."""

    _RANKS = (2, 3)


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """Batch normalization of `[N, C, H, W]` by running statistics; qparams of the output."""

    _RANKS = (4,)


class BatchNorm3d(_BatchNorm, nn.BatchNorm3d):
    """Batch normalization of `[N, C, D, H, W]` by running statistics; qparams of the output."""

    _RANKS = (5,)
