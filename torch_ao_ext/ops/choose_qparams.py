"""Scale and zero point from the values that are to be quantized."""

import torch

from torch_ao_ext.ops import _fake

__all__ = ["choose_qparams", "choose_qparams_per_token"]

Tensor = torch.Tensor


def choose_qparams(
    input: Tensor, quant_min: int, quant_max: int, symmetric: bool = False
) -> tuple[Tensor, Tensor]:
    """Computes scale = (max - min) / (quant_max - quant_min), 0 included; one pair for the tensor.

    symmetric: scale = max|x| / quant_max, zero point 0.

    Args:
        input: float32 or bfloat16, at least one element, finite.
        quant_min: smallest integer, >= -128.
        quant_max: largest integer, <= 255.
        symmetric: quant_min must then be -quant_max or -quant_max - 1.

    Returns:
        scale float32 `[1]`, zero point int64 `[1]`.

    Raises:
        TypeError: wrong dtype.
        ValueError: no element, a NaN or an infinity, a bad range.

    Source: ATen/native/quantized/cpu/QuantUtils.h, ChooseQuantizationParams.

    Example:
        >>> import torch, torch_ao_ext
        >>> scale, zero_point = torch_ao_ext.ops.choose_qparams(torch.tensor([-1.0, 1.55]), 0, 255)
        >>> (round(scale.item(), 6), zero_point.item())
        (0.01, 100)
    """
    return torch.ops.torch_ao.choose_qparams(input, quant_min, quant_max, symmetric)


def choose_qparams_per_token(
    input: Tensor, quant_min: int, quant_max: int, symmetric: bool = False
) -> tuple[Tensor, Tensor]:
    """Computes scale and zero point as `choose_qparams` does, one pair for each row.

    Args:
        input: `[*, K]`, float32 or bfloat16, finite.
        quant_min: smallest integer, >= -128.
        quant_max: largest integer, <= 255.
        symmetric: quant_min must then be -quant_max or -quant_max - 1.

    Returns:
        scales float32 `[*, 1]`, zero points int64 `[*, 1]`.

    Raises:
        TypeError: wrong dtype.
        ValueError: a NaN or an infinity, a bad range.

    Source: csrc/engines/linear.h, row rule.

    Example:
        >>> import torch, torch_ao_ext
        >>> x = torch.tensor([[2.54, 0.0], [0.0, -1.27]])
        >>> scales, points = torch_ao_ext.ops.choose_qparams_per_token(x, -127, 127, symmetric=True)
        >>> (scales.flatten() * 1e4).round(), points.flatten()
        (tensor([200., 100.]), tensor([0, 0]))
    """
    return torch.ops.torch_ao.choose_qparams_per_token(input, quant_min, quant_max, symmetric)


@torch.library.register_fake("torch_ao::choose_qparams")
def _(input, quant_min, quant_max, symmetric=False):
    op = "choose_qparams"
    _fake.check_tensor(op, "input", input, _fake.FLOAT)
    _fake.check_value(
        input.numel() > 0, op, "input", "have at least 1 element", _fake.sizes(input)
    )
    scale = input.new_empty([1], dtype=torch.float32)
    return scale, scale.new_empty([1], dtype=torch.int64)


@torch.library.register_fake("torch_ao::choose_qparams_per_token")
def _(input, quant_min, quant_max, symmetric=False):
    op = "choose_qparams_per_token"
    _fake.check_tensor(op, "input", input, _fake.FLOAT)
    _fake.check_min_rank(op, "input", input, 1)
    scale = input.new_empty([*input.shape[:-1], 1], dtype=torch.float32)
    return scale, scale.new_empty(scale.shape, dtype=torch.int64)
