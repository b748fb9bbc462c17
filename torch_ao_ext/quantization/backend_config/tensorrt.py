"""get_tensorrt_backend_config."""

import operator
from typing import Any

import torch

from torch_ao_ext.quantization.backend_config._families import (
    SHARED,
    arithmetic,
    convolutions,
    entries,
    linears,
    moves,
    sizes,
)
from torch_ao_ext.quantization.backend_config.backend_config import BackendConfig, DTypeConfig

__all__ = ["get_tensorrt_backend_config", "get_tensorrt_backend_config_dict"]

_WEIGHTED = [DTypeConfig(torch.qint8, torch.qint8, torch.qint8, torch.float32)]
_VALUES = [DTypeConfig(torch.qint8, torch.qint8)]


def get_tensorrt_backend_config() -> BackendConfig:
    """What TensorRT runs in int8: signed values; for `convert_to_reference_fx`."""
    functions = (operator.add, torch.add, operator.mul, torch.mul)
    places = {"bias": 0, "input": 1, "weight": 2}
    return (
        BackendConfig("tensorrt")
        .set_backend_pattern_configs(convolutions(_WEIGHTED))
        .set_backend_pattern_configs(entries([torch.addmm], _WEIGHTED, input_type_to_index=places))
        .set_backend_pattern_configs(entries([torch.cat], _VALUES, observation_type=SHARED))
        .set_backend_pattern_configs(linears(_WEIGHTED))
        .set_backend_pattern_configs(arithmetic(functions, _WEIGHTED))
        .set_backend_pattern_configs(entries([torch.matmul], _WEIGHTED))
        .set_backend_pattern_configs(moves(_VALUES))
        .set_backend_pattern_configs(sizes(_VALUES))
    )


def get_tensorrt_backend_config_dict() -> dict[str, Any]:
    """The dict form of get_tensorrt_backend_config."""
    return get_tensorrt_backend_config().to_dict()
