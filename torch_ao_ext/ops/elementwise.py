"""Elementwise arithmetic of 8-bit tensors: requantize, add, mul."""

import torch

from torch_ao_ext.ops import _fake
from torch_ao_ext.ops._post_ops import check_output

__all__ = ["add", "mul", "requantize"]

Tensor = torch.Tensor


def requantize(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    output_scale: float = 1.0,
    output_zero_point: int = 0,
    output_dtype: torch.dtype | None = None,
    post_ops: str = "",
    post_op_args: list[float] | None = None,
) -> Tensor:
    """Computes y = quantize(post_ops(x)), x = (input - input_zero_point) * input_scale.

    An activation on its own, or a change of scale; of a float input, activation and quantize in
    one. The result is that of dequantize_per_tensor, the post-ops and quantize_per_tensor, one after
    the other.

    Args:
        input: uint8, int8, float32 or bfloat16, any shape.
        input_scale: real units per step of input; 1.0 for a float input.
        input_zero_point: in the range of input's dtype; 0 for a float input.
        output_scale: real units per step of the output; 1.0 for a float output.
        output_zero_point: in the range of the output's dtype; 0 for a float output.
        output_dtype: uint8, int8, float32 or bfloat16; default the input's.
        post_ops: see `linear_dynamic`, all but `add`.
        post_op_args: numbers of the post-ops, in order.

    Returns:
        Shape and strides of input.

    Raises:
        TypeError: wrong dtype.
        ValueError: a bad scale, zero point or post-op.

    Example:
        >>> import torch, torch_ao_ext
        >>> q = torch.tensor([0, 10, 20], dtype=torch.uint8)
        >>> torch_ao_ext.ops.requantize(q, 0.5, 10, 0.25, 0, post_ops="relu")
        tensor([ 0,  0, 20], dtype=torch.uint8)
    """
    return torch.ops.torch_ao.requantize(
        input,
        input_scale,
        input_zero_point,
        output_scale,
        output_zero_point,
        output_dtype,
        post_ops,
        post_op_args or [],
    )


def add(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    other: Tensor,
    other_scale: float,
    other_zero_point: int,
    output_scale: float = 1.0,
    output_zero_point: int = 0,
    output_dtype: torch.dtype | None = None,
    post_ops: str = "",
    post_op_args: list[float] | None = None,
) -> Tensor:
    """Computes y = quantize(post_ops(a + b)), each operand with qparams of its own.

    The result is that of two dequantize_per_tensor, the sum, the post-ops and
    quantize_per_tensor, one after the other.

    Args:
        input: uint8 or int8.
        input_scale: real units per step of input.
        input_zero_point: in the range of input's dtype.
        other: uint8 or int8, of sizes that broadcast with input's.
        other_scale: real units per step of other.
        other_zero_point: in the range of other's dtype.
        output_scale: see `requantize`, as the arguments that follow.
        output_zero_point: see `requantize`.
        output_dtype: see `requantize`.
        post_ops: see `requantize`; "relu" makes the end of a residual block.
        post_op_args: see `requantize`.

    Returns:
        The broadcast sizes; strides of input where it has these sizes and no holes, else
        contiguous.

    Raises:
        TypeError: wrong dtype.
        ValueError: sizes that do not broadcast, a bad scale, zero point or post-op.

    Example:
        >>> import torch, torch_ao_ext
        >>> a = torch.tensor([10, 20], dtype=torch.uint8)
        >>> b = torch.tensor([-4, 4], dtype=torch.int8)
        >>> torch_ao_ext.ops.add(a, 0.5, 0, b, 1.0, 0, 0.5, 0)
        tensor([ 2, 28], dtype=torch.uint8)
    """
    return torch.ops.torch_ao.add(
        input,
        input_scale,
        input_zero_point,
        other,
        other_scale,
        other_zero_point,
        output_scale,
        output_zero_point,
        output_dtype,
        post_ops,
        post_op_args or [],
    )


def mul(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    other: Tensor,
    other_scale: float,
    other_zero_point: int,
    output_scale: float = 1.0,
    output_zero_point: int = 0,
    output_dtype: torch.dtype | None = None,
    post_ops: str = "",
    post_op_args: list[float] | None = None,
) -> Tensor:
    """Computes y = quantize(post_ops(a * b)); arguments as in `add`.

    Example:
        >>> import torch, torch_ao_ext
        >>> a = torch.tensor([10, 20], dtype=torch.uint8)
        >>> torch_ao_ext.ops.mul(a, 0.5, 0, a, 0.5, 10, 1.0, 0)
        tensor([ 0, 50], dtype=torch.uint8)
    """
    return torch.ops.torch_ao.mul(
        input,
        input_scale,
        input_zero_point,
        other,
        other_scale,
        other_zero_point,
        output_scale,
        output_zero_point,
        output_dtype,
        post_ops,
        post_op_args or [],
    )


@torch.library.register_fake("torch_ao::requantize")
def _(
    input,
    scale,
    zero_point,
    output_scale=1.0,
    output_zero_point=0,
    output_dtype=None,
    post_ops="",
    post_op_args=(),
):
    op = "requantize"
    _fake.check_tensor(op, "input", input, _fake.OUTPUT)
    check_output(op, output_dtype, post_ops, post_op_args)
    return _fake.empty_like(input, output_dtype or input.dtype)


def _register_binary(op: str) -> None:
    def fake(
        input,
        input_scale,
        input_zero_point,
        other,
        other_scale,
        other_zero_point,
        output_scale=1.0,
        output_zero_point=0,
        output_dtype=None,
        post_ops="",
        post_op_args=(),
    ):
        _fake.check_tensor(op, "input", input, _fake.QUANTIZED)
        _fake.check_tensor(op, "other", other, _fake.QUANTIZED)
        check_output(op, output_dtype, post_ops, post_op_args)
        rule = f"have sizes that broadcast with input's {_fake.listed(input.shape)}"
        sizes = _fake.broadcast(op, other, input.shape, other.shape, rule)
        dtype = output_dtype or input.dtype
        keeps = len(sizes) == input.dim() and all(
            a is b or a == b for a, b in zip(sizes, input.shape, strict=True)
        )
        if keeps and torch.ops.aten.is_non_overlapping_and_dense(input):
            return input.new_empty_strided(sizes, input.stride(), dtype=dtype)
        return input.new_empty(sizes, dtype=dtype)

    torch.library.register_fake(f"torch_ao::{op}", fake)


_register_binary("add")
_register_binary("mul")
