"""Resizing 8-bit images."""

import torch

from torch_ao_ext.ops import _fake
from torch_ao_ext.ops._fake_conv import empty_channels_last

__all__ = ["interpolate"]

Tensor = torch.Tensor

_MOST = 1 << 24  # as in csrc/ops/interpolate.cpp


def interpolate(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    output_scale: float,
    output_zero_point: int,
    output_dtype: torch.dtype | None,
    output_size: list[int],
    mode: str = "nearest",
    align_corners: bool = False,
    scale_factors: list[float] | None = None,
) -> Tensor:
    """Computes y = quantize(x at the output's positions), as torch.nn.functional.interpolate.

    Args:
        input: uint8 or int8, `[N, C, *]` of 1 to 3 spatial dimensions. Channels last is read as it
            lies, another layout is copied once.
        input_scale: real units per step of input.
        input_zero_point: in the range of input's dtype.
        output_scale: real units per step of the output; 1.0 for a float output.
        output_zero_point: in the range of the output's dtype; 0 for a float output.
        output_dtype: uint8, int8, float32 or bfloat16; None is the input's.
        output_size: of each spatial dimension, in [1, 2^24).
        mode: "nearest", or "bilinear" for `[N, C, H, W]`.
        align_corners: see torch.nn.functional.interpolate; bilinear only.
        scale_factors: none, or one for each spatial dimension: positions are computed with these
            instead of the ratio of the sizes.

    Returns:
        `[N, C, *output_size]`, channels last. Weights are float32; an 8-bit result is within one step
        of that of float64 weights. Where the output has input's qparams, bilinear values are counted
        in steps from the zero point, and a tie goes to an even number of these. To twice the size, with
        no scale_factors or 2 and without align_corners, they are sixteenths of a step, exactly.

    Raises:
        TypeError: wrong dtype.
        ValueError: sizes or numbers that do not fit, a bad scale or zero point.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.tensor([[[[0, 4], [8, 12]]]], dtype=torch.uint8)
        >>> torch_ao_ext.ops.interpolate(x, 1.0, 0, 1.0, 0, None, [1, 4], "bilinear")
        tensor([[[[4, 5, 7, 8]]]], dtype=torch.uint8)
    """
    return torch.ops.torch_ao.interpolate(
        input, input_scale, input_zero_point, output_scale, output_zero_point, output_dtype, output_size,
        mode, align_corners, scale_factors or [],
    )  # fmt: skip


@torch.library.register_fake("torch_ao::interpolate")
def _(
    input, input_scale, input_zero_point, output_scale, output_zero_point, output_dtype, output_size,
    mode="nearest", align_corners=False, scale_factors=(),
):  # fmt: skip
    op = "interpolate"
    _fake.check_tensor(op, "input", input, _fake.QUANTIZED)
    _fake.check_output_dtype(op, output_dtype)
    _fake.check_value(mode in ("nearest", "bilinear"), op, "mode", "be 'nearest' or 'bilinear'", f"'{mode}'")
    _fake.check_value(3 <= input.dim() <= 5, op, "input", "have 3 to 5 dimensions", _fake.sizes(input))
    rank = input.dim() - 2
    _fake.check_value(len(output_size) == rank, op, "output_size", f"have {rank} values", output_size)
    _fake.check_value(
        len(scale_factors) in (0, rank), op, "scale_factors", f"have 0 or {rank} values", scale_factors
    )
    for have, size in zip(input.shape[2:], output_size, strict=True):
        _fake.check_value(have >= 1, op, "input", "have spatial sizes in [1, 2^24)", have)
        _fake.check_value(have < _MOST, op, "input", "have spatial sizes in [1, 2^24)", have)
        _fake.check_value(size >= 1, op, "output_size", "hold values in [1, 2^24)", size)
        _fake.check_value(size < _MOST, op, "output_size", "hold values in [1, 2^24)", size)
    _fake.check_value(input.shape[1] >= 1, op, "input", "have at least 1 channel", _fake.sizes(input))
    if mode == "bilinear":
        _fake.check_rank(op, "input", input, 4)
    elif align_corners:
        _fake.check_value(False, op, "align_corners", "be False without mode 'bilinear'", "True")
    return empty_channels_last(
        input, [input.shape[0], input.shape[1], *output_size], output_dtype or input.dtype
    )
