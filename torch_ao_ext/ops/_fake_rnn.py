"""Fake kernels of the recurrent layers and cells (csrc/ops/rnn_common.cpp)."""

import torch

from torch_ao_ext.ops import _fake

Tensor = torch.Tensor


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
