"""Elementwise operators, pooling, quantize and dequantize in ATen operators."""

from collections.abc import Sequence
from typing import Any

import torch

from torch_ao_ext._dimensions import each_dimension
from torch_ao_ext.quantization.pt2e.representation._values import (
    Value,
    aten,
    finish,
    integers,
    known,
    post_ops,
    quantize,
    real,
    to,
)


def requantize(
    input: Value, input_scale: float, input_zero_point: int, output_scale: float, output_zero_point: int,
    output_dtype: torch.dtype | None, names: str, numbers: Sequence[float],
) -> Value:  # fmt: skip
    dtype = known(input).dtype
    x = to(input, torch.float32) if dtype.is_floating_point else real(input, input_scale, input_zero_point)
    return finish(post_ops(x, names, numbers), output_scale, output_zero_point, output_dtype or dtype)


def _binary(operator: Any) -> Any:
    def binary(
        input: Value, input_scale: float, input_zero_point: int, other: Value, other_scale: float,
        other_zero_point: int, output_scale: float, output_zero_point: int,
        output_dtype: torch.dtype | None, names: str, numbers: Sequence[float],
    ) -> Value:  # fmt: skip
        r = operator(real(input, input_scale, input_zero_point), real(other, other_scale, other_zero_point))
        r = post_ops(r, names, numbers)
        return finish(r, output_scale, output_zero_point, output_dtype or known(input).dtype)

    return binary


def cat(
    tensors: Sequence[Value], scales: Sequence[float], zero_points: Sequence[int], dim: int,
    output_scale: float, output_zero_point: int, output_dtype: torch.dtype | None,
) -> Value:  # fmt: skip
    dtype = output_dtype or known(tensors[0]).dtype
    parts = zip(tensors, scales, zero_points, strict=True)
    joined = [finish(real(*part), output_scale, output_zero_point, dtype) for part in parts]
    return aten.cat.default(joined, dim)


def _flat(rank: int) -> int:
    """ATen pools integers in 2 and 3 dimensions: a line is an image one pixel high."""
    return max(rank, 2)


def _wide(x: Value, rank: int) -> Value:
    return aten.unsqueeze.default(x, -2) if rank == 1 else x


def _back(x: Value, rank: int) -> Value:
    return aten.squeeze.dim(x, -2) if rank == 1 else x


def _lengths(values: Sequence[int], rank: int, fill: int) -> list[int]:
    full = each_dimension(values, rank)
    return [fill, *full] if rank == 1 else full


def _max_pool(rank: int) -> Any:
    operator = getattr(aten, f"max_pool{_flat(rank)}d").default

    def max_pool(
        input: Value, kernel: list[int], stride: list[int] | None, padding: list[int], dilation: list[int],
        ceil_mode: bool,
    ) -> Value:  # fmt: skip
        dtype = known(input).dtype
        # max_pool3d counts positions in the type of its values
        x = to(input, torch.int32) if rank == 3 else _wide(input, rank)
        pooled = operator(
            x, _lengths(kernel, rank, 1), _lengths(stride or kernel, rank, 1),
            _lengths(padding, rank, 0), _lengths(dilation, rank, 1), ceil_mode,
        )  # fmt: skip
        info = torch.iinfo(dtype)
        return to(aten.clamp.default(pooled, info.min, info.max), dtype) if rank == 3 else _back(pooled, rank)

    return max_pool


def _avg_pool(rank: int) -> Any:
    operator = getattr(aten, f"avg_pool{_flat(rank)}d").default

    def avg_pool(
        input: Value, input_scale: float, input_zero_point: int, output_scale: float,
        output_zero_point: int, output_dtype: torch.dtype | None, kernel: list[int],
        stride: list[int] | None, padding: list[int], ceil_mode: bool, count_include_pad: bool,
        divisor: int | None,
    ) -> Value:  # fmt: skip
        window = (
            _lengths(kernel, rank, 1), _lengths(stride or kernel, rank, 1), _lengths(padding, rank, 0),
            ceil_mode, count_include_pad,
        )  # fmt: skip
        x = _wide(integers(input, input_zero_point), rank)
        sums = to(operator(x, *window, 1), torch.float32)
        positions: Value = divisor
        if divisor is None:  # those inside the input over their share of the window
            ones = aten.ones_like.default(x, dtype=torch.float32)
            inside, share = operator(ones, *window, 1), operator(ones, *window)
            positions = aten.round.default(aten.div.Tensor(inside, share))
        r = aten.div.Tensor(aten.mul.Tensor(sums, input_scale), positions)
        dtype = output_dtype or known(input).dtype
        return finish(_back(r, rank), output_scale, output_zero_point, dtype)

    return avg_pool


def _adaptive_avg_pool(rank: int) -> Any:
    operator = getattr(aten, f"adaptive_avg_pool{rank}d").default

    def adaptive_avg_pool(
        input: Value, input_scale: float, input_zero_point: int, output_scale: float,
        output_zero_point: int, output_dtype: torch.dtype | None, size: list[int],
    ) -> Value:  # fmt: skip
        means = operator(to(integers(input, input_zero_point), torch.float64), each_dimension(size, rank))
        r = aten.mul.Tensor(to(means, torch.float32), input_scale)
        return finish(r, output_scale, output_zero_point, output_dtype or known(input).dtype)

    return adaptive_avg_pool


def quantize_per_tensor(
    x: Value, scale: float, zero_point: int, quant_min: int, quant_max: int, dtype: torch.dtype,
    memory_format: torch.memory_format | None = None,
) -> Value:  # fmt: skip
    return quantize(x, scale, zero_point, quant_min, quant_max, dtype)  # ATen's operators take any order


def dequantize_per_tensor(
    q: Value, scale: float, zero_point: int, dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
) -> Value:  # fmt: skip
    x = to(real(q, scale, zero_point), dtype or torch.float32)
    return aten.contiguous.default(x) if memory_format == torch.contiguous_format else x


BETWEEN: dict[str, Any] = {
    "requantize": requantize,
    "cat": cat,
    "contiguous": aten.contiguous.default,
    "add": _binary(aten.add.Tensor),
    "mul": _binary(aten.mul.Tensor),
    "quantize_per_tensor": quantize_per_tensor,
    "dequantize_per_tensor": dequantize_per_tensor,
    **{f"max_pool{rank}d": _max_pool(rank) for rank in (1, 2, 3)},
    **{f"avg_pool{rank}d": _avg_pool(rank) for rank in (1, 2, 3)},
    **{f"adaptive_avg_pool{rank}d": _adaptive_avg_pool(rank) for rank in (1, 2, 3)},
}
