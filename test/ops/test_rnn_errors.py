"""lstm, gru, rnn and cells: each bad argument is named; those of lists by the list."""

import pytest
import torch
from rnn_layers import make, quantized_side

ops = torch.ops.torch_ao
BF16, F64 = torch.bfloat16, torch.float64
INPUTS, HIDDEN, ROWS = 8, 24, 96
W, S, B = quantized_side(make("lstm", INPUTS, HIDDEN))
GIVEN = {
    "input": torch.randn(2, 3, INPUTS), "batch_sizes": None, "h0": None, "c0": None,
    "weights": W, "weight_scales": S, "biases": B, "num_layers": 1, "bidirectional": False,
}  # fmt: skip
PACKED = {"input": torch.randn(3, INPUTS)}


def shrunken(*sizes):
    t = torch.zeros(sizes)
    t.untyped_storage().resize_(4)
    return t


def counts(*values, dtype=torch.int64):
    return torch.tensor(values, dtype=dtype)


def full(values, dtype=BF16):
    return [torch.full(t.shape, values, dtype=dtype) for t in W]


# changed arguments, error, argument and rule
CALLS = [
    ({"num_layers": 0}, ValueError, "'num_layers' must be in"),
    ({"weights": W[:1]}, ValueError, "'weights' must have 2 or 3 tensors, got 1"),
    ({"weight_scales": S[:1]}, ValueError,
     "'weight_scales' must have as many tensors as weights .2., got 1"),
    ({"biases": B[:1]}, ValueError, "'biases' must have 0 or 2 tensors, got 1"),
    # weights
    ({"weights": [t.float() for t in W]}, TypeError,
     "'weights' must have dtype int8, int16 or bfloat16"),
    ({"weights": [W[0], W[1].to(BF16)]}, TypeError,
     "'weights' must have the dtype of the first weight .int8; int8 and int16 may be mixed., got bfloat16"),
    ({"weights": [W[0], W[1][None]]}, ValueError, "'weights' must have 2 dimensions"),
    ({"weights": [W[0][:95], W[1]]}, ValueError, "'weights' must have size.0. divisible by 4 .*, got 95"),
    ({"weights": [W[0][:0], W[1]]}, ValueError, "'weights' must have size.0. .* above 0, got 0"),
    ({"weights": [W[0], W[1][:, :23]]}, ValueError,
     "'weights' must have sizes .96, 24. at this place, got sizes .96, 23."),
    ({"weights": [W[0], W[1][:92]]}, ValueError,
     "'weights' must have sizes .96, 24. at this place, got sizes .92, 24."),
    ({"weights": [*W, *W], "weight_scales": [*S, *S], "biases": [], "num_layers": 2}, ValueError,
     "'weights' must have sizes .96, 24. at this place, got sizes .96, 8."),
    ({"weights": [*W, W[1][:23]], "weight_scales": [*S, S[0][:1]]}, ValueError,
     "'weights' must have sizes .24, 24. at this place, got sizes .23, 24."),
    ({"input": torch.randn(2, 3, 0), "weights": [W[0][:, :0], W[1]]}, ValueError,
     "'weights' must have size.1. in .*, got 0"),
    ({"weights": full(32640, torch.int16)}, ValueError, "'weights' must be at most 32639, got 32640"),
    ({"weights": full(torch.inf)}, ValueError, "'weights' must be finite, got a NaN or infinity"),
    ({"weights": full(3e38), "weight_scales": [torch.tensor([1e38])] * 2}, ValueError,
     "'weights' must be finite when multiplied by its scale"),
    # scales and biases
    ({"weight_scales": [S[0], S[1].double()]}, TypeError,
     "'weight_scales' must have dtype float32, got float64"),
    ({"weight_scales": [S[0], S[1][:5]]}, ValueError,
     "'weight_scales' must have sizes .1. or .96., got sizes .5."),
    ({"weight_scales": [S[0], -S[1]]}, ValueError, "'weight_scales' must hold finite, normal"),
    ({"biases": [B[0], B[1].double()]}, TypeError, "'biases' must have dtype float32, got float64"),
    ({"biases": [B[0], B[1][None]]}, ValueError, "'biases' must have 1 dimensions, got sizes .1, 96."),
    ({"biases": [B[0], B[1][:5]]}, ValueError,
     "'biases' must have size.0. equal to weights.0..size.0. .96., got 5"),
    ({"biases": [torch.full((ROWS,), 3e38)] * 2}, ValueError,
     "'biases' must have a finite sum b_ih [+] b_hh"),
    # input, counts and states
    ({"input": torch.randn(2, 3, INPUTS, dtype=F64)}, TypeError,
     "'input' must have dtype float32 or bfloat16"),
    ({"input": torch.randn(3, INPUTS)}, ValueError, "'input' must have 3 dimensions"),
    ({"input": torch.randn(2, 3, 5)}, ValueError,
     "'input' must have size.-1. equal to weights.0..size.1. .8., got 5"),
    ({"input": shrunken(2, 3, INPUTS)}, ValueError, "'input' must have a storage"),
    ({**PACKED, "batch_sizes": counts(2, 1, dtype=torch.int32)}, TypeError,
     "'batch_sizes' must have dtype int64"),
    ({**PACKED, "batch_sizes": counts(2, 1)[None]}, ValueError, "'batch_sizes' must have 1 dimensions"),
    ({**PACKED, "batch_sizes": counts(1, 2)}, ValueError,
     "'batch_sizes' must hold positive counts .*, got 2"),
    ({**PACKED, "batch_sizes": counts(3, 0)}, ValueError,
     "'batch_sizes' must hold positive counts .*, got 0"),
    ({**PACKED, "batch_sizes": counts(2, 2)}, ValueError, "'batch_sizes' must sum to .* .3., got 2 [+] 2"),
    ({**PACKED, "batch_sizes": counts(1, 1)}, ValueError, "'batch_sizes' must sum to .* .3., got 2$"),
    ({"h0": torch.zeros(1, 3, HIDDEN, dtype=F64)}, TypeError,
     "'h0' must have dtype float32 or bfloat16, got float64"),
    ({"c0": torch.zeros(1, 2, HIDDEN)}, ValueError,
     "'c0' must have the sizes of the state .1, 3, 24., got sizes .1, 2"),
    ({"c0": shrunken(1, 3, HIDDEN)}, ValueError, "'c0' must have a storage of at least 72 elements"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "error", "text"), CALLS)
