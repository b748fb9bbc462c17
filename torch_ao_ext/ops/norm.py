"""Normalizations of 8-bit tensors, and of float ones with an 8-bit result."""

import torch

from torch_ao_ext.ops import _fake_norm  # noqa: F401  (registers the fake kernels)

__all__ = [
    "add_layer_norm",
    "add_layer_norm_sum",
    "batch_norm",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "rms_norm",
]

Tensor = torch.Tensor
Dtype = torch.dtype | None


def layer_norm(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    weight: Tensor | None,
    bias: Tensor | None,
    output_scale: float,
    output_zero_point: int,
    output_dtype: Dtype,
    normalized_shape: list[int],
    eps: float = 1e-5,
    post_ops: str = "",
    post_op_args: list[float] | None = None,
) -> Tensor:
    """Computes y = quantize(post_ops((x - mean) / sqrt(var + eps) * weight + bias)).

    mean and var (the biased one) over the last dimensions, as torch.nn.functional.layer_norm. x is
    (input - input_zero_point) * input_scale of an 8-bit input, whose sums are exact, or a float one.
    An 8-bit result is within one step of that of the formula in float64, and the same on every CPU.

    Args:
        input: uint8, int8, float32 or bfloat16, `[*, *normalized_shape]`.
        input_scale: real units per step of input; 1.0 for a float input.
        input_zero_point: in the range of input's dtype; 0 for a float input.
        weight: float32 or bfloat16 `normalized_shape`; None is 1.
        bias: as weight; None is 0.
        output_scale: real units per step of the output; 1.0 for a float output.
        output_zero_point: in the range of the output's dtype; 0 for a float output.
        output_dtype: uint8, int8, float32 or bfloat16; None is the input's.
        normalized_shape: the last sizes of input, at least one.
        eps: finite, at least 0.
        post_ops: see `linear_dynamic`, all but `add`.
        post_op_args: numbers of the post-ops, in order.

    Returns:
        Sizes of input, contiguous. A float row whose sum of squares is no finite float32 gives NaN,
        which is quantized to the lowest integer.

    Raises:
        TypeError: wrong dtype.
        ValueError: sizes that do not fit, a bad scale, zero point, eps or post-op.

    Source: Ba, Kiros, Hinton, "Layer Normalization", arXiv:1607.06450, equations 3 and 4.

    Example:
        >>> import torch, torch_ao_ext
        >>> q = torch.tensor([[0, 10, 20, 30]], dtype=torch.uint8)
        >>> torch_ao_ext.ops.layer_norm(q, 0.5, 10, None, None, 0.01, 0, torch.int8, [4])
        tensor([[-128,  -45,   45,  127]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.layer_norm(
        input, input_scale, input_zero_point, weight, bias, output_scale, output_zero_point, output_dtype,
        normalized_shape, eps, post_ops, post_op_args or [],
    )  # fmt: skip


def rms_norm(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    weight: Tensor | None,
    output_scale: float,
    output_zero_point: int,
    output_dtype: Dtype,
    normalized_shape: list[int],
    eps: float | None = None,
    post_ops: str = "",
    post_op_args: list[float] | None = None,
) -> Tensor:
    """Computes y = quantize(post_ops(x / sqrt(mean(x^2) + eps) * weight)); arguments as in `layer_norm`.

    An eps of None is 2^-23, that of torch.nn.functional.rms_norm for float32.

    Source: Zhang, Sennrich, "Root Mean Square Layer Normalization", arXiv:1910.07467, equation 4.

    Example:
        >>> import torch, torch_ao_ext
        >>> q = torch.tensor([[-3, 4]], dtype=torch.int8)
        >>> torch_ao_ext.ops.rms_norm(q, 0.5, 0, None, 0.02, 0, None, [2])
        tensor([[-42,  57]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.rms_norm(
        input, input_scale, input_zero_point, weight, output_scale, output_zero_point, output_dtype,
        normalized_shape, eps, post_ops, post_op_args or [],
    )  # fmt: skip


def add_layer_norm(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    other: Tensor,
    other_scale: float,
    other_zero_point: int,
    weight: Tensor | None,
    bias: Tensor | None,
    output_scale: float,
    output_zero_point: int,
    output_dtype: Dtype,
    normalized_shape: list[int],
    eps: float = 1e-5,
    post_ops: str = "",
    post_op_args: list[float] | None = None,
) -> Tensor:
    """`layer_norm` of the sum of two tensors: the residual add of a transformer in front of it.

    The sum is float32 and not rounded to 8 bits in between.

    Args:
        input: see `layer_norm`, as the arguments not listed.
        input_scale: see `layer_norm`.
        input_zero_point: see `layer_norm`.
        other: input's sizes, any of its dtypes.
        other_scale: real units per step of other; 1.0 for a float tensor.
        other_zero_point: in the range of other's dtype; 0 for a float tensor.
        weight: see `layer_norm`.
        bias: see `layer_norm`.
        output_scale: see `layer_norm`.
        output_zero_point: see `layer_norm`.
        output_dtype: see `layer_norm`.
        normalized_shape: see `layer_norm`.
        eps: see `layer_norm`.
        post_ops: see `layer_norm`.
        post_op_args: see `layer_norm`.

    Returns:
        Sizes of input, contiguous.

    Raises:
        TypeError: wrong dtype.
        ValueError: sizes that do not fit, a bad scale, zero point, eps or post-op.

    Example:
        >>> import torch, torch_ao_ext
        >>> q = torch.tensor([[0, 10, 20, 30]], dtype=torch.uint8)
        >>> x = torch.zeros(1, 4)
        >>> torch_ao_ext.ops.add_layer_norm(q, 0.5, 10, x, 1.0, 0, None, None, 0.01, 0, torch.int8, [4])
        tensor([[-128,  -45,   45,  127]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.add_layer_norm(
        input, input_scale, input_zero_point, other, other_scale, other_zero_point, weight, bias,
        output_scale, output_zero_point, output_dtype, normalized_shape, eps, post_ops, post_op_args or [],
    )  # fmt: skip


def add_layer_norm_sum(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    other: Tensor,
    other_scale: float,
    other_zero_point: int,
    weight: Tensor | None,
    bias: Tensor | None,
    output_scale: float,
    output_zero_point: int,
    output_dtype: Dtype,
    normalized_shape: list[int],
    eps: float = 1e-5,
    post_ops: str = "",
    post_op_args: list[float] | None = None,
    sum_dtype: Dtype = None,
) -> tuple[Tensor, Tensor]:
    """`add_layer_norm` and the sum itself, which a transformer that normalizes first adds to later.

    Args:
        input: see `add_layer_norm`, as the arguments not listed.
        input_scale: see `add_layer_norm`.
        input_zero_point: see `add_layer_norm`.
        other: see `add_layer_norm`.
        other_scale: see `add_layer_norm`.
        other_zero_point: see `add_layer_norm`.
        weight: see `add_layer_norm`.
        bias: see `add_layer_norm`.
        output_scale: see `add_layer_norm`.
        output_zero_point: see `add_layer_norm`.
        output_dtype: see `add_layer_norm`.
        normalized_shape: see `add_layer_norm`.
        eps: see `add_layer_norm`.
        post_ops: see `add_layer_norm`.
        post_op_args: see `add_layer_norm`.
        sum_dtype: float32 or bfloat16; None is float32. What is normalized is the float32 sum.

    Returns:
        The normalized sum and the sum, sizes of input, contiguous.

    Raises:
        TypeError: wrong dtype.
        ValueError: sizes that do not fit, a bad scale, zero point, eps or post-op.

    Example:
        >>> import torch, torch_ao_ext
        >>> q = torch.tensor([[0, 10, 20, 30]], dtype=torch.uint8)
        >>> x = torch.ones(1, 4)
        >>> qparams = (0.5, 10, x, 1.0, 0, None, None, 0.01, 0, torch.int8)
        >>> torch_ao_ext.ops.add_layer_norm_sum(q, *qparams, [4])[1]
        tensor([[-4.,  1.,  6., 11.]])
    """
    return torch.ops.torch_ao.add_layer_norm_sum(
        input, input_scale, input_zero_point, other, other_scale, other_zero_point, weight, bias,
        output_scale, output_zero_point, output_dtype, normalized_shape, eps, post_ops, post_op_args or [],
        sum_dtype,
    )  # fmt: skip


def group_norm(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    weight: Tensor | None,
    bias: Tensor | None,
    output_scale: float,
    output_zero_point: int,
    output_dtype: Dtype,
    num_groups: int,
    eps: float = 1e-5,
    post_ops: str = "",
    post_op_args: list[float] | None = None,
) -> Tensor:
    """Computes y = quantize(post_ops((x - mean) / sqrt(var + eps) * weight + bias)).

    mean and var (the biased one) over each sample's groups of channels, from exact sums, as
    torch.nn.functional.group_norm. An 8-bit result is within one step of that of the formula in
    float64, and the same on every CPU and in every memory order.

    Args:
        input: uint8 or int8, `[N, C, *]`. Contiguous and channels last are read as they lie, another
            layout is copied once.
        input_scale: real units per step of input.
        input_zero_point: in the range of input's dtype.
        weight: float32 or bfloat16 `[C]`; None is 1.
        bias: as weight; None is 0.
        output_scale: real units per step of the output; 1.0 for a float output.
        output_zero_point: in the range of the output's dtype; 0 for a float output.
        output_dtype: uint8, int8, float32 or bfloat16; None is the input's.
        num_groups: at least 1, divides C.
        eps: finite, at least 0.
        post_ops: see `linear_dynamic`, all but `add`.
        post_op_args: numbers of the post-ops, in order.

    Returns:
        Sizes of input; channels last when input is that and not contiguous, else contiguous.

    Raises:
        TypeError: wrong dtype.
        ValueError: sizes that do not fit, a bad scale, zero point, eps or post-op.

    Source: Wu, He, "Group Normalization", arXiv:1803.08494, equations 1 to 3.

    Example:
        >>> import torch, torch_ao_ext
        >>> q = torch.tensor([[0, 10, 20, 30]], dtype=torch.uint8)
        >>> torch_ao_ext.ops.group_norm(q, 0.5, 10, None, None, 0.01, 0, torch.int8, 2)
        tensor([[-100,  100, -100,  100]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.group_norm(
        input, input_scale, input_zero_point, weight, bias, output_scale, output_zero_point, output_dtype,
        num_groups, eps, post_ops, post_op_args or [],
    )  # fmt: skip


def instance_norm(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    weight: Tensor | None,
    bias: Tensor | None,
    output_scale: float,
    output_zero_point: int,
    output_dtype: Dtype,
    eps: float = 1e-5,
    post_ops: str = "",
    post_op_args: list[float] | None = None,
) -> Tensor:
    """`group_norm` with a group for each channel, input `[N, C, *]` of at least 3 dimensions.

    Example:
        >>> import torch, torch_ao_ext
        >>> q = torch.tensor([[[0, 10], [20, 30]]], dtype=torch.uint8)
        >>> torch_ao_ext.ops.instance_norm(q, 0.5, 10, None, None, 0.01, 0, torch.int8)
        tensor([[[-100,  100],
                 [-100,  100]]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.instance_norm(
        input, input_scale, input_zero_point, weight, bias, output_scale, output_zero_point, output_dtype,
        eps, post_ops, post_op_args or [],
    )  # fmt: skip


def batch_norm(
    input: Tensor,
    input_scale: float,
    input_zero_point: int,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    output_scale: float,
    output_zero_point: int,
    output_dtype: Dtype,
    eps: float = 1e-5,
    post_ops: str = "",
    post_op_args: list[float] | None = None,
) -> Tensor:
    """Computes y = quantize(post_ops((x - running_mean) / sqrt(running_var + eps) * weight + bias)).

    A product and a sum for each channel; post-op "relu" makes batch norm and relu in one.

    Args:
        input: uint8, int8, float32 or bfloat16, `[N, C, *]` in the layouts of `group_norm`.
        input_scale: real units per step of input; 1.0 for a float input.
        input_zero_point: in the range of input's dtype; 0 for a float input.
        running_mean: float32 or bfloat16 `[C]`.
        running_var: as running_mean.
        weight: see `group_norm`.
        bias: see `group_norm`.
        output_scale: see `group_norm`.
        output_zero_point: see `group_norm`.
        output_dtype: see `group_norm`.
        eps: see `group_norm`.
        post_ops: see `group_norm`.
        post_op_args: see `group_norm`.

    Returns:
        As `group_norm`.

    Raises:
        TypeError: wrong dtype.
        ValueError: sizes that do not fit, a bad scale, zero point, eps or post-op.

    Source: Ioffe, Szegedy, "Batch Normalization", arXiv:1502.03167, algorithm 2.

    Example:
        >>> import torch, torch_ao_ext
        >>> q = torch.tensor([[0, 10, 20]], dtype=torch.uint8)
        >>> mean, var = torch.zeros(3), torch.full((3,), 4.0)
        >>> torch_ao_ext.ops.batch_norm(q, 1.0, 10, mean, var, None, None, 0.5, 0, torch.int8)
        tensor([[-10,   0,  10]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.batch_norm(
        input, input_scale, input_zero_point, running_mean, running_var, weight, bias, output_scale,
        output_zero_point, output_dtype, eps, post_ops, post_op_args or [],
    )  # fmt: skip
