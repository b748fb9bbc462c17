"""Whole sequences and single steps through LSTM, GRU and RNN layers in int8 arithmetic."""

import torch

from torch_ao_ext.ops import _fake

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


def _count(op, name, values, allowed):
    wanted = " or ".join(str(n) for n in allowed)
    _fake.check_value(len(values) in allowed, op, name, f"have {wanted} tensors", len(values))


# Names in messages: a list has one for all its tensors, a cell one for each argument.
_LISTS = (("weights",), ("weight_scales",), ("biases",))
_CELL = (("weight_ih", "weight_hh"), ("weight_ih_scale", "weight_hh_scale"), ("bias_ih", "bias_hh"))


def _check_weights(op, gates, weights, scales, biases, num_layers, bidirectional, quant, names=_LISTS):
    """The checks that need no values; (cells, H, R)."""
    ok = 1 <= num_layers <= 1 << 20
    _fake.check_value(ok, op, "num_layers", "be in [1, 1048576]", num_layers)
    cells = num_layers * (2 if bidirectional else 1)
    _count(op, "weights", weights, (2 * cells, 3 * cells) if gates == 4 else (2 * cells,))
    rule = f"have as many tensors as weights ({len(weights)})"
    _fake.check_value(len(scales) == len(weights), op, "weight_scales", rule, len(scales))
    _count(op, "biases", biases, (0, 2 * cells))
    per_row, reduce_range = quant
    _fake.check_value(not (per_row and reduce_range), op, "reduce_range", "be False with per_row", "True")
    for i, weight in enumerate(weights):
        name = names[0][i % len(names[0])]
        dtypes = (torch.int8, torch.int16, torch.bfloat16) if per_row else (torch.int8,)
        _fake.check_tensor(op, name, weight, dtypes)
        _fake.check_rank(op, name, weight, 2)
    for i, scale in enumerate(scales):
        _fake.check_tensor(op, names[1][i % len(names[1])], scale, (torch.float32,))
    for i, bias in enumerate(biases):
        _fake.check_tensor(op, names[2][i % len(names[2])], bias, (torch.float32,))
    rows = weights[0].shape[0]
    rule = f"have size(0) divisible by {gates} and above 0"
    _fake.check_value(rows >= gates and rows % gates == 0, op, names[0][0], rule, rows)
    hidden = rows // gates
    return cells, hidden, weights[1].shape[1] if len(weights) == 3 * cells else hidden


def _sequence(op, gates, input, batch_sizes, states, weights, scales, biases, layers, both, *rule):
    cells, hidden, output = _check_weights(op, gates, weights, scales, biases, layers, both, rule)
    _fake.check_tensor(op, "input", input, _fake.FLOAT)
    _fake.check_rank(op, "input", input, 3 if batch_sizes is None else 2)
    _fake.check_size(op, "input", input, -1, weights[0].shape[1], "weights[0].size(1)")
    if batch_sizes is not None:
        _fake.check_tensor(op, "batch_sizes", batch_sizes, (torch.int64,))
        _fake.check_rank(op, "batch_sizes", batch_sizes, 1)
    given = [state for state in states if state is not None]
    if batch_sizes is None:
        batch = input.shape[1]
    elif given:
        batch = given[0].shape[1]
    else:
        # The first count: a value, known when the graph runs.
        batch = torch.library.get_ctx().new_dynamic_size()
    for name, state, size in zip(("h0", "c0"), states, (output, hidden), strict=False):
        if state is not None:
            _fake.check_tensor(op, name, state, _fake.FLOAT)
            _fake.check_same_sizes(op, name, state, [cells, batch, size], "the state")
    y = input.new_empty([*input.shape[:-1], output * (2 if both else 1)])
    return y, input.new_empty([cells, batch, output]), input.new_empty([cells, batch, hidden])


