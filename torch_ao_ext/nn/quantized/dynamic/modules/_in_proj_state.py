"""The input projections of attention in a state_dict: one layer or three.

nn.MultiheadAttention keeps query, key and value weights as rows of one
`in_proj_weight`. The int8 module keeps them in this order as one `in_proj`, or as
`q_proj`, `k_proj`, `v_proj`. All that an int8 layer stores belongs to its rows, so
each form is made from the other without loss.
"""

from typing import Any

import torch

__all__ = ["float_keys", "join", "split"]

_PARTS = ("q_proj", "k_proj", "v_proj")
_WHOLE = "in_proj"

# Buffers with a value for each row, and buffers of the layer as a whole.
_OF_ROWS = ("qweight", "weight_scale", "weight_zero_point", "qbias")
_OF_LAYER = ("act_quant", "format_version")

_FLOAT = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def float_keys(state_dict: dict[str, Any], prefix: str) -> list[str]:
    """Keys of nn.MultiheadAttention's own weights."""
    return [prefix + name for name in _FLOAT if prefix + name in state_dict]


def split(state_dict: dict[str, Any], prefix: str) -> None:
    """Replaces `in_proj.*` by the three layers, when it is there and its rows divide by 3."""
    whole = f"{prefix}{_WHOLE}."
    weight = state_dict.get(whole + "qweight")
    if weight is None or weight.dim() != 2 or weight.shape[0] % 3 != 0:
        return
    count = weight.shape[0]
    for name in _OF_ROWS:
        value = state_dict.pop(whole + name, None)
        if value is None:
            continue
        # Copies: a view would be packed anew by every call when it is assigned.
        rows = value.tensor_split(3) if value.dim() > 0 and len(value) == count else (value,) * 3
        for part, own in zip(_PARTS, rows, strict=True):
            state_dict[f"{prefix}{part}.{name}"] = own.clone()
    for name in _OF_LAYER:
        value = state_dict.pop(whole + name, None)
        for part in _PARTS if value is not None else ():
            state_dict[f"{prefix}{part}.{name}"] = value.clone()


def join(state_dict: dict[str, Any], prefix: str) -> str | None:
    """Replaces the three layers by `in_proj.*`, when all are there; why it cannot, or None."""
    parts = [f"{prefix}{part}." for part in _PARTS]
    weights = [state_dict.get(part + "qweight") for part in parts]
    if any(weight is None for weight in weights):
        return None
    rules = [state_dict.get(part + "act_quant") for part in parts]
    rules = [None if rule is None else rule.tolist() for rule in rules]
    if any(rule != rules[0] for rule in rules):
        return f"{prefix}{_WHOLE} needs one input rule, got act_quant {rules} in the three layers"
    biases = [part + "qbias" in state_dict for part in parts]
    if any(biases) and not all(biases):
        return f"{prefix}{_WHOLE} needs a bias in all of the three layers or in none, got {biases}"
    for name in _OF_ROWS:
        values = [state_dict.pop(part + name, None) for part in parts]
        if all(value is None for value in values):
            continue
        rows = [
            torch.zeros(weight.shape[0], dtype=torch.int32)
            if value is None  # zero points: None means 0
            else value if name == "qweight" else value.expand(weight.shape[0])
            for value, weight in zip(values, weights, strict=True)
        ]
        state_dict[f"{prefix}{_WHOLE}.{name}"] = torch.cat(rows)
    for name in _OF_LAYER:
        values = [state_dict.pop(part + name, None) for part in parts]
        if all(value is not None for value in values):
            # The newest version: it can read the others.
            state_dict[f"{prefix}{_WHOLE}.{name}"] = torch.stack(values).amax(0)
    return None
