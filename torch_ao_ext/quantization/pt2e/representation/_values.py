"""The numeric rule in ATen operators: integers, real values, post-ops, quantize.

Every function takes tensors or fx proxies of tensors, so that the same lines compute and
write a graph. Float steps are single float32 operations, as in the C++ operators.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

# A tensor or an fx.Proxy of one; ATen operators take both.
Value = Any


class NoFormula(Exception):  # noqa: N818 - a reason, as NotLowered
    """Why an operator has no form in ATen operators."""


def known(x: Value) -> torch.Tensor:
    """The tensor, or what the graph knows of it: dtype and sizes."""
    value = x.node.meta.get("val") if isinstance(x, fx.Proxy) else x
    if not isinstance(value, torch.Tensor):
        raise NoFormula("the graph does not say what its input is")
    return value


def to(x: Value, dtype: torch.dtype) -> Value:
    return aten.to.dtype(x, dtype)


def integers(q: Value, zero_point: Value) -> Value:
    """The differences q - zero_point in int64."""
    wide = to(q, torch.int64)
    return wide if isinstance(zero_point, int) and zero_point == 0 else aten.sub.Tensor(wide, zero_point)


def real(q: Value, scale: Value, zero_point: Value) -> Value:
    """f32(q - zero_point) * scale."""
    return aten.mul.Tensor(to(integers(q, zero_point), torch.float32), scale)


def _saturate(steps: Value, zero_point: Value, low: int, high: int, dtype: torch.dtype) -> Value:
    shifted = aten.add.Tensor(aten.round.default(steps), zero_point)
    return to(aten.clamp.default(aten.nan_to_num.default(shifted, float(low)), low, high), dtype)


def quantize(x: Value, scale: Value, zero_point: Value, low: int, high: int, dtype: torch.dtype) -> Value:
    """clamp(round_half_even(x * (1 / scale)) + zero_point, low, high); NaN gives low."""
    inverse = 1.0 / scale if isinstance(scale, float) else aten.reciprocal.default(scale)
    return _saturate(aten.mul.Tensor(to(x, torch.float32), inverse), zero_point, low, high, dtype)


def _bounds(dtype: torch.dtype) -> tuple[int, int]:
    info = torch.iinfo(dtype)
    return info.min, info.max


def finish(r: Value, scale: float, zero_point: int, dtype: torch.dtype) -> Value:
    """Output of an elementwise operator: multiplies by 1 / scale."""
    if dtype.is_floating_point:
        return to(r, dtype)
    return quantize(r, scale, zero_point, *_bounds(dtype), dtype)


def finish_product(r: Value, scale: float, zero_point: int, dtype: torch.dtype) -> Value:
    """Output of a product: divides by scale."""
    if dtype.is_floating_point:
        return to(r, dtype)
    return _saturate(aten.div.Tensor(r, scale), zero_point, *_bounds(dtype), dtype)


_PLAIN = {
    "relu": aten.relu.default, "gelu": aten.gelu.default, "silu": aten.silu.default,
    "hardswish": aten.hardswish.default, "hardsigmoid": aten.hardsigmoid.default,
    "sigmoid": aten.sigmoid.default, "tanh": aten.tanh.default,
}  # fmt: skip


def post_ops(
    r: Value, names: str, numbers: Sequence[float], other: Value = None, slope: Value = None,
    affine_weight: Value = None, affine_bias: Value = None,
) -> Value:  # fmt: skip
    """Applies post-ops in order; other is the real operand of "add", the rest those of "prelu" and "affine".

    Raises:
        NoFormula: a post-op without a form in ATen operators.
    """
    left = list(numbers)
    for name in names.split(",") if names else ():
        if name in _PLAIN:
            r = _PLAIN[name](r)
        elif name == "gelu_tanh":
            r = aten.gelu.default(r, approximate="tanh")
        elif name == "clamp":
            r = aten.clamp.default(r, left[0], left[1])
            del left[:2]
        elif name == "leaky_relu":
            r = aten.leaky_relu.default(r, left.pop(0))
        elif name == "add":
            r = aten.add.Tensor(r, other)
        elif name == "prelu":
            r = aten.where.self(aten.lt.Scalar(r, 0.0), aten.mul.Tensor(r, slope), r)
        elif name == "affine":
            r = aten.add.Tensor(aten.mul.Tensor(r, affine_weight), affine_bias)
        else:
            raise NoFormula(f"post-op '{name}' has no form in ATen operators")
    return r
