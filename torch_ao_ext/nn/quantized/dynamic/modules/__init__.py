"""One file per module family."""

from torch_ao_ext.nn.quantized.dynamic.modules.activation import MultiheadAttention
from torch_ao_ext.nn.quantized.dynamic.modules.linear import DynamicQuant, Linear
from torch_ao_ext.nn.quantized.dynamic.modules.rnn import GRU, LSTM
from torch_ao_ext.nn.quantized.dynamic.modules.transformer import (
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
