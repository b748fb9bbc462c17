"""Linear layers with the batch normalization behind them: statistics and affine are arguments."""

import torch

from torch_ao_ext.ops import _fake

__all__ = ["linear_bn", "linear_bn_relu"]

Tensor = torch.Tensor


def linear_bn(
    input: Tensor, input_scale: float, input_zero_point: int, weight: Tensor, weight_scale: Tensor,
    weight_zero_point: Tensor | None, bias: Tensor | None, running_mean: Tensor, running_var: Tensor,
    bn_weight: Tensor | None = None, bn_bias: Tensor | None = None, eps: float = 1e-5,
    output_scale: float = 1.0, output_zero_point: int = 0, output_dtype: torch.dtype | None = None,
) -> Tensor:  # fmt: skip
    """Computes y = quantize(batch_norm(x W^T + b)) over the N output columns.

    Rounding and shapes are those of `linear`, the batch normalization that of `conv2d_bn`, with
    statistics and affine `[N]`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, w = torch.ones(1, 1, dtype=torch.int8), torch.full((1, 1), 2, dtype=torch.int8)
        >>> one, mean, gamma = torch.ones(1), torch.tensor([5.0]), torch.tensor([2.0])
        >>> torch_ao_ext.ops.linear_bn(x, 1.0, 0, w, one, None, None, mean, one, gamma)
        tensor([[-6]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.linear_bn(
        input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias, running_mean,
        running_var, bn_weight, bn_bias, eps, output_scale, output_zero_point, output_dtype,
    )  # fmt: skip


def linear_bn_relu(
    input: Tensor, input_scale: float, input_zero_point: int, weight: Tensor, weight_scale: Tensor,
    weight_zero_point: Tensor | None, bias: Tensor | None, running_mean: Tensor, running_var: Tensor,
    bn_weight: Tensor | None = None, bn_bias: Tensor | None = None, eps: float = 1e-5,
    output_scale: float = 1.0, output_zero_point: int = 0, output_dtype: torch.dtype | None = None,
) -> Tensor:  # fmt: skip
    """Computes y = quantize(max(0, batch_norm(x W^T + b))); arguments as in `linear_bn`.

    Example:
        >>> import torch, torch_ao_ext
        >>> x, w = torch.ones(1, 1, dtype=torch.int8), torch.full((1, 1), 2, dtype=torch.int8)
        >>> one, mean, gamma = torch.ones(1), torch.tensor([5.0]), torch.tensor([2.0])
        >>> torch_ao_ext.ops.linear_bn_relu(x, 1.0, 0, w, one, None, None, mean, one, gamma)
        tensor([[0]], dtype=torch.int8)
    """
    return torch.ops.torch_ao.linear_bn_relu(
        input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias, running_mean,
        running_var, bn_weight, bn_bias, eps, output_scale, output_zero_point, output_dtype,
    )  # fmt: skip


def _register(op: str) -> None:
    """Fake kernel: the checks that need no values, then an empty output."""

    def fake(
        input,
        input_scale,
        input_zero_point,
        weight,
        weight_scale,
        weight_zero_point,
        bias,
        running_mean,
        running_var,
        bn_weight,
        bn_bias,
        eps,
        output_scale,
        output_zero_point,
        output_dtype=None,
    ):
        _fake.check_tensor(op, "input", input, _fake.QUANTIZED)
        _fake.check_output_dtype(op, output_dtype)
        _fake.check_weight(op, weight, weight_scale, weight_zero_point, bias)
        bn = (running_mean, running_var, bn_weight, bn_bias)
        _fake.check_batch_norm(op, weight.shape[0], "weight.size(0)", *bn)
        _fake.check_min_rank(op, "input", input, 1)
        _fake.check_size(op, "input", input, -1, weight.shape[1], "weight.size(1)")
        return input.new_empty([*input.shape[:-1], weight.shape[0]], dtype=output_dtype)

    torch.library.register_fake(f"torch_ao::{op}", fake)


_register("linear_bn")
_register("linear_bn_relu")
