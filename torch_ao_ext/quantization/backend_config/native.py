"""get_native_backend_config, and the dtypes that tables are made of."""

import operator
from typing import Any

import torch

from torch_ao_ext.quantization.backend_config import _families as families
from torch_ao_ext.quantization.backend_config._patterns import library_backend_config
from torch_ao_ext.quantization.backend_config.backend_config import BackendConfig, DTypeConfig

__all__ = [
    "default_dynamic_float16_dtype_config",
    "default_dynamic_int8_dtype_config",
    "default_op_fp16_dtype_config",
    "default_op_quint8_dtype_config",
    "get_native_backend_config",
    "get_native_backend_config_dict",
    "get_test_only_legacy_native_backend_config",
    "get_test_only_legacy_native_backend_config_dict",
    "input_output_only_quint8_dtype_config",
    "weight_only_quint4x2_dtype_config",
    "weight_only_quint8_dtype_config",
    "weighted_op_quint8_dtype_config",
]

_BYTE, _HALF, _FLOAT = torch.quint8, torch.float16, torch.float32

weighted_op_quint8_dtype_config = DTypeConfig(_BYTE, _BYTE, torch.qint8, _FLOAT)
default_op_quint8_dtype_config = DTypeConfig(_BYTE, _BYTE)
default_op_fp16_dtype_config = DTypeConfig(_HALF, _HALF, _HALF, _HALF)
default_dynamic_int8_dtype_config = DTypeConfig(_BYTE, _FLOAT, torch.qint8, _FLOAT, is_dynamic=True)
default_dynamic_float16_dtype_config = DTypeConfig(_HALF, _FLOAT, _HALF, _FLOAT, is_dynamic=True)
input_output_only_quint8_dtype_config = DTypeConfig(_BYTE, _BYTE, _FLOAT, _FLOAT)
weight_only_quint8_dtype_config = DTypeConfig(_FLOAT, _FLOAT, _BYTE)
weight_only_quint4x2_dtype_config = DTypeConfig(_FLOAT, _FLOAT, torch.quint4x2)


def get_native_backend_config() -> BackendConfig:
    """What this library runs in int8, whatever engine it chooses; torch.ao's name "native"."""
    return library_backend_config("native")


def get_native_backend_config_dict() -> dict[str, Any]:
    """The dict form of get_native_backend_config."""
    return get_native_backend_config().to_dict()


def get_test_only_legacy_native_backend_config() -> BackendConfig:
    """torch.ao's own table of its native backend, with 16-bit floats besides.

    For what reads tables; `prepare_fx` takes its 8-bit entries.
    """
    weighted, dynamic = [weighted_op_quint8_dtype_config], [
        default_dynamic_int8_dtype_config, default_dynamic_float16_dtype_config,
    ]  # fmt: skip
    values, half = [default_op_quint8_dtype_config], [default_op_fp16_dtype_config]
    functions = (operator.add, torch.add, operator.mul, torch.mul)
    rows = [weight_only_quint8_dtype_config, weight_only_quint4x2_dtype_config]
    config = BackendConfig("_native_and_fp16")
    for found in (
        families.convolutions(weighted),
        families.linears([*weighted, *dynamic, *half]),
        families.arithmetic(functions, values + half),
        families.entries([torch.matmul], values + half),
        families.entries([torch.cat], values, observation_type=families.SHARED),
        families.activations(values),
        families.known_ranges(values + half),
        families.moves(values + half),
        families.sizes(values),
        families.batch_norms(values),
        families.layer_norms([input_output_only_quint8_dtype_config]),
        families.recurrent(dynamic),
        families.embeddings(rows),
    ):
        config.set_backend_pattern_configs(found)
    return config


def get_test_only_legacy_native_backend_config_dict() -> dict[str, Any]:
    """The dict form of get_test_only_legacy_native_backend_config."""
    return get_test_only_legacy_native_backend_config().to_dict()
