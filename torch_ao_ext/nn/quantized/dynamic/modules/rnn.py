"""LSTM, GRU and RNN with int8, int16 or bfloat16 weights; x and h are quantized inside the operator."""

from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from torch_ao_ext.nn.quantized._observed import INT8
from torch_ao_ext.nn.quantized.dynamic.modules._packed_parameter import PackedParameter, pack_weight_bias
from torch_ao_ext.nn.quantized.dynamic.modules._recurrent import check_nonlinearity, check_rule
from torch_ao_ext.nn.quantized.dynamic.modules._recurrent_weights import stored_dtype
from torch_ao_ext.nn.quantized.dynamic.modules._scripted_rnn import ScriptedRecurrent
from torch_ao_ext.nn.quantized.dynamic.modules.rnn_cells import (
    GRUCell,
    LSTMCell,
    RNNCell,
    RNNCellBase,
)

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "PackedParameter",
    "RNNBase",
    "RNNCell",
    "RNNCellBase",
    "apply_permutation",
    "pack_weight_bias",
]


def apply_permutation(tensor: torch.Tensor, permutation: torch.Tensor, dim: int = 1) -> torch.Tensor:
    """The slices of a tensor along dim in another order, as PackedSequence sorts sequences.

    Args:
        tensor: any.
        permutation: int64, indices along dim.
        dim: of the sequences.
    """
    return tensor.index_select(dim, permutation)


class RNNBase(ScriptedRecurrent):
    """Buffers of torch.nn.RNNBase's names: `weight_*`, float32 `weight_*_scale`, `bias_*`.

    Args:
        mode: "LSTM", "GRU", "RNN_TANH" or "RNN_RELU".
        input_size: K.
        hidden_size: H.
        num_layers: layers.
        bias: with biases.
        batch_first: `[N, T, K]` instead of `[T, N, K]`.
        dropout: kept for the repr; inference only.
        bidirectional: two directions.
        dtype: of the weights, torch.qint8, int8, int16 or bfloat16.
        proj_size: R of an LSTM's projection, 0 for none.
        per_row: rows of x and h have a scale each, at every step; False: torch.ao's rule with int8 weights,
            `ops.lstm`.
        reduce_range: 7 bits, without per_row; torch.ao's modules have it.
    """

    _GATES = 4
    _MORE = ("num_layers", "batch_first", "dropout", "bidirectional")

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: torch.dtype = INT8[-1],
        proj_size: int = 0,
        per_row: bool = True,
        reduce_range: bool = False,
    ) -> None:
        super().__init__()
        stored = stored_dtype(type(self).__name__, dtype)
        check_rule(type(self).__name__, stored, per_row, reduce_range)
        self.mode, self.input_size, self.hidden_size = mode, input_size, hidden_size
        self.num_layers, self.bias, self.batch_first = num_layers, bias, batch_first
        self.dropout, self.bidirectional, self.proj_size = float(dropout), bidirectional, proj_size
        output = proj_size or hidden_size
        rows = self._GATES * hidden_size
        for layer in range(num_layers):
            k = input_size if layer == 0 else output * (1 + bidirectional)
            for end in self._ends(layer):
                sizes = {"weight_ih": (rows, k), "weight_hh": (rows, output)}
                if proj_size:
                    sizes["weight_hr"] = (output, hidden_size)
                for name, size in sizes.items():
                    self.register_buffer(name + end, torch.zeros(size, dtype=stored))
                    self.register_buffer(f"{name}{end}_scale", torch.ones(size[0]))
                for name in ("bias_ih", "bias_hh") if bias else ():
                    self.register_buffer(name + end, torch.zeros(rows))
        self.register_buffer("format_version", torch.tensor(self._FORMAT_VERSION))
        self._set_rule(per_row, reduce_range)
        self.eval()

    def _ends(self, layer: int) -> list[str]:
        return [f"_l{layer}{end}" for end in ("", "_reverse")[: 1 + self.bidirectional]]

    def _side(self) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
        weights, scales, biases = [], [], []
        names = ("weight_ih", "weight_hh", "weight_hr")[: 2 + (self.proj_size > 0)]
        for layer in range(self.num_layers):
            for end in self._ends(layer):
                weights += [self._buffers[name + end] for name in names]
                scales += [self._buffers[f"{name}{end}_scale"] for name in names]
                if self.bias:
                    biases += [self._buffers["bias_ih" + end], self._buffers["bias_hh" + end]]
        return weights, scales, biases

    def prepack(self, dtype: torch.dtype = torch.float32) -> None:
        """Packs the weights now instead of at the first call, for inputs of this dtype."""
        kind = self.mode.removeprefix("RNN_").lower()
        torch.ops.torch_ao._prepack_rnn(
            kind, *self._side(), self.num_layers, self.bidirectional, dtype, self.per_row, self.reduce_range
        )

    def train(self, mode: bool = True) -> "RNNBase":
        """Inference only: dropout between layers has no meaning here."""
        if mode and self.dropout > 0:
            raise ValueError(
                f"{type(self).__name__}: training mode with dropout {self.dropout} is not supported: "
                "int8 layers are for inference; call eval()"
            )
        return super().train(mode)

    def _run(self, x: torch.Tensor, sizes: torch.Tensor | None, states: tuple) -> tuple:
        raise NotImplementedError

    def _eager(self, input: Any, hx: Any) -> Any:
        """Output and final states, as the float layer returns them."""
        states = (None,) * self._STATES if hx is None else (hx if self._STATES == 2 else (hx,))
        if isinstance(input, PackedSequence):
            data, sizes, order, back = input
            if order is not None:
                states = tuple(None if s is None else s.index_select(1, order) for s in states)
            y, *ends = self._run(data, sizes, states)
            if back is not None:
                ends = [s.index_select(1, back) for s in ends]
            result: Any = PackedSequence(y, sizes, order, back)
        else:
            single = input.dim() == 2
            if single:
                states = tuple(None if s is None else s.unsqueeze(1) for s in states)
            result, *ends = self._run(self._steps_first(input), None, states)
            result = self._as_given(result, single)
            ends = [s.squeeze(1) for s in ends] if single else ends
        return result, (tuple(ends) if self._STATES == 2 else ends[0])

    def extra_repr(self) -> str:
        """Sizes, as print(model) shows them."""
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, bias={self.bias}, "
            f"batch_first={self.batch_first}, bidirectional={self.bidirectional}, "
            f"proj_size={self.proj_size}{self._rule_text()}"
        )


