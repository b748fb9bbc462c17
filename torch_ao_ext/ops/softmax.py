"""Softmax to and from 8-bit tensors."""

import torch

from torch_ao_ext.ops import _fake

__all__ = ["softmax"]

Tensor = torch.Tensor

_INPUT = (torch.uint8, torch.int8, torch.float32, torch.bfloat16)


def softmax(
    input: Tensor,
    dim: int,
    input_scale: float = 1.0,
    input_zero_point: int = 0,
    output_scale: float = 1.0,
    output_zero_point: int = 0,
    output_dtype: torch.dtype | None = None,
    attn_mask: Tensor | None = None,
) -> Tensor:
    """Computes y = quantize(softmax(x, dim)), x = (input - input_zero_point) * input_scale + attn_mask.

    Computed in float32: a result is within 1e-6 + 2^-22 max|x| of that of float64, to which a
    quantized one adds half a step. A row with a NaN, with +inf or with nothing but -inf gives NaN,
    quantized the smallest value.

    Args:
        input: uint8, int8, float32 or bfloat16, any shape but `[]`, any strides.
        dim: dimension whose values sum to 1.
        input_scale: real units per step of input; of a float input a factor, that of attention scores.
        input_zero_point: in the range of input's dtype; 0 for a float input.
        output_scale: real units per step of the output, 1 / 256 fits; 1.0 for a float output.
        output_zero_point: in the range of the output's dtype; 0 for a float output.
        output_dtype: uint8, int8, float32 or bfloat16; default input's.
        attn_mask: float32, sizes that expand to input's; -inf leaves a value out.

    Returns:
        Sizes of input, contiguous.

    Raises:
        TypeError: wrong dtype.
        IndexError: no such dimension.
        ValueError: a mask of other sizes, a bad scale or zero point.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.tensor([0.0, 0.0, float("-inf"), 0.0])
        >>> torch_ao_ext.ops.softmax(x, 0, output_scale=1 / 255, output_dtype=torch.uint8)
        tensor([85, 85,  0, 85], dtype=torch.uint8)
    """
    return torch.ops.torch_ao.softmax(
        input,
        dim,
        input_scale,
        input_zero_point,
        output_scale,
        output_zero_point,
        output_dtype,
        attn_mask,
    )


@torch.library.register_fake("torch_ao::softmax")
def _(
    input,
    dim,
    input_scale=1.0,
    input_zero_point=0,
    output_scale=1.0,
    output_zero_point=0,
    output_dtype=None,
    attn_mask=None,
):
    op = "softmax"
    _fake.check_tensor(op, "input", input, _INPUT)
    _fake.check_output_dtype(op, output_dtype)
    _fake.check_min_rank(op, "input", input, 1)
    _fake.check_axis(op, "dim", dim, input.dim())
    if attn_mask is not None:
        _fake.check_tensor(op, "attn_mask", attn_mask, (torch.float32,))
        rule = f"have sizes that expand to input's {_fake.listed(input.shape)}"
        _fake.check_expands(op, "attn_mask", attn_mask, input.shape, rule)
    return input.new_empty(input.shape, dtype=output_dtype or input.dtype)
