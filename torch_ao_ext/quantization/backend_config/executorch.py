"""get_executorch_backend_config."""

import operator

import torch
import torch.nn.functional as F
from torch import nn

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

__all__ = ["get_executorch_backend_config"]

# XNNPACK multiplies by a ratio of scales that must not be too small, and its weights are symmetric.
_VALUE = DTypeWithConstraints(torch.qint8, scale_min_lower_bound=2**-12)
_WEIGHT = DTypeWithConstraints(torch.qint8, -127, 127, scale_min_lower_bound=2**-12)
_SYMMETRIC = DTypeConfig(_VALUE, _VALUE, _WEIGHT, torch.float32)
_SYMMETRIC_VALUES = DTypeConfig(_VALUE, _VALUE)
_BYTES = DTypeConfig(torch.quint8, torch.quint8, torch.qint8, torch.float32)
_BYTE_VALUES = DTypeConfig(torch.quint8, torch.quint8)
_DYNAMIC = [
    DTypeConfig(torch.quint8, torch.float32, torch.qint8, torch.float32, is_dynamic=True),
    DTypeConfig(_VALUE, torch.float32, _WEIGHT, torch.float32, is_dynamic=True),
    DTypeConfig(torch.float16, torch.float32, torch.float16, torch.float32, is_dynamic=True),
]
_ROWS = DTypeConfig(torch.float32, torch.float32, torch.quint8)

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
