"""linear, convolutions and embedding in ATen operators."""

from collections.abc import Sequence
from typing import Any

import torch

from torch_ao_ext.quantization.pt2e.representation._dynamic import row_qparams, tensor_qparams
from torch_ao_ext.quantization.pt2e.representation._values import (
    NoFormula,
    Value,
    aten,
    finish_product,
    integers,
    known,
    post_ops,
    quantize,
    real,
    to,
)


def _along(values: Value, rank: int) -> Value:
    """Per-channel values against [N, C, *S] of rank spatial dimensions."""
    return values if rank == 0 or values is None else aten.reshape.default(values, [-1] + [1] * rank)


def _each(tensors: tuple[Value, ...], rank: int) -> list[Value]:
    """The tensors of post-ops against [N, C, *S]."""
    return [_along(values, rank) for values in tensors]


def _weight(weight: Value, zero_point: Value) -> Value:
    """Integers of a weight whose first dimension is the output channel."""
    if zero_point is None:
        return to(weight, torch.int64)
    return integers(weight, _along(zero_point, known(weight).dim() - 1))


def _transposed_weight(weight: Value, zero_point: Value, groups: int) -> Value:
    """Integers of a weight [in, out / groups, *kernel]."""
    if zero_point is None:
        return to(weight, torch.int64)
    rank = known(weight).dim() - 2
    if known(zero_point).numel() == 1:
        return integers(weight, zero_point)
    split = aten.unflatten.int(weight, 0, [groups, -1])
    points = aten.reshape.default(zero_point, [groups, 1, -1] + [1] * rank)
    return aten.flatten.using_ints(integers(split, points), 0, 1)


def _other(other: Value, scale: float, zero_point: int) -> Value:
    if other is None:
        return None
    if known(other).dtype.is_floating_point:
        return to(other, torch.float32)
    return real(other, scale, zero_point)


def _product(sums: Value, scale: Value, bias: Value, rank: int) -> Value:
    """f32(sums) * scale + bias."""
    r = aten.mul.Tensor(to(sums, torch.float32), scale)
    return r if bias is None else aten.add.Tensor(r, _along(bias, rank))


def linear(
    input: Value, input_scale: float, input_zero_point: int, weight: Value, weight_scale: Value,
    weight_zero_point: Value, bias: Value, output_scale: float, output_zero_point: int,
    output_dtype: torch.dtype | None, names: str, numbers: Sequence[float], other: Value,
    other_scale: float, other_zero_point: int, *tensors: Value,
) -> Value:  # fmt: skip
    sums = aten.linear.default(integers(input, input_zero_point), _weight(weight, weight_zero_point))
    r = _product(sums, aten.mul.Tensor(weight_scale, input_scale), bias, 0)
    r = post_ops(r, names, numbers, _other(other, other_scale, other_zero_point), *tensors)
    return finish_product(r, output_scale, output_zero_point, output_dtype or known(input).dtype)


def _steps(symmetric: bool, reduce_range: bool) -> tuple[int, int]:
    """Smallest and largest integer of an input that is quantized at run time."""
    high = 127 if symmetric or reduce_range else 255
    high = 63 if symmetric and reduce_range else high
    return (-high if symmetric else 0), high


def linear_dynamic(
    input: Value, weight: Value, weight_scale: Value, weight_zero_point: Value, bias: Value, per_row: bool,
    symmetric: bool, reduce_range: bool, output_dtype: torch.dtype | None, names: str,
    numbers: Sequence[float], other: Value, *tensors: Value,
) -> Value:  # fmt: skip
    low, high = _steps(symmetric, reduce_range)
    x = to(input, torch.float32)
    choose = row_qparams if per_row else tensor_qparams
    scale, zero_point = choose(x, symmetric, low, high)
    q = quantize(x, scale, zero_point, low, high, torch.int64)
    sums = aten.linear.default(integers(q, zero_point), _weight(weight, weight_zero_point))
    r = _product(sums, aten.mul.Tensor(scale, weight_scale), bias, 0)
    r = post_ops(r, names, numbers, _other(other, 1.0, 0), *tensors)
    return to(r, output_dtype or known(input).dtype)


def _conv(rank: int) -> Any:
    operator = getattr(aten, f"conv{rank}d").default

    def conv(
        input: Value, input_scale: float, input_zero_point: int, weight: Value, weight_scale: Value,
        weight_zero_point: Value, bias: Value, output_scale: float, output_zero_point: int,
        output_dtype: torch.dtype | None, stride: list[int], padding: list[int], dilation: list[int],
        groups: int, names: str, numbers: Sequence[float], other: Value, other_scale: float,
        other_zero_point: int, *tensors: Value,
    ) -> Value:  # fmt: skip
        x, w = integers(input, input_zero_point), _weight(weight, weight_zero_point)
        sums = operator(x, w, None, stride, padding, dilation, groups)
        r = _product(sums, _along(aten.mul.Tensor(weight_scale, input_scale), rank), bias, rank)
        r = post_ops(r, names, numbers, _other(other, other_scale, other_zero_point), *_each(tensors, rank))
        return finish_product(r, output_scale, output_zero_point, output_dtype or known(input).dtype)

    return conv


