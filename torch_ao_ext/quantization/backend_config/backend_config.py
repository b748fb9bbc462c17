"""What a backend computes in low precision: patterns of layers, and the dtypes that each takes."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

import torch
from torch import nn

__all__ = ["BackendConfig", "BackendPatternConfig", "DTypeConfig", "DTypeWithConstraints", "ObservationType"]


class ObservationType(Enum):
    """How the result of a pattern gets its qparams."""

    OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT = 0
    OUTPUT_SHARE_OBSERVER_WITH_INPUT = 1
    INPUT_OUTPUT_NOT_OBSERVED = 2


@dataclass
class DTypeWithConstraints:
    """A dtype, and bounds of the qparams that go with it; None is no bound.

    Args:
        dtype: e.g. torch.quint8.
        quant_min_lower_bound: smallest integer allowed.
        quant_max_upper_bound: largest integer allowed.
        scale_min_lower_bound: smallest scale allowed, which an observer's eps must guarantee.
        scale_max_upper_bound: largest scale allowed.
        scale_exact_match: the only scale allowed.
        zero_point_exact_match: the only zero point allowed.
    """

    dtype: torch.dtype | None = None
    quant_min_lower_bound: int | float | None = None
    quant_max_upper_bound: int | float | None = None
    scale_min_lower_bound: int | float | None = None
    scale_max_upper_bound: int | float | None = None
    scale_exact_match: float | None = None
    zero_point_exact_match: int | None = None


def _constrained(value: Any) -> DTypeWithConstraints:
    return value if isinstance(value, DTypeWithConstraints) else DTypeWithConstraints(dtype=value)


@dataclass(init=False)
class DTypeConfig:
    """Dtypes that a pattern takes and gives together.

    Args:
        input_dtype: of activations; a dtype, or one with constraints.
        output_dtype: of the result.
        weight_dtype: of the weight.
        bias_dtype: of the bias.
        is_dynamic: activations are quantized at run time.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization.backend_config import DTypeConfig
        >>> DTypeConfig(torch.quint8, torch.quint8, torch.qint8, torch.float32).weight_dtype
        torch.qint8
    """

    input_dtype_with_constraints: DTypeWithConstraints
    output_dtype_with_constraints: DTypeWithConstraints
    weight_dtype_with_constraints: DTypeWithConstraints
    bias_dtype: torch.dtype | None
    is_dynamic: bool | None

    def __init__(
        self,
        input_dtype: torch.dtype | DTypeWithConstraints | None = None,
        output_dtype: torch.dtype | DTypeWithConstraints | None = None,
        weight_dtype: torch.dtype | DTypeWithConstraints | None = None,
        bias_dtype: torch.dtype | None = None,
        is_dynamic: bool | None = None,
    ) -> None:
        self.input_dtype_with_constraints = _constrained(input_dtype)
        self.output_dtype_with_constraints = _constrained(output_dtype)
        self.weight_dtype_with_constraints = _constrained(weight_dtype)
        self.bias_dtype = bias_dtype
        self.is_dynamic = is_dynamic

    @property
    def input_dtype(self) -> torch.dtype | None:
        """Of activations."""
        return self.input_dtype_with_constraints.dtype

    @property
    def output_dtype(self) -> torch.dtype | None:
        """Of the result."""
        return self.output_dtype_with_constraints.dtype

    @property
    def weight_dtype(self) -> torch.dtype | None:
        """Of the weight."""
        return self.weight_dtype_with_constraints.dtype

    @classmethod
    def from_dict(cls, dtype_config_dict: dict[str, Any]) -> "DTypeConfig":
        """Of `to_dict`'s form.

        Raises:
            ValueError: an unknown key.
        """
        known = ("input_dtype", "output_dtype", "weight_dtype", "bias_dtype", "is_dynamic")
        _check_keys(cls, dtype_config_dict, known)
        return cls(**dtype_config_dict)

    def to_dict(self) -> dict[str, Any]:
        """What is set, by the names of the constructor."""
        found: dict[str, Any] = {}
        for name in ("input", "output", "weight"):
            value = getattr(self, f"{name}_dtype_with_constraints")
            if value.dtype is not None:
                bare = all(getattr(value, f.name) is None for f in fields(value) if f.name != "dtype")
                found[f"{name}_dtype"] = value.dtype if bare else value
        if self.bias_dtype is not None:
            found["bias_dtype"] = self.bias_dtype
        if self.is_dynamic is not None:
            found["is_dynamic"] = self.is_dynamic
        return found


def _check_keys(cls: type, given: Any, known: tuple[str, ...]) -> None:
    if not isinstance(given, dict):
        raise ValueError(f"{cls.__name__}.from_dict: argument must be a dict, got {type(given).__name__}")
    unknown = [key for key in given if key not in known]
    if unknown:
        raise ValueError(
            f"{cls.__name__}.from_dict: keys must be among {', '.join(known)}, got {unknown[0]!r}"
        )


# Keys of a pattern's dict form -> its attributes.
_PATTERN_KEYS = {
    "pattern": "pattern", "observation_type": "observation_type", "dtype_configs": "dtype_configs",
    "root_module": "root_module", "qat_module": "qat_module",
    "reference_quantized_module_for_root": "reference_quantized_module", "fused_module": "fused_module",
    "fuser_method": "fuser_method", "root_node_getter": "_root_node_getter",
    "extra_inputs_getter": "_extra_inputs_getter",
    "num_tensor_args_to_observation_type": "_num_tensor_args_to_observation_type",
    "input_type_to_index": "_input_type_to_index", "pattern_complex_format": "_pattern_complex_format",
}  # fmt: skip


class BackendPatternConfig:
    """One pattern: a module class, a function, a method name, or a tuple of such in their order.

    Args:
        pattern: see above.
    """

    def __init__(self, pattern: Any = None) -> None:
        self.pattern = pattern
        self.observation_type = ObservationType.OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT
        self.dtype_configs: list[DTypeConfig] = []
        self.root_module: type[nn.Module] | None = None
        self.qat_module: type[nn.Module] | None = None
        self.reference_quantized_module: type[nn.Module] | None = None
        self.fused_module: type[nn.Module] | None = None
        self.fuser_method: Callable[..., Any] | None = None
        self._root_node_getter: Callable[..., Any] | None = None
        self._extra_inputs_getter: Callable[..., Any] | None = None
        self._num_tensor_args_to_observation_type: dict[int, ObservationType] = {}
        self._input_type_to_index: dict[str, int] = {}
        self._pattern_complex_format: Any = None

    def __repr__(self) -> str:
        shown = {key: value for key, value in self.to_dict().items() if value not in (None, {}, [])}
        return f"BackendPatternConfig({shown})"

    def _set(self, name: str, value: Any) -> "BackendPatternConfig":
        setattr(self, name, value)
        return self

    def set_pattern(self, pattern: Any) -> "BackendPatternConfig":
        """The pattern, in place of that of the constructor."""
        return self._set("pattern", pattern)

    def set_observation_type(self, observation_type: ObservationType) -> "BackendPatternConfig":
        """How the result gets its qparams."""
        return self._set("observation_type", observation_type)

    def add_dtype_config(self, dtype_config: DTypeConfig) -> "BackendPatternConfig":
        """One more set of dtypes."""
        self.dtype_configs.append(dtype_config)
        return self

    def set_dtype_configs(self, dtype_configs: list[DTypeConfig]) -> "BackendPatternConfig":
        """All sets of dtypes."""
        return self._set("dtype_configs", list(dtype_configs))

    def set_root_module(self, root_module: type[nn.Module]) -> "BackendPatternConfig":
        """The class with the weight in a pattern of several."""
        return self._set("root_module", root_module)

    def set_qat_module(self, qat_module: type[nn.Module]) -> "BackendPatternConfig":
        """The class that is trained in the pattern's place."""
        return self._set("qat_module", qat_module)

    def set_reference_quantized_module(
        self, reference_quantized_module: type[nn.Module]
    ) -> "BackendPatternConfig":
        """The class of `nn.quantized.reference`."""
        return self._set("reference_quantized_module", reference_quantized_module)

    def set_fused_module(self, fused_module: type[nn.Module]) -> "BackendPatternConfig":
        """The container of `nn.intrinsic`."""
        return self._set("fused_module", fused_module)

    def set_fuser_method(self, fuser_method: Callable[..., Any]) -> "BackendPatternConfig":
        """Makes the container: `fuser_method(is_qat, *modules)`."""
        return self._set("fuser_method", fuser_method)

    def _set_root_node_getter(self, root_node_getter: Callable[..., Any]) -> "BackendPatternConfig":
        return self._set("_root_node_getter", root_node_getter)

    def _set_extra_inputs_getter(self, extra_inputs_getter: Callable[..., Any]) -> "BackendPatternConfig":
        return self._set("_extra_inputs_getter", extra_inputs_getter)

    def _set_num_tensor_args_to_observation_type(
        self, num_tensor_args_to_observation_type: dict[int, ObservationType]
    ) -> "BackendPatternConfig":
        return self._set("_num_tensor_args_to_observation_type", num_tensor_args_to_observation_type)

    def _set_input_type_to_index(self, input_type_to_index: dict[str, int]) -> "BackendPatternConfig":
        return self._set("_input_type_to_index", input_type_to_index)

    def _set_pattern_complex_format(self, pattern: Any) -> "BackendPatternConfig":
        if self.pattern is not None:
            raise ValueError(
                "BackendPatternConfig: only one of pattern and pattern_complex_format must be set, got both"
            )
        return self._set("_pattern_complex_format", pattern)

    @classmethod
    def from_dict(cls, backend_pattern_config_dict: dict[str, Any]) -> "BackendPatternConfig":
        """Of `to_dict`'s form.

        Raises:
            ValueError: an unknown key.
        """
        _check_keys(cls, backend_pattern_config_dict, tuple(_PATTERN_KEYS))
        config = cls()
        for key, value in backend_pattern_config_dict.items():
            if key == "dtype_configs":
                value = [d if isinstance(d, DTypeConfig) else DTypeConfig.from_dict(d) for d in value]
            setattr(config, _PATTERN_KEYS[key], value)
        return config

    def to_dict(self) -> dict[str, Any]:
        """What is set, by torch.ao's keys."""
        found = {key: getattr(self, name) for key, name in _PATTERN_KEYS.items()}
        found["dtype_configs"] = [config.to_dict() for config in self.dtype_configs]
        optional = {k: v for k, v in found.items() if v not in (None, {}) and k != "dtype_configs"}
        return {**optional, "dtype_configs": found["dtype_configs"]}


