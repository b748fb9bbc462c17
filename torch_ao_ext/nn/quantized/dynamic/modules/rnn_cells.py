"""One step of an LSTM, GRU or RNN with int8, int16 or bfloat16 weights."""

import torch

from torch_ao_ext.nn.quantized._observed import INT8
from torch_ao_ext.nn.quantized.dynamic.modules._recurrent import (
    Recurrent,
    check_nonlinearity,
    check_rule,
)
from torch_ao_ext.nn.quantized.dynamic.modules._recurrent_weights import stored_dtype

__all__ = ["GRUCell", "LSTMCell", "RNNCell", "RNNCellBase"]

# The overloads, looked up once: attribute walks through torch.ops take time.
_lstm_cell = torch.ops.torch_ao.lstm_cell.default
_gru_cell = torch.ops.torch_ao.gru_cell.default
_rnn_cell = torch.ops.torch_ao.rnn_cell.default


class RNNCellBase(Recurrent):
    """Buffers of torch.nn.RNNCellBase's names: `weight_*`, float32 `weight_*_scale`, `bias_*`.

    Args:
        input_size: K.
        hidden_size: H.
        bias: with biases.
        dtype: of the weights, torch.qint8, int8, int16 or bfloat16.
        per_row: rows of x and h have a scale each; False: torch.ao's rule with int8 weights, `ops.lstm`.
        reduce_range: 7 bits, without per_row; torch.ao's modules have it.
    """

    _GATES = 1

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, dtype: torch.dtype = INT8[-1],
        per_row: bool = True, reduce_range: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        stored = stored_dtype(type(self).__name__, dtype)
        check_rule(type(self).__name__, stored, per_row, reduce_range)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        rows = self._GATES * hidden_size
        for name, columns in (("weight_ih", input_size), ("weight_hh", hidden_size)):
            self.register_buffer(name, torch.zeros(rows, columns, dtype=stored))
            self.register_buffer(f"{name}_scale", torch.ones(rows))
        for name in ("bias_ih", "bias_hh"):
            self.register_buffer(name, torch.zeros(rows) if bias else None)
        self.register_buffer("format_version", torch.tensor(self._FORMAT_VERSION))
        self._set_rule(per_row, reduce_range)
        self.eval()

    def _side(self) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
        b = self._buffers
        biases = [b["bias_ih"], b["bias_hh"]] if self.bias else []
        scales = [b["weight_ih_scale"], b["weight_hh_scale"]]
        return [b["weight_ih"], b["weight_hh"]], scales, biases

    def _kind(self) -> str:
        raise NotImplementedError

    def prepack(self, dtype: torch.dtype = torch.float32) -> None:
        """Packs the weights now instead of at the first call, for inputs of this dtype."""
        torch.ops.torch_ao._prepack_rnn(
            self._kind(), *self._side(), 1, False, dtype, self.per_row, self.reduce_range
        )

    def _arguments(self) -> tuple:
        # The buffer dict: nn.Module.__getattr__ costs 0.3 us a name.
        b = self._buffers
        return (
            b["weight_ih"], b["weight_ih_scale"], b["weight_hh"], b["weight_hh_scale"],
            b["bias_ih"], b["bias_hh"],
        )  # fmt: skip

    def extra_repr(self) -> str:
        """Sizes, as print(model) shows them."""
        return f"{self.input_size}, {self.hidden_size}, bias={self.bias}{self._rule_text()}"

    def _get_name(self) -> str:
        return f"DynamicQuantized{type(self).__name__}"


def _batched(x: torch.Tensor | None, single: bool) -> torch.Tensor | None:
    return x.unsqueeze(0) if single and x is not None else x


class LSTMCell(RNNCellBase):
    """torch.nn.LSTMCell with int8 weights.

    Example:
        >>> import torch, torch_ao_ext
        >>> cell = torch_ao_ext.nn.quantized.dynamic.LSTMCell(8, 16)
        >>> h, c = cell(torch.randn(3, 8))
        >>> h.shape
        torch.Size([3, 16])
    """

    _GATES = 4

    def _kind(self) -> str:
        return "lstm"

    def forward(
        self, input: torch.Tensor, hx: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`[N, K]` or `[K]` -> h and c `[N, H]` or `[H]`, input's dtype."""
        single = input.dim() == 1
        h: torch.Tensor | None = None
        c: torch.Tensor | None = None
        if hx is not None:
            h, c = hx
        x = input.unsqueeze(0) if single else input
        h, c = _batched(h, single), _batched(c, single)
        if torch.jit.is_scripting():
            h_n, c_n = torch.ops.torch_ao.lstm_cell(
                x, h, c, self.weight_ih, self.weight_ih_scale, self.weight_hh, self.weight_hh_scale,
                self.bias_ih, self.bias_hh, self.per_row, self.reduce_range,
            )  # fmt: skip
        else:
            h_n, c_n = _lstm_cell(x, h, c, *self._arguments(), self.per_row, self.reduce_range)
        return (h_n.squeeze(0), c_n.squeeze(0)) if single else (h_n, c_n)


class GRUCell(RNNCellBase):
    """torch.nn.GRUCell with int8 weights."""

    _GATES = 3

    def _kind(self) -> str:
        return "gru"

    def forward(self, input: torch.Tensor, hx: torch.Tensor | None = None) -> torch.Tensor:
        """`[N, K]` or `[K]` -> h `[N, H]` or `[H]`, input's dtype."""
        single = input.dim() == 1
        state = _batched(hx, single)
        x = input.unsqueeze(0) if single else input
        if torch.jit.is_scripting():
            h = torch.ops.torch_ao.gru_cell(
                x, state, self.weight_ih, self.weight_ih_scale, self.weight_hh, self.weight_hh_scale,
                self.bias_ih, self.bias_hh, self.per_row, self.reduce_range,
            )  # fmt: skip
        else:
            h = _gru_cell(x, state, *self._arguments(), self.per_row, self.reduce_range)
        return h.squeeze(0) if single else h


class RNNCell(RNNCellBase):
    """torch.nn.RNNCell with int8 weights.

    Args:
        input_size: K.
        hidden_size: H.
        bias: with biases.
        nonlinearity: "tanh" or "relu".
        dtype: of the weights, torch.qint8, int8, int16 or bfloat16.
        per_row: as in RNNCellBase.
        reduce_range: as in RNNCellBase.
    """

    _MORE = ("nonlinearity",)

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh",
        dtype: torch.dtype = INT8[-1], per_row: bool = True, reduce_range: bool = False,
    ) -> None:  # fmt: skip
        check_nonlinearity("RNNCell", nonlinearity)
        super().__init__(input_size, hidden_size, bias, dtype, per_row, reduce_range)
        self.nonlinearity = nonlinearity

    def _kind(self) -> str:
        return self.nonlinearity

    def forward(self, input: torch.Tensor, hx: torch.Tensor | None = None) -> torch.Tensor:
        """`[N, K]` or `[K]` -> h `[N, H]` or `[H]`, input's dtype."""
        single = input.dim() == 1
        state = _batched(hx, single)
        x = input.unsqueeze(0) if single else input
        if torch.jit.is_scripting():
            h = torch.ops.torch_ao.rnn_cell(
                x, state, self.weight_ih, self.weight_ih_scale, self.weight_hh, self.weight_hh_scale,
                self.bias_ih, self.bias_hh, self.nonlinearity, self.per_row, self.reduce_range,
            )  # fmt: skip
        else:
            more = self.nonlinearity, self.per_row, self.reduce_range
            h = _rnn_cell(x, state, *self._arguments(), *more)
        return h.squeeze(0) if single else h