@torch.library.register_fake("torch_ao::lstm")
def _(input, batch_sizes, h0, c0, weights, weight_scales, biases, num_layers=1, bidirectional=False,
      per_row=True, reduce_range=False):  # fmt: skip
    return _sequence(
        "lstm", 4, input, batch_sizes, (h0, c0), weights, weight_scales, biases, num_layers, bidirectional,
        per_row, reduce_range,
    )


@torch.library.register_fake("torch_ao::gru")
def _(input, batch_sizes, h0, weights, weight_scales, biases, num_layers=1, bidirectional=False,
      per_row=True, reduce_range=False):  # fmt: skip
    return _sequence(
        "gru", 3, input, batch_sizes, (h0,), weights, weight_scales, biases, num_layers, bidirectional,
        per_row, reduce_range,
    )[:2]


def _check_nonlinearity(op, nonlinearity):
    ok = nonlinearity in ("tanh", "relu")
    _fake.check_value(ok, op, "nonlinearity", "be 'tanh' or 'relu'", f"'{nonlinearity}'")


@torch.library.register_fake("torch_ao::rnn")
def _(
    input, batch_sizes, h0, weights, weight_scales, biases,
    num_layers=1, bidirectional=False, nonlinearity="tanh", per_row=True, reduce_range=False,
):  # fmt: skip
    _check_nonlinearity("rnn", nonlinearity)
    return _sequence(
        "rnn", 1, input, batch_sizes, (h0,), weights, weight_scales, biases, num_layers, bidirectional,
        per_row, reduce_range,
    )[:2]


def _step(op, gates, input, states, w_ih, s_ih, w_hh, s_hh, b_ih, b_hh, *rule):
    _fake.check_tensor(op, "input", input, _fake.FLOAT)
    _fake.check_rank(op, "input", input, 2)
    given = "None" if b_hh is None else "a tensor"
    both = (b_ih is None) == (b_hh is None)
    _fake.check_value(both, op, "bias_hh", "be given with bias_ih, or both None", given)
    biases = [] if b_ih is None else [b_ih, b_hh]
    _, hidden, _ = _check_weights(op, gates, [w_ih, w_hh], [s_ih, s_hh], biases, 1, False, rule, _CELL)
    _fake.check_size(op, "input", input, -1, w_ih.shape[1], "weight_ih.size(1)")
    for name, state in zip(("h", "c"), states, strict=False):
        if state is not None:
            _fake.check_tensor(op, name, state, _fake.FLOAT)
            _fake.check_same_sizes(op, name, state, [input.shape[0], hidden], "the state")
    return input.new_empty([input.shape[0], hidden])


@torch.library.register_fake("torch_ao::lstm_cell")
def _(
    input, h, c, weight_ih, weight_ih_scale, weight_hh, weight_hh_scale, bias_ih=None, bias_hh=None,
    per_row=True, reduce_range=False,
):  # fmt: skip
    args = (weight_ih, weight_ih_scale, weight_hh, weight_hh_scale, bias_ih, bias_hh, per_row, reduce_range)
    state = _step("lstm_cell", 4, input, (h, c), *args)
    return state, torch.empty_like(state)


@torch.library.register_fake("torch_ao::gru_cell")
def _(input, h, weight_ih, weight_ih_scale, weight_hh, weight_hh_scale, bias_ih=None, bias_hh=None,
      per_row=True, reduce_range=False):  # fmt: skip
    args = (weight_ih, weight_ih_scale, weight_hh, weight_hh_scale, bias_ih, bias_hh, per_row, reduce_range)
    return _step("gru_cell", 3, input, (h,), *args)


@torch.library.register_fake("torch_ao::rnn_cell")
def _(
    input, h, weight_ih, weight_ih_scale, weight_hh, weight_hh_scale,
    bias_ih=None, bias_hh=None, nonlinearity="tanh", per_row=True, reduce_range=False,
):  # fmt: skip
    _check_nonlinearity("rnn_cell", nonlinearity)
    args = (weight_ih, weight_ih_scale, weight_hh, weight_hh_scale, bias_ih, bias_hh, per_row, reduce_range)
    return _step("rnn_cell", 1, input, (h,), *args)
