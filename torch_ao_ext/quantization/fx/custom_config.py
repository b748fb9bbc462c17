"""Custom configs of FX graph mode: which attributes survive."""

from typing import Any

__all__ = ["ConvertCustomConfig", "FuseCustomConfig", "PrepareCustomConfig"]

_ATTRIBUTES = "preserved_attributes"


class _CustomConfig:
    """Names of attributes that are copied to the graph module."""

    def __init__(self) -> None:
        self.preserved_attributes: list[str] = []

    def set_preserved_attributes(self, attributes: list[str]) -> Any:
        """Attributes of the model that the result has as well.

        Args:
            attributes: names.
        """
        self.preserved_attributes = list(attributes)
        return self

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any]) -> Any:
        """Of torch.ao's older form.

        Raises:
            ValueError: a key without effect here.
        """
        unknown = sorted(set(config_dict) - {_ATTRIBUTES})
        if unknown:
            raise ValueError(f"{cls.__name__}: keys must be among {_ATTRIBUTES}, got {unknown[0]!r}")
        return cls().set_preserved_attributes(config_dict.get(_ATTRIBUTES, []))

    def to_dict(self) -> dict[str, Any]:
        """torch.ao's older form."""
        return {_ATTRIBUTES: self.preserved_attributes} if self.preserved_attributes else {}


class PrepareCustomConfig(_CustomConfig):
    """Options of `prepare_fx`."""


class ConvertCustomConfig(_CustomConfig):
    """Options of `convert_fx`."""


class FuseCustomConfig(_CustomConfig):
    """Options of `fuse_fx`."""