def _conv_transpose(rank: int) -> Any:
    packet = getattr(aten, f"conv_transpose{rank}d")
    operator = packet.default if rank == 1 else packet.input

    def conv_transpose(
        input: Value, input_scale: float, input_zero_point: int, weight: Value, weight_scale: Value,
        weight_zero_point: Value, bias: Value, output_scale: float, output_zero_point: int,
        output_dtype: torch.dtype | None, stride: list[int], padding: list[int], output_padding: list[int],
        groups: int, dilation: list[int], names: str, numbers: Sequence[float], other: Value,
        other_scale: float, other_zero_point: int, *tensors: Value,
    ) -> Value:  # fmt: skip
        x = integers(input, input_zero_point)
        w = _transposed_weight(weight, weight_zero_point, groups)
        sums = operator(x, w, None, stride, padding, output_padding, groups, dilation)
        r = _product(sums, _along(aten.mul.Tensor(weight_scale, input_scale), rank), bias, rank)
        r = post_ops(r, names, numbers, _other(other, other_scale, other_zero_point), *_each(tensors, rank))
        return finish_product(r, output_scale, output_zero_point, output_dtype or known(input).dtype)

    return conv_transpose


def _quantized_images(
    input: Value, per_sample: bool, symmetric: bool, reduce_range: bool, rank: int
) -> tuple[Value, Value]:
    """Integers less their zero points, and scales against [N, C, *S]."""
    low, high = _steps(symmetric, reduce_range)
    x = to(input, torch.float32)
    if not per_sample:
        scale, zero_point = tensor_qparams(x, symmetric, low, high)
    else:
        parts = row_qparams(aten.flatten.using_ints(x, 1), symmetric, low, high)
        sizes = [-1] + [1] * (rank + 1)
        scale, zero_point = (p if isinstance(p, int) else aten.reshape.default(p, sizes) for p in parts)
    return integers(quantize(x, scale, zero_point, low, high, torch.int64), zero_point), scale


def _conv_dynamic(rank: int) -> Any:
    operator = getattr(aten, f"conv{rank}d").default

    def conv_dynamic(
        input: Value, weight: Value, weight_scale: Value, weight_zero_point: Value, bias: Value,
        per_sample: bool, symmetric: bool, reduce_range: bool, output_dtype: torch.dtype | None,
        stride: list[int], padding: list[int], dilation: list[int], groups: int, names: str,
        numbers: Sequence[float], other: Value, *tensors: Value,
    ) -> Value:  # fmt: skip
        x, scale = _quantized_images(input, per_sample, symmetric, reduce_range, rank)
        sums = operator(x, _weight(weight, weight_zero_point), None, stride, padding, dilation, groups)
        r = _product(sums, aten.mul.Tensor(scale, _along(weight_scale, rank)), bias, rank)
        r = post_ops(r, names, numbers, _other(other, 1.0, 0), *_each(tensors, rank))
        return to(r, output_dtype or known(input).dtype)

    return conv_dynamic


def _conv_transpose_dynamic(rank: int) -> Any:
    packet = getattr(aten, f"conv_transpose{rank}d")
    operator = packet.default if rank == 1 else packet.input

    def conv_transpose_dynamic(
        input: Value, weight: Value, weight_scale: Value, weight_zero_point: Value, bias: Value,
        per_sample: bool, symmetric: bool, reduce_range: bool, output_dtype: torch.dtype | None,
        stride: list[int], padding: list[int], output_padding: list[int], groups: int, dilation: list[int],
        names: str, numbers: Sequence[float], other: Value, *tensors: Value,
    ) -> Value:  # fmt: skip
        x, scale = _quantized_images(input, per_sample, symmetric, reduce_range, rank)
        w = _transposed_weight(weight, weight_zero_point, groups)
        sums = operator(x, w, None, stride, padding, output_padding, groups, dilation)
        r = _product(sums, aten.mul.Tensor(scale, _along(weight_scale, rank)), bias, rank)
        r = post_ops(r, names, numbers, _other(other, 1.0, 0), *_each(tensors, rank))
        return to(r, output_dtype or known(input).dtype)

    return conv_transpose_dynamic


def embedding(
    weight: Value, indices: Value, bits: int, dim: int | None, mapping: Value, dtype: torch.dtype | None
) -> Value:
    """A row of 8-bit codes ends in its scale and offset, two float32."""
    if bits != 8 or mapping is not None:
        raise NoFormula("only tables of 8 bits without a mapping have a form in ATen operators")
    rows = aten.embedding.default(weight, indices)
    codes = to(aten.slice.Tensor(rows, -1, 0, -8), torch.float32)
    numbers = aten.view.dtype(aten.contiguous.default(aten.slice.Tensor(rows, -1, -8)), torch.float32)
    scale, offset = (aten.slice.Tensor(numbers, -1, i, i + 1) for i in range(2))
    return to(aten.add.Tensor(aten.mul.Tensor(codes, scale), offset), dtype or torch.float32)


PRODUCTS: dict[str, Any] = {
    "linear": linear,
    "linear_dynamic": linear_dynamic,
    "embedding": embedding,
    **{f"conv{rank}d": _conv(rank) for rank in (1, 2, 3)},
    **{f"conv_transpose{rank}d": _conv_transpose(rank) for rank in (1, 2, 3)},
    **{f"conv{rank}d_dynamic": _conv_dynamic(rank) for rank in (1, 2, 3)},
    **{f"conv_transpose{rank}d_dynamic": _conv_transpose_dynamic(rank) for rank in (1, 2, 3)},
}
