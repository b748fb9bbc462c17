"""Custom configs of FX graph mode: modules kept whole, integer borders, attributes that survive."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from torch_ao_ext.quantization.qconfig_mapping import QConfigMapping
from torch_ao_ext.quantization.quant_type import (
    QuantType,
    _get_quant_type_to_str,
    _quant_type_from_str,
)

__all__ = ["ConvertCustomConfig", "FuseCustomConfig", "PrepareCustomConfig", "StandaloneModuleConfigEntry"]

_ATTRIBUTES = "preserved_attributes"
_STANDALONE_NAME, _STANDALONE_CLASS = "standalone_module_name", "standalone_module_class"
_OBSERVED = "float_to_observed_custom_module_class"
_QUANTIZED = "observed_to_quantized_custom_module_class"
_WHOLE_NAME, _WHOLE_CLASS = "non_traceable_module_name", "non_traceable_module_class"
_INPUTS, _OUTPUTS = "input_quantized_idxs", "output_quantized_idxs"

_Classes = dict[QuantType, dict[type, type]]


@dataclass
class StandaloneModuleConfigEntry:
    """How a standalone module is prepared.

    Args:
        qconfig_mapping: its own mapping; None: the QConfig that the model's mapping has for it.
        example_inputs: its positional inputs; empty: those that it gets from the model's.
        prepare_custom_config: its own config, or None.
        backend_config: its own BackendConfig; None: the model's.
    """

    qconfig_mapping: QConfigMapping | None
    example_inputs: tuple[Any, ...]
    prepare_custom_config: "PrepareCustomConfig | None"
    backend_config: Any


def _check_class(where: str, value: Any) -> None:
    if not isinstance(value, type) or not issubclass(value, nn.Module):
        raise ValueError(f"{where}: classes must be subclasses of nn.Module, got {value!r}")


def _indexes(where: str, indexes: Any) -> list[int]:
    for index in indexes:
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise ValueError(f"{where}: argument 'indexes' must hold integers >= 0, got {index!r}")
    return list(indexes)


def _classes_from_dict(table: dict[str, dict[type, type]]) -> _Classes:
    return {_quant_type_from_str(name): dict(classes) for name, classes in table.items()}


def _classes_to_dict(table: _Classes) -> dict[str, dict[type, type]]:
    return {_get_quant_type_to_str(kind): dict(classes) for kind, classes in table.items()}


class _CustomConfig:
    """Names of attributes that are copied to the graph module."""

    _KEYS: tuple[str, ...] = (_ATTRIBUTES,)

    def __init__(self) -> None:
        self.preserved_attributes: list[str] = []

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.to_dict()})"

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
        unknown = sorted(set(config_dict) - set(cls._KEYS))
        if unknown:
            keys = ", ".join(cls._KEYS)
            raise ValueError(f"{cls.__name__}: keys must be among {keys}, got {unknown[0]!r}")
        config = cls()
        config._read(config_dict)
        return config

    def _read(self, config_dict: dict[str, Any]) -> None:
        self.set_preserved_attributes(config_dict.get(_ATTRIBUTES, []))

    def to_dict(self) -> dict[str, Any]:
        """torch.ao's older form; only what is set."""
        return {key: value for key, value in self._written().items() if value}

    def _written(self) -> dict[str, Any]:
        return {_ATTRIBUTES: self.preserved_attributes}


