"""Float weights to int8: the default scale rule, the MSE search, the rounding.

Works in blocks of rows, so that converting a layer needs no second copy of it
in float.
"""

import torch

__all__ = ["check_finite", "quantize_rows", "row_blocks", "symmetric_row_scale"]

# Rows of a block hold about this many elements: 1 MB of float32.
_BLOCK_ELEMENTS = 1 << 18

# Half the width of [-128, 127]: both ends of the range are used.
_HALF_RANGE = 127.5

# The MSE search tries these fractions of max|w| / 127.5. Below 0.6 clipping
# costs more than the finer step gains on every weight tried.
_MSE_FRACTIONS = torch.linspace(0.60, 1.0, 33).tolist()


def row_blocks(weight: torch.Tensor) -> list[tuple[int, int]]:
    """Returns the (begin, end) of blocks of rows that are converted at a time."""
    rows, columns = weight.shape
    step = max(1, _BLOCK_ELEMENTS // max(1, columns))
    return [(begin, min(begin + step, rows)) for begin in range(0, rows, step)]


def check_finite(tensor: torch.Tensor, name: str) -> None:
    """Raises ValueError when the tensor has a NaN or an infinity."""
    if tensor.numel() == 0:
        return
    # aminmax keeps NaN, and needs no mask of the tensor's size.
    low, high = torch.aminmax(tensor.detach())
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        bad = "NaN" if bool(torch.isnan(low)) else "an infinity"
        raise ValueError(f"{name} must be finite, got {bad}")


def _round(rows: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    # Multiplying by 1 / scale is what torch's quantize_per_channel does; a
    # division differs from it at ties.
    return rows.mul(scale.reciprocal().unsqueeze(1)).round_()


def symmetric_row_scale(weight: torch.Tensor, search: str = "max") -> torch.Tensor:
    """Computes scale[n] = max_k |w[n][k]| / 127.5, for values clamped to [-128, 127].

    Using -128 as well as 127 beats max / 127: the step is 0.4 % finer and only
    a positive maximum is clipped, by half a step. A row of zeros gets scale 1.

    Args:
        weight: float tensor `[N, K]`, finite.
        search: "max", or "mse": the fraction in [0.6, 1] of that scale with the
            smallest sum of squared errors of the row.

    Returns:
        float32 `[N]`, positive and normal.
    """
    if search not in ("max", "mse"):
        raise ValueError(f"argument 'search' must be 'max' or 'mse', got {search!r}")
    scale = torch.ones(weight.shape[0], dtype=torch.float32)
    if weight.shape[1] == 0:
        return scale
    smallest = torch.finfo(torch.float32).tiny
    for begin, end in row_blocks(weight):
        rows = weight[begin:end].detach().to(torch.float32)
        largest = rows.abs().amax(dim=1)
        block = (largest / _HALF_RANGE).clamp_min_(smallest)
        if search == "mse":
            block = _mse_scale(rows, block)
        scale[begin:end] = torch.where(largest == 0, torch.ones_like(block), block)
    return scale


def _mse_scale(rows: torch.Tensor, top: torch.Tensor) -> torch.Tensor:
    smallest = torch.finfo(torch.float32).tiny
    best_scale = top.clone()
    best_error = torch.full_like(top, float("inf"))
    for fraction in reversed(_MSE_FRACTIONS):  # 1.0 first: ties keep the full range
        scale = (top * fraction).clamp_min_(smallest)
        restored = _round(rows, scale).clamp_(-128, 127).mul_(scale.unsqueeze(1))
        error = restored.sub_(rows).square_().sum(dim=1)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_scale = torch.where(better, scale, best_scale)
    return best_scale


def quantize_rows(
    weight: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor | None = None,
    quant_min: int = -128,
    quant_max: int = 127,
) -> torch.Tensor:
    """Computes q = clamp(round_half_even(w / scale + zero_point), quant_min, quant_max).

    Args:
        weight: float tensor `[N, K]`, finite.
        scale: float32 `[1]` or `[N]`.
        zero_point: integers of the scale's shape; None means 0.
        quant_min: smallest result, >= -128.
        quant_max: largest result, <= 127.

    Returns:
        int8 `[N, K]`, contiguous.
    """
    rows, columns = weight.shape
    result = torch.empty(rows, columns, dtype=torch.int8)
    scale = scale.expand(rows)
    points = None if zero_point is None else zero_point.expand(rows).to(torch.float32)
    for begin, end in row_blocks(weight):
        block = weight[begin:end].detach().to(torch.float32)
        if points is None:
            value = _round(block, scale[begin:end])
        else:
            value = block * scale[begin:end].reciprocal().unsqueeze(1)
            # torch adds the zero point before rounding, which decides ties.
            value = value.add_(points[begin:end].unsqueeze(1)).round_()
        result[begin:end] = value.clamp_(quant_min, quant_max)
    return result
