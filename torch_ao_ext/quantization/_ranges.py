"""Ranges of values and of integers, and the qparams that they give."""

import warnings

import torch

from torch_ao_ext.quantization.observer._base import _quant_range, qparams_of_range

__all__ = ["calculate_qmin_qmax", "check_min_max_valid", "determine_qparams", "validate_qmin_qmax"]


def calculate_qmin_qmax(
    quant_min: int | None,
    quant_max: int | None,
    has_customized_qrange: bool,
    dtype: torch.dtype,
    reduce_range: bool,
) -> tuple[int, int]:
    """The range that an observer uses.

    Args:
        quant_min: smallest quantized value; with quant_max, counts when has_customized_qrange.
        quant_max: largest quantized value.
        has_customized_qrange: the range is given, not the dtype's.
        dtype: of the quantized values.
        reduce_range: halve the range.

    Raises:
        ValueError: a given range without 0, or wider than the dtype.
    """
    given = (quant_min, quant_max) if has_customized_qrange else (None, None)
    return _quant_range(dtype, *given, reduce_range)


def determine_qparams(
    min_val: torch.Tensor, max_val: torch.Tensor, quant_min: int, quant_max: int, dtype: torch.dtype,
    eps: torch.Tensor, has_customized_qrange: bool, qscheme: torch.qscheme = torch.per_tensor_affine,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Scale float64 and zero point int64 of ranges, by the rule of the observers.

    Args:
        min_val: smallest values, one a channel or one in all.
        max_val: largest values, same shape.
        quant_min: smallest quantized value.
        quant_max: largest quantized value.
        dtype: of the quantized values.
        eps: smallest scale, `[1]`.
        has_customized_qrange: symmetric unsigned values have their zero point in the middle of the
            range, not at 128.
        qscheme: affine, symmetric, or with float zero points (rounded here, as in torch.ao).

    Raises:
        ValueError: a minimum above its maximum.
    """
    if not check_min_max_valid(min_val, max_val):
        device = min_val.device
        warnings.warn("determine_qparams: no range was observed; gives scale 1", UserWarning, stacklevel=2)
        return torch.tensor([1.0], device=device), torch.tensor([0], device=device)
    eps = eps.to(min_val.device)
    found = qparams_of_range(
        min_val, max_val, quant_min, quant_max, dtype, eps, has_customized_qrange, qscheme
    )
    return found[0].to(torch.double), found[1].to(torch.int64)


def check_min_max_valid(min_val: torch.Tensor, max_val: torch.Tensor) -> bool:
    """Whether observed bounds are of data: not empty, not the initial infinities.

    Raises:
        ValueError: a minimum above its maximum.
    """
    if min_val.numel() == 0 or max_val.numel() == 0:
        return False
    if bool((min_val == float("inf")).all()) and bool((max_val == float("-inf")).all()):
        return False
    if bool((min_val > max_val).any()):
        raise ValueError(
            f"check_min_max_valid: argument 'min_val' must be at most max_val {max_val}, got {min_val}"
        )
    return True


def validate_qmin_qmax(quant_min: int, quant_max: int) -> None:
    """Raises unless the range is not empty and holds 0.

    Raises:
        ValueError: it is empty, or 0 is outside.
    """
    if not quant_min <= 0 <= quant_max:
        raise ValueError(
            "validate_qmin_qmax: quant_min and quant_max must have 0 between them, "
            f"got {quant_min} and {quant_max}"
        )
    if quant_min >= quant_max:
        raise ValueError(
            f"validate_qmin_qmax: argument 'quant_min' must be below quant_max ({quant_max}), got {quant_min}"
        )
