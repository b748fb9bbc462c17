"""Arithmetic of folding a batch norm into the conv, transposed conv or linear before it."""

import torch

__all__ = ["norm_affine", "scale_channels"]


def norm_affine(
    mean: torch.Tensor,
    variance: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch norm in evaluation mode as y = x * factor + offset.

    Args:
        mean: running mean, `[C]`.
        variance: running variance, `[C]`.
        weight: gamma, `[C]`, or None for 1.
        bias: beta, `[C]`, or None for 0.
        eps: added to the variance.

    Returns:
        factor and offset, float64, `[C]`.
    """
    factor = torch.rsqrt(variance.detach().double() + eps)
    if weight is not None:
        factor = factor * weight.detach().double()
    offset = -mean.detach().double() * factor
    if bias is not None:
        offset = offset + bias.detach().double()
    return factor, offset


def scale_channels(
    weight: torch.Tensor, factor: torch.Tensor, *, transposed: bool = False, groups: int = 1
) -> torch.Tensor:
    """The weight with each output channel times its factor, float64.

    Args:
        weight: `[N, ...]`, or `[in, N / groups, ...]` when transposed.
        factor: `[N]`.
        transposed: the layout of a transposed conv.
        groups: groups of that transposed conv.
    """
    wide = weight.detach().double()
    ones = [1] * (weight.dim() - 2)
    if not transposed:
        return wide * factor.reshape(-1, 1, *ones)
    # [in, out / groups, ...]: the inputs of group g meet its own out / groups channels.
    split = wide.reshape(groups, -1, *weight.shape[1:])
    return (split * factor.reshape(groups, 1, -1, *ones)).reshape(weight.shape)
