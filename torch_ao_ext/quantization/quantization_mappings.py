"""Which float module becomes which quantized one."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from torch_ao_ext.nn import intrinsic, quantized
from torch_ao_ext.nn.quantized import dynamic

__all__ = [
    "DEFAULT_DYNAMIC_QUANT_MODULE_MAPPINGS",
    "get_default_dynamic_quant_module_mappings",
    "get_dynamic_quant_module_class",
]

# transformers' Conv1D is known by its name, see nn.quantized.dynamic.Linear.
DEFAULT_DYNAMIC_QUANT_MODULE_MAPPINGS: dict[Callable[..., Any], Any] = {
    nn.Linear: dynamic.Linear,
    NonDynamicallyQuantizableLinear: dynamic.Linear,
    nn.MultiheadAttention: dynamic.MultiheadAttention,
    intrinsic.LinearReLU: intrinsic.quantized.dynamic.LinearReLU,
    nn.LSTM: dynamic.LSTM,
    nn.GRU: dynamic.GRU,
    nn.RNN: dynamic.RNN,
    nn.LSTMCell: dynamic.LSTMCell,
    nn.GRUCell: dynamic.GRUCell,
    nn.RNNCell: dynamic.RNNCell,
    nn.Embedding: quantized.Embedding,
    nn.EmbeddingBag: quantized.EmbeddingBag,
}


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
    table = {**DEFAULT_DYNAMIC_QUANT_MODULE_MAPPINGS, **(additional_dynamic_quant_mapping or {})}
    found = table.get(float_module_class)
    if found is None:
        raise ValueError(
            "get_dynamic_quant_module_class: argument 'float_module_class' must be one of "
            f"{', '.join(sorted(c.__name__ for c in table))}, got {float_module_class}"
        )
    return found
