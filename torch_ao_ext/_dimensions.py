"""Sizes that torch gives as one number or one for each dimension."""

from typing import Any

__all__ = ["each_dimension"]


def each_dimension(value: Any, rank: int) -> list[Any]:
    """One number for each of `rank` dimensions; a single one is that of all."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * rank if len(values) == 1 else values
