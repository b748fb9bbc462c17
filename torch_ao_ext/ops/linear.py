"""Static linear: integers in, integers or floats out, and its published fused names."""

import torch

from torch_ao_ext.ops import _fake_linear  # noqa: F401  (registers the fake kernels)

__all__ = [
    "linear",
    "linear_add",
    "linear_add_relu",
    "linear_leaky_relu",
    "linear_relu",
    "linear_tanh",
]

Tensor = torch.Tensor


def linear(
    input: Tensor,
    input_scale: float | Tensor,
    input_zero_point: int | Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    weight_zero_point: Tensor | None = None,
    bias: Tensor | None = None,
    output_scale: float | Tensor = 1.0,
    output_zero_point: int | Tensor = 0,
    output_dtype: torch.dtype | None = None,
    post_ops: str = "",
    post_op_args: list[float] | None = None,
    other: Tensor | None = None,
    other_scale: float = 1.0,
    other_zero_point: int = 0,
    slope: Tensor | None = None,
    affine_weight: Tensor | None = None,
    affine_bias: Tensor | None = None,
) -> Tensor:
    """Computes y = quantize(post_ops(x W^T + b)), x = (input - zp_x) s_x, W = (weight - zp_w) s_w.

    The sum over K is exact in int32 on every CPU; v = (acc * (s_x * s_w) + b) / s_y in
    float32 without FMA, then clamp(round_half_even(v) + zp_y). One engine (XNNPACK)
    may differ by one step next to a rounding boundary; see `set_deterministic`.

    Args:
        input: `[*, K]`, uint8 or int8.
        input_scale: real units per step of input; a number, or (all four qparams) 1-element tensors.
        input_zero_point: in the range of input's dtype.
        weight: `[N, K]`, int8. Packed for the CPU at its first use.
        weight_scale: `[N]` or `[1]`, float32.
        weight_zero_point: `[N]` or `[1]`, int32 or int64; None means 0.
        bias: `[N]`, float32, in real units.
        output_scale: real units per step of the output; 1.0 for a float output.
        output_zero_point: in the range of the output's dtype; 0 for a float output.
        output_dtype: uint8, int8, float32 or bfloat16; default the input's.
        post_ops: see `linear_dynamic`; applied before the division by output_scale.
        post_op_args: numbers of the post-ops, in order.
        other: operand of `add`, the output's shape: uint8, int8, float32, bfloat16.
        other_scale: real units per step of an integer `other`.
        other_zero_point: zero point of an integer `other`.
        slope: of the post-op `prelu`, `[N]` or `[1]`, float32.
        affine_weight: of the post-op `affine`, `[N]`, float32, finite.
        affine_bias: of the post-op `affine`, `[N]`, float32, finite.

    Returns:
        `[*, N]`, contiguous.

    Raises:
        TypeError: a tensor of the wrong dtype or layout.
        ValueError: sizes that do not fit, a bad scale, zero point or post-op.

    Source: Jacob et al. 2018, equation 7.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.tensor([[10, 20]], dtype=torch.uint8)
        >>> w = torch.tensor([[1, 1]], dtype=torch.int8)
        >>> s = torch.tensor([1.0])
        >>> torch_ao_ext.ops.linear(x, 0.5, 0, w, s, output_dtype=torch.float32)
        tensor([[15.]])
    """
    # The overload with tensor qparams is chosen by the types of the arguments.
    return torch.ops.torch_ao.linear(
        input,
        input_scale,
        input_zero_point,
        weight,
        weight_scale,
        weight_zero_point,
        bias,
        output_scale,
        output_zero_point,
        output_dtype,
        post_ops,
        post_op_args or [],
        other,
        other_scale,
        other_zero_point,
        slope,
        affine_weight,
        affine_bias,
    )


def linear_relu(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    weight: Tensor,
    weight_scale: Tensor,
    weight_zero_point: Tensor | None = None,
    bias: Tensor | None = None,
    output_scale: float = 1.0,
    output_zero_point: int = 0,
    output_dtype: torch.dtype | None = None,
) -> Tensor:
    """Computes y = quantize(max(0, x W^T + b)); arguments as in `linear`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, w = torch.tensor([[3]], dtype=torch.uint8), torch.tensor([[-2]], dtype=torch.int8)
        >>> torch_ao_ext.ops.linear_relu(x, 1.0, 0, w, torch.tensor([1.0]))
        tensor([[0]], dtype=torch.uint8)
    """
    return torch.ops.torch_ao.linear_relu(
        input,
        input_scale,
        input_zero_point,
        weight,
        weight_scale,
        weight_zero_point,
        bias,
        output_scale,
        output_zero_point,
        output_dtype,
    )


