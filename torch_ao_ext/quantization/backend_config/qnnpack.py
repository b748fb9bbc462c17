"""get_qnnpack_backend_config, and torch.ao's names of its dtypes."""

import torch

from torch_ao_ext.quantization.backend_config import native
from torch_ao_ext.quantization.backend_config._patterns import library_backend_config
from torch_ao_ext.quantization.backend_config.backend_config import (
    BackendConfig,
    DTypeConfig,
    DTypeWithConstraints,
)

__all__ = [
    "get_qnnpack_backend_config",
    "qnnpack_act_qint8_scale_min_2_neg_12",
    "qnnpack_default_dynamic_float16_dtype_config",
    "qnnpack_default_dynamic_int8_dtype_config",
    "qnnpack_default_op_fp16_dtype_config",
    "qnnpack_default_op_qint8_symmetric_dtype_config",
    "qnnpack_default_op_quint8_dtype_config",
    "qnnpack_weight_only_quint4x2_dtype_config",
    "qnnpack_weight_only_quint8_dtype_config",
    "qnnpack_weight_qint8_neg_127_to_127_scale_min_2_neg_12",
    "qnnpack_weighted_op_qint8_symmetric_dtype_config",
    "qnnpack_weighted_op_quint8_dtype_config",
]

qnnpack_weighted_op_quint8_dtype_config = native.weighted_op_quint8_dtype_config
qnnpack_default_op_quint8_dtype_config = native.default_op_quint8_dtype_config
qnnpack_default_op_fp16_dtype_config = native.default_op_fp16_dtype_config
qnnpack_default_dynamic_int8_dtype_config = native.default_dynamic_int8_dtype_config
qnnpack_default_dynamic_float16_dtype_config = native.default_dynamic_float16_dtype_config
qnnpack_weight_only_quint8_dtype_config = native.weight_only_quint8_dtype_config
qnnpack_weight_only_quint4x2_dtype_config = native.weight_only_quint4x2_dtype_config

# Signed values whose ratio of scales is not too small, and symmetric weights, for XNNPACK.
qnnpack_act_qint8_scale_min_2_neg_12 = DTypeWithConstraints(torch.qint8, scale_min_lower_bound=2**-12)
qnnpack_weight_qint8_neg_127_to_127_scale_min_2_neg_12 = DTypeWithConstraints(
    torch.qint8, -127, 127, scale_min_lower_bound=2**-12
)
qnnpack_weighted_op_qint8_symmetric_dtype_config = DTypeConfig(
    qnnpack_act_qint8_scale_min_2_neg_12, qnnpack_act_qint8_scale_min_2_neg_12,
    qnnpack_weight_qint8_neg_127_to_127_scale_min_2_neg_12, torch.float32,
)  # fmt: skip
qnnpack_default_op_qint8_symmetric_dtype_config = DTypeConfig(
    qnnpack_act_qint8_scale_min_2_neg_12, qnnpack_act_qint8_scale_min_2_neg_12
)


def get_qnnpack_backend_config() -> BackendConfig:
    """What this library runs in int8, whatever engine it chooses; torch.ao's name "qnnpack"."""
    return library_backend_config("qnnpack")
