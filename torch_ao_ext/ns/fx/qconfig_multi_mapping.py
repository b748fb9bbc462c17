"""Several QConfigs for each part of a model: the candidates of an n-shadows model."""

from collections.abc import Callable
from typing import Any

from torch_ao_ext.quantization.qconfig_mapping import QConfigMapping

__all__ = ["QConfigMultiMapping"]

_STYLES = (
    "object_type_qconfigs", "module_name_regex_qconfigs", "module_name_qconfigs",
    "module_name_object_type_order_qconfigs",
)  # fmt: skip


def _candidates(qconfigs: list[Any]) -> list[Any]:
    """Without None (the float layer is always there) and without repetitions."""
    found: list[Any] = []
    for qconfig in qconfigs:
        if qconfig is not None and qconfig not in found:
            found.append(qconfig)
    return found


class QConfigMultiMapping:
    """Rules as QConfigMapping's, each with a list of QConfigs; the i-th of each make mapping i.

    A shorter list is filled with None, which leaves the part without that candidate.

    Example:
        >>> from torch_ao_ext.ns.fx.qconfig_multi_mapping import QConfigMultiMapping
        >>> from torch_ao_ext.quantization import default_per_channel_qconfig, default_qconfig
        >>> both = QConfigMultiMapping().set_global([default_qconfig, default_per_channel_qconfig])
        >>> len(both.qconfig_mappings_list)
        2
    """

    def __init__(self) -> None:
        self.qconfig_mappings_list: list[QConfigMapping] = []

    def _set(self, method: str, key: tuple[Any, ...], qconfigs: list[Any]) -> "QConfigMultiMapping":
        if not isinstance(qconfigs, list):
            raise ValueError(
                f"{method}: argument 'qconfig_list' must be a list of QConfigs, got {qconfigs!r}"
            )
        found = _candidates(list(qconfigs))
        while len(self.qconfig_mappings_list) < len(found):
            self.qconfig_mappings_list.append(self._like_the_first())
        padded = found + [None] * (len(self.qconfig_mappings_list) - len(found))
        for mapping, qconfig in zip(self.qconfig_mappings_list, padded, strict=True):
            getattr(mapping, method)(*key, qconfig)
        return self

    def _like_the_first(self) -> QConfigMapping:
        """A mapping with the rules of the others, each None."""
        mapping = QConfigMapping()
        if not self.qconfig_mappings_list:
            return mapping
        first = self.qconfig_mappings_list[0]
        for style in _STYLES:
            getattr(mapping, style).update(dict.fromkeys(getattr(first, style)))
        return mapping

    def set_global(self, global_qconfig_list: list[Any]) -> "QConfigMultiMapping":
        """QConfigs of whatever no other rule fits."""
        return self._set("set_global", (), global_qconfig_list)

    def set_object_type(
        self, object_type: Callable[..., Any] | str, qconfig_list: list[Any]
    ) -> "QConfigMultiMapping":
        """QConfigs of a module class, a function or a method name."""
        return self._set("set_object_type", (object_type,), qconfig_list)

    def set_module_name_regex(
        self, module_name_regex: str, qconfig_list: list[Any]
    ) -> "QConfigMultiMapping":
        """QConfigs of modules whose name matches."""
        return self._set("set_module_name_regex", (module_name_regex,), qconfig_list)

    def set_module_name(self, module_name: str, qconfig_list: list[Any]) -> "QConfigMultiMapping":
        """QConfigs of the module of this name."""
        return self._set("set_module_name", (module_name,), qconfig_list)

    def set_module_name_object_type_order(
        self, module_name: str, object_type: Callable[..., Any], index: int, qconfig_list: list[Any]
    ) -> "QConfigMultiMapping":
        """QConfigs of the index-th use of a type inside a module."""
        key = (module_name, object_type, index)
        return self._set("set_module_name_object_type_order", key, qconfig_list)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ["]
        lines += [f" {mapping!r}," for mapping in self.qconfig_mappings_list]
        return "\n".join([*lines, "]"])

    @classmethod
    def from_list_qconfig_mapping(
        cls, qconfig_mapping_list: list[QConfigMapping]
    ) -> "QConfigMultiMapping":
        """Of mappings that exist; a rule that one of them lacks is None there.

        Raises:
            ValueError: an entry that is no QConfigMapping.
        """
        for mapping in qconfig_mapping_list:
            if not isinstance(mapping, QConfigMapping):
                raise ValueError(
                    "from_list_qconfig_mapping: argument 'qconfig_mapping_list' must hold QConfigMappings, "
                    f"got {mapping!r}"
                )
        new = cls()
        new.qconfig_mappings_list = [QConfigMapping.from_dict(m.to_dict()) for m in qconfig_mapping_list]
        for style in _STYLES:
            tables = [getattr(mapping, style) for mapping in new.qconfig_mappings_list]
            rules = {key: None for table in tables for key in table}
            for table in tables:
                table.update({key: None for key in rules if key not in table})
        return new
