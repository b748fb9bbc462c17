"""Reads quantize and dequantize nodes."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from torch_ao_ext.quantization import _decomposed

_BYTES = (torch.uint8, torch.int8)


@dataclass(frozen=True)
class QParams:
    """Per-tensor qparams of a node with 8-bit values.

    Args:
        scale: real units per step.
        zero_point: quantized value of 0.
        low: smallest value, at least that of dtype.
        high: largest value.
        dtype: torch.uint8 or torch.int8.
    """

    scale: float
    zero_point: int
    low: int
    high: int
    dtype: torch.dtype

    @property
    def full_range(self) -> bool:
        """Whether every value of the dtype may occur."""
        info = torch.iinfo(self.dtype)
        return (self.low, self.high) == (info.min, info.max)

    def same_steps(self, other: "QParams") -> bool:
        """Whether equal integers are equal real values, and of one dtype."""
        mine = (self.scale, self.zero_point, self.dtype)
        return mine == (other.scale, other.zero_point, other.dtype)


def _target(node: Any) -> Any:
    return node.target if isinstance(node, fx.Node) and node.op == "call_function" else None


def _read(node: fx.Node) -> QParams | None:
    scale, zero_point, low, high, dtype = node.args[1:6]
    return QParams(scale, zero_point, low, high, dtype) if dtype in _BYTES else None


def quantize_qparams(node: Any) -> QParams | None:
    """Qparams of a static per-tensor quantize to 8 bits, None for anything else."""
    return _read(node) if _target(node) is _decomposed.operators().quantize_per_tensor.default else None


def dequantized(node: Any) -> tuple[fx.Node, QParams] | None:
    """(8-bit node, its qparams) of a static per-tensor dequantize, None for anything else."""
    if _target(node) is not _decomposed.operators().dequantize_per_tensor.default:
        return None
    if node.kwargs.get("out_dtype") not in (None, torch.float32):
        return None
    qparams = _read(node)
    return None if qparams is None else (node.args[0], qparams)


@dataclass(frozen=True)
class DynamicInput:
    """A float node that is quantized at run time.

    Args:
        node: the float node.
        symmetric: zero point 0.
        low: smallest quantized value.
        high: largest quantized value.
        per_row: each row, the last dimension, has qparams of its own; else the tensor.
    """

    node: fx.Node
    symmetric: bool
    low: int
    high: int
    per_row: bool


def dynamically_quantized(node: Any) -> DynamicInput | None:
    """What a dequantize with qparams from choose_qparams reads, None for anything else."""
    ops = _decomposed.operators()
    pairs = {
        ops.dequantize_per_tensor.tensor: ops.quantize_per_tensor.tensor,
        ops.dequantize_per_token.default: ops.quantize_per_token.default,
    }
    if _target(node) not in pairs:
        return None
    q = node.args[0]
    if _target(q) is not pairs[node.target] or q.args[1:6] != node.args[1:6]:
        return None
    choose = q.args[1].args[0] if isinstance(q.args[1], fx.Node) and q.args[1].args else None
    # Which of them are symmetric; rows have qparams of rows.
    kinds = {ops.choose_qparams.tensor: False, ops.choose_qparams_symmetric.tensor: True}
    per_row = node.target is ops.dequantize_per_token.default
    if per_row:
        kinds = {ops.choose_qparams_per_token_asymmetric.default: False}
    if _target(choose) not in kinds or choose.args[0] is not q.args[0]:
        return None
    if per_row and node.args[6] != torch.float32:
        return None
    return DynamicInput(q.args[0], kinds[choose.target], q.args[3], q.args[4], per_row)
