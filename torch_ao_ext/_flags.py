"""Arguments that are switches."""

from typing import Any

__all__ = ["check_flags"]


def check_flags(function: str, **flags: Any) -> None:
    """Raises unless each of these arguments is a bool."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(f"{function}: argument '{name}' must be a bool, got {value!r}")
