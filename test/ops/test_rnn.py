"""lstm, gru, rnn and cells: engines equal each other, close to the float layer, any thread count."""

import itertools
import warnings

import pytest
import torch
from op_samples import overload, rnn_samples
from rnn_layers import KINDS, make, quantized_side, run
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from torch_ao_ext import ops


@pytest.fixture
def on_engine():
    def call(name, *args, **rule):
        torch.ops.torch_ao._set_engine(name)
        try:
            return run(*args, **rule)
        finally:
            torch.ops.torch_ao._set_engine("")

    return call


GRID = list(itertools.product((1, 2, 3), (False, True), (0, 9), (False, True), (False, True), (False, True)))


BY_SIZE = "int8 and int16 by size"
# Dtype of the weights, rule, and what ops.lstm states: the largest and the mean relative error.
ERRORS = [
    (torch.int8, {}, 0.0142, 0.0066),
    (torch.int16, {}, 0.0113, 0.0054),
    (BY_SIZE, {}, 0.0142, 0.0064),
    (torch.int8, {"per_row": False, "reduce_range": True}, 0.061, 0.0151),
]


def dtypes_by_size(layer):
    """By MixedWeightObserver's rule for small layers with more inputs than half of the outputs."""
    parts, cells = 2 + (layer.proj_size > 0), 1 + layer.bidirectional
    first, behind = [torch.int8, *[torch.int16] * (parts - 1)], [torch.int16] * parts
    return first * cells + behind * cells * (layer.num_layers - 1)


@pytest.mark.parametrize(("dtype", "rule", "largest", "mean"), ERRORS)
def test_lstm_errors_are_those_stated_and_engines_equal(dtype, rule, largest, mean, on_engine):
    errors = []
    for layers, both, projection, bias, packed, hx in GRID:
        torch.manual_seed(layers)
        layer = make("lstm", 33, 40, layers, bias=bias, bidirectional=both, proj_size=projection)
        side = quantized_side(layer, dtypes_by_size(layer) if dtype == BY_SIZE else dtype)
        x, cells = torch.randn(9, 4, 33), layers * (1 + both)
        states = (torch.rand(cells, 4, projection or 40) - 0.5, torch.randn(cells, 4, 40)) if hx else ()
        sizes = None
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the float layer says that oneDNN has no projections
            if packed:
                x = pack_padded_sequence(x, [9, 7, 7, 1])
                expected, ends = layer(x, states or None)
                expected, sizes, x = expected.data, x.batch_sizes, x.data
            else:
                expected, ends = layer(x, states or None)
        args = ("lstm", layer, side, x, states, sizes)
        native, reference = (on_engine(e, *args, **rule) for e in ("native", "reference"))
        what = (layers, both, projection, bias, packed, hx)
        assert all(torch.equal(a, b) for a, b in zip(native, reference, strict=True)), what
        pairs = zip(native, (expected, *ends), strict=True)
        errors += [float((got - want).norm() / want.norm()) for got, want in pairs]
    average = sum(errors) / len(errors)
    assert max(errors) < largest and average < mean, (max(errors), average)