class PrepareCustomConfig(_CustomConfig):
    """Options of `prepare_fx`.

    Modules named here stay whole: the graph calls them, and nothing looks inside. Standalone
    modules are quantized on their own, custom modules by classes of the user, the others stay
    float.

    Example:
        >>> from torch import nn
        >>> from torch_ao_ext.quantization.fx.custom_config import PrepareCustomConfig
        >>> PrepareCustomConfig().set_non_traceable_module_classes([nn.GRU]).to_dict()
        {'non_traceable_module_class': [<class 'torch.nn.modules.rnn.GRU'>]}
    """

    _KEYS = (
        _STANDALONE_NAME, _STANDALONE_CLASS, _OBSERVED, _WHOLE_NAME, _WHOLE_CLASS, _INPUTS, _OUTPUTS,
        _ATTRIBUTES,
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.standalone_module_names: dict[str, StandaloneModuleConfigEntry] = {}
        self.standalone_module_classes: dict[type, StandaloneModuleConfigEntry] = {}
        self.float_to_observed_mapping: _Classes = {}
        self.non_traceable_module_names: list[str] = []
        self.non_traceable_module_classes: list[type] = []
        self.input_quantized_indexes: list[int] = []
        self.output_quantized_indexes: list[int] = []

    def set_standalone_module_name(
        self,
        module_name: str,
        qconfig_mapping: QConfigMapping | None,
        example_inputs: tuple[Any, ...],
        prepare_custom_config: "PrepareCustomConfig | None",
        backend_config: Any = None,
    ) -> "PrepareCustomConfig":
        """The module of this name is prepared on its own; see StandaloneModuleConfigEntry."""
        self.standalone_module_names[module_name] = StandaloneModuleConfigEntry(
            qconfig_mapping, tuple(example_inputs), prepare_custom_config, backend_config
        )
        return self

    def set_standalone_module_class(
        self,
        module_class: type,
        qconfig_mapping: QConfigMapping | None,
        example_inputs: tuple[Any, ...],
        prepare_custom_config: "PrepareCustomConfig | None",
        backend_config: Any = None,
    ) -> "PrepareCustomConfig":
        """Every module of this class is prepared on its own; see StandaloneModuleConfigEntry."""
        _check_class("set_standalone_module_class", module_class)
        self.standalone_module_classes[module_class] = StandaloneModuleConfigEntry(
            qconfig_mapping, tuple(example_inputs), prepare_custom_config, backend_config
        )
        return self

    def set_float_to_observed_mapping(
        self, float_class: type, observed_class: type, quant_type: QuantType = QuantType.STATIC
    ) -> "PrepareCustomConfig":
        """Modules of float_class are replaced by observed_class.from_float(module).

        Args:
            float_class: exact class.
            observed_class: has `from_float`; `convert_fx` makes the int8 module of it.
            quant_type: QuantType.STATIC.

        Raises:
            ValueError: no module class, a class without from_float, another quant_type.
        """
        where = "set_float_to_observed_mapping"
        _check_class(where, float_class)
        _check_class(where, observed_class)
        if not hasattr(observed_class, "from_float"):
            raise ValueError(f"{where}: argument 'observed_class' must have from_float, got {observed_class}")
        if quant_type != QuantType.STATIC:
            raise ValueError(
                f"{where}: argument 'quant_type' must be QuantType.STATIC (dynamic layers need no observed "
                f"class), got {quant_type}"
            )
        self.float_to_observed_mapping.setdefault(quant_type, {})[float_class] = observed_class
        return self

    def set_non_traceable_module_names(self, module_names: list[str]) -> "PrepareCustomConfig":
        """Names of modules that stay float and whole: torch.export does not look inside."""
        self.non_traceable_module_names = list(module_names)
        return self

    def set_non_traceable_module_classes(self, module_classes: list[type]) -> "PrepareCustomConfig":
        """Classes of modules that stay float and whole."""
        for value in module_classes:
            _check_class("set_non_traceable_module_classes", value)
        self.non_traceable_module_classes = list(module_classes)
        return self

    def set_input_quantized_indexes(self, indexes: list[int]) -> "PrepareCustomConfig":
        """Inputs that the converted graph takes as integers, by the qparams in `graph.input_qparams`.

        The prepared graph takes floats at all of them.
        """
        self.input_quantized_indexes = _indexes("set_input_quantized_indexes", indexes)
        return self

    def set_output_quantized_indexes(self, indexes: list[int]) -> "PrepareCustomConfig":
        """Outputs that the converted graph gives as integers, by the qparams in `graph.output_qparams`."""
        self.output_quantized_indexes = _indexes("set_output_quantized_indexes", indexes)
        return self

    def _read(self, config_dict: dict[str, Any]) -> None:
        super()._read(config_dict)
        for key, setter in (
            (_STANDALONE_NAME, self.set_standalone_module_name),
            (_STANDALONE_CLASS, self.set_standalone_module_class),
        ):
            for name, mapping, inputs, custom, backend in config_dict.get(key, []):
                mapping = QConfigMapping.from_dict(mapping) if isinstance(mapping, dict) else mapping
                custom = PrepareCustomConfig.from_dict(custom) if isinstance(custom, dict) else custom
                setter(name, mapping, inputs, custom, backend)
        self.float_to_observed_mapping = _classes_from_dict(config_dict.get(_OBSERVED, {}))
        self.set_non_traceable_module_names(config_dict.get(_WHOLE_NAME, []))
        self.set_non_traceable_module_classes(config_dict.get(_WHOLE_CLASS, []))
        self.set_input_quantized_indexes(config_dict.get(_INPUTS, []))
        self.set_output_quantized_indexes(config_dict.get(_OUTPUTS, []))

    def _written(self) -> dict[str, Any]:
        def entries(table: dict[Any, StandaloneModuleConfigEntry]) -> list[tuple[Any, ...]]:
            return [
                (
                    key, None if e.qconfig_mapping is None else e.qconfig_mapping.to_dict(), e.example_inputs,
                    None if e.prepare_custom_config is None else e.prepare_custom_config.to_dict(),
                    e.backend_config,
                )
                for key, e in table.items()
            ]  # fmt: skip

        return {
            _STANDALONE_NAME: entries(self.standalone_module_names),
            _STANDALONE_CLASS: entries(self.standalone_module_classes),
            _OBSERVED: _classes_to_dict(self.float_to_observed_mapping),
            _WHOLE_NAME: self.non_traceable_module_names,
            _WHOLE_CLASS: self.non_traceable_module_classes,
            _INPUTS: self.input_quantized_indexes,
            _OUTPUTS: self.output_quantized_indexes,
            **super()._written(),
        }


class ConvertCustomConfig(_CustomConfig):
    """Options of `convert_fx`."""

    _KEYS = (_QUANTIZED, _ATTRIBUTES)

    def __init__(self) -> None:
        super().__init__()
        self.observed_to_quantized_mapping: _Classes = {}

    def set_observed_to_quantized_mapping(
        self, observed_class: type, quantized_class: type, quant_type: QuantType = QuantType.STATIC
    ) -> "ConvertCustomConfig":
        """Modules of observed_class become quantized_class.from_observed(module).

        Without an entry, `nn.quantizable` modules become those of `nn.quantized`.

        Raises:
            ValueError: no module class, or a class without from_observed.
        """
        where = "set_observed_to_quantized_mapping"
        _check_class(where, observed_class)
        _check_class(where, quantized_class)
        if not hasattr(quantized_class, "from_observed"):
            raise ValueError(
                f"{where}: argument 'quantized_class' must have from_observed, got {quantized_class}"
            )
        self.observed_to_quantized_mapping.setdefault(quant_type, {})[observed_class] = quantized_class
        return self

    def _read(self, config_dict: dict[str, Any]) -> None:
        super()._read(config_dict)
        self.observed_to_quantized_mapping = _classes_from_dict(config_dict.get(_QUANTIZED, {}))

    def _written(self) -> dict[str, Any]:
        return {_QUANTIZED: _classes_to_dict(self.observed_to_quantized_mapping), **super()._written()}


class FuseCustomConfig(_CustomConfig):
    """Options of `fuse_fx`."""
