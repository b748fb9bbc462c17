"""Float modules that can be observed inside, in the places of torch's own."""

from torch_ao_ext.nn.quantizable.modules import LSTM, LSTMCell, MultiheadAttention

__all__ = ["LSTM", "LSTMCell", "MultiheadAttention"]