def test_lstm(changed, error, text):
    with pytest.raises(error, match=f"^torch_ao::lstm: argument {text}"):
        ops.lstm(*(GIVEN | changed).values())


def cell(op, **changed):
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[op.removesuffix("_cell")]
    arguments = {
        "input": torch.randn(2, 8), "h": None, "c": None,
        "weight_ih": torch.ones(gates * 5, 8, dtype=torch.int8), "weight_ih_scale": torch.ones(1),
        "weight_hh": torch.ones(gates * 5, 5, dtype=torch.int8), "weight_hh_scale": torch.ones(1),
        "bias_ih": torch.zeros(gates * 5), "bias_hh": torch.zeros(gates * 5),
    }  # fmt: skip
    if op != "lstm_cell":
        del arguments["c"]
    return getattr(ops, op)(*(arguments | changed).values())


@pytest.mark.parametrize("op", ["lstm_cell", "gru_cell", "rnn_cell"])
@pytest.mark.parametrize("biases", [{"bias_ih": None}, {"bias_hh": None}])
def test_cells_have_both_biases_or_none(op, biases):
    with pytest.raises(ValueError, match=f"torch_ao::{op}: argument 'bias_hh' must be given with bias_ih"):
        cell(op, **biases)
    cell(op, bias_ih=None, bias_hh=None)


def test_cells_name_arguments_of_their_own():
    with pytest.raises(ValueError, match="gru_cell: argument 'weight_hh' must have sizes .15, 5. at"):
        cell("gru_cell", weight_hh=torch.ones(15, 4, dtype=torch.int8))
    with pytest.raises(ValueError, match="rnn_cell: argument 'bias_hh' must .* equal to weight_ih.size"):
        cell("rnn_cell", bias_hh=torch.zeros(4))


def test_words_and_dtypes():
    one_gate = [[t[:HIDDEN] for t in part] for part in (W, S, B)]
    with pytest.raises(ValueError, match="rnn: argument 'nonlinearity' must be 'tanh' or 'relu', got 'sig"):
        ops.rnn(GIVEN["input"], None, None, *one_gate, 1, False, "sigmoid")
    with pytest.raises(ValueError, match="_prepack_rnn: argument 'kind' must be 'lstm', .*got 'LSTM'"):
        ops._prepack_rnn("LSTM", W, S, B)
    with pytest.raises(TypeError, match="_prepack_rnn: argument 'input_dtype' must be float32 or bfloat16"):
        ops._prepack_rnn("lstm", W, S, B, input_dtype=torch.int8)


def test_forced_engine_without_recurrent_layers():
    call = GIVEN | {"weights": [t.clone() for t in W]}
    ops._set_engine("onednn")
    try:
        with pytest.raises(NotImplementedError, match="lstm: no engine accepts this call:\n  onednn: has"):
            ops.lstm(*call.values())
    finally:
        ops._set_engine("")
