"""Which elements of a tensor share qparams, and how real values map to integers."""

from abc import abstractmethod
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import torch

from torch_ao_ext.quantization.observer._base import ObserverBase

__all__ = [
    "AffineQuantizedObserverBase",
    "Granularity",
    "MappingType",
    "PerAxis",
    "PerBlock",
    "PerGroup",
    "PerRow",
    "PerTensor",
    "PerToken",
    "TorchAODType",
    "ZeroPointDomain",
    "get_block_size",
]


class Granularity:
    """Base class: which elements share a scale. `[A, B]` below is the shape of the tensor."""


@dataclass(frozen=True)
class PerTensor(Granularity):
    """All: `[A, B]` -> scale `[1]`."""


@dataclass(frozen=True)
class PerAxis(Granularity):
    """Those of one index along an axis: `[A, B]`, axis 0 -> scale `[A, 1]`.

    Args:
        axis: that keeps its size.
    """

    axis: int


@dataclass(frozen=True)
class PerGroup(Granularity):
    """`group_size` neighbours of a row: `[A, B]` -> scale `[A, B / group_size]`.

    Args:
        group_size: divides B.
    """

    group_size: int


@dataclass(frozen=True)
class PerBlock(Granularity):
    """Those of a block: `[A, B]`, blocks `[a, b]` -> scale `[A / a, B / b]`.

    Args:
        block_size: sizes that divide those of the tensor.
    """

    block_size: tuple[int, ...]


@dataclass(frozen=True)
class PerRow(Granularity):
    """Those of a row, the last dimension: `[A, B]` -> scale `[A, 1]`."""


@dataclass(frozen=True)
class PerToken(Granularity):
    """As PerRow, for activations: `[N, L, E]` -> scale `[N, L, 1]`."""


class MappingType(Enum):
    """Of the range of values to that of integers.

    SYMMETRIC: 0 is in the middle. SYMMETRIC_NO_CLIPPING_ERR: the same with the larger of the scales
    that either sign needs. ASYMMETRIC: both ends meet.
    """

    SYMMETRIC = auto()
    SYMMETRIC_NO_CLIPPING_ERR = auto()
    ASYMMETRIC = auto()


class ZeroPointDomain(Enum):
    """Zero points are integers (INT), real values (FLOAT), or absent (NONE)."""

    INT = auto()
    FLOAT = auto()
    NONE = auto()


class TorchAODType(Enum):
    """Integers of 1 to 7 bits."""

    INT1 = auto()
    INT2 = auto()
    INT3 = auto()
    INT4 = auto()
    INT5 = auto()
    INT6 = auto()
    INT7 = auto()


def get_block_size(input_shape: tuple[int, ...], granularity: Granularity) -> tuple[int, ...]:
    """Sizes of the block of elements that share a scale.

    Args:
        input_shape: of the tensor.
        granularity: an instance.

    Raises:
        ValueError: no granularity, an axis outside, a block that does not divide the shape.

    Example:
        >>> from torch_ao_ext.quantization.observer import PerAxis, get_block_size
        >>> get_block_size((4, 6), PerAxis(0))
        (1, 6)
    """
    shape = tuple(input_shape)
    if isinstance(granularity, PerTensor):
        return shape
    if isinstance(granularity, PerAxis):
        if not -len(shape) <= granularity.axis < len(shape):
            raise ValueError(
                f"get_block_size: axis must be in [{-len(shape)}, {len(shape)}), got {granularity.axis}"
            )
        axis = granularity.axis % len(shape)
        return (*shape[:axis], 1, *shape[axis + 1 :])
    if isinstance(granularity, (PerRow, PerToken)):
        return (1,) * (len(shape) - 1) + shape[-1:]
    if isinstance(granularity, PerGroup):
        block = (1,) * (len(shape) - 1) + (granularity.group_size,)
    elif isinstance(granularity, PerBlock):
        block = tuple(granularity.block_size)
    else:
        raise ValueError(
            "get_block_size: argument 'granularity' must be an instance of a Granularity, "
            f"got {granularity!r}"
        )
    fits = len(block) == len(shape) and all(b > 0 and s % b == 0 for s, b in zip(shape, block, strict=True))
    if not fits:
        raise ValueError(f"get_block_size: blocks must divide the shape {list(shape)}, got {list(block)}")
    return block


class AffineQuantizedObserverBase(ObserverBase):
    """Base class of observers that name their granularity; a subclass records and computes.

    Args:
        mapping_type: of the range.
        target_dtype: what is stored.
        granularity: which elements share a scale.
        quant_min: smallest quantized value; None is that of the dtype.
        quant_max: largest quantized value.
        eps: smallest scale.
        scale_dtype: of the scales.
        zero_point_dtype: of the zero points.
        preserve_zero: real 0 is an integer exactly.
        zero_point_domain: of the zero points.

    Raises:
        ValueError: no granularity.
    """

    def __init__(
        self,
        mapping_type: MappingType,
        target_dtype: torch.dtype,
        granularity: Granularity,
        quant_min: int | None = None,
        quant_max: int | None = None,
        eps: float | None = None,
        scale_dtype: torch.dtype | None = None,
        zero_point_dtype: torch.dtype | None = None,
        preserve_zero: bool = True,
        zero_point_domain: ZeroPointDomain | None = ZeroPointDomain.INT,
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=target_dtype)
        if not isinstance(granularity, Granularity):
            raise ValueError(
                f"{type(self).__name__}: argument 'granularity' must be a Granularity, got {granularity!r}"
            )
        self.mapping_type, self.target_dtype, self.granularity = mapping_type, target_dtype, granularity
        self.quant_min, self.quant_max, self.eps = quant_min, quant_max, eps
        self.scale_dtype, self.zero_point_dtype = scale_dtype, zero_point_dtype
        self.preserve_zero, self.zero_point_domain = preserve_zero, zero_point_domain
        # What forward has seen.
        self.block_size: tuple[int, ...] | None = None
        self.original_dtype: torch.dtype | None = None

    @abstractmethod
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Records and returns input."""

    @abstractmethod
    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(scale, zero_point)."""
