"""Whole sequences and single steps through LSTM, GRU and RNN layers in int8 arithmetic."""

import torch

from torch_ao_ext.ops import _fake_rnn  # noqa: F401  (registers the fake kernels)

__all__ = ["gru", "gru_cell", "lstm", "lstm_cell", "rnn", "rnn_cell"]

Tensor = torch.Tensor


def lstm(
    input: Tensor,
    batch_sizes: Tensor | None,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: list[Tensor],
    weight_scales: list[Tensor],
    biases: list[Tensor],
    num_layers: int = 1,
    bidirectional: bool = False,
    per_row: bool = True,
    reduce_range: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes c = f c + i g, h = o tanh(c) over all steps, layers and directions.

    Rows of the input are quantized with a scale and zero point each, rows of h with a scale
    max|h| / 127 at each step, or by torch.ao's rule (`per_row`). Every rounding is in
    csrc/engines/rnn.h. Of the outputs and final states of 96 small LSTMs (test/ops/test_rnn.py) the
    largest and the mean relative error against float is 1.4 % and 0.6 % with int8 weights, the same
    with int8 and int16 ones by size (`MixedWeightObserver`), 1.1 % and 0.5 % with int16 ones, 6.1 %
    and 1.5 % by torch.ao's rule with 7 bits.

    Args:
        input: `[T, N, K]`, float32 or bfloat16; with batch_sizes `[rows, K]`.
        batch_sizes: int64 `[T]`, as in PackedSequence; None for equal lengths.
        h0: `[layers * directions, N, R]` or None (zeros).
        c0: `[layers * directions, N, H]` or None.
        weights: int8 and int16 (at most 32639), or all bfloat16: W_ih `[4H, K]`, W_hh
            `[4H, R]`, with a projection W_hr `[R, H]`, for each layer and direction in torch's
            order. Packed at first use, 16 bits in two int8 parts. Of int16 the second part of
            W_hh is multiplied at each second step of a row in the first layer, and those of W_hh and
            W_ih at each eighth behind it; products are kept in between. W_hh beside an int16 W_ih
            takes the time of int16.
        weight_scales: float32 `[1]` or `[rows]` for each weight; the real weight is scale
            times weight.
        biases: float32 b_ih, b_hh `[4H]` for each layer and direction, or an empty list.
        num_layers: layers.
        bidirectional: two directions.
        per_row: False quantizes as torch.ao does: x of all steps with one scale and zero point, h of
            all rows of a step with one (ATen's ChooseQuantizationParams); weights are int8 then. A row
            depends on the others, and a NaN reaches all. The results are torch.ao's up to float
            rounding (biases are added in another order), where that does not move an integer.
        reduce_range: 0..127 instead of 0..255, without per_row. torch.ao's modules have it.

    Returns:
        Output `[T, N, directions * R]` (packed: `[rows, ...]`), h_n and c_n, input's dtype.

    Raises:
        TypeError: a tensor of the wrong dtype or layout.
        ValueError: counts or sizes that do not fit, a bad scale, reduce_range with per_row.

    Source: Hochreiter and Schmidhuber 1997; gate order of torch.nn.LSTM.

    Example:
        >>> import torch, torch_ao_ext
        >>> w = [torch.ones(8, 3, dtype=torch.int8), torch.ones(8, 2, dtype=torch.int8)]
        >>> s = [torch.tensor([0.01])] * 2
        >>> torch_ao_ext.ops.lstm(torch.ones(5, 1, 3), None, None, None, w, s, [])[0].shape
        torch.Size([5, 1, 2])
    """
    return torch.ops.torch_ao.lstm(
        input, batch_sizes, h0, c0, weights, weight_scales, biases, num_layers, bidirectional,
        per_row, reduce_range,
    )  # fmt: skip


def gru(
    input: Tensor,
    batch_sizes: Tensor | None,
    h0: Tensor | None,
    weights: list[Tensor],
    weight_scales: list[Tensor],
    biases: list[Tensor],
    num_layers: int = 1,
    bidirectional: bool = False,
    per_row: bool = True,
    reduce_range: bool = False,
) -> tuple[Tensor, Tensor]:
    """Computes h = n + z (h - n), n = tanh(x_n + r h_n), over all steps; arguments as in `lstm`."""
    return torch.ops.torch_ao.gru(
        input, batch_sizes, h0, weights, weight_scales, biases, num_layers, bidirectional,
        per_row, reduce_range,
    )  # fmt: skip


def rnn(
    input: Tensor,
    batch_sizes: Tensor | None,
    h0: Tensor | None,
    weights: list[Tensor],
    weight_scales: list[Tensor],
    biases: list[Tensor],
    num_layers: int = 1,
    bidirectional: bool = False,
    nonlinearity: str = "tanh",
    per_row: bool = True,
    reduce_range: bool = False,
) -> tuple[Tensor, Tensor]:
    """Computes h = tanh(W x + U h + b), or relu, over all steps; arguments as in `lstm`."""
    return torch.ops.torch_ao.rnn(
        input, batch_sizes, h0, weights, weight_scales, biases, num_layers, bidirectional, nonlinearity,
        per_row, reduce_range,
    )  # fmt: skip


def lstm_cell(
    input: Tensor,
    h: Tensor | None,
    c: Tensor | None,
    weight_ih: Tensor,
    weight_ih_scale: Tensor,
    weight_hh: Tensor,
    weight_hh_scale: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    per_row: bool = True,
    reduce_range: bool = False,
) -> tuple[Tensor, Tensor]:
    """One step of `lstm`: input `[N, K]`, h and c `[N, H]`."""
    return torch.ops.torch_ao.lstm_cell(
        input, h, c, weight_ih, weight_ih_scale, weight_hh, weight_hh_scale, bias_ih, bias_hh,
        per_row, reduce_range,
    )  # fmt: skip


def gru_cell(
    input: Tensor,
    h: Tensor | None,
    weight_ih: Tensor,
    weight_ih_scale: Tensor,
    weight_hh: Tensor,
    weight_hh_scale: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    per_row: bool = True,
    reduce_range: bool = False,
) -> Tensor:
    """One step of `gru`: input `[N, K]`, h `[N, H]`."""
    return torch.ops.torch_ao.gru_cell(
        input, h, weight_ih, weight_ih_scale, weight_hh, weight_hh_scale, bias_ih, bias_hh,
        per_row, reduce_range,
    )  # fmt: skip


def rnn_cell(
    input: Tensor,
    h: Tensor | None,
    weight_ih: Tensor,
    weight_ih_scale: Tensor,
    weight_hh: Tensor,
    weight_hh_scale: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    nonlinearity: str = "tanh",
    per_row: bool = True,
    reduce_range: bool = False,
) -> Tensor:
    """One step of `rnn`: input `[N, K]`, h `[N, H]`."""
    return torch.ops.torch_ao.rnn_cell(
        input, h, weight_ih, weight_ih_scale, weight_hh, weight_hh_scale, bias_ih, bias_hh, nonlinearity,
        per_row, reduce_range,
    )  # fmt: skip
