"""Measures between two tensors, or between two structures of tensors."""

import functools
from collections.abc import Callable
from typing import Any

import torch

from torch_ao_ext._quantized_tensor import QuantizedTensor

__all__ = ["compute_cosine_similarity", "compute_normalized_l2_error", "compute_sqnr"]


def _float(value: Any) -> Any:
    if isinstance(value, QuantizedTensor) or isinstance(value, torch.Tensor) and value.is_quantized:
        return value.dequantize()
    return value


def _of_structures(measure: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The measure of tensors; of each pair when the arguments are lists or tuples."""

    @functools.wraps(measure)
    def over(x: Any, y: Any) -> Any:
        if isinstance(x, (tuple, list)):
            if not isinstance(y, (tuple, list)) or len(x) != len(y):
                raise ValueError(
                    f"{measure.__name__}: argument 'y' must have the structure of x ({len(x)} values), got "
                    f"{len(y) if isinstance(y, (tuple, list)) else type(y).__name__}"
                )
            return [over(a, b) for a, b in zip(x, y, strict=True)]
        x, y = _float(x), _float(y)
        for name, value in (("x", x), ("y", y)):
            if not isinstance(value, torch.Tensor):
                raise TypeError(
                    f"{measure.__name__}: argument '{name}' must be a tensor, got {type(value).__name__}"
                )
        if x.shape != y.shape:
            raise ValueError(
                f"{measure.__name__}: argument 'y' must have the shape of x {list(x.shape)}, got "
                f"{list(y.shape)}"
            )
        return measure(x, y)

    return over


@_of_structures
def compute_sqnr(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """`20 log10(|x| / |x - y|)`, in dB; inf when they are equal.

    Args:
        x: reference: float tensor, QuantizedTensor, or a list of such.
        y: the same structure.

    Returns:
        Scalar tensor, or a list of such.

    Example:
        >>> import torch
        >>> from torch_ao_ext.ns.fx.utils import compute_sqnr
        >>> compute_sqnr(torch.ones(4), torch.full((4,), 1.1))
        tensor(20.0000)
    """
    return 20 * torch.log10(torch.linalg.vector_norm(x) / torch.linalg.vector_norm(x - y))


@_of_structures
def compute_normalized_l2_error(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """sqrt(sum((x - y)^2) / sum(x^2)); arguments as `compute_sqnr`."""
    return torch.sqrt((x - y).square().sum() / x.square().sum())


@_of_structures
def compute_cosine_similarity(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cosine of the angle, `x . y / (|x| |y|)` over all values; arguments as `compute_sqnr`."""
    return torch.nn.functional.cosine_similarity(x.reshape(1, -1), y.reshape(1, -1))
