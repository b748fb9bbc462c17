"""Patterns of layers and functions by family, for the tables of backends besides this library's own.

A family takes the dtypes that a backend has for it; which families a backend has is in its file.
"""

import copy
import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from torch_ao_ext.nn import intrinsic, qat
from torch_ao_ext.nn.intrinsic import qat as intrinsic_qat
from torch_ao_ext.nn.quantized import reference
from torch_ao_ext.quantization.backend_config.backend_config import (
    BackendPatternConfig,
    DTypeConfig,
    DTypeWithConstraints,
    ObservationType,
)
from torch_ao_ext.quantization.fuser_method_mappings import (
    _in_container,
    fuse_conv_bn,
    fuse_conv_bn_relu,
    fuse_convtranspose_bn,
    fuse_linear_bn,
)

__all__ = [
    "SHARED",
    "activations",
    "arithmetic",
    "batch_norms",
    "convolutions",
    "embeddings",
    "entries",
    "known_ranges",
    "layer_norms",
    "linears",
    "moves",
    "recurrent",
    "sizes",
]

SHARED = ObservationType.OUTPUT_SHARE_OBSERVER_WITH_INPUT
_OWN = ObservationType.OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT
_WEIGHT_AND_BIAS = {"weight": 1, "bias": 2}

_Entries = list[BackendPatternConfig]
_DTypes = list[DTypeConfig]


def entries(patterns: Iterable[Any], dtypes: _DTypes, **options: Any) -> _Entries:
    """One entry a pattern.

    Args:
        patterns: classes, functions, method names or tuples.
        dtypes: of all of them.
        options: what the setters of a BackendPatternConfig set, by their names.
    """
    found = []
    for pattern in patterns:
        entry = BackendPatternConfig(pattern).set_dtype_configs(dtypes)
        for name, value in options.items():
            private = f"_set_{name}"
            getattr(entry, private if hasattr(entry, private) else f"set_{name}")(value)
        found.append(entry)
    return found


def _fusion(types: tuple[Any, ...], dtypes: _DTypes, fuser: Callable[..., Any], made: type) -> _Entries:
    return entries([types], dtypes, fuser_method=fuser, fused_module=made)


def _trained(kind: type, root: type, dtypes: _DTypes, twins: Any = intrinsic_qat) -> _Entries:
    """A layer or container, whose weight a root has, and what is trained in its place, of a module."""
    whole = {"root_module": root, "reference_quantized_module": getattr(reference, root.__name__)}
    twin = getattr(twins, kind.__name__)
    return [*entries([kind], dtypes, **whole, qat_module=twin), *entries([twin], dtypes, **whole)]


def linears(dtypes: _DTypes, fusions: bool = True) -> _Entries:
    """nn.Linear and its function.

    Args:
        dtypes: of them.
        fusions: with relu and batch norm behind.
    """
    found = _trained(nn.Linear, nn.Linear, dtypes, qat)
    found += entries([F.linear], dtypes, input_type_to_index=_WEIGHT_AND_BIAS)
    if not fusions:
        return found
    for relu in (nn.ReLU, F.relu):
        fuser = _in_container(intrinsic.LinearReLU)
        found += _fusion((nn.Linear, relu), dtypes, fuser, intrinsic.LinearReLU)
        found += entries([(F.linear, relu)], dtypes)
    found += _fusion((nn.Linear, nn.BatchNorm1d), dtypes, fuse_linear_bn, intrinsic.LinearBn1d)
    for kind in (intrinsic.LinearReLU, intrinsic.LinearBn1d):
        found += _trained(kind, nn.Linear, dtypes)
    return found


def _convolution(rank: int, dtypes: _DTypes) -> _Entries:
    root, norm = getattr(nn, f"Conv{rank}d"), getattr(nn, f"BatchNorm{rank}d")
    function = getattr(F, f"conv{rank}d")
    with_relu, with_norm, with_both = (
        getattr(intrinsic, f"Conv{rest}{rank}d") for rest in ("ReLU", "Bn", "BnReLU")
    )
    found = _trained(root, root, dtypes, qat)
    found += entries([function], dtypes, input_type_to_index=_WEIGHT_AND_BIAS)
    for relu in (nn.ReLU, F.relu):
        found += _fusion((root, relu), dtypes, _in_container(with_relu), with_relu)
        found += entries([(function, relu)], dtypes)
        found += _fusion((root, norm, relu), dtypes, fuse_conv_bn_relu, with_both)
    found[-1].set_root_module(root)  # said of the function alone
    found += _fusion((root, norm), dtypes, fuse_conv_bn, with_norm)
    # Containers of float layers name what is trained; that has the root.
    for kind in (with_relu, with_norm, with_both):
        entry, trained = _trained(kind, root, dtypes)
        bare = BackendPatternConfig(kind).set_dtype_configs(dtypes).set_qat_module(entry.qat_module)
        found += [bare, trained]
    return found


def _transposed(rank: int, dtypes: _DTypes) -> _Entries:
    root, norm = getattr(nn, f"ConvTranspose{rank}d"), getattr(nn, f"BatchNorm{rank}d")
    whole = {"root_module": root, "reference_quantized_module": getattr(reference, root.__name__)}
    return [
        *entries([root], dtypes, **whole),
        *entries([(root, norm)], dtypes, fuser_method=fuse_convtranspose_bn, **whole),
        *entries([getattr(F, f"conv_transpose{rank}d")], dtypes, input_type_to_index=_WEIGHT_AND_BIAS),
    ]