@pytest.mark.parametrize("kind", KINDS)
def test_random_cases_are_equal_on_both_engines(kind, on_engine):
    rng = torch.Generator().manual_seed(3)

    def pick(*choices):
        return choices[int(torch.randint(len(choices), (1,), generator=rng))]

    for _ in range(130):
        projection = pick(0, 1, 5) if kind == "lstm" else 0
        layer = make(
            kind, pick(1, 3, 64, 70), pick(6, 16, 17, 63, 65, 80), pick(1, 2),
            bidirectional=pick(False, True), **({"proj_size": projection} if projection else {}),
        )  # fmt: skip
        mixed = (torch.int8, torch.int16, torch.int8, torch.int8), (torch.int16, torch.int8, torch.int8)
        dtype = pick(torch.int8, torch.int16, torch.bfloat16, *mixed)
        side, batch = quantized_side(layer, dtype), pick(1, 2, 7, 13, 50)
        cells = layer.num_layers * (1 + layer.bidirectional)
        h0 = torch.randn(cells, batch, projection or layer.hidden_size) * pick(0.3, 3.0)
        states = (h0, torch.randn(cells, batch, layer.hidden_size)) if kind == "lstm" else (h0,)
        x = torch.randn(pick(1, 2, 5, 11), batch, layer.input_size).to(pick(torch.float32, torch.bfloat16))
        if pick(0, 0, 1):
            x[0, 0, 0] = pick(float("nan"), float("inf"))
        args = (kind, layer, side, x, states)
        native, reference = on_engine("native", *args), on_engine("reference", *args)
        for a, b in zip(native, reference, strict=True):
            assert a.dtype == x.dtype and torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_weights_have_sixteen_bits(kind):
    """Against the float layer of the same bfloat16 weights only rows of x and h are rounded."""
    torch.manual_seed(2)
    layer, x = make(kind, 40, 96, 2), torch.randn(30, 4, 40)
    error = []
    with torch.no_grad():
        for dtype in (torch.int8, torch.bfloat16):
            got = run(kind, layer, quantized_side(layer, dtype), x)[0]
            if dtype == torch.bfloat16:
                for p in layer.parameters():
                    if p.dim() == 2:
                        p.copy_(p.to(dtype))
            want = layer(x)[0]
            error.append(float((got - want).norm() / want.norm()))
    assert error[1] < 0.008 and error[1] < error[0]
    # One value in 16 bits: h = tanh or relu of a single product, exact but for the last bit.
    if kind == "relu":
        w = torch.tensor([[1.0, 0.0], [0.0039, 0.0]]).to(torch.bfloat16)
        side = ([w, torch.zeros_like(w)], [torch.ones(1)] * 2, [])
        y = ops.rnn(torch.tensor([[[1.0, 0.0]]]), None, None, *side, 1, False, "relu")[0]
        assert ((y[0, 0] - w[:, 0].float()).abs() / w[:, 0].float() < 2e-5).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("dtype", [torch.int8, torch.int16])
def test_threads_do_not_change_the_result(kind, batch, both, dtype, on_threads):
    torch.manual_seed(1)
    layer = make(kind, 64, 300, 2 if dtype == torch.int16 else 1, bidirectional=both)
    side, x = quantized_side(layer, dtype), torch.randn(12, batch, 64)
    on_threads(lambda: tuple(run(kind, layer, side, x)))


@pytest.mark.parametrize("kind", KINDS)
def test_int16_weights_are_more_exact_than_int8_ones(kind):
    """On an input that moves, and more so on one that stays."""
    torch.manual_seed(4)
    layer, moving = make(kind, 40, 96, 2), torch.randn(40, 4, 40)
    for x, most in ((moving, 1.0), (moving[:1].expand(40, -1, -1).contiguous(), 0.92)):
        with torch.no_grad():
            want = layer(x)[0]
            int8, int16 = [
                float((run(kind, layer, quantized_side(layer, dtype), x)[0] - want).norm())
                for dtype in (torch.int8, torch.int16)
            ]
        assert int16 < most * int8


