"""Float recurrent layers and their quantized operators, for tests."""

import itertools

import torch
from torch import nn

from torch_ao_ext import ops

KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "tanh": nn.RNN, "relu": nn.RNN}


def quantized_side(layer, dtype=torch.int8):
    """Weights in int8 at max|w| / 127.5, in int16 or in bfloat16, scales and biases of a float layer.

    dtype may be a cycle of dtypes, one for each weight.
    """
    weights, scales, biases = [], [], []
    projected = getattr(layer, "proj_size", 0) > 0
    for i, end in itertools.product(range(layer.num_layers), ("", "_reverse")[: 1 + layer.bidirectional]):
        for part in ("ih", "hh", "hr")[: 2 + projected]:
            w = getattr(layer, f"weight_{part}_l{i}{end}").detach()
            own = dtype if isinstance(dtype, torch.dtype) else dtype[len(weights) % len(dtype)]
            most = {torch.int8: 127.5, torch.int16: 32639}.get(own)
            scale = torch.ones(1) if most is None else w.abs().amax(1) / most
            q = w if most is None else (w / scale[:, None]).round()
            weights.append((q.clamp(-128, 127) if own == torch.int8 else q).to(own))
            scales.append(scale)
        if layer.bias:
            biases += [getattr(layer, f"bias_{part}_l{i}{end}").detach() for part in ("ih", "hh")]
    return weights, scales, biases


def make(kind, *args, **kwargs):
    if kind in ("tanh", "relu"):
        kwargs["nonlinearity"] = kind
    return KINDS[kind](*args, **kwargs).eval()


def run(kind, layer, side, x, states=(), batch_sizes=None, **rule):
    missing = (2 if kind == "lstm" else 1) - len(states)
    args = [x, batch_sizes, *states, *[None] * missing, *side, layer.num_layers, layer.bidirectional]
    if kind in ("tanh", "relu"):
        return ops.rnn(*args, kind, **rule)
    return getattr(ops, kind)(*args, **rule)
