"""Valid calls of the recurrent ops; see op_samples.py."""

from functools import partial

import torch
from op_cases import random_int

S8, F32, BF16 = torch.int8, torch.float32, torch.bfloat16


def _rnn_side(gates, layers=1, both=False, k=5, h=6, projection=None):
    """weights, scales, biases of an int8 recurrent layer."""
    weights, scales, biases = [], [], []
    width = projection or h
    for i in range(layers):
        for _ in range(1 + both):
            sizes = [(gates * h, k if i == 0 else width * (1 + both)), (gates * h, width)]
            sizes += [(projection, h)] if projection else []
            for j, size in enumerate(sizes):
                weights.append(random_int(S8, *size))
                scales.append(torch.rand(size[0] if j % 2 else 1) * 0.01 + 0.001)
            biases += [torch.randn(gates * h), torch.randn(gates * h)]
    return weights, scales, biases


def _rnn_calls(gates, h=6, k=5):
    two = gates == 4
    r = max(1, h // 2)  # the projected state

    def state(*sizes):
        return (torch.randn(sizes), torch.randn(sizes)) if two else (torch.randn(sizes),)

    none = (None, None) if two else (None,)
    w, s, b = _rnn_side(gates, 2, True, k, h)
    calls = [
        (torch.randn(4, 3, k), None, *none, *_rnn_side(gates, k=k, h=h), 1, False),
        (torch.randn(3, 2, k).to(BF16), None, *state(4, 2, h), w, s, [], 2, True),
        (torch.randn(6, k), torch.tensor([3, 2, 1]), *state(4, 3, h), w, s, b, 2, True),
        (torch.randn(3, 2, k).transpose(0, 1), None, *state(1, 3, h), *_rnn_side(gates, k=k, h=h), 1, False),
        (torch.randn(2, 0, k), None, *none, *_rnn_side(gates, k=k, h=h), 1, False),
    ]
    if two:
        side = _rnn_side(4, k=k, h=h, projection=r)
        states = (torch.randn(1, 2, r), torch.randn(1, 2, h))
        calls.append((torch.randn(4, 2, k), None, *states, *side, 1, False))
    if gates == 1:
        calls = [(*call, ("tanh", "relu")[i % 2]) for i, call in enumerate(calls)]
    return [*calls, (*calls[0], False, True)]  # torch.ao's rule


def _cell_calls(gates, h=6, k=5):
    calls = []
    for i, n in enumerate((3, 1, 0)):
        (w_ih, w_hh), (s_ih, s_hh), biases = _rnn_side(gates, k=k, h=h)
        states = [torch.randn(n, h) if i != 1 else None for _ in range(2 if gates == 4 else 1)]
        biases = biases if i != 2 else [None, None]
        x = torch.randn(n, k).to((F32, BF16)[i % 2])
        calls.append((x, *states, w_ih, s_ih, w_hh, s_hh, *biases))
    if gates == 1:
        calls = [(*call, ("tanh", "relu")[i % 2]) for i, call in enumerate(calls)]
    return [*calls, (*calls[0], False, True)]


def _prepack_rnn(h=6, k=5):
    sides = [(kind, *c[len(c) - 5 :], c[0].dtype) for kind, gates in (("lstm", 4), ("gru", 3))
             for c in _rnn_calls(gates, h, k)[:-1]]  # fmt: skip
    sides += [(c[-1], *c[-6:-1], c[0].dtype) for c in _rnn_calls(1, h, k)[:-1]]
    return [*sides, (*sides[0], False, True)]


RNN_GATES = {"lstm": 4, "gru": 3, "rnn": 1}

# Ops that take lists of tensors, which some tables of the tests cannot change: calls for sizes h and k.
SIZED_RNN = {
    **{name: partial(_rnn_calls, gates) for name, gates in RNN_GATES.items()},
    **{f"{name}_cell": partial(_cell_calls, gates) for name, gates in RNN_GATES.items()},
    "_prepack_rnn": _prepack_rnn,
}


def rnn_samples(**sizes):
    """Of the recurrent ops."""
    return {name: calls(**sizes) for name, calls in SIZED_RNN.items()}
