"""get_executorch_backend_config, and the dtypes that it is made of."""

import operator

import torch
import torch.nn.functional as F
from torch import nn

from torch_ao_ext.quantization.backend_config import native
from torch_ao_ext.quantization.backend_config._families import (
    SHARED,
    arithmetic,
    convolutions,
    embeddings,
    entries,
    linears,
)
from torch_ao_ext.quantization.backend_config.backend_config import (
    BackendConfig,
    DTypeConfig,
    DTypeWithConstraints,
)
from torch_ao_ext.quantization.backend_config.qnnpack import (
    qnnpack_default_op_qint8_symmetric_dtype_config,
    qnnpack_weighted_op_qint8_symmetric_dtype_config,
)

__all__ = [
    "executorch_act_qint8_scale_min_2_neg_12",
    "executorch_default_dynamic_float16_dtype_config",
    "executorch_default_dynamic_qint8_dtype_config",
    "executorch_default_dynamic_quint8_dtype_config",
    "executorch_default_op_quint8_dtype_config",
    "executorch_weight_only_quint8_dtype_config",
    "executorch_weight_qint8_neg_127_to_127_scale_min_2_neg_12",
    "executorch_weighted_op_int8_dtype_config",
    "get_executorch_backend_config",
]

# XNNPACK multiplies by a ratio of scales that must not be too small, and its weights are symmetric.
executorch_act_qint8_scale_min_2_neg_12 = DTypeWithConstraints(torch.qint8, scale_min_lower_bound=2**-12)
executorch_weight_qint8_neg_127_to_127_scale_min_2_neg_12 = DTypeWithConstraints(
    torch.qint8, -127, 127, scale_min_lower_bound=2**-12
)
_VALUE = executorch_act_qint8_scale_min_2_neg_12
_WEIGHT = executorch_weight_qint8_neg_127_to_127_scale_min_2_neg_12
executorch_weighted_op_int8_dtype_config = native.weighted_op_quint8_dtype_config
executorch_default_op_quint8_dtype_config = native.default_op_quint8_dtype_config
executorch_default_dynamic_quint8_dtype_config = native.default_dynamic_int8_dtype_config
executorch_default_dynamic_qint8_dtype_config = DTypeConfig(
    _VALUE, torch.float32, _WEIGHT, torch.float32, is_dynamic=True
)
executorch_default_dynamic_float16_dtype_config = native.default_dynamic_float16_dtype_config
executorch_weight_only_quint8_dtype_config = native.weight_only_quint8_dtype_config
_SYMMETRIC = qnnpack_weighted_op_qint8_symmetric_dtype_config
_SYMMETRIC_VALUES = qnnpack_default_op_qint8_symmetric_dtype_config
_BYTES = executorch_weighted_op_int8_dtype_config
_BYTE_VALUES = executorch_default_op_quint8_dtype_config
_DYNAMIC = [
    executorch_default_dynamic_quint8_dtype_config, executorch_default_dynamic_qint8_dtype_config,
    executorch_default_dynamic_float16_dtype_config,
]  # fmt: skip
_ROWS = executorch_weight_only_quint8_dtype_config

_MOVES = (
    nn.Flatten, F.adaptive_avg_pool2d, F.elu, F.hardtanh, F.max_pool2d, F.pad, F.relu, F.relu6, F.leaky_relu,
    F.leaky_relu_, nn.AdaptiveAvgPool2d, nn.ConstantPad2d, nn.ELU, nn.MaxPool2d, nn.ReLU6, nn.Hardtanh,
    nn.LeakyReLU, torch.clamp, torch.flatten, torch.mean, torch.permute, torch.permute_copy, torch.squeeze,
    "clamp", "mean", "permute", "reshape", "relu", "relu_", "squeeze", "squeeze_", "leaky_relu", torch.cat,
    torch.concat, torch.concatenate,
)  # fmt: skip


def get_executorch_backend_config() -> BackendConfig:
    """What ExecuTorch runs in int8 through XNNPACK and QNNPACK; for `convert_to_reference_fx`."""
    weighted = [_SYMMETRIC, _BYTES]
    values = [_SYMMETRIC_VALUES, _BYTE_VALUES]
    functions = (operator.add, torch.add, operator.sub, torch.sub, operator.mul, torch.mul)
    rows = embeddings([_ROWS])
    rows += entries([F.embedding], [_ROWS], input_type_to_index={"weight": 1})
    return (
        BackendConfig("executorch")
        .set_backend_pattern_configs(linears([*weighted, *_DYNAMIC], fusions=False))
        .set_backend_pattern_configs(convolutions(weighted, ranks=(2,), transposed=False))
        .set_backend_pattern_configs(arithmetic(functions, [_SYMMETRIC_VALUES, _BYTES]))
        .set_backend_pattern_configs(entries(_MOVES, values, observation_type=SHARED))
        .set_backend_pattern_configs(entries([nn.BatchNorm2d], values))
        .set_backend_pattern_configs(rows)
    )
