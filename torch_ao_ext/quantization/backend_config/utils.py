"""Tables of a BackendConfig, each from pattern to one of its attributes."""

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

from torch_ao_ext.quantization.backend_config.backend_config import (
    BackendConfig,
    BackendPatternConfig,
    DTypeConfig,
)

__all__ = [
    "entry_to_pretty_str",
    "get_fused_module_classes",
    "get_fuser_method_mapping",
    "get_fusion_pattern_to_extra_inputs_getter",
    "get_fusion_pattern_to_root_node_getter",
    "get_module_to_qat_module",
    "get_pattern_to_dtype_configs",
    "get_pattern_to_input_type_to_index",
    "get_qat_module_classes",
    "get_root_module_to_quantized_reference_module",
    "pattern_to_human_readable",
    "remove_boolean_dispatch_from_name",
]


def _pattern_of(config: BackendPatternConfig) -> Any:
    """The pattern in the form in which it was given."""
    return config._pattern_complex_format if config.pattern is None else config.pattern


def _table(backend_config: BackendConfig, name: str, key: str | None = None) -> dict[Any, Any]:
    found = {}
    for config in backend_config.configs:
        pattern = _pattern_of(config) if key is None else getattr(config, key)
        value = getattr(config, name)
        if pattern is not None and value not in (None, {}, []):
            found[pattern] = value
    return found


def nested_patterns(backend_config: BackendConfig) -> dict[Any, BackendPatternConfig]:
    """Patterns from their last operator back, `(ReLU, (BatchNorm2d, Conv2d))` -> their entries."""
    found = {}
    for config in backend_config.configs:
        pattern = _pattern_of(config)
        if config.pattern is not None and isinstance(pattern, tuple):
            pattern = functools.reduce(lambda before, part: (part, before), pattern)
        found[pattern] = config
    return found


def in_data_order(config: BackendPatternConfig) -> tuple[Any, ...]:
    """The operators of a pattern; of branches those of the last."""
    if config.pattern is not None:
        return config.pattern if isinstance(config.pattern, tuple) else (config.pattern,)
    found, pattern = [], config._pattern_complex_format
    while isinstance(pattern, tuple):
        found.append(pattern[0])
        pattern = pattern[-1]
    return (pattern, *reversed(found))


def get_pattern_to_dtype_configs(backend_config: BackendConfig) -> dict[Any, list[DTypeConfig]]:
    """Pattern -> its dtypes."""
    return _table(backend_config, "dtype_configs")


def get_qat_module_classes(backend_config: BackendConfig) -> tuple[type, ...]:
    """Classes that are trained."""
    return tuple(dict.fromkeys(_table(backend_config, "qat_module").values()))


def get_fused_module_classes(backend_config: BackendConfig) -> tuple[type, ...]:
    """Containers that fusion makes."""
    return tuple(dict.fromkeys(_table(backend_config, "fused_module").values()))


def get_pattern_to_input_type_to_index(backend_config: BackendConfig) -> dict[Any, dict[str, int]]:
    """Pattern -> index of its weight and bias among the arguments."""
    return _table(backend_config, "_input_type_to_index")


def get_root_module_to_quantized_reference_module(
    backend_config: BackendConfig,
) -> dict[type[nn.Module], type[nn.Module]]:
    """Float class -> class of nn.quantized.reference."""
    return _table(backend_config, "reference_quantized_module", "root_module")


def get_fuser_method_mapping(backend_config: BackendConfig) -> dict[Any, Callable[..., Any]]:
    """Pattern -> what fuses it."""
    return _table(backend_config, "fuser_method")


def get_module_to_qat_module(backend_config: BackendConfig) -> dict[Any, type[nn.Module]]:
    """Class -> class that is trained in its place."""
    return _table(backend_config, "qat_module")


def get_fusion_pattern_to_root_node_getter(backend_config: BackendConfig) -> dict[Any, Callable[..., Any]]:
    """Pattern -> what finds its root."""
    return _table(backend_config, "_root_node_getter")


def get_fusion_pattern_to_extra_inputs_getter(
    backend_config: BackendConfig,
) -> dict[Any, Callable[..., Any]]:
    """Pattern -> what finds its further inputs."""
    return _table(backend_config, "_extra_inputs_getter")


def remove_boolean_dispatch_from_name(p: Any) -> str:
    """Name of a function; those of torch that a flag chooses between have none of their own."""
    for name in ("max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
                 "adaptive_max_pool3d", "fractional_max_pool2d", "fractional_max_pool3d"):  # fmt: skip
        if getattr(nn.functional, name) is p:
            return f"torch.nn.functional.{name}"
    if isinstance(p, str) or not hasattr(p, "__qualname__"):
        return str(p)
    module = getattr(p, "__module__", None) or "torch"
    return f"{module}.{p.__qualname__}"


def pattern_to_human_readable(p: Any) -> Any:
    """Names in the place of classes and functions."""
    if isinstance(p, tuple):
        return tuple(pattern_to_human_readable(part) for part in p)
    return p if isinstance(p, str) else remove_boolean_dispatch_from_name(p)


def entry_to_pretty_str(entry: dict[str, Any]) -> str:
    """The dict form of a pattern, a line each."""
    lines = ["{"]
    for key, value in entry.items():
        plain = key in ("dtype_configs", "observation_type")
        shown = value if plain else pattern_to_human_readable(value)
        lines.append(f"  {key!r}: {shown},")
    return "\n".join([*lines, "}"])
