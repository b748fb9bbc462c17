"""One file per module family."""

from torch_ao_ext.nn.quantized.dynamic.modules.activation import MultiheadAttention
from torch_ao_ext.nn.quantized.dynamic.modules.linear import DynamicQuant, Linear
from torch_ao_ext.nn.quantized.dynamic.modules.rnn import GRU, LSTM, RNN, RNNBase
from torch_ao_ext.nn.quantized.dynamic.modules.rnn_cells import (
    GRUCell,
    LSTMCell,
    RNNCell,
    RNNCellBase,
)
from torch_ao_ext.nn.quantized.dynamic.modules.transformer import (
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
