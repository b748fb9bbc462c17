"""Float modules that can be observed inside."""

from torch_ao_ext.nn.quantizable.modules.activation import MultiheadAttention
from torch_ao_ext.nn.quantizable.modules.rnn import LSTM, LSTMCell

__all__ = ["LSTM", "LSTMCell", "MultiheadAttention"]