class BackendConfig:
    """Patterns of a backend; a later one for the same pattern counts.

    Args:
        name: of the backend.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization import backend_config
        >>> int8 = backend_config.DTypeConfig(torch.quint8, torch.quint8, torch.qint8, torch.float32)
        >>> linear = backend_config.BackendPatternConfig(torch.nn.Linear).set_dtype_configs([int8])
        >>> len(backend_config.BackendConfig("mine").set_backend_pattern_config(linear).configs)
        1
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._configs: dict[Any, BackendPatternConfig] = {}

    def __repr__(self) -> str:
        return f"BackendConfig({self.name!r}, {len(self._configs)} patterns)"

    def set_name(self, name: str) -> "BackendConfig":
        """The name, in place of that of the constructor."""
        self.name = name
        return self

    def set_backend_pattern_config(self, config: BackendPatternConfig) -> "BackendConfig":
        """Adds a pattern.

        Raises:
            ValueError: not a BackendPatternConfig, or one without pattern.
        """
        if not isinstance(config, BackendPatternConfig):
            raise ValueError(
                "set_backend_pattern_config: argument 'config' must be a BackendPatternConfig, got "
                f"{type(config).__name__}"
            )
        key = config._pattern_complex_format if config.pattern is None else config.pattern
        if key is None:
            raise ValueError("set_backend_pattern_config: argument 'config' must have a pattern, got none")
        self._configs[key] = config
        return self

    def set_backend_pattern_configs(self, configs: list[BackendPatternConfig]) -> "BackendConfig":
        """Adds patterns."""
        for config in configs:
            self.set_backend_pattern_config(config)
        return self

    @property
    def configs(self) -> list[BackendPatternConfig]:
        """All patterns, in the order in which they were added."""
        return list(self._configs.values())

    @classmethod
    def from_dict(cls, backend_config_dict: dict[str, Any]) -> "BackendConfig":
        """Of `to_dict`'s form.

        Raises:
            ValueError: an unknown key.
        """
        _check_keys(cls, backend_config_dict, ("name", "configs"))
        configs = backend_config_dict.get("configs", [])
        kind = BackendPatternConfig
        made = [c if isinstance(c, kind) else kind.from_dict(c) for c in configs]
        return cls(backend_config_dict.get("name", "")).set_backend_pattern_configs(made)

    def to_dict(self) -> dict[str, Any]:
        """{"name": name, "configs": dict forms of the patterns}."""
        return {"name": self.name, "configs": [config.to_dict() for config in self.configs]}
