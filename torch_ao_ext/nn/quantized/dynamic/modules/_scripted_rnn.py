"""Forwards of LSTM, GRU and RNN in TorchScript."""

import torch

from torch_ao_ext.nn.quantized.dynamic.modules._recurrent import Recurrent

__all__ = ["ScriptedRecurrent"]


class ScriptedRecurrent(Recurrent):
    """What torch.jit.script compiles of a recurrent layer; PackedSequences are not in scripts."""

    def _scripted_side(self) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
        """Weights, scales and biases: the compiler unrolls the loop; buffers are in the operators' order."""
        weights: list[torch.Tensor] = []
        scales: list[torch.Tensor] = []
        biases: list[torch.Tensor] = []
        for name, value in self.named_buffers():
            if name.endswith("_scale"):
                scales.append(value)
            elif name.startswith("weight_"):
                weights.append(value)
            elif name.startswith("bias_"):
                biases.append(value)
        return weights, scales, biases

    def _steps_first(self, input: torch.Tensor) -> torch.Tensor:
        """`[T, N, K]` of a tensor as forward takes it."""
        if input.dim() == 2:
            return input.unsqueeze(1)
        return input.transpose(0, 1) if self.batch_first else input

    def _batched(self, hx: torch.Tensor | None, single: bool) -> torch.Tensor | None:
        """`[layers and directions, N, R]` of a state."""
        if hx is not None and single:
            return hx.unsqueeze(1)
        return hx

    def _as_given(self, output: torch.Tensor, single: bool) -> torch.Tensor:
        if single:
            return output.squeeze(1)
        return output.transpose(0, 1) if self.batch_first else output

    def _scripted_lstm(
        self, input: torch.Tensor, hx: tuple[torch.Tensor, torch.Tensor] | None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        single = input.dim() == 2
        weights, scales, biases = self._scripted_side()
        h: torch.Tensor | None = None
        c: torch.Tensor | None = None
        if hx is not None:
            h, c = (hx[0].unsqueeze(1), hx[1].unsqueeze(1)) if single else hx
        y, h_n, c_n = torch.ops.torch_ao.lstm(
            self._steps_first(input), None, h, c, weights, scales, biases, self.num_layers,
            self.bidirectional, self.per_row, self.reduce_range,
        )  # fmt: skip
        if single:
            h_n, c_n = h_n.squeeze(1), c_n.squeeze(1)
        return self._as_given(y, single), (h_n, c_n)

    def _scripted_gru(
        self, input: torch.Tensor, hx: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        single = input.dim() == 2
        weights, scales, biases = self._scripted_side()
        h = self._batched(hx, single)
        y, h_n = torch.ops.torch_ao.gru(
            self._steps_first(input), None, h, weights, scales, biases, self.num_layers,
            self.bidirectional, self.per_row, self.reduce_range,
        )  # fmt: skip
        return self._as_given(y, single), h_n.squeeze(1) if single else h_n

    def _scripted_rnn(
        self, input: torch.Tensor, hx: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        single = input.dim() == 2
        weights, scales, biases = self._scripted_side()
        h = self._batched(hx, single)
        y, h_n = torch.ops.torch_ao.rnn(
            self._steps_first(input), None, h, weights, scales, biases, self.num_layers,
            self.bidirectional, self.nonlinearity, self.per_row, self.reduce_range,
        )  # fmt: skip
        return self._as_given(y, single), h_n.squeeze(1) if single else h_n
