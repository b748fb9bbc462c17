"""Arguments that are a config or its dict form."""

from typing import Any

__all__ = ["config_of"]


def config_of(op: str, name: str, value: Any, kind: type) -> Any:
    """The config of an argument.

    Args:
        op: function, for the message.
        name: argument, for the message.
        value: a `kind`, or a dict that its `from_dict` reads.
        kind: class of configs.

    Raises:
        ValueError: another type, or what `from_dict` refuses.
    """
    if isinstance(value, dict):
        return kind.from_dict(value)
    if not isinstance(value, kind):
        got = type(value).__name__
        raise ValueError(f"{op}: argument '{name}' must be a {kind.__name__} or a dict, got {got}")
    return value
