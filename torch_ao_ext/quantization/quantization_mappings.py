"""Which float module becomes which quantized one."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from torch_ao_ext.nn import intrinsic, qat, quantizable, quantized, sparse
from torch_ao_ext.nn.quantized import _normalize, dynamic
from torch_ao_ext.quantization import stubs
from torch_ao_ext.quantization.fake_quantize import (
    default_fixed_qparams_range_0to1_fake_quant,
    default_fixed_qparams_range_neg1to1_fake_quant,
)

__all__ = [
    "DEFAULT_DYNAMIC_QUANT_MODULE_MAPPINGS",
    "DEFAULT_DYNAMIC_SPARSE_QUANT_MODULE_MAPPINGS",
    "DEFAULT_FLOAT_TO_QUANTIZED_OPERATOR_MAPPINGS",
    "DEFAULT_MODULE_TO_ACT_POST_PROCESS",
    "DEFAULT_QAT_MODULE_MAPPINGS",
    "DEFAULT_REFERENCE_STATIC_QUANT_MODULE_MAPPINGS",
    "DEFAULT_STATIC_QUANT_MODULE_MAPPINGS",
    "DEFAULT_STATIC_SPARSE_QUANT_MODULE_MAPPINGS",
    "get_default_compare_output_module_list",
    "get_default_dynamic_quant_module_mappings",
    "get_default_dynamic_sparse_quant_module_mappings",
    "get_default_float_to_quantized_operator_mappings",
    "get_default_qat_module_mappings",
    "get_default_qconfig_propagation_list",
    "get_default_static_quant_module_mappings",
    "get_default_static_quant_reference_module_mappings",
    "get_default_static_sparse_quant_module_mappings",
    "get_dynamic_quant_module_class",
    "get_embedding_qat_module_mappings",
    "get_embedding_static_quant_module_mappings",
    "get_quantized_operator",
    "get_static_quant_module_class",
    "no_observer_set",
]

# transformers' Conv1D is known by its name, see nn.quantized.dynamic.Linear.
DEFAULT_DYNAMIC_QUANT_MODULE_MAPPINGS: dict[Callable[..., Any], Any] = {
    nn.Linear: dynamic.Linear,
    NonDynamicallyQuantizableLinear: dynamic.Linear,
    nn.MultiheadAttention: dynamic.MultiheadAttention,
    intrinsic.LinearReLU: intrinsic.quantized.dynamic.LinearReLU,
    qat.dynamic.Linear: dynamic.Linear,
    nn.LSTM: dynamic.LSTM,
    nn.GRU: dynamic.GRU,
    nn.RNN: dynamic.RNN,
    nn.LSTMCell: dynamic.LSTMCell,
    nn.GRUCell: dynamic.GRUCell,
    nn.RNNCell: dynamic.RNNCell,
    nn.Embedding: quantized.Embedding,
    nn.EmbeddingBag: quantized.EmbeddingBag,
}


_nnq, _nniq, _nniqat = quantized, intrinsic.quantized, intrinsic.qat

DEFAULT_STATIC_QUANT_MODULE_MAPPINGS: dict[Callable[..., Any], Any] = {
    stubs.QuantStub: _nnq.Quantize,
    stubs.DeQuantStub: _nnq.DeQuantize,
    _nnq.FloatFunctional: _nnq.QFunctional,
    nn.Linear: _nnq.Linear,
    NonDynamicallyQuantizableLinear: _nnq.Linear,
    nn.Conv1d: _nnq.Conv1d,
    nn.Conv2d: _nnq.Conv2d,
    nn.Conv3d: _nnq.Conv3d,
    nn.ConvTranspose1d: _nnq.ConvTranspose1d,
    nn.ConvTranspose2d: _nnq.ConvTranspose2d,
    nn.ConvTranspose3d: _nnq.ConvTranspose3d,
    nn.Embedding: _nnq.Embedding,
    nn.EmbeddingBag: _nnq.EmbeddingBag,
    nn.BatchNorm1d: _nnq.BatchNorm1d,
    nn.BatchNorm2d: _nnq.BatchNorm2d,
    nn.BatchNorm3d: _nnq.BatchNorm3d,
    nn.CELU: _nnq.CELU,
    nn.Dropout: _nnq.Dropout,
    nn.ELU: _nnq.ELU,
    nn.GroupNorm: _nnq.GroupNorm,
    nn.Hardswish: _nnq.Hardswish,
    nn.InstanceNorm1d: _nnq.InstanceNorm1d,
    nn.InstanceNorm2d: _nnq.InstanceNorm2d,
    nn.InstanceNorm3d: _nnq.InstanceNorm3d,
    nn.LayerNorm: _nnq.LayerNorm,
    nn.LeakyReLU: _nnq.LeakyReLU,
    nn.Mish: _nnq.Mish,
    nn.PReLU: _nnq.PReLU,
    nn.RMSNorm: _nnq.RMSNorm,
    nn.ReLU6: _nnq.ReLU6,
    nn.SELU: _nnq.SELU,
    nn.SiLU: _nnq.SiLU,
    nn.Sigmoid: _nnq.Sigmoid,
    nn.Softmax: _nnq.Softmax,
    nn.Softmax2d: _nnq.Softmax2d,
    intrinsic.BNReLU2d: _nniq.BNReLU2d,
    intrinsic.BNReLU3d: _nniq.BNReLU3d,
    intrinsic.ConvAdd2d: _nniq.ConvAdd2d,
    intrinsic.ConvAddReLU2d: _nniq.ConvAddReLU2d,
    intrinsic.ConvReLU1d: _nniq.ConvReLU1d,
    intrinsic.ConvReLU2d: _nniq.ConvReLU2d,
    intrinsic.ConvReLU3d: _nniq.ConvReLU3d,
    intrinsic.LinearLeakyReLU: _nniq.LinearLeakyReLU,
    intrinsic.LinearReLU: _nniq.LinearReLU,
    intrinsic.LinearTanh: _nniq.LinearTanh,
    qat.Conv1d: _nnq.Conv1d,
    qat.Conv2d: _nnq.Conv2d,
    qat.Conv3d: _nnq.Conv3d,
    qat.Linear: _nnq.Linear,
    qat.Embedding: _nnq.Embedding,
    qat.EmbeddingBag: _nnq.EmbeddingBag,
    _nniqat.ConvBn1d: _nnq.Conv1d,
    _nniqat.ConvBn2d: _nnq.Conv2d,
    _nniqat.ConvBn3d: _nnq.Conv3d,
    _nniqat.ConvBnReLU1d: _nniq.ConvReLU1d,
    _nniqat.ConvBnReLU2d: _nniq.ConvReLU2d,
    _nniqat.ConvBnReLU3d: _nniq.ConvReLU3d,
    _nniqat.ConvReLU1d: _nniq.ConvReLU1d,
    _nniqat.ConvReLU2d: _nniq.ConvReLU2d,
    _nniqat.ConvReLU3d: _nniq.ConvReLU3d,
    _nniqat.LinearBn1d: _nnq.Linear,
    _nniqat.LinearReLU: _nniq.LinearReLU,
}

_reference = _nnq.reference

DEFAULT_REFERENCE_STATIC_QUANT_MODULE_MAPPINGS: dict[Callable[..., Any], Any] = {
    stubs.QuantStub: _nnq.Quantize,
    stubs.DeQuantStub: _nnq.DeQuantize,
    nn.Linear: _reference.Linear,
    nn.Conv1d: _reference.Conv1d,
    nn.Conv2d: _reference.Conv2d,
    nn.Conv3d: _reference.Conv3d,
    nn.ConvTranspose1d: _reference.ConvTranspose1d,
    nn.ConvTranspose2d: _reference.ConvTranspose2d,
    nn.ConvTranspose3d: _reference.ConvTranspose3d,
    nn.Embedding: _reference.Embedding,
    nn.EmbeddingBag: _reference.EmbeddingBag,
    nn.GRUCell: _reference.GRUCell,
    nn.LSTMCell: _reference.LSTMCell,
    nn.RNNCell: _reference.RNNCell,
    nn.LSTM: _reference.LSTM,
}

DEFAULT_QAT_MODULE_MAPPINGS: dict[Callable[..., Any], Any] = {
    nn.Conv1d: qat.Conv1d,
    nn.Conv2d: qat.Conv2d,
    nn.Conv3d: qat.Conv3d,
    nn.Linear: qat.Linear,
    NonDynamicallyQuantizableLinear: qat.Linear,
    intrinsic.ConvBn1d: _nniqat.ConvBn1d,
    intrinsic.ConvBn2d: _nniqat.ConvBn2d,
    intrinsic.ConvBn3d: _nniqat.ConvBn3d,
    intrinsic.ConvBnReLU1d: _nniqat.ConvBnReLU1d,
    intrinsic.ConvBnReLU2d: _nniqat.ConvBnReLU2d,
    intrinsic.ConvBnReLU3d: _nniqat.ConvBnReLU3d,
    intrinsic.ConvReLU1d: _nniqat.ConvReLU1d,
    intrinsic.ConvReLU2d: _nniqat.ConvReLU2d,
    intrinsic.ConvReLU3d: _nniqat.ConvReLU3d,
    intrinsic.LinearBn1d: _nniqat.LinearBn1d,
    intrinsic.LinearReLU: _nniqat.LinearReLU,
}

DEFAULT_STATIC_SPARSE_QUANT_MODULE_MAPPINGS: dict[Callable[..., Any], Any] = {
    nn.Linear: sparse.quantized.Linear
}
DEFAULT_DYNAMIC_SPARSE_QUANT_MODULE_MAPPINGS: dict[Callable[..., Any], Any] = {
    nn.Linear: sparse.quantized.dynamic.Linear
}
DEFAULT_FLOAT_TO_QUANTIZED_OPERATOR_MAPPINGS: dict[Any, Callable[..., Any]] = {
    F.elu: _nnq.functional.elu,
    F.hardswish: _nnq.functional.hardswish,
    F.leaky_relu: _nnq.functional.leaky_relu,
    F.layer_norm: _normalize.layer_norm,
    F.instance_norm: _normalize.instance_norm,
    F.dropout: _normalize.dropout,
    F.linear: _nnq.functional.linear,
    F.conv1d: _nnq.functional.conv1d,
    F.conv2d: _nnq.functional.conv2d,
    F.conv3d: _nnq.functional.conv3d,
}

# Float modules whose output range is known: their fake-quantize module (in training; its observer
# otherwise), whatever the qconfig says.
DEFAULT_MODULE_TO_ACT_POST_PROCESS: dict[Callable[..., Any], Callable[..., Any]] = {
    nn.Hardsigmoid: default_fixed_qparams_range_0to1_fake_quant,
    nn.Sigmoid: default_fixed_qparams_range_0to1_fake_quant,
    nn.Softmax: default_fixed_qparams_range_0to1_fake_quant,
    nn.Softmax2d: default_fixed_qparams_range_0to1_fake_quant,
    nn.Tanh: default_fixed_qparams_range_neg1to1_fake_quant,
}


def get_default_static_quant_module_mappings() -> dict[Callable[..., Any], Any]:
    """A copy of the static table: float class -> class with `from_float`.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization import get_default_static_quant_module_mappings
        >>> get_default_static_quant_module_mappings()[torch.nn.Conv2d].__name__
        'Conv2d'
    """
    return dict(DEFAULT_STATIC_QUANT_MODULE_MAPPINGS)


def get_default_static_quant_reference_module_mappings() -> dict[Callable[..., Any], Any]:
    """A copy of the table of reference modules: float class -> `nn.quantized.reference` class."""
    return dict(DEFAULT_REFERENCE_STATIC_QUANT_MODULE_MAPPINGS)


def get_default_qat_module_mappings() -> dict[Callable[..., Any], Any]:
    """A copy of the training table: float class -> class with a fake-quantized weight."""
    return dict(DEFAULT_QAT_MODULE_MAPPINGS)


def get_embedding_qat_module_mappings() -> dict[Callable[..., Any], Any]:
    """The training table with embeddings."""
    return {
        **DEFAULT_QAT_MODULE_MAPPINGS, nn.Embedding: qat.Embedding, nn.EmbeddingBag: qat.EmbeddingBag,
    }  # fmt: skip


def get_default_static_sparse_quant_module_mappings() -> dict[Callable[..., Any], Any]:
    """Pruned float class -> int8 class with sparse blocks, between quantized tensors."""
    return dict(DEFAULT_STATIC_SPARSE_QUANT_MODULE_MAPPINGS)


def get_default_dynamic_sparse_quant_module_mappings() -> dict[Callable[..., Any], Any]:
    """Pruned float class -> int8 class with sparse blocks, floats in and out."""
    return dict(DEFAULT_DYNAMIC_SPARSE_QUANT_MODULE_MAPPINGS)


def no_observer_set() -> set[Any]:
    """Custom modules that observe inside: `prepare` puts no observer behind them."""
    return {quantizable.LSTM, quantizable.MultiheadAttention}


def get_default_compare_output_module_list() -> set[Any]:
    """Float, trained and quantized classes whose results numeric comparisons record."""
    static, trained = DEFAULT_STATIC_QUANT_MODULE_MAPPINGS, DEFAULT_QAT_MODULE_MAPPINGS
    tables = (static, trained, DEFAULT_DYNAMIC_QUANT_MODULE_MAPPINGS)
    return {nn.Sequential}.union(*tables, *(table.values() for table in tables))


def get_default_float_to_quantized_operator_mappings() -> dict[Any, Callable[..., Any]]:
    """Float function -> the function on quantized tensors that takes the qparams of its result."""
    return dict(DEFAULT_FLOAT_TO_QUANTIZED_OPERATOR_MAPPINGS)


def get_quantized_operator(float_op: Any) -> Callable[..., Any]:
    """The quantized function of a float one.

    Raises:
        ValueError: no entry.
    """
    table = DEFAULT_FLOAT_TO_QUANTIZED_OPERATOR_MAPPINGS
    return _lookup("get_quantized_operator", float_op, table, "float_op")


def get_embedding_static_quant_module_mappings() -> dict[Callable[..., Any], Any]:
    """The static table; embeddings are in it."""
    return get_default_static_quant_module_mappings()


def get_static_quant_module_class(
    float_module_class: Callable[..., Any],
    additional_static_quant_mapping: dict[Callable[..., Any], Any] | None = None,
    is_reference: bool = False,
) -> Any:
    """The statically quantized class of a float class.

    Args:
        float_module_class: key of the table.
        additional_static_quant_mapping: entries that are looked at first.
        is_reference: the class in `nn.quantized.reference` instead.

    Raises:
        ValueError: no entry.
    """
    table = DEFAULT_STATIC_QUANT_MODULE_MAPPINGS
    if is_reference:
        table = DEFAULT_REFERENCE_STATIC_QUANT_MODULE_MAPPINGS
    return _lookup(
        "get_static_quant_module_class",
        float_module_class,
        {**table, **(additional_static_quant_mapping or {})},
    )


def get_default_qconfig_propagation_list() -> set[Callable[..., Any]]:
    """Float classes whose output `prepare` observes."""
    static, dynamic = DEFAULT_STATIC_QUANT_MODULE_MAPPINGS, DEFAULT_DYNAMIC_QUANT_MODULE_MAPPINGS
    return {nn.Sequential, *static, *DEFAULT_QAT_MODULE_MAPPINGS, *dynamic}


def get_default_dynamic_quant_module_mappings() -> dict[Callable[..., Any], Any]:
    """A copy of the dynamic table: float class -> class with `from_float`.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization import get_default_dynamic_quant_module_mappings
        >>> get_default_dynamic_quant_module_mappings()[torch.nn.Linear].__name__
        'Linear'
    """
    return dict(DEFAULT_DYNAMIC_QUANT_MODULE_MAPPINGS)


def get_dynamic_quant_module_class(
    float_module_class: Callable[..., Any],
    additional_dynamic_quant_mapping: dict[Callable[..., Any], Any] | None = None,
) -> Any:
    """The quantized class of a float class.

    Args:
        float_module_class: key of the table.
        additional_dynamic_quant_mapping: entries that are looked at first.

    Raises:
        ValueError: no entry.
    """
    return _lookup(
        "get_dynamic_quant_module_class",
        float_module_class,
        {**DEFAULT_DYNAMIC_QUANT_MODULE_MAPPINGS, **(additional_dynamic_quant_mapping or {})},
    )


def _lookup(op: str, key: Any, table: dict[Any, Any], argument: str = "float_module_class") -> Any:
    found = table.get(key)
    if found is None:
        raise ValueError(
            f"{op}: argument '{argument}' must be one of "
            f"{', '.join(sorted(c.__name__ for c in table))}, got {key}"
        )
    return found
