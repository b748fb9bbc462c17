"""What this library computes in int8, as patterns of a BackendConfig; one table for all its engines."""

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from torch_ao_ext.nn import intrinsic, qat
from torch_ao_ext.nn.intrinsic import qat as intrinsic_qat
from torch_ao_ext.nn.quantized import reference
from torch_ao_ext.quantization.backend_config.backend_config import (
    BackendConfig,
    BackendPatternConfig,
    DTypeConfig,
    DTypeWithConstraints,
    ObservationType,
)
from torch_ao_ext.quantization.fuser_method_mappings import _DEFAULT_OP_LIST_TO_FUSER_METHOD

__all__ = ["library_backend_config"]

_BYTES = (torch.quint8, torch.qint8)
STATIC = [DTypeConfig(dtype, dtype, torch.qint8, torch.float32) for dtype in _BYTES]
BETWEEN = [DTypeConfig(dtype, dtype) for dtype in _BYTES]
DYNAMIC = [DTypeConfig(dtype, torch.float32, torch.qint8, torch.float32, is_dynamic=True) for dtype in _BYTES]
ROWS = [DTypeConfig(torch.float32, torch.float32, dtype) for dtype in (torch.quint8, torch.quint4x2)]

_SHARE = ObservationType.OUTPUT_SHARE_OBSERVER_WITH_INPUT
_WEIGHTS = {"weight": 1, "bias": 2}

_CONVS = {
    nn.Conv1d: (1, torch.conv1d), nn.Conv2d: (2, torch.conv2d), nn.Conv3d: (3, torch.conv3d),
    nn.ConvTranspose1d: (1, torch.conv_transpose1d), nn.ConvTranspose2d: (2, torch.conv_transpose2d),
    nn.ConvTranspose3d: (3, torch.conv_transpose3d),
}  # fmt: skip
# Results of known range: (scale, zero point).
_FIXED = {
    (1 / 256, 0): (nn.Hardsigmoid, F.hardsigmoid, "hardsigmoid", "hardsigmoid_", nn.Sigmoid, torch.sigmoid,
                   "sigmoid", "sigmoid_"),
    (2 / 256, 128): (nn.Tanh, torch.tanh, "tanh", "tanh_"),
}  # fmt: skip
_OWN_QPARAMS = (
    nn.LeakyReLU, nn.Hardswish, nn.GELU, F.leaky_relu, F.hardswish, F.gelu, torch.cat,
)  # fmt: skip
_SHARED_QPARAMS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Identity, nn.Flatten,
    nn.PixelShuffle, nn.PixelUnshuffle, F.relu, F.relu6, F.hardtanh, torch.relu, torch.flatten, torch.mean,
    torch.transpose, torch.squeeze, torch.unsqueeze, torch.reshape, torch.permute, "relu", "relu_", "mean",
    "reshape", "view", "permute", "transpose", "squeeze", "unsqueeze", "contiguous", "repeat",
)  # fmt: skip
_RELUS = (nn.ReLU, F.relu, torch.relu, "relu", "relu_")
_RECURRENT = (nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell)


def _pattern(pattern: Any, dtypes: list[DTypeConfig], **options: Any) -> BackendPatternConfig:
    config = BackendPatternConfig(pattern).set_dtype_configs(dtypes)
    for name, value in options.items():
        if value is not None:
            getattr(config, f"set_{name}")(value)
    return config


def _layer(kind: type, function: Any, dtypes: list[DTypeConfig]) -> list[BackendPatternConfig]:
    """A layer, its function, and both with a relu behind."""
    name = kind.__name__
    whole = getattr(reference, name, None)
    trained = getattr(qat, name, None)
    found = [
        _pattern(kind, dtypes, root_module=kind, qat_module=trained, reference_quantized_module=whole),
        _pattern(function, dtypes)._set_input_type_to_index(_WEIGHTS),
        *[_pattern((function, relu), dtypes) for relu in (nn.ReLU, F.relu, torch.relu)],
    ]
    if trained is not None:
        found.append(_pattern(trained, dtypes, root_module=kind, reference_quantized_module=whole))
    return found


def _fused(dtypes: dict[type, list[DTypeConfig]]) -> list[BackendPatternConfig]:
    """Sequences that `fuse_modules` knows, and their containers, float and trained."""
    found = []
    for types, fuser in _DEFAULT_OP_LIST_TO_FUSER_METHOD.items():
        root = types[0] if types[0] in dtypes else None
        layers = dtypes.get(types[0], BETWEEN)
        for last in _RELUS if types[-1] is nn.ReLU else types[-1:]:
            pattern = (*types[:-1], last)
            found.append(_pattern(pattern, layers, fuser_method=fuser, root_module=root))
    for name in intrinsic.__all__:
        kind = getattr(intrinsic, name)
        root = _root_of(name, list(dtypes))
        layers = dtypes.get(root, BETWEEN)
        trained = getattr(intrinsic_qat, name, None)
        found.append(_pattern(kind, layers, root_module=root, qat_module=trained))
        if trained is not None:
            found.append(_pattern(trained, layers, root_module=root))
    return found


def _root_of(name: str, kinds: list[type]) -> type | None:
    """The layer in a container, by its name: ConvBnReLU2d holds a Conv2d."""
    for kind in kinds:
        start, rank = kind.__name__.rstrip("123d"), kind.__name__[len(kind.__name__.rstrip("123d")) :]
        if name.startswith(start) and (name.endswith(rank) or kind is nn.Linear):
            return kind
    return None


def library_backend_config(name: str) -> BackendConfig:
    """The patterns that this library runs in int8.

    Args:
        name: of the result.
    """
    config = BackendConfig(name)
    products: dict[type, list[DTypeConfig]] = {kind: STATIC for kind in _CONVS}
    products[nn.Linear] = STATIC + DYNAMIC
    functions = {kind: function for kind, (_, function) in _CONVS.items()} | {nn.Linear: F.linear}
    for kind, dtypes in products.items():
        config.set_backend_pattern_configs(_layer(kind, functions[kind], dtypes))
    config.set_backend_pattern_configs(_fused(products))
    for function in (operator.add, torch.add, operator.mul, torch.mul):
        config.set_backend_pattern_config(_pattern(function, BETWEEN))
        for relu in (nn.ReLU, F.relu, torch.relu):
            config.set_backend_pattern_config(_pattern((function, relu), BETWEEN))
    for pattern in _OWN_QPARAMS:
        config.set_backend_pattern_config(_pattern(pattern, BETWEEN))
    for pattern in _SHARED_QPARAMS:
        config.set_backend_pattern_config(_pattern(pattern, BETWEEN, observation_type=_SHARE))
    for (scale, zero_point), patterns in _FIXED.items():
        known = DTypeWithConstraints(
            torch.quint8, 0, 255, scale_exact_match=scale, zero_point_exact_match=zero_point
        )
        for pattern in patterns:
            config.set_backend_pattern_config(_pattern(pattern, [DTypeConfig(known, known)]))
    for kind in _RECURRENT:
        whole = getattr(reference, kind.__name__, None)
        config.set_backend_pattern_config(
            _pattern(kind, DYNAMIC, root_module=kind, reference_quantized_module=whole)
        )
    for kind in (nn.Embedding, nn.EmbeddingBag):
        trained = getattr(qat, kind.__name__)
        whole = getattr(reference, kind.__name__)
        options = {"root_module": kind, "reference_quantized_module": whole}
        config.set_backend_pattern_config(_pattern(kind, ROWS, qat_module=trained, **options))
        config.set_backend_pattern_config(_pattern(trained, ROWS, **options))
    return config
