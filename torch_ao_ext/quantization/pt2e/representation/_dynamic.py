"""Quantization parameters of floats at run time in ATen operators (csrc/kernels/choose_qparams.h)."""

import torch

from torch_ao_ext.quantization.pt2e.representation._values import Value, aten, to

_SMALL_SCALE = 6.1e-5  # ATen's: below, a scale is subnormal in float16
_SMALLEST = torch.finfo(torch.float32).tiny


def _range(x: Value) -> tuple[Value, Value]:
    """Smallest and largest value along the last dimension with 0 among them; x may be empty."""
    padded = aten.constant_pad_nd.default(x, [0, 1], 0.0)
    return aten.amin.default(padded, [-1], True), aten.amax.default(padded, [-1], True)


def _largest(low: Value, high: Value) -> Value:
    return aten.maximum.default(aten.neg.default(low), high)


def row_qparams(x: Value, symmetric: bool, low: int, high: int) -> tuple[Value, Value]:
    """Scale float32 and zero point int64 [*, 1] of each row; not finite values give a NaN scale."""
    least, most = _range(x)
    width = _largest(least, most) if symmetric else aten.sub.Tensor(most, least)
    scale = aten.div.Tensor(width, float(high if symmetric else high - low))
    usable = aten.clamp.default(scale, _SMALLEST)
    scale = aten.where.ScalarSelf(aten.eq.Tensor(least, most), 1.0, usable)
    if symmetric:
        return scale, 0
    steps = aten.add.Tensor(aten.round.default(aten.div.Tensor(aten.neg.default(least), scale)), low)
    return scale, to(aten.clamp.default(aten.nan_to_num.default(steps, 0.0), low, high), torch.int64)


def tensor_qparams(x: Value, symmetric: bool, low: int, high: int) -> tuple[Value, Value]:
    """ATen's rule in float64 for a whole tensor: scale float32 [1], zero point int64 [1]."""
    least, most = _range(aten.reshape.default(x, [-1]))
    if symmetric:
        scale = aten.div.Tensor(to(_largest(least, most), torch.float64), high)
    else:
        width = aten.sub.Tensor(to(most, torch.float64), to(least, torch.float64))
        scale = aten.div.Tensor(width, high - low)
    narrow = to(scale, torch.float32)
    unusable = aten.isinf.default(aten.reciprocal.default(narrow))  # of 0, too
    scale = aten.where.ScalarSelf(unusable, 0.1, scale)
    small = aten.lt.Scalar(scale, torch.tensor(_SMALL_SCALE).item())
    least, most = _grown(least, most, to(scale, torch.float32), small, high - low)
    scale = aten.where.ScalarSelf(small, torch.tensor(_SMALL_SCALE).item(), scale)
    if symmetric:
        return to(scale, torch.float32), 0
    return to(scale, torch.float32), _zero_point(least, most, scale, low, high)


def _grown(least: Value, most: Value, scale: Value, small: Value, steps: int) -> tuple[Value, Value]:
    """End points of a range whose scale was raised to the smallest: the zero point stays."""
    factor = aten.mul.Tensor(aten.reciprocal.default(scale), _SMALL_SCALE)
    factor = aten.where.ScalarOther(small, factor, 1.0)
    end = torch.tensor(_SMALL_SCALE).mul(steps).item()
    only_up = aten.logical_and.default(small, aten.eq.Scalar(least, 0.0))
    only_down = aten.logical_and.default(small, aten.eq.Scalar(most, 0.0))
    only_down = aten.logical_and.default(only_down, aten.logical_not.default(only_up))
    grown_most = aten.where.ScalarSelf(only_up, end, aten.mul.Tensor(most, factor))
    grown_least = aten.where.ScalarSelf(only_down, -end, aten.mul.Tensor(least, factor))
    return grown_least, grown_most


def _zero_point(least: Value, most: Value, scale: Value, low: int, high: int) -> Value:
    """Of the two equations the one with the smaller terms."""
    down = aten.div.Tensor(to(least, torch.float64), scale)
    up = aten.div.Tensor(to(most, torch.float64), scale)
    closer = aten.lt.Tensor(
        aten.rsub.Scalar(aten.abs.default(down), low), aten.rsub.Scalar(aten.abs.default(up), high)
    )
    steps = aten.where.self(closer, aten.rsub.Scalar(down, low), aten.rsub.Scalar(up, high))
    bounded = aten.clamp.default(aten.nan_to_num.default(steps, 0.0), low, high)
    return to(aten.round.default(bounded), torch.int64)
