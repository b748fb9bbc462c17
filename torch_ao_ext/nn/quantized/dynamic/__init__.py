"""Modules with int8 weights whose float inputs are quantized on the fly."""

from torch_ao_ext.nn.quantized.dynamic.modules import (
    GRU,
    LSTM,
    DynamicQuant,
    Linear,
    MultiheadAttention,
    TransformerEncoder,
    TransformerEncoderLayer,
)

__all__ = [
    "DynamicQuant",
    "GRU",
    "LSTM",
    "Linear",
    "MultiheadAttention",
    "TransformerEncoder",
    "TransformerEncoderLayer",
]
