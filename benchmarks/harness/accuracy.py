"""Accuracy of an answer against the float one."""

import math

import torch


def sqnr_db(reference, answer):
    """10 log10(sum ref^2 / sum (ref - answer)^2), in f64; inf when equal, -inf when not finite."""
    reference, answer = reference.detach().double(), answer.detach().double()
    if reference.shape != answer.shape:
        raise ValueError(
            f"sqnr_db: shapes must agree, got {tuple(reference.shape)} and {tuple(answer.shape)}"
        )
    noise = (reference - answer).square().sum().item()
    signal = reference.square().sum().item()
    if not math.isfinite(noise):
        return -math.inf
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def linear_from_integers(input_q, input_scale, input_zero_point, weight_q, weight_scale, bias):
    """The project's rule for `linear` with float output, accumulated exactly.

    f64 holds every int8 accumulator of K < 2^37 exactly; the scaling steps are
    rounded to f32 one by one as docs/design.md states.
    """
    accumulator = (input_q.double() - input_zero_point) @ weight_q.double().T
    scale = torch.tensor(input_scale, dtype=torch.float32) * weight_scale.float()
    y = accumulator.float() * scale
    return y if bias is None else y + bias