class LSTM(RNNBase):
    """torch.nn.LSTM with int8 weights, one operator a call.

    Example:
        >>> import torch, torch_ao_ext
        >>> layer = torch_ao_ext.nn.quantized.dynamic.LSTM(8, 16, 2)
        >>> layer(torch.randn(5, 3, 8))[0].shape
        torch.Size([5, 3, 16])
    """

    _STATES = 2
    _MORE = (*RNNBase._MORE, "proj_size")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)

    def _run(self, x: torch.Tensor, sizes: torch.Tensor | None, states: tuple) -> tuple:
        return torch.ops.torch_ao.lstm(
            x, sizes, *states, *self._side(), self.num_layers, self.bidirectional,
            self.per_row, self.reduce_range,
        )  # fmt: skip

    def forward(
        self, input: torch.Tensor, hx: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Output and final states, as the float layer returns them; PackedSequences not in scripts."""
        if not torch.jit.is_scripting():
            return self._eager(input, hx)
        return self._scripted_lstm(input, hx)

    def _get_name(self) -> str:
        return "DynamicQuantizedLSTM"


class GRU(RNNBase):
    """torch.nn.GRU with int8 weights, one operator a call."""

    _STATES = 1
    _GATES = 3

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("GRU", *args, **kwargs)

    def _run(self, x: torch.Tensor, sizes: torch.Tensor | None, states: tuple) -> tuple:
        return torch.ops.torch_ao.gru(
            x, sizes, *states, *self._side(), self.num_layers, self.bidirectional,
            self.per_row, self.reduce_range,
        )  # fmt: skip

    def forward(
        self, input: torch.Tensor, hx: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Output and final states, as the float layer returns them; PackedSequences not in scripts."""
        if not torch.jit.is_scripting():
            return self._eager(input, hx)
        return self._scripted_gru(input, hx)

    def _get_name(self) -> str:
        return "DynamicQuantizedGRU"


class RNN(RNNBase):
    """torch.nn.RNN with int8 weights, one operator a call.

    Args:
        input_size: K.
        hidden_size: H.
        num_layers: layers.
        nonlinearity: "tanh" or "relu".
        kwargs: further arguments of RNNBase.
    """

    _STATES = 1
    _GATES = 1
    _MORE = (*RNNBase._MORE, "nonlinearity")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        **kwargs: Any,
    ) -> None:
        check_nonlinearity("RNN", nonlinearity)
        mode = f"RNN_{nonlinearity.upper()}"
        super().__init__(mode, input_size, hidden_size, num_layers, **kwargs)
        self.nonlinearity = nonlinearity

    def _run(self, x: torch.Tensor, sizes: torch.Tensor | None, states: tuple) -> tuple:
        return torch.ops.torch_ao.rnn(
            x, sizes, *states, *self._side(), self.num_layers, self.bidirectional,
            self.nonlinearity, self.per_row, self.reduce_range,
        )  # fmt: skip

    def forward(
        self, input: torch.Tensor, hx: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Output and final states, as the float layer returns them; PackedSequences not in scripts."""
        if not torch.jit.is_scripting():
            return self._eager(input, hx)
        return self._scripted_rnn(input, hx)

    def _get_name(self) -> str:
        return "DynamicQuantizedRNN"
