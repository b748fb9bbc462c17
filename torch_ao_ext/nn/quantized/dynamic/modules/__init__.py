"""One file per module family."""

from torch_ao_ext.nn.quantized.dynamic.modules.activation import MultiheadAttention
from torch_ao_ext.nn.quantized.dynamic.modules.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
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
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
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
