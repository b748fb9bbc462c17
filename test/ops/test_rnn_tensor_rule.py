"""Recurrent ops without per_row (torch.ao's rule): engines equal each other, any thread count, errors."""

import functools

import pytest
import rnn_layers
import torch
from rnn_layers import KINDS, make, quantized_side
from torch.nn.utils.rnn import pack_padded_sequence

from torch_ao_ext import ops

run = functools.partial(rnn_layers.run, per_row=False, reduce_range=True)


def states_of(kind, layer, batch):
    cells = layer.num_layers * (1 + layer.bidirectional)
    width = getattr(layer, "proj_size", 0) or layer.hidden_size
    h0, c0 = torch.randn(cells, batch, width), torch.randn(cells, batch, layer.hidden_size)
    return (h0, c0) if kind == "lstm" else (h0,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduce_range", [False, True])
def test_random_cases_are_equal_on_both_engines(kind, reduce_range):
    rng = torch.Generator().manual_seed(8)
    torch.manual_seed(8)

    def pick(*choices):
        return choices[int(torch.randint(len(choices), (1,), generator=rng))]

    for _ in range(40):
        projection = pick(0, 1, 5) if kind == "lstm" else 0
        layer = make(
            kind, pick(1, 3, 64, 70), pick(6, 16, 17, 65, 80), pick(1, 2), bidirectional=pick(False, True),
            **({"proj_size": projection} if projection else {}),
        )  # fmt: skip
        side, batch = quantized_side(layer), pick(1, 2, 7, 13, 50)
        x = torch.randn(pick(1, 2, 5, 11), batch, layer.input_size).to(pick(torch.float32, torch.bfloat16))
        if pick(0, 0, 1):
            x[-1, 0, 0] = pick(float("nan"), float("inf"))
        states, sizes = pick((), states_of(kind, layer, batch)), None
        if kind == "lstm" and states and pick(0, 0, 1):
            states[1][0, -1, 0] = float("nan")
        if pick(False, True):
            lengths = torch.randint(1, len(x) + 1, (batch,), generator=rng).sort(descending=True).values
            packed = pack_padded_sequence(x.float(), lengths)
            x, sizes = packed.data.to(x.dtype), packed.batch_sizes
        results = []
        for engine in ("native", "reference"):
            torch.ops.torch_ao._set_engine(engine)
            try:
                fresh = [t.clone() for t in side[0]], *side[1:]
                results.append(run(kind, layer, fresh, x, states, sizes, reduce_range=reduce_range))
            finally:
                torch.ops.torch_ao._set_engine("")
        for a, b in zip(*results, strict=True):
            assert torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_of_several_chunks(kind):
    """More steps than one GEMM of the input takes (2 MB of its results, rnn.cpp), whole and packed."""
    torch.manual_seed(7)
    layer = make(kind, 20, 130, bidirectional=True, **({"proj_size": 40} if kind == "lstm" else {}))
    side, x = quantized_side(layer), torch.randn(45, 64, 20)
    packed = pack_padded_sequence(x, torch.randint(1, 46, (64,)), enforce_sorted=False)
    for data, sizes in ((x, None), (packed.data, packed.batch_sizes)):
        results = []
        for engine in ("native", "reference"):
            torch.ops.torch_ao._set_engine(engine)
            try:
                fresh = [t.clone() for t in side[0]], *side[1:]
                results.append(run(kind, layer, fresh, data, (), sizes))
            finally:
                torch.ops.torch_ao._set_engine("")
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_one_scale_and_zero_point_for_all_rows(kind):
    """A row's result depends on the others', unlike with per_row; a NaN of x reaches all of them."""
    torch.manual_seed(9)
    layer, x = make(kind, 12, 40), torch.randn(6, 3, 12)
    side = quantized_side(layer)
    alone, y = run(kind, layer, side, x[:, :1].contiguous())[0], run(kind, layer, side, x)[0]
    assert not torch.equal(alone, y[:, :1]) and (alone - y[:, :1]).norm() < 0.05 * alone.norm()
    x[4, 2, 0] = float("nan")
    assert run(kind, layer, side, x)[0].isnan().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("both", [False, True])
def test_threads_do_not_change_the_result(kind, both, on_threads):
    torch.manual_seed(1)
    layer = make(kind, 64, 300, bidirectional=both)
    side, x = quantized_side(layer), torch.randn(12, 8, 64)
    on_threads(lambda: tuple(run(kind, layer, side, x)))


@pytest.mark.parametrize("kind", KINDS)
def test_cells_are_one_step_of_the_sequence(kind):
    torch.manual_seed(2)
    layer, x = make(kind, 20, 32), torch.randn(3, 20)
    (w_ih, w_hh), (s_ih, s_hh), biases = quantized_side(layer)
    states, flat = [s[0] for s in states_of(kind, layer, 3)], (w_ih, s_ih, w_hh, s_hh, *biases)
    name, more = ("rnn_cell", (kind,)) if kind in ("tanh", "relu") else (f"{kind}_cell", ())
    got = getattr(ops, name)(x, *states, *flat, *more, per_row=False, reduce_range=True)
    got = got if isinstance(got, tuple) else (got,)
    want = run(kind, layer, ([w_ih, w_hh], [s_ih, s_hh], biases), x[None], [s[None] for s in states])[1:]
    assert all(torch.equal(a, b[0]) for a, b in zip(got, want, strict=True))
    rows = getattr(ops, name)(x, *states, *flat, *more)
    assert not torch.equal(rows[0] if kind == "lstm" else rows, got[0])


def test_rules_and_weights_that_do_not_exist():
    layer, x = make("gru", 8, 24), torch.randn(2, 3, 8)
    weights, scales, biases = quantized_side(layer, torch.int16)
    with pytest.raises(TypeError, match="gru: argument 'weights' must have dtype int8"):
        torch.ops.torch_ao.gru(x, None, None, weights, scales, biases, 1, False, False, True)
    weights, scales, biases = quantized_side(layer)
    with pytest.raises(ValueError, match="gru: argument 'reduce_range' must be False with per_row, got True"):
        torch.ops.torch_ao.gru(x, None, None, weights, scales, biases, 1, False, True, True)
    with pytest.raises(ValueError, match="_prepack_rnn: argument 'reduce_range' must be False with per_row"):
        torch.ops.torch_ao._prepack_rnn("gru", weights, scales, biases, reduce_range=True)