def linear_leaky_relu(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    weight: Tensor,
    weight_scale: Tensor,
    weight_zero_point: Tensor | None = None,
    bias: Tensor | None = None,
    output_scale: float = 1.0,
    output_zero_point: int = 0,
    output_dtype: torch.dtype | None = None,
    negative_slope: float = 0.01,
) -> Tensor:
    """Computes y = quantize(r < 0 ? slope * r : r), r = x W^T + b; arguments as in `linear`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, w = torch.tensor([[4]], dtype=torch.int8), torch.tensor([[-2]], dtype=torch.int8)
        >>> op = torch_ao_ext.ops.linear_leaky_relu
        >>> op(x, 1.0, 0, w, torch.tensor([1.0]), negative_slope=0.5)
        tensor([[-4]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.linear_leaky_relu(
        input,
        input_scale,
        input_zero_point,
        weight,
        weight_scale,
        weight_zero_point,
        bias,
        output_scale,
        output_zero_point,
        output_dtype,
        negative_slope,
    )


def linear_tanh(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    weight: Tensor,
    weight_scale: Tensor,
    weight_zero_point: Tensor | None = None,
    bias: Tensor | None = None,
    output_scale: float = 1.0,
    output_zero_point: int = 0,
    output_dtype: torch.dtype | None = None,
) -> Tensor:
    """Computes y = quantize(tanh(x W^T + b)); arguments as in `linear`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, w = torch.tensor([[9]], dtype=torch.int8), torch.tensor([[9]], dtype=torch.int8)
        >>> torch_ao_ext.ops.linear_tanh(x, 1.0, 0, w, torch.tensor([1.0]), output_scale=1 / 64)
        tensor([[64]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.linear_tanh(
        input,
        input_scale,
        input_zero_point,
        weight,
        weight_scale,
        weight_zero_point,
        bias,
        output_scale,
        output_zero_point,
        output_dtype,
    )


def linear_add(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    weight: Tensor,
    weight_scale: Tensor,
    weight_zero_point: Tensor | None,
    bias: Tensor | None,
    output_scale: float,
    output_zero_point: int,
    output_dtype: torch.dtype | None,
    other: Tensor,
    other_scale: float = 1.0,
    other_zero_point: int = 0,
) -> Tensor:
    """Computes y = quantize(x W^T + b + (other - zp) s); arguments as in `linear`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, w = torch.tensor([[4]], dtype=torch.int8), torch.tensor([[2]], dtype=torch.int8)
        >>> s, other = torch.tensor([1.0]), torch.tensor([[5]], dtype=torch.int8)
        >>> torch_ao_ext.ops.linear_add(x, 1.0, 0, w, s, None, None, 1.0, 0, None, other, 2.0)
        tensor([[18]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.linear_add(
        input,
        input_scale,
        input_zero_point,
        weight,
        weight_scale,
        weight_zero_point,
        bias,
        output_scale,
        output_zero_point,
        output_dtype,
        other,
        other_scale,
        other_zero_point,
    )


def linear_add_relu(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    weight: Tensor,
    weight_scale: Tensor,
    weight_zero_point: Tensor | None,
    bias: Tensor | None,
    output_scale: float,
    output_zero_point: int,
    output_dtype: torch.dtype | None,
    other: Tensor,
    other_scale: float = 1.0,
    other_zero_point: int = 0,
) -> Tensor:
    """Computes y = quantize(max(0, x W^T + b + (other - zp) s)); arguments as in `linear`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, w = torch.tensor([[4]], dtype=torch.int8), torch.tensor([[-2]], dtype=torch.int8)
        >>> s, other = torch.tensor([1.0]), torch.tensor([[5]], dtype=torch.int8)
        >>> torch_ao_ext.ops.linear_add_relu(x, 1.0, 0, w, s, None, None, 1.0, 0, None, other)
        tensor([[0]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.linear_add_relu(
        input,
        input_scale,
        input_zero_point,
        weight,
        weight_scale,
        weight_zero_point,
        bias,
        output_scale,
        output_zero_point,
        output_dtype,
        other,
        other_scale,
        other_zero_point,
    )
