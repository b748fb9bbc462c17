"""get_x86_backend_config, and torch.ao's names of its dtypes."""

from torch_ao_ext.quantization.backend_config import native
from torch_ao_ext.quantization.backend_config._patterns import library_backend_config
from torch_ao_ext.quantization.backend_config.backend_config import BackendConfig

__all__ = [
    "get_x86_backend_config",
    "x86_default_dynamic_float16_dtype_config",
    "x86_default_dynamic_int8_dtype_config",
    "x86_default_op_fp16_dtype_config",
    "x86_default_op_quint8_dtype_config",
    "x86_weight_only_quint4x2_dtype_config",
    "x86_weight_only_quint8_dtype_config",
    "x86_weighted_op_int8_dtype_config",
]

x86_weighted_op_int8_dtype_config = native.weighted_op_quint8_dtype_config
x86_default_op_quint8_dtype_config = native.default_op_quint8_dtype_config
x86_default_op_fp16_dtype_config = native.default_op_fp16_dtype_config
x86_default_dynamic_int8_dtype_config = native.default_dynamic_int8_dtype_config
x86_default_dynamic_float16_dtype_config = native.default_dynamic_float16_dtype_config
x86_weight_only_quint8_dtype_config = native.weight_only_quint8_dtype_config
x86_weight_only_quint4x2_dtype_config = native.weight_only_quint4x2_dtype_config


def get_x86_backend_config() -> BackendConfig:
    """What this library runs in int8, whatever engine it chooses; torch.ao's name "x86"."""
    return library_backend_config("x86")
