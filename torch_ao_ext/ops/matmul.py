"""Products of two 8-bit activations, as attention has them."""

import torch

from torch_ao_ext.ops import _fake
from torch_ao_ext.ops._post_ops import check_output

__all__ = ["matmul"]

Tensor = torch.Tensor

# Largest size of the summed dimension: 255 * 255 a term (csrc/engines/matmul.h).
MOST_K = 33025


def matmul(
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
    """Computes y = quantize(post_ops(a @ b)), each operand with qparams of its own.

    The sum is exact: with acc the integer sum of (a - zp_a)(b - zp_b), the result is
    round_half_even(post_ops(f32(acc) * (s_a * s_b)) / output_scale) + output_zero_point,
    clamped to the dtype, each step one float32 operation.

    Args:
        input: uint8 or int8, `[*, M, K]`, any strides, K at most 33025.
        input_scale: real units per step of input.
        input_zero_point: in the range of input's dtype.
        other: uint8 or int8, `[*, K, N]`, any strides (a transposed view is read as it lies);
            leading sizes broadcast with input's.
        other_scale: real units per step of other.
        other_zero_point: in the range of other's dtype.
        output_scale: real units per step of the output; 1.0 for a float output.
        output_zero_point: in the range of the output's dtype; 0 for a float output.
        output_dtype: uint8, int8, float32 or bfloat16; default input's.
        post_ops: see `linear_dynamic`, all but `add`.
        post_op_args: numbers of the post-ops, in order.

    Returns:
        `[*, M, N]`, contiguous.

    Raises:
        TypeError: wrong dtype.
        ValueError: sizes that do not fit, a bad scale, zero point or post-op.
        NotImplementedError: the engine that was asked for has no such product.

    Example:
        >>> import torch, torch_ao_ext
        >>> a = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8)
        >>> b = torch.tensor([[1, 0], [0, -1]], dtype=torch.int8)
        >>> torch_ao_ext.ops.matmul(a, 0.5, 0, b, 2.0, 0, output_dtype=torch.float32)
        tensor([[ 1., -2.],
                [ 3., -4.]])
    """
    return torch.ops.torch_ao.matmul(
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


@torch.library.register_fake("torch_ao::matmul")
def _(
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
    op = "matmul"
    _fake.check_tensor(op, "input", input, _fake.QUANTIZED)
    _fake.check_tensor(op, "other", other, _fake.QUANTIZED)
    check_output(op, output_dtype, post_ops, post_op_args)
    _fake.check_min_rank(op, "input", input, 2)
    _fake.check_min_rank(op, "other", other, 2)
    _fake.check_size(op, "other", other, other.dim() - 2, input.size(-1), "input.size(-1)")
    rule = f"have size(-1) of at most {MOST_K}, the most whose sum fits int32"
    _fake.check_value(input.size(-1) <= MOST_K, op, "input", rule, input.size(-1))
    rule = f"have batch sizes that broadcast with input's {_fake.sizes(input)}"
    batch = _fake.broadcast(op, other, input.shape[:-2], other.shape[:-2], rule)
    sizes = [*batch, input.size(-2), other.size(-1)]
    return input.new_empty(sizes, dtype=output_dtype or input.dtype)