def convolutions(dtypes: _DTypes, ranks: tuple[int, ...] = (1, 2, 3), transposed: bool = True) -> _Entries:
    """Convolutions with what fuses behind them, and transposed ones with batch norms."""
    found = []
    for rank in ranks:
        found += _convolution(rank, dtypes)
        found += _transposed(rank, dtypes) if transposed else []
    return found


def arithmetic(functions: Iterable[Any], dtypes: _DTypes) -> _Entries:
    """Functions of two values, with a relu behind; beside a number they keep the observer."""
    behind = [(), (nn.ReLU,), (F.relu,), (torch.relu,)]
    patterns = [(f, *relu) if relu else f for f in functions for relu in behind]
    return entries(patterns, dtypes, num_tensor_args_to_observation_type={0: _OWN, 1: SHARED, 2: _OWN})


def activations(dtypes: _DTypes) -> _Entries:
    """Layers and functions of one value that have qparams of their own."""
    found = entries(
        (
            nn.ELU, nn.LeakyReLU, nn.Hardswish, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
            nn.Dropout, nn.PReLU, F.elu, F.hardswish, F.leaky_relu, F.dropout,
        ),
        dtypes,
    )  # fmt: skip
    found += entries([F.group_norm], dtypes, input_type_to_index={"weight": 2, "bias": 3})
    return found + entries([F.instance_norm], dtypes, input_type_to_index={"weight": 3, "bias": 4})


# Results of known range: (scale, zero point) -> patterns.
_KNOWN = {
    (1 / 256, 0): (
        nn.Hardsigmoid, F.hardsigmoid, "hardsigmoid", "hardsigmoid_", nn.Sigmoid, torch.sigmoid, "sigmoid",
        "sigmoid_", nn.Softmax,
    ),
    (2 / 256, 128): (nn.Tanh, torch.tanh, "tanh", "tanh_"),
}  # fmt: skip


def _at(dtype: DTypeWithConstraints, scale: float, zero_point: int) -> DTypeWithConstraints:
    if dtype.dtype != torch.quint8:
        return copy.copy(dtype)
    exact = {"scale_exact_match": scale, "zero_point_exact_match": zero_point}
    return DTypeWithConstraints(torch.quint8, 0, 255, **exact)


def known_ranges(dtypes: _DTypes) -> _Entries:
    """Functions whose results have one scale and zero point, in 8 bit."""
    found = []
    for qparams, patterns in _KNOWN.items():
        held = [
            DTypeConfig(
                _at(d.input_dtype_with_constraints, *qparams), _at(d.output_dtype_with_constraints, *qparams),
                d.weight_dtype, d.bias_dtype, d.is_dynamic,
            )
            for d in dtypes
        ]  # fmt: skip
        found += entries(patterns, held)
    return found


def moves(dtypes: _DTypes) -> _Entries:
    """Layers, functions and methods whose results have the qparams of their input."""
    patterns = (
        nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AvgPool1d, nn.AvgPool2d,
        nn.AvgPool3d, nn.Hardtanh, nn.Identity, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.PixelShuffle,
        nn.PixelUnshuffle, nn.ReLU, nn.ReLU6, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d,
        F.adaptive_avg_pool3d, F.hardtanh, F.hardtanh_, F.interpolate, F.max_pool1d, F.max_pool2d,
        F.max_pool3d, F.pixel_shuffle, F.pixel_unshuffle, F.relu, F.relu6, F.avg_pool1d, F.avg_pool2d,
        F.avg_pool3d, torch.clamp, torch.flatten, torch.mean, torch.narrow, torch.repeat_interleave,
        torch.transpose, torch.squeeze, torch.stack, torch.unsqueeze, operator.floordiv, "contiguous",
        "clamp", "detach", "detach_", "mean", "permute", "repeat", "repeat_interleave", "reshape", "resize_",
        "relu", "relu_", "squeeze", "squeeze_", "transpose", "unsqueeze", "unsqueeze_", "view",
    )  # fmt: skip
    return entries(patterns, dtypes, observation_type=SHARED)


def sizes(dtypes: _DTypes) -> _Entries:
    """What reads sizes of a tensor, not its values."""
    return entries(("shape", "size"), dtypes, observation_type=ObservationType.INPUT_OUTPUT_NOT_OBSERVED)


def batch_norms(dtypes: _DTypes) -> _Entries:
    """Batch norms of their own, and with a relu behind."""
    found = []
    for rank in (2, 3):
        norm, made = getattr(nn, f"BatchNorm{rank}d"), getattr(intrinsic, f"BNReLU{rank}d")
        for relu in (nn.ReLU, F.relu):
            found += _fusion((norm, relu), dtypes, _in_container(made), made)
        found += entries([norm, made], dtypes)
    return found


def layer_norms(dtypes: _DTypes) -> _Entries:
    """nn.LayerNorm and its function."""
    function = entries([F.layer_norm], dtypes, input_type_to_index={"weight": 2, "bias": 3})
    return entries([nn.LayerNorm], dtypes) + function


def recurrent(dtypes: _DTypes) -> _Entries:
    """Recurrent layers and cells that reference layers exist of."""
    found = []
    for kind in (nn.GRUCell, nn.LSTMCell, nn.RNNCell, nn.LSTM, nn.GRU):
        whole = getattr(reference, kind.__name__)
        found += entries([kind], dtypes, root_module=kind, reference_quantized_module=whole)
    return found


def embeddings(dtypes: _DTypes) -> _Entries:
    """Tables of rows."""
    return [e for kind in (nn.Embedding, nn.EmbeddingBag) for e in _trained(kind, kind, dtypes, qat)]
