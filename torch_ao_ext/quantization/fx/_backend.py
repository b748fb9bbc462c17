"""Holds QConfigs to what a BackendConfig allows."""

import warnings
from typing import Any

import torch

from torch_ao_ext.nn.quantized._static import STORAGE
from torch_ao_ext.quantization.backend_config import BackendConfig, DTypeConfig, DTypeWithConstraints
from torch_ao_ext.quantization.fx._given import config_of
from torch_ao_ext.quantization.observer import FixedQParamsObserver

__all__ = ["Backend", "backend_of"]


def backend_of(op: str, backend_config: Any) -> "Backend | None":
    """The backend of an argument: a BackendConfig, its dict form, or None.

    Raises:
        ValueError: another type, or an unknown key of the dict.
    """
    if backend_config is None:
        return None
    return Backend(config_of(op, "backend_config", backend_config, BackendConfig))


def _core(observer: Any) -> Any:
    return getattr(observer, "activation_post_process", observer)


def _dtype(dtype: Any) -> Any:
    """torch.quint8 and torch.uint8 are one."""
    return STORAGE.get(dtype, dtype)


def _broken(bounds: DTypeWithConstraints, observer: Any) -> str | None:
    """The first constraint that an observer does not keep."""
    low, high = getattr(observer, "quant_min", None), getattr(observer, "quant_max", None)
    core = _core(observer)
    if bounds.quant_min_lower_bound is not None and low is not None and low < bounds.quant_min_lower_bound:
        return f"quant_min of at least {bounds.quant_min_lower_bound}, has {low}"
    if bounds.quant_max_upper_bound is not None and high is not None and high > bounds.quant_max_upper_bound:
        return f"quant_max of at most {bounds.quant_max_upper_bound}, has {high}"
    if bounds.scale_min_lower_bound is not None:
        eps = float(getattr(core, "eps", 0.0))
        if eps < bounds.scale_min_lower_bound:
            return f"eps of at least {bounds.scale_min_lower_bound}, has {eps}"
    if bounds.scale_exact_match is not None and isinstance(core, FixedQParamsObserver):
        wanted = (bounds.scale_exact_match, bounds.zero_point_exact_match)
        found = (float(core.scale), int(core.zero_point))
        if found != wanted:
            return f"scale and zero point {wanted}, has {found}"
    return None


class Backend:
    """Patterns of a BackendConfig by class path, function and method name.

    Args:
        config: the user's.
    """

    def __init__(self, config: BackendConfig) -> None:
        self.name = config.name
        self._dtypes: dict[Any, list[DTypeConfig]] = {}
        for entry in config.configs:
            if entry.pattern is not None and not isinstance(entry.pattern, tuple):
                self._dtypes[_key(entry.pattern)] = entry.dtype_configs
        self._warned: set[str] = set()

    def takes(self, keys: list[Any], qconfig: Any, has_weight: bool) -> bool:
        """Whether an operator, known by these patterns, may run in the dtypes of a QConfig.

        Warns when only a constraint of the qparams stands against it.
        """
        configs = [config for key in keys for config in self._dtypes.get(_key(key), [])]
        activation = qconfig.activation() if qconfig.activation is not None else None
        weight = qconfig.weight() if qconfig.weight is not None and has_weight else None
        reasons = []
        for config in configs:
            if _dtype(config.input_dtype) != _dtype(getattr(activation, "dtype", torch.float32)):
                continue
            if bool(config.is_dynamic) != bool(getattr(activation, "is_dynamic", False)):
                continue
            if weight is not None and config.weight_dtype is not None:
                if _dtype(config.weight_dtype) != _dtype(weight.dtype):
                    continue
                reason = _broken(config.weight_dtype_with_constraints, weight)
                reasons.append(reason and f"a weight observer with {reason}")
            else:
                reasons.append(None)
            if reasons[-1] is None:
                reason = _broken(config.input_dtype_with_constraints, activation)
                reasons[-1] = reason and f"an activation observer with {reason}"
            if reasons[-1] is None:
                return True
        for reason in dict.fromkeys(r for r in reasons if r):
            if reason not in self._warned:
                self._warned.add(reason)
                warnings.warn(f"backend_config '{self.name}' wants {reason}: stays float", stacklevel=2)
        return False


def _key(pattern: Any) -> Any:
    if isinstance(pattern, type):
        return f"{pattern.__module__}.{pattern.__qualname__}"
    return pattern
