"""Smallest and largest values, in one pass on all threads."""

import torch

__all__ = ["extremes", "row_extremes"]


def _own(x: torch.Tensor) -> bool:
    return x.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0


def extremes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """torch.aminmax(x); both NaN if any value is."""
    if not _own(x):
        return torch.aminmax(x)
    low, high = torch.ops.torch_ao._min_max(x)
    return low, high


def row_extremes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """torch.aminmax(x, dim=1) of `[N, K]`."""
    if not _own(x):
        return torch.aminmax(x, dim=1)
    ends = torch.ops.torch_ao._min_max(x, True)
    return ends[:, 0].contiguous(), ends[:, 1].contiguous()