def test_second_parts_of_int16_weights_are_renewed_at_each_second_or_eighth_step():
    """Weights in [-128, 127] have nothing but a second part."""
    w = torch.randint(1, 128, (2, 16, 16), generator=torch.Generator().manual_seed(6), dtype=torch.int16)
    scales, h0 = [torch.full((1,), 2e-4)] * 2, torch.ones(1, 1, 16)
    still = torch.zeros(9, 1, 16)
    y = ops.rnn(still, None, h0, [w[0], w[1]], scales, [], 1, False, "relu")[0]
    assert torch.allclose(y[0, 0], 2e-4 * w[1].sum(1), rtol=1e-3)
    for begin, end in ((0, 2), (2, 4), (4, 6), (6, 8), (8, 9)):
        assert all(torch.equal(y[t], y[begin]) for t in range(begin, end))
        assert begin == 0 or not torch.equal(y[begin], y[begin - 1])
    # x of the first layer is read at each step, that of the second one at each eighth.
    x, eye = torch.rand(9, 1, 16), 5000 * torch.eye(16, dtype=torch.int16)
    none = torch.zeros_like(w[0])
    first = ops.rnn(x, None, None, [w[0], none], scales, [], 1, False, "relu")[0]
    assert torch.allclose(first[:, 0], 2e-4 * (x[:, 0] @ w[0].T.float()), rtol=2e-2)
    weights = [eye, none, w[0], none]
    second = ops.rnn(x, None, None, weights, [torch.full((1,), 2e-4)] * 4, [], 2, False, "relu")[0]
    assert all(torch.equal(second[t], second[t // 8 * 8]) for t in range(9))
    assert torch.allclose(second[::8], first[::8], rtol=2e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_sequence_has_the_bits_that_it_has_alone(kind):
    """Second parts of int16 weights are due by the steps of each sequence, in both directions."""
    torch.manual_seed(5)
    layer, lengths = make(kind, 12, 40, 2, bidirectional=True), [11, 9, 9, 4, 1]
    side, x = quantized_side(layer, torch.int16), torch.randn(11, 5, 12)
    packed = pack_padded_sequence(x, lengths)
    y = run(kind, layer, side, packed.data, (), packed.batch_sizes)[0]
    y = pad_packed_sequence(PackedSequence(y, packed.batch_sizes))[0]
    for n, length in enumerate(lengths):
        assert torch.equal(y[:length, n], run(kind, layer, side, x[:length, n : n + 1].contiguous())[0][:, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_int8_among_int16_weights_is_int16_without_a_second_part(kind):
    torch.manual_seed(7)
    options = {"proj_size": 9} if kind == "lstm" else {}
    layer, x = make(kind, 12, 40, 2, bidirectional=True, **options), torch.randn(7, 3, 12)
    int8, int16 = torch.int8, torch.int16
    for dtypes in ((int8, int16), (int16, int8), (int16, int8, int8)):
        weights, scales, biases = quantized_side(layer, dtypes)
        assert {w.dtype for w in weights} == {int8, int16}
        wide = [w if w.dtype == int16 else w.short() * 256 for w in weights]
        fine = [s if w.dtype == int16 else s / 256 for w, s in zip(weights, scales, strict=True)]
        got, want = (run(kind, layer, (w, s, biases), x) for w, s in ((weights, scales), (wide, fine)))
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_cells_are_one_step_of_the_sequence():
    for kind in KINDS:
        layer = make(kind, 20, 32)
        (w_ih, w_hh), (s_ih, s_hh), biases = quantized_side(layer)
        x, h, c = torch.randn(3, 20), torch.randn(3, 32), torch.randn(3, 32)
        states = (h, c) if kind == "lstm" else (h,)
        flat = (w_ih, s_ih, w_hh, s_hh, *biases)
        if kind in ("tanh", "relu"):
            got = (ops.rnn_cell(x, h, *flat, kind),)
        else:
            got = {"lstm": ops.lstm_cell, "gru": ops.gru_cell}[kind](x, *states, *flat)
        got = got if isinstance(got, tuple) else (got,)
        want = run(kind, layer, ([w_ih, w_hh], [s_ih, s_hh], biases), x[None], [s[None] for s in states])[1:]
        assert all(torch.equal(a, b[0]) for a, b in zip(got, want, strict=True))


def test_nan_stays_in_its_row():
    for kind in KINDS:
        layer = make(kind, 8, 24)
        x = torch.randn(4, 3, 8)
        x[1, 2, 0] = float("nan")
        y = run(kind, layer, quantized_side(layer), x)[0]
        assert y[1:, 2].isnan().all() and not y[:, :2].isnan().any() and not y[0].isnan().any()


@pytest.mark.parametrize("name", rnn_samples())
def test_opcheck(name):
    for call in rnn_samples()[name]:
        torch.library.opcheck(overload(name), call)
