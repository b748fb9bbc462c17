"""get_onednn_backend_config, and torch.ao's names of its dtypes."""

import torch

from torch_ao_ext.quantization.backend_config import native
from torch_ao_ext.quantization.backend_config._patterns import library_backend_config
from torch_ao_ext.quantization.backend_config.backend_config import BackendConfig, DTypeConfig

__all__ = [
    "get_onednn_backend_config",
    "onednn_dynamic_int8_dtype_config",
    "onednn_input_output_only_quint8_dtype_config",
    "onednn_op_quint8_dtype_config",
    "onednn_weight_only_qint8_dtype_config",
    "onednn_weighted_op_int8_dtype_config",
]

onednn_weighted_op_int8_dtype_config = native.weighted_op_quint8_dtype_config
onednn_op_quint8_dtype_config = native.default_op_quint8_dtype_config
onednn_dynamic_int8_dtype_config = native.default_dynamic_int8_dtype_config
onednn_input_output_only_quint8_dtype_config = native.input_output_only_quint8_dtype_config
onednn_weight_only_qint8_dtype_config = DTypeConfig(torch.float32, torch.float32, torch.qint8)


def get_onednn_backend_config() -> BackendConfig:
    """What this library runs in int8, whatever engine it chooses; torch.ao's name "onednn"."""
    return library_backend_config("onednn")
