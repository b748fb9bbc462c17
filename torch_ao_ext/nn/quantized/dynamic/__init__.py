"""Modules with int8 weights whose float inputs are quantized on the fly."""

from torch_ao_ext.nn.quantized.dynamic.modules import (
    GRU,
    LSTM,
    RNN,
    DynamicQuant,
    GRUCell,
    Linear,
    LSTMCell,
    MultiheadAttention,
    RNNBase,
    RNNCell,
    RNNCellBase,
    TransformerEncoder,
    TransformerEncoderLayer,
)

__all__ = [
    "DynamicQuant",
    "GRU",
    "GRUCell",
    "LSTM",
    "LSTMCell",
    "Linear",
    "MultiheadAttention",
    "RNN",
    "RNNBase",
    "RNNCell",
    "RNNCellBase",
    "TransformerEncoder",
    "TransformerEncoderLayer",
]
